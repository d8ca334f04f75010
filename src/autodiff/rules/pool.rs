//! Poolings.

use super::conv::extents;
use super::{Done, place};
use crate::autodiff::emit::{Emit, Made};
use crate::autodiff::reverse::{Call, Reverse};
use quearn_stage::graph::{BinaryOp, CompareOp, Dim, Node, Op, Pool2d, Scalar};

/// The windows of a pooling, along axes of the image with all padding that windows reach.
struct Windows {
    kernel: [u64; 2],
    stride: [u64; 2],
    before: [u64; 2],
    after: [u64; 2],
    image: [u64; 2],
    out: [u64; 2],
}

impl Windows {
    fn new(e: &Emit<'_>, pool: &Pool2d, x: Node, y: Node) -> Windows {
        let ([_, _, height, width], [_, _, oh, ow]) = (extents(e, x), extents(e, y));
        let (image, out) = ([height, width], [oh, ow]);
        let reach = |i: usize| (out[i] - 1) * pool.stride[i] + pool.kernel[i];
        let after = [0, 1].map(|i| reach(i).saturating_sub(pool.padding[i] + image[i]));
        Windows { kernel: pool.kernel, stride: pool.stride, before: pool.padding, after, image, out }
    }

    fn padded(&self, i: usize) -> u64 {
        self.before[i] + self.image[i] + self.after[i]
    }

    /// Elements of windows, one of each, at their places in the padded image along axis `2 + i`.
    fn placed(&self, e: &mut Emit<'_>, x: Node, i: usize, at: u64) -> Made {
        let to = place::Places { start: at, step: self.stride[i] as i64, extent: self.padded(i) };
        place::spread(e, x, 2 + i, to)
    }

    /// The image without its padding.
    fn cropped(&self, e: &mut Emit<'_>, x: Node) -> Made {
        let rows = e.slice(x, 2, self.before[0], 1, self.image[0])?;
        e.slice(rows, 3, self.before[1], 1, self.image[1])
    }

    /// How many elements of the image the windows along an axis have.
    fn counts(&self, e: &mut Emit<'_>, i: usize, scalar: Scalar) -> Made {
        if self.before[i] + self.after[i] == 0 {
            return e.number(scalar, self.kernel[i] as f64);
        }
        let number = e.node(Op::Iota(self.out[i]), &[])?;
        let number = e.cast(number, scalar)?;
        let first = e.times(number, self.stride[i] as f64)?;
        let [before, kernel, image, zero] = [self.before[i], self.kernel[i], self.image[i], 0].map(|n| n as f64);
        let before = e.number(scalar, before)?;
        let first = e.sub(first, before)?;
        let kernel = e.number(scalar, kernel)?;
        let end = e.binary(BinaryOp::Add, first, kernel)?;
        let (image, zero) = (e.number(scalar, image)?, e.number(scalar, zero)?);
        let (first, end) = (e.binary(BinaryOp::Max, first, zero)?, e.binary(BinaryOp::Min, end, image)?);
        let count = e.sub(end, first)?;
        let mut shape = vec![Dim::Const(self.out[i])];
        shape.extend(vec![Dim::Const(1); 1 - i]);
        e.reshape(count, shape)
    }
}

/// Means: every element of a window has the same share, so that axes go one after the other.
pub(super) fn avg(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Pool2d(pool) = &call.op else { return Ok(()) };
    let windows = Windows::new(r.e, pool, call.inputs[0], call.node);
    let scalar = r.e.scalar(call.node);
    let (rows, columns) = (windows.counts(r.e, 0, scalar)?, windows.counts(r.e, 1, scalar)?);
    let count = r.e.mul(rows, columns)?;
    let share = match r.e.value(count) {
        Some(count) => r.e.times(call.tensor(), 1.0 / count)?,
        None => r.e.div(call.tensor(), count)?,
    };
    let mut sum = r.e.full(share, call.node)?;
    for i in 0..2 {
        sum = copies(r.e, &windows, sum, i)?;
    }
    let part = windows.cropped(r.e, sum)?;
    r.give(call.inputs[0], part)
}

