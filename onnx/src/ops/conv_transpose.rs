//! Transposed convolutions.
//!
//! An element of the image is spread over the result by the filter, from places a stride apart. So the results whose
//! place leaves the same remainder by the stride see the same elements of the filter, and are a plain convolution with
//! these: as many convolutions as there are remainders, together of no more products than the transposed one has.

use super::conv::{Window, convolve, image};
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{Dim, Node};

/// Remainders that there may be: each becomes a convolution.
const MOST_REMAINDERS: u64 = 1024;

/// What the transposed convolution does along an axis.
struct Axis {
    image: u64,
    kernel: u64,
    stride: u64,
    dilation: u64,
    /// Results that are cut off in front.
    cut: i64,
    /// Results that are left.
    count: u64,
}

/// The elements of the filter for one remainder, along an axis.
#[derive(Clone, Copy)]
struct Taps {
    first: u64,
    step: u64,
    count: u64,
    /// Distance of the first from the image's first element, and of each from the one before it.
    place: i64,
    dilation: u64,
}

impl Axis {
    /// The first place of each remainder that is computed, and how many.
    fn places(&self) -> (i64, u64) {
        let stride = self.stride as i64;
        let first = self.cut.div_euclid(stride);
        (first, ((self.cut + self.count as i64 + stride - 1).div_euclid(stride) - first) as u64)
    }

    /// The elements of the filter that fall on places of that remainder; `None` if none does.
    fn taps(&self, remainder: u64) -> Option<Taps> {
        let on: Vec<u64> = (0..self.kernel).filter(|k| k * self.dilation % self.stride == remainder).collect();
        let first = *on.first()?;
        let step = on.get(1).map_or(1, |second| second - first);
        let place = (first * self.dilation / self.stride) as i64;
        Some(Taps { first, step, count: on.len() as u64, place, dilation: (step * self.dilation / self.stride).max(1) })
    }
}

pub(super) fn run(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, w, bias) = (c.x(0)?, c.x(1)?, c.optional(2)?);
    let axes = axes(c, x, w)?;
    let groups = c.int("group", 1).max(1) as u64;
    let e = &mut *c.emit;
    let mut filter = turned(e, w, groups)?;
    for axis in 0..axes.len() {
        filter = e.reverse(filter, axis + 2)?;
    }
    let spread = Spread { x, filter, bias, axes: &axes, groups };
    let mut y = spread.joined(e, &[])?;
    for (i, axis) in axes.iter().enumerate() {
        let start = axis.cut - axis.places().0 * axis.stride as i64;
        y = e.slice(y, i + 2, start as u64, 1, axis.count)?;
    }
    Ok(vec![y])
}

fn axes(c: &Call, x: Node, w: Node) -> Fallible<Vec<Axis>> {
    let (size, kernel) = (image(c.emit, x)?, image(c.emit, w)?);
    let rank = size.len();
    let mode = c.text("auto_pad", "NOTSET");
    let extra = c.ints("output_padding").unwrap_or_else(|| vec![0; rank]);
    let wanted = c.ints("output_shape");
    let window = match mode.as_str() {
        "SAME_UPPER" | "SAME_LOWER" => {
            let strides = c.ints("strides").unwrap_or_else(|| vec![1; rank]);
            let dilations = c.ints("dilations").unwrap_or_else(|| vec![1; rank]);
            let positive = |list: Vec<i64>| list.into_iter().map(|n| n.max(1) as u64).collect();
            Window { kernel, strides: positive(strides), dilations: positive(dilations), pads: vec![[0, 0]; rank] }
        }
        _ => Window::of(c, kernel, &size)?,
    };
    if [extra.len(), window.strides.len(), window.dilations.len()] != [rank; 3] {
        return Err(format!("its attributes must have {rank} numbers"));
    }
    if window.strides.iter().try_fold(1u64, |n, s| n.checked_mul(*s)).is_none_or(|n| n > MOST_REMAINDERS) {
        return Err(format!("strides of {:?}, whose product is larger than {MOST_REMAINDERS}", window.strides));
    }
    let axis = |i: usize| {
        let (stride, reach) = (window.strides[i], window.reach(i) as i64);
        let full = stride as i64 * (size[i] as i64 - 1) + extra[i] + reach;
        let same = mode.starts_with("SAME").then(|| (size[i] * stride) as i64);
        let target = wanted.as_ref().and_then(|w| w.get(w.len().checked_sub(rank)? + i).copied()).or(same);
        let pads = match target {
            Some(target) => {
                let total = full - target;
                let less = total.div_euclid(2);
                if mode == "SAME_UPPER" { [less, total - less] } else { [total - less, less] }
            }
            None => window.pads[i],
        };
        let count =
            u64::try_from(full - pads[0] - pads[1]).ok().filter(|n| *n > 0).ok_or("nothing is left of its result")?;
        let dilation = window.dilations[i];
        Ok(Axis { image: size[i], kernel: window.kernel[i], stride, dilation, cut: pads[0], count })
    };
    (0..rank).map(axis).collect()
}

