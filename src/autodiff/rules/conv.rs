//! Convolutions.
//!
//! The adjoint of the image is a convolution of the adjoint, its pixels as far apart as the windows were, with the
//! filters turned around. That of the filters sums over all windows: the windows are laid out side by side, and it is one
//! matrix product that is as deep as there are windows.

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
        let part = Windows::new(r.e, conv, [x, w], adjoint).filters(r.e)?;
        r.give(w, part)?;
    }
    Ok(())
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

    /// The adjoint of the filters.
    fn filters(&self, e: &mut Emit<'_>) -> Made {
        let mut padded = self.x;
        for i in 0..2 {
            padded = place::pad(e, padded, 2 + i, [self.conv.padding[i]; 2])?;
        }
        let [out, each, kh, kw] = self.filter;
        let mut pixels = vec![];
        for at in (0..kh).flat_map(|y| (0..kw).map(move |x| [y, x])) {
            pixels.push(self.pixel(e, padded, at)?);
        }
        if each == 1 && out == self.conv.groups {
            return self.of_channels(e, &pixels);
        }
        self.product(e, &pixels)
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
    fn of_channels(&self, e: &mut Emit<'_>, pixels: &[Node]) -> Made {
        let mut sums = vec![];
        for &pixel in pixels {
            let product = e.binary(BinaryOp::Mul, pixel, self.adjoint)?;
            sums.push(e.reduce(ReduceOp::Sum, product, &[0, 2, 3], false)?);
        }
        let sums = e.node(Op::Stack, &sums)?;
        e.reshape(sums, consts(self.filter))
    }

    /// All windows side by side, multiplied by the adjoint.
    fn product(&self, e: &mut Emit<'_>, pixels: &[Node]) -> Made {
        let ([out, each, kh, kw], groups) = (self.filter, self.conv.groups);
        let windows = e.concat(pixels, 1)?;
        let windows = self.rows(e, windows, [kh * kw, groups, each])?;
        let adjoint = self.rows(e, self.adjoint, [1, groups, out / groups])?;
        let adjoint = e.swap_last(adjoint)?;
        let mut product = e.matmul(adjoint, windows)?;
        if e.shape(product).len() == 4 {
            product = e.reduce(ReduceOp::Sum, product, &[0], false)?;
        }
        // [groups, out / groups, kh kw each]
        let split = e.reshape(product, consts([out, kh * kw, each]))?;
        let moved = e.transpose(split, vec![0, 2, 1])?;
        e.reshape(moved, consts([out, each, kh, kw]))
    }

    /// Images of `taps * groups * each` channels as matrices [groups, windows, taps * each]; for a number of images that is
    /// not known now, as one for each image.
    fn rows(&self, e: &mut Emit<'_>, images: Node, [taps, groups, each]: [u64; 3]) -> Made {
        let [count, _, height, width] = self.out;
        let images_dim = e.shape(images)[0].clone();
        let split = [vec![images_dim.clone()], consts([taps, groups, each, height * width])].concat();
        let split = e.reshape(images, split)?;
        // [images, taps, groups, each, windows]
        match images_dim {
            Dim::Const(_) => {
                let moved = e.transpose(split, vec![2, 0, 4, 1, 3])?;
                e.reshape(moved, consts([groups, count * height * width, taps * each]))
            }
            _ => {
                let moved = e.transpose(split, vec![0, 2, 4, 1, 3])?;
                e.reshape(moved, [vec![images_dim], consts([groups, height * width, taps * each])].concat())
            }
        }
    }
}
