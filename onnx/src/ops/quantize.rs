//! Quantisation to small integers and back.

use super::Write;
use super::bytes::{Quantised, byte_conv, byte_matmul, zero_points};
use super::conv::{Window, convolve, image};
use super::matrix::{centred, matmul};
use crate::emit::{Emit, Fallible};
use crate::tensor::scalar_of;
use crate::value::Call;
use quearn_stage::graph::literal::int_range;
use quearn_stage::graph::{BinaryOp, Dim, Node, ReduceOp, Scalar, UnaryOp};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("DequantizeLinear", dequantize_linear),
    ("DynamicQuantizeLinear", dynamic),
    ("QLinearConv", conv),
    ("QLinearMatMul", product),
    ("QuantizeLinear", quantize_linear),
];

/// One number for each index of an axis, as a tensor that broadcasts to a rank.
fn along(e: &mut Emit, x: Node, axis: usize, rank: usize) -> Fallible<Node> {
    match &e.shape(x)[..] {
        [] => Ok(x),
        [Dim::Const(1)] => e.reshape(x, vec![]),
        [extent] => {
            let mut shape = vec![Dim::Const(1); rank];
            shape[axis] = extent.clone();
            e.reshape(x, shape)
        }
        _ => Err("scales of blocks are not supported".into()),
    }
}

/// round(x / scale) + zero, kept inside the type `to`.
fn quantize(e: &mut Emit, x: Node, scale: Node, zero: Option<Node>, to: Scalar) -> Fallible<Node> {
    let (low, high) = int_range(to).ok_or_else(|| format!("{to} is no integer"))?;
    let scale = e.cast(scale, e.scalar(x))?;
    let ratio = e.div(x, scale)?;
    let mut y = e.unary(UnaryOp::Round, ratio)?;
    if let Some(zero) = zero {
        let zero = e.cast(zero, e.scalar(x))?;
        y = e.add(y, zero)?;
    }
    let (low, high) = (e.like(y, low as f64)?, e.like(y, high as f64)?);
    let y = e.binary(BinaryOp::Max, y, low)?;
    let y = e.binary(BinaryOp::Min, y, high)?;
    e.cast(y, to)
}

fn quantize_linear(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, scale, zero) = (c.x(0)?, c.x(1)?, zero_points(c, 2)?);
    let rank = c.emit.rank(x);
    let axis = c.axis(c.int("axis", 1), rank.max(2))?;
    let to = match c.inputs.get(2).and_then(|zero| zero.as_ref()?.scalar(c.emit)) {
        Some(scalar) => scalar,
        None if c.int("output_dtype", 0) != 0 => scalar_of(c.int("output_dtype", 0) as i32)?,
        None => Scalar::U8,
    };
    let e = &mut *c.emit;
    let x = if e.scalar(x).is_float() { x } else { e.cast(x, Scalar::F32)? };
    let scale = along(e, scale, axis, rank)?;
    let zero = zero.map(|zero| along(e, zero, axis, rank)).transpose()?;
    Ok(vec![quantize(e, x, scale, zero, to)?])
}

fn dequantize(e: &mut Emit, x: Node, scale: Node, zero: Option<Node>) -> Fallible<Node> {
    let to = e.scalar(scale);
    let mut y = e.cast(x, to)?;
    if let Some(zero) = zero {
        let zero = e.cast(zero, to)?;
        y = e.sub(y, zero)?;
    }
    e.mul(y, scale)
}

fn dequantize_linear(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, scale, zero) = (c.x(0)?, c.x(1)?, zero_points(c, 2)?);
    let rank = c.emit.rank(x);
    let axis = c.axis(c.int("axis", 1), rank.max(2))?;
    let e = &mut *c.emit;
    let scale = along(e, scale, axis, rank)?;
    let zero = zero.map(|zero| along(e, zero, axis, rank)).transpose()?;
    Ok(vec![dequantize(e, x, scale, zero)?])
}

