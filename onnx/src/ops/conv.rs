//! Convolutions of one to three dimensions.

use super::bytes::{Quantised, byte_conv, zero_points};
use super::matrix::centred;
use super::{Write, conv_transpose};
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{Conv2d, Node, Op, Scalar};

pub(super) const ROWS: &[(&str, Write)] =
    &[("Conv", conv), ("ConvInteger", conv_integer), ("ConvTranspose", conv_transpose::run)];

/// A window that moves over an image of any number of axes.
#[derive(Clone)]
pub(super) struct Window {
    /// Extents.
    pub(super) kernel: Vec<u64>,
    /// Steps.
    pub(super) strides: Vec<u64>,
    /// Distance between its elements.
    pub(super) dilations: Vec<u64>,
    /// Padding before and after each axis.
    pub(super) pads: Vec<[i64; 2]>,
}

impl Window {
    /// Elements of the image that the window reaches over.
    pub(super) fn reach(&self, axis: usize) -> u64 {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// What the attributes say of an image of these extents.
    pub(super) fn of(c: &Call, kernel: Vec<u64>, image: &[u64]) -> Fallible<Window> {
        let rank = image.len();
        let list = |name: &str, default: u64| -> Fallible<Vec<u64>> {
            let Some(list) = c.ints(name) else { return Ok(vec![default; rank]) };
            let list: Vec<u64> = list.into_iter().filter_map(|n| u64::try_from(n).ok()).filter(|n| *n > 0).collect();
            if list.len() == rank { Ok(list) } else { Err(format!("{name} must be {rank} positive numbers")) }
        };
        if kernel.len() != rank || kernel.contains(&0) {
            return Err(format!("a kernel of {kernel:?} for {rank} axes"));
        }
        let (strides, dilations) = (list("strides", 1)?, list("dilations", 1)?);
        let mut window = Window { kernel, strides, dilations, pads: vec![[0, 0]; rank] };
        let mode = c.text("auto_pad", "NOTSET");
        match mode.as_str() {
            "NOTSET" | "" => {
                if let Some(pads) = c.ints("pads") {
                    if pads.len() != 2 * rank {
                        return Err(format!("{} pads for {rank} axes", pads.len()));
                    }
                    window.pads = (0..rank).map(|i| [pads[i], pads[i + rank]]).collect();
                }
            }
            "VALID" => {}
            _ => {
                for (axis, &size) in image.iter().enumerate() {
                    let count = size.div_ceil(window.strides[axis]);
                    let room = (count - 1) * window.strides[axis] + window.reach(axis);
                    let total = room.saturating_sub(size) as i64;
                    let less = total / 2;
                    window.pads[axis] = if mode == "SAME_UPPER" { [less, total - less] } else { [total - less, less] };
                }
            }
        }
        Ok(window)
    }
}

/// Known extents after the first two.
pub(super) fn image(e: &Emit, x: Node) -> Fallible<Vec<u64>> {
    (2..e.rank(x)).map(|axis| e.extent(x, axis)).collect()
}

fn conv(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, w, bias) = (c.x(0)?, c.x(1)?, c.optional(2)?);
    let kernel = image(c.emit, w)?;
    let window = Window::of(c, kernel, &image(c.emit, x)?)?;
    let groups = c.int("group", 1).max(1) as u64;
    Ok(vec![convolve(c.emit, x, w, bias, &window, groups)?])
}

fn conv_integer(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, w, x_zero, w_zero) = (c.x(0)?, c.x(1)?, zero_points(c, 2)?, zero_points(c, 3)?);
    let kernel = image(c.emit, w)?;
    let window = Window::of(c, kernel, &image(c.emit, x)?)?;
    let groups = c.int("group", 1).max(1) as u64;
    let e = &mut *c.emit;
    let operands = [(x, x_zero), (w, w_zero)].map(|(bytes, zero)| Quantised { bytes, zero });
    if let Some(sums) = byte_conv(e, operands[0], operands[1], &window, groups)? {
        return Ok(vec![sums]);
    }
    let (x, w) = (centred(e, x, x_zero, 0)?, centred(e, w, w_zero, 0)?);
    let sum = convolve(e, x, w, None, &window, groups)?;
    Ok(vec![e.cast(sum, Scalar::I32)?])
}

