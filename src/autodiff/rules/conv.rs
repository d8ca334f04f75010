//! Convolutions.
//!
//! The adjoint of the image is a convolution of the adjoint, its pixels as far apart as the windows were, with the
//! filters turned around. That of the filters sums over all windows, and is an operator of its own.

use super::{Done, place};
use crate::autodiff::emit::{Emit, Made};
use crate::autodiff::reverse::{Call, Reverse};
use quearn_stage::graph::{BinaryOp, Conv2d, Dim, Node, Op, ReduceOp};

pub(super) fn conv2d(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Conv2d(conv) = &call.op else { return Ok(()) };
    let (x, w) = (call.inputs[0], call.inputs[1]);
    if let Some(&bias) = call.inputs.get(2) {
        let (shape, channels) = (r.e.shape(call.node), r.e.shape(bias));
        let columns = vec![channels[0].clone(), Dim::Const(1), Dim::Const(1)];
        let sum = r.e.sum_to(call.tensor(), &shape, &columns)?;
        let sum = r.e.aligned(sum, 3)?;
        let first = r.e.shape(sum)[..1].to_vec();
        let sum = r.e.reshape(sum, first)?;
        r.give(bias, sum)?;
    }
    let adjoint = r.e.full(call.tensor(), call.node)?;
    if r.wants(x) {
        let part = image(r.e, conv, [x, w], adjoint)?;
        r.give(x, part)?;
    }
    if r.wants(w) {
        let part = filters(r.e, conv, [x, w], adjoint)?;
        r.give(w, part)?;
    }
    Ok(())
}

/// The adjoint of filters is linear in the image and in the adjoint of the result.
pub(super) fn conv2d_filters(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Conv2dFilters { conv, .. } = &call.op else { return Ok(()) };
    let (x, y) = (call.inputs[0], call.inputs[1]);
    let filters = r.e.full(call.tensor(), call.node)?;
    if r.wants(x) {
        let part = image(r.e, conv, [x, filters], y)?;
        r.give(x, part)?;
    }
    if r.wants(y) {
        let part = r.e.node(Op::Conv2d(conv.clone()), &[x, filters])?;
        r.give(y, part)?;
    }
    Ok(())
}

/// The adjoint of the filters.
fn filters(e: &mut Emit<'_>, conv: &Conv2d, [x, w]: [Node; 2], adjoint: Node) -> Made {
    let [out, each, kh, kw] = extents(e, w);
    if each == 1 && out == conv.groups {
        return Windows::new(e, conv, [x, w], adjoint).of_channels(e);
    }
    e.node(Op::Conv2dFilters { conv: conv.clone(), kernel: [kh, kw] }, &[x, adjoint])
}

/// The known extents of a tensor of four dimensions; 1 for what is not known.
pub(super) fn extents(e: &Emit<'_>, node: Node) -> [u64; 4] {
    let shape = e.shape(node);
    [0, 1, 2, 3].map(|i| shape.get(i).and_then(Dim::as_const).unwrap_or(1))
}

fn consts(extents: impl IntoIterator<Item = u64>) -> Vec<Dim> {
    extents.into_iter().map(Dim::Const).collect()
}

/// The adjoint of the image.
fn image(e: &mut Emit<'_>, conv: &Conv2d, [x, w]: [Node; 2], adjoint: Node) -> Made {
    let (image, filter) = (extents(e, x), extents(e, w));
    let (mut apart, mut padding) = (adjoint, [0, 0]);
    for i in 0..2 {
        apart = place::dilate(e, apart, 2 + i, conv.stride[i])?;
        let reach = conv.dilation[i] * (filter[2 + i] - 1);
        let seen = extents(e, apart)[2 + i] + reach;
        // Lines behind the last window that no window has seen.
        let unseen = image[2 + i] + 2 * conv.padding[i] - seen;
        apart = place::pad(e, apart, 2 + i, [0, unseen])?;
        padding[i] = reach.saturating_sub(conv.padding[i]);
        // Windows that have seen nothing but zeros.
        let outside = conv.padding[i].saturating_sub(reach);
        let count = extents(e, apart)[2 + i] - 2 * outside;
        apart = e.slice(apart, 2 + i, outside, 1, count)?;
    }
    let turned = turned(e, conv.groups, w)?;
    let back = Conv2d { stride: [1, 1], padding, ..conv.clone() };
    e.node(Op::Conv2d(back), &[apart, turned])
}

/// Filters with input and output channels exchanged, and from the last pixel to the first.
fn turned(e: &mut Emit<'_>, groups: u64, w: Node) -> Made {
    let [out, each, kh, kw] = extents(e, w);
    let split = e.reshape(w, consts([groups, out / groups, each, kh, kw]))?;
    let swapped = e.transpose(split, vec![0, 2, 1, 3, 4])?;
    let joined = e.reshape(swapped, consts([groups * each, out / groups, kh, kw]))?;
    let upwards = reversed(e, joined, 2)?;
    reversed(e, upwards, 3)
}

fn reversed(e: &mut Emit<'_>, x: Node, axis: usize) -> Made {
    match e.shape(x)[axis].as_const() {
        Some(count) if count > 1 => e.slice(x, axis, count - 1, -1, count),
        _ => Ok(x),
    }
}

/// The windows of an image.
struct Windows<'c> {
    conv: &'c Conv2d,
    x: Node,
    adjoint: Node,
    filter: [u64; 4],
    out: [u64; 4],
}

impl<'c> Windows<'c> {
    fn new(e: &Emit<'_>, conv: &'c Conv2d, [x, w]: [Node; 2], adjoint: Node) -> Windows<'c> {
        Windows { conv, x, adjoint, filter: extents(e, w), out: extents(e, adjoint) }
    }

    /// One pixel of each window.
    fn pixel(&self, e: &mut Emit<'_>, padded: Node, at: [u64; 2]) -> Made {
        let mut pixel = padded;
        for (i, at) in at.into_iter().enumerate() {
            let start = at * self.conv.dilation[i];
            pixel = e.slice(pixel, 2 + i, start, self.conv.stride[i] as i64, self.out[2 + i])?;
        }
        Ok(pixel)
    }

    /// A filter for each channel: a sum for each of its pixels.
    fn of_channels(&self, e: &mut Emit<'_>) -> Made {
        let mut padded = self.x;
        for i in 0..2 {
            padded = place::pad(e, padded, 2 + i, [self.conv.padding[i]; 2])?;
        }
        let [_, _, kh, kw] = self.filter;
        let mut sums = vec![];
        for at in (0..kh).flat_map(|y| (0..kw).map(move |x| [y, x])) {
            let pixel = self.pixel(e, padded, at)?;
            let product = e.binary(BinaryOp::Mul, pixel, self.adjoint)?;
            sums.push(e.reduce(ReduceOp::Sum, product, &[0, 2, 3], false)?);
        }
        let sums = e.node(Op::Stack, &sums)?;
        e.reshape(sums, consts(self.filter))
    }
}