fn dynamic(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let e = &mut *c.emit;
    let axes: Vec<usize> = (0..e.rank(x)).collect();
    let nothing = e.like(x, 0.0)?;
    let mut ends = vec![];
    for (fold, op) in [(ReduceOp::Min, BinaryOp::Min), (ReduceOp::Max, BinaryOp::Max)] {
        let end = e.reduce_keep(fold, x, &axes)?;
        let end = e.reshape(end, vec![])?;
        ends.push(e.binary(op, end, nothing)?);
    }
    let room = e.sub(ends[1], ends[0])?;
    let scale = e.times(room, 1.0 / 255.0)?;
    let below = e.unary(UnaryOp::Neg, ends[0])?;
    let zero = quantize(e, below, scale, None, Scalar::U8)?;
    Ok(vec![quantize(e, x, scale, Some(zero), Scalar::U8)?, scale, zero])
}

/// A product of integers, in units of both scales, as integers in units of a third.
fn rescale(e: &mut Emit, y: Node, [a, b, to]: [Node; 3], zero: Node) -> Fallible<Node> {
    let [a, b, to] = [e.cast(a, Scalar::F64)?, e.cast(b, Scalar::F64)?, e.cast(to, Scalar::F64)?];
    let unit = e.mul(a, b)?;
    let real = e.mul(y, unit)?;
    quantize(e, real, to, Some(zero), e.scalar(zero))
}

fn product(c: &mut Call) -> Fallible<Vec<Node>> {
    let inputs = c.all()?;
    let [a, a_scale, a_zero, b, b_scale, b_zero, scale, zero] = inputs[..] else {
        return Err("it takes 8 inputs".into());
    };
    let (a_points, b_points) = (zero_points(c, 2)?, zero_points(c, 5)?);
    let e = &mut *c.emit;
    let (rows, columns) = (e.rank(a).saturating_sub(2), e.rank(b).saturating_sub(1));
    let rank = e.rank(a).max(e.rank(b));
    let operands = [(a, a_points), (b, b_points)].map(|(bytes, zero)| Quantised { bytes, zero });
    let y = match byte_matmul(e, operands[0], operands[1])? {
        Some(sums) => e.cast(sums, Scalar::F64)?,
        None => {
            let (a, b) = (centred(e, a, Some(a_zero), rows)?, centred(e, b, Some(b_zero), columns)?);
            matmul(e, a, b)?
        }
    };
    let (a_scale, b_scale) = (along(e, a_scale, rank - 2, rank)?, along(e, b_scale, rank - 1, rank)?);
    let (scale, zero) = (along(e, scale, rank - 2, rank)?, along(e, zero, rank - 2, rank)?);
    Ok(vec![rescale(e, y, [a_scale, b_scale, scale], zero)?])
}

fn conv(c: &mut Call) -> Fallible<Vec<Node>> {
    let inputs = c.all()?;
    let [x, x_scale, x_zero, w, w_scale, w_zero, scale, zero, ref bias @ ..] = inputs[..] else {
        return Err("it takes 8 or 9 inputs".into());
    };
    let kernel = image(c.emit, w)?;
    let window = Window::of(c, kernel, &image(c.emit, x)?)?;
    let groups = c.int("group", 1).max(1) as u64;
    let (x_points, w_points) = (zero_points(c, 2)?, zero_points(c, 5)?);
    let e = &mut *c.emit;
    let rank = e.rank(x);
    let bias = bias.first().map(|&bias| e.cast(bias, Scalar::F64)).transpose()?;
    let operands = [(x, x_points), (w, w_points)].map(|(bytes, zero)| Quantised { bytes, zero });
    let y = match byte_conv(e, operands[0], operands[1], &window, groups)? {
        Some(sums) => {
            let sums = e.cast(sums, Scalar::F64)?;
            match bias {
                Some(bias) => {
                    let bias = along(e, bias, 1, rank)?;
                    e.add(sums, bias)?
                }
                None => sums,
            }
        }
        None => {
            let (x, w) = (centred(e, x, Some(x_zero), 0)?, centred(e, w, Some(w_zero), 0)?);
            convolve(e, x, w, bias, &window, groups)?
        }
    };
    let w_scale = along(e, w_scale, 1, rank)?;
    let x_scale = along(e, x_scale, 1, rank)?;
    let (scale, zero) = (along(e, scale, 1, rank)?, along(e, zero, 1, rank)?);
    Ok(vec![rescale(e, y, [x_scale, w_scale, scale], zero)?])
}