/// Cross-correlation of `x [n, c, ..]` with `w [o, c / groups, ..]`.
pub(super) fn convolve(
    e: &mut Emit,
    x: Node,
    w: Node,
    bias: Option<Node>,
    window: &Window,
    groups: u64,
) -> Fallible<Node> {
    match window.kernel.len() {
        1 => {
            let (x, w) = (e.insert_axis(x, 2)?, e.insert_axis(w, 2)?);
            let mut flat = window.clone();
            flat.kernel.insert(0, 1);
            flat.strides.insert(0, 1);
            flat.dilations.insert(0, 1);
            flat.pads.insert(0, [0, 0]);
            let y = planes(e, x, w, bias, &flat, groups)?;
            e.remove_axis(y, 2)
        }
        2 => planes(e, x, w, bias, window, groups),
        3 => volumes(e, x, w, bias, window, groups),
        n => Err(format!("a convolution of {n} axes is not supported")),
    }
}

/// Two axes: the operation of the graph, whose padding is the same on both sides.
fn planes(e: &mut Emit, x: Node, w: Node, bias: Option<Node>, window: &Window, groups: u64) -> Fallible<Node> {
    let mut x = x;
    let mut padding = [0; 2];
    for (axis, padding) in padding.iter_mut().enumerate() {
        match window.pads[axis] {
            [before, after] if before == after && before >= 0 => *padding = before as u64,
            around => {
                let zero = e.like(x, 0.0)?;
                x = e.pad(x, axis + 2, around, zero)?;
            }
        }
    }
    let pair = |list: &[u64]| [list[0], list[1]];
    let (stride, dilation) = (pair(&window.strides), pair(&window.dilations));
    let conv = Op::Conv2d(Conv2d { stride, padding, dilation, groups });
    let inputs: Vec<Node> = [x, w].into_iter().chain(bias).collect();
    e.op(conv, &inputs)
}

/// Three axes: the sum, over the depth of the kernel, of convolutions of planes, with the depth of the image among the
/// items.
fn volumes(e: &mut Emit, x: Node, w: Node, bias: Option<Node>, window: &Window, groups: u64) -> Fallible<Node> {
    let (mut x, zero) = (x, e.like(x, 0.0)?);
    x = e.pad(x, 2, window.pads[0], zero)?;
    let extents = e.extents(x)?;
    let [n, channels, depth, height, width] = extents[..] else {
        return Err("its image must be [n, c, d, h, w]".into());
    };
    let room = depth.checked_sub(window.reach(0)).ok_or("its window does not fit")?;
    let count = room / window.strides[0] + 1;
    let flat = Window {
        kernel: window.kernel[1..].to_vec(),
        strides: window.strides[1..].to_vec(),
        dilations: window.dilations[1..].to_vec(),
        pads: window.pads[1..].to_vec(),
    };
    let mut sum: Option<Node> = None;
    for k in 0..window.kernel[0] {
        let part = e.slice(x, 2, k * window.dilations[0], window.strides[0] as i64, count)?;
        let part = e.transpose(part, vec![0, 2, 1, 3, 4])?;
        let part = e.reshape_to(part, &[n * count, channels, height, width])?;
        let filter = e.pick(w, 2, k)?;
        let product = planes(e, part, filter, if k == 0 { bias } else { None }, &flat, groups)?;
        sum = Some(match sum {
            Some(sum) => e.add(sum, product)?,
            None => product,
        });
    }
    let sum = sum.ok_or("its kernel is empty")?;
    let planes = e.extents(sum)?;
    let apart = e.reshape_to(sum, &[n, count, planes[1], planes[2], planes[3]])?;
    e.transpose(apart, vec![0, 2, 1, 3, 4])
}