/// A transposed convolution on its way.
struct Spread<'a> {
    x: Node,
    /// `[o, c / groups, ..]`, backwards.
    filter: Node,
    bias: Option<Node>,
    axes: &'a [Axis],
    groups: u64,
}

impl Spread<'_> {
    /// The results for these remainders along the first axes, side by side for those along the others.
    fn joined(&self, e: &mut Emit, remainders: &[u64]) -> Fallible<Node> {
        let at = remainders.len();
        let Some(axis) = self.axes.get(at) else { return self.part(e, remainders) };
        let part = |e: &mut Emit, r| self.joined(e, &[remainders, &[r]].concat());
        if axis.stride == 1 {
            return part(e, 0);
        }
        let mut parts = vec![];
        for remainder in 0..axis.stride {
            let one = part(e, remainder)?;
            parts.push(e.insert_axis(one, at + 3)?);
        }
        let mut shape = e.shape(parts[0]);
        let all = e.concat(&parts, at + 3)?;
        shape.remove(at + 3);
        shape[at + 2] = Dim::Const(axis.places().1 * axis.stride);
        e.reshape(all, shape)
    }

    /// The results for one remainder along each axis.
    fn part(&self, e: &mut Emit, remainders: &[u64]) -> Fallible<Node> {
        let taps = self.axes.iter().zip(remainders).map(|(axis, &r)| axis.taps(r)).collect::<Option<Vec<Taps>>>();
        let Some(taps) = taps else { return self.untouched(e) };
        let (mut filter, mut cuts) = (self.filter, vec![]);
        let mut window = Window { kernel: vec![], strides: vec![1; taps.len()], dilations: vec![], pads: vec![] };
        for (i, (axis, taps)) in self.axes.iter().zip(&taps).enumerate() {
            let last = taps.first + (taps.count - 1) * taps.step;
            filter = e.slice(filter, i + 2, axis.kernel - 1 - last, taps.step as i64, taps.count)?;
            let (first, count) = axis.places();
            let reach = ((taps.count - 1) * taps.dilation) as i64;
            let before = taps.place + reach - first;
            let after = first + count as i64 - taps.place - axis.image as i64;
            // The same on both sides, so that all remainders may share one image with zeros around it.
            let around = before.max(after).max(0);
            window.kernel.push(taps.count);
            window.dilations.push(taps.dilation);
            window.pads.push([around; 2]);
            cuts.push(((around - before) as u64, count));
        }
        let mut y = convolve(e, self.x, filter, self.bias, &window, self.groups)?;
        for (i, (start, count)) in cuts.into_iter().enumerate() {
            y = e.slice(y, i + 2, start, 1, count)?;
        }
        Ok(y)
    }

    /// Results that no element of the filter falls on.
    fn untouched(&self, e: &mut Emit) -> Fallible<Node> {
        let mut shape = vec![e.shape(self.x)[0].clone(), e.shape(self.filter)[0].clone()];
        shape.extend(self.axes.iter().map(|axis| Dim::Const(axis.places().1)));
        let value = match self.bias {
            Some(bias) => {
                let mut column = e.shape(bias);
                column.resize(1 + self.axes.len(), Dim::Const(1));
                e.reshape(bias, column)?
            }
            None => e.like(self.x, 0.0)?,
        };
        e.broadcast(value, shape)
    }
}

/// `[c, o / groups, ..]` as `[o, c / groups, ..]`.
fn turned(e: &mut Emit, w: Node, groups: u64) -> Fallible<Node> {
    let extents = e.extents(w)?;
    let (channels, out) = (extents[0], extents[1]);
    let mut apart = vec![groups, channels / groups, out];
    apart.extend(&extents[2..]);
    let split = e.reshape_to(w, &apart)?;
    let moved = e.move_axis(split, 2, 1)?;
    let mut joined = vec![groups * out, channels / groups];
    joined.extend(&extents[2..]);
    e.reshape_to(moved, &joined)
}