/// The share of each window at all of its places along an axis, summed up where windows meet.
fn copies(e: &mut Emit<'_>, windows: &Windows, x: Node, i: usize) -> Made {
    let (axis, kernel) = (2 + i, windows.kernel[i]);
    if kernel == windows.stride[i] {
        let mut shape = e.shape(x);
        shape.insert(axis + 1, Dim::Const(1));
        let column = e.reshape(x, shape.clone())?;
        shape[axis + 1] = Dim::Const(kernel);
        let wide = e.broadcast(column, shape.clone())?;
        shape.remove(axis + 1);
        let reach = windows.out[i] * kernel;
        shape[axis] = Dim::Const(reach);
        let joined = e.reshape(wide, shape)?;
        return place::pad(e, joined, axis, [0, windows.padded(i) - reach]);
    }
    let mut sum = windows.placed(e, x, i, 0)?;
    for at in 1..kernel {
        let next = windows.placed(e, x, i, at)?;
        sum = e.add(sum, next)?;
    }
    Ok(sum)
}

/// Maxima: the first largest element of a window has the adjoint.
pub(super) fn max(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Pool2d(pool) = &call.op else { return Ok(()) };
    let adjoint = r.e.full(call.tensor(), call.node)?;
    let part = r.e.node(Op::MaxUnpool2d(pool.clone()), &[call.inputs[0], adjoint])?;
    r.give(call.inputs[0], part)
}

/// Of what was put to the largest elements, the adjoint is found there. Where they are does not change with the image.
pub(super) fn max_unpool(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::MaxUnpool2d(pool) = &call.op else { return Ok(()) };
    let (x, y) = (call.inputs[0], call.inputs[1]);
    let adjoint = r.e.full(call.tensor(), call.node)?;
    let windows = Windows::new(r.e, pool, x, y);
    let largest = r.e.node(Op::Pool2d(pool.clone()), &[x])?;
    let part = of_first(r.e, &windows, x, largest, adjoint)?;
    r.give(y, part)
}

/// For each window the element of `values` where `x` has its first largest element `y`.
fn of_first(e: &mut Emit<'_>, windows: &Windows, x: Node, y: Node, values: Node) -> Made {
    let padded = [padded(e, windows, x, f64::NEG_INFINITY)?, padded(e, windows, values, 0.0)?];
    let (mut free, mut sum) = (None, None);
    for (row, column) in (0..windows.kernel[0]).flat_map(|y| (0..windows.kernel[1]).map(move |x| (y, x))) {
        let [pixel, value] = [pixel(e, windows, padded[0], row, column)?, pixel(e, windows, padded[1], row, column)?];
        let is_best = e.compare(CompareOp::Eq, pixel, y)?;
        let other = e.compare(CompareOp::Ne, pixel, y)?;
        let (is_first, still_free) = match free {
            Some(free) => (e.binary(BinaryOp::And, free, is_best)?, e.binary(BinaryOp::And, free, other)?),
            None => (is_best, other),
        };
        free = Some(still_free);
        let chosen = e.only(is_first, value)?;
        sum = Some(plus(e, sum, chosen)?);
    }
    sum.map_or_else(|| e.number_like(x, 0.0), Ok)
}

/// One element of each window.
fn pixel(e: &mut Emit<'_>, windows: &Windows, padded: Node, row: u64, column: u64) -> Made {
    let lines = e.slice(padded, 2, row, windows.stride[0] as i64, windows.out[0])?;
    e.slice(lines, 3, column, windows.stride[1] as i64, windows.out[1])
}

fn plus(e: &mut Emit<'_>, sum: Option<Node>, next: Node) -> Made {
    match sum {
        Some(sum) => e.add(sum, next),
        None => Ok(next),
    }
}

/// The image with a number wherever windows reach beyond it.
fn padded(e: &mut Emit<'_>, windows: &Windows, x: Node, number: f64) -> Made {
    let mut padded = x;
    for i in 0..2 {
        let mut parts = vec![];
        for (count, first) in [(windows.before[i], true), (windows.after[i], false)] {
            if !first {
                parts.push(padded);
            }
            if count > 0 {
                let mut shape = e.shape(padded);
                shape[2 + i] = Dim::Const(count);
                let number = e.number_like(x, number)?;
                parts.push(e.broadcast(number, shape)?);
            }
        }
        padded = e.concat(&parts, 2 + i)?;
    }
    Ok(padded)
}
