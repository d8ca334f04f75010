//! Normalisation, and softmax with its kin.

use super::Write;
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{CompareOp, Dim, Node, Op, ReduceOp, UnaryOp};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("BatchNormalization", batch),
    ("GroupNormalization", group),
    ("Hardmax", |c| over_axis(c, hardmax)),
    ("InstanceNormalization", instance),
    ("LRN", lrn),
    ("LayerNormalization", layer),
    ("LogSoftmax", |c| over_axis(c, log_softmax)),
    ("LpNormalization", lp),
    ("MeanVarianceNormalization", mean_variance),
    ("RMSNormalization", root_mean_square),
    ("Softmax", |c| over_axis(c, |e, x, axis| e.op(Op::Softmax { axis }, &[x]))),
];

fn batch(c: &mut Call) -> Fallible<Vec<Node>> {
    if c.int("training_mode", 0) != 0 || c.wants(1) {
        return Err("statistics of training are not supported".into());
    }
    let operands = c.all()?;
    let eps = c.float("epsilon", 1e-5).to_bits();
    let e = &mut *c.emit;
    let scalar = e.scalar(operands[0]);
    let alike = operands.iter().map(|&x| e.cast(x, scalar)).collect::<Fallible<Vec<Node>>>()?;
    // A batch of vectors has its channels last.
    Ok(vec![e.op(Op::BatchNorm { eps }, &alike)?])
}

/// (x - mean) / sqrt(var + eps) over axes; also the mean and 1 / sqrt(var + eps).
fn standard(e: &mut Emit, x: Node, axes: &[usize], eps: f64) -> Fallible<[Node; 3]> {
    let mean = e.reduce_keep(ReduceOp::Mean, x, axes)?;
    let away = e.sub(x, mean)?;
    let square = e.mul(away, away)?;
    let variance = e.reduce_keep(ReduceOp::Mean, square, axes)?;
    let more = e.plus(variance, eps)?;
    let (root, one) = (e.unary(UnaryOp::Sqrt, more)?, e.like(x, 1.0)?);
    let inverse = e.div(one, root)?;
    Ok([e.mul(away, inverse)?, mean, inverse])
}

/// A vector of one number a channel beside an image of some rank.
fn channels(e: &mut Emit, x: Node, rank: usize) -> Fallible<Node> {
    let ones = std::iter::repeat_n(Dim::Const(1), rank.saturating_sub(2));
    let shape = e.shape(x).into_iter().chain(ones).collect();
    e.reshape(x, shape)
}

fn instance(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, scale, bias, eps) = (c.x(0)?, c.x(1)?, c.x(2)?, c.float("epsilon", 1e-5));
    let e = &mut *c.emit;
    let rank = e.rank(x);
    let [y, ..] = standard(e, x, &(2..rank).collect::<Vec<_>>(), eps)?;
    let (scale, bias) = (channels(e, scale, rank)?, channels(e, bias, rank)?);
    let y = e.mul(y, scale)?;
    Ok(vec![e.add(y, bias)?])
}

fn group(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, mut scale, mut bias, eps) = (c.x(0)?, c.x(1)?, c.x(2)?, c.float("epsilon", 1e-5));
    let groups = c.int("num_groups", 1).max(1) as u64;
    let e = &mut *c.emit;
    let (shape, rank, count) = (e.shape(x), e.rank(x), e.extent(x, 1)?);
    let mut apart = vec![shape[0].clone(), Dim::Const(groups), Dim::Const(count / groups)];
    apart.extend_from_slice(&shape[2..]);
    let split = e.reshape(x, apart)?;
    let [y, ..] = standard(e, split, &(2..rank + 1).collect::<Vec<_>>(), eps)?;
    let y = e.reshape(y, shape)?;
    for side in [&mut scale, &mut bias] {
        // Before version 21 there was one number a group.
        if e.extents(*side)? == [groups] && groups != count {
            let column = e.reshape_to(*side, &[groups, 1])?;
            let wide = e.broadcast(column, vec![Dim::Const(groups), Dim::Const(count / groups)])?;
            *side = e.reshape_to(wide, &[count])?;
        }
        *side = channels(e, *side, rank)?;
    }
    let y = e.mul(y, scale)?;
    Ok(vec![e.add(y, bias)?])
}

fn layer(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, scale, bias, eps) = (c.x(0)?, c.x(1)?, c.optional(2)?, c.float("epsilon", 1e-5));
    let rank = c.emit.rank(x);
    let axis = c.axis(c.int("axis", -1), rank)?;
    let e = &mut *c.emit;
    let [y, mean, inverse] = standard(e, x, &(axis..rank).collect::<Vec<_>>(), eps)?;
    let mut y = e.mul(y, scale)?;
    if let Some(bias) = bias {
        y = e.add(y, bias)?;
    }
    Ok(vec![y, mean, inverse])
}

fn root_mean_square(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, scale, eps) = (c.x(0)?, c.x(1)?, c.float("epsilon", 1e-5));
    let rank = c.emit.rank(x);
    let axis = c.axis(c.int("axis", -1), rank)?;
    let e = &mut *c.emit;
    let square = e.mul(x, x)?;
    let mean = e.reduce_keep(ReduceOp::Mean, square, &(axis..rank).collect::<Vec<_>>())?;
    let more = e.plus(mean, eps)?;
    let root = e.unary(UnaryOp::Sqrt, more)?;
    let y = e.div(x, root)?;
    Ok(vec![e.mul(y, scale)?])
}

fn mean_variance(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let axes = c.ints("axes").unwrap_or_else(|| vec![0, 2, 3]);
    let axes = c.axes(&axes, c.emit.rank(x))?;
    let e = &mut *c.emit;
    let mean = e.reduce_keep(ReduceOp::Mean, x, &axes)?;
    let away = e.sub(x, mean)?;
    let square = e.mul(away, away)?;
    let variance = e.reduce_keep(ReduceOp::Mean, square, &axes)?;
    let root = e.unary(UnaryOp::Sqrt, variance)?;
    let below = e.plus(root, 1e-9)?;
    Ok(vec![e.div(away, below)?])
}

fn lp(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, p) = (c.x(0)?, c.int("p", 2));
    let axis = c.axis(c.int("axis", -1), c.emit.rank(x))?;
    let e = &mut *c.emit;
    let part = if p == 1 { e.unary(UnaryOp::Abs, x)? } else { e.mul(x, x)? };
    let sum = e.reduce_keep(ReduceOp::Sum, part, &[axis])?;
    let norm = if p == 1 { sum } else { e.unary(UnaryOp::Sqrt, sum)? };
    // Nothing stays nothing.
    let (none, one) = (e.test(CompareOp::Eq, norm, 0.0)?, e.like(x, 1.0)?);
    let norm = e.select(none, one, norm)?;
    Ok(vec![e.div(x, norm)?])
}

/// Squares of the neighbouring channels, summed by sliding over them.
fn lrn(c: &mut Call) -> Fallible<Vec<Node>> {
    let (x, size) = (c.x(0)?, c.int("size", 1).max(1));
    let (alpha, beta, bias) = (c.float("alpha", 1e-4), c.float("beta", 0.75), c.float("bias", 1.0));
    let e = &mut *c.emit;
    let (square, zero, count) = (e.mul(x, x)?, e.like(x, 0.0)?, e.extent(x, 1)?);
    let before = (size - 1) / 2;
    let padded = e.pad(square, 1, [before, size - 1 - before], zero)?;
    let mut sum = e.slice(padded, 1, 0, 1, count)?;
    for i in 1..size as u64 {
        let part = e.slice(padded, 1, i, 1, count)?;
        sum = e.add(sum, part)?;
    }
    let scaled = e.times(sum, alpha / size as f64)?;
    let base = e.plus(scaled, bias)?;
    // The base is positive.
    let log = e.unary(UnaryOp::Log, base)?;
    let down = e.times(log, -beta)?;
    let factor = e.unary(UnaryOp::Exp, down)?;
    Ok(vec![e.mul(x, factor)?])
}

type OverAxis = fn(&mut Emit, Node, usize) -> Fallible<Node>;

/// Before version 13 all axes from the given one on were one.
fn over_axis(c: &mut Call, f: OverAxis) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let shape = c.emit.shape(x);
    let axis = c.axis(c.int("axis", if c.opset < 13 { 1 } else { -1 }), shape.len())?;
    if c.opset >= 13 || axis + 1 == shape.len() {
        return Ok(vec![f(c.emit, x, axis)?]);
    }
    let extents = c.emit.extents(x)?;
    let flat = [extents[..axis].iter().product(), extents[axis..].iter().product()];
    let flat = c.emit.reshape_to(x, &flat)?;
    let y = f(c.emit, flat, 1)?;
    Ok(vec![c.emit.reshape(y, shape)?])
}

pub(super) fn log_softmax(e: &mut Emit, x: Node, axis: usize) -> Fallible<Node> {
    let top = e.reduce_keep(ReduceOp::Max, x, &[axis])?;
    let away = e.sub(x, top)?;
    let powers = e.unary(UnaryOp::Exp, away)?;
    let sum = e.reduce_keep(ReduceOp::Sum, powers, &[axis])?;
    let log = e.unary(UnaryOp::Log, sum)?;
    e.sub(away, log)
}

fn hardmax(e: &mut Emit, x: Node, axis: usize) -> Fallible<Node> {
    let n = e.extent(x, axis)?;
    let top = e.op(Op::ArgMax { axis }, &[x])?;
    let top = e.insert_axis(top, axis)?;
    let mut shape = vec![1; e.rank(x)];
    shape[axis] = n;
    let places = e.ints(&shape, 0..n)?;
    let hit = e.compare(CompareOp::Eq, top, places)?;
    e.cast(hit, e.scalar(x))
}
