//! With `q` and `p` bytes, `z` and `s` numbers, `t` a number for each output channel (or one for all):
//!
//! ```text
//! conv2d((cast(q) - z) * s, cast(p) * t, b)  = (cast(conv2d(q, p)) - z * sum(p)) * (s * t) + b
//! matmul((cast(q) - z) * s, cast(p) * t)     = (cast(matmul(q, p)) - z * sum(p)) * (s * t)
//! ```
//!
//! Reason: bytes are multiplied four at a time (VNNI), and a quarter of the memory is moved.
//!
//! Preconditions: `q` is unsigned, or signed and then shifted by 128; `p` is signed, a weight, and without a zero of its own.
//! Where the convolution pads, zero must stand for zero: `z = 0`. Sums are exact where the original's are rounded, so the
//! two are equal up to rounding.

use super::number;
use crate::rewrite::Patch;
use crate::rewrite::expression::is_weight;
use quearn_stage::graph::infer::MOST_BYTE_PRODUCTS;
use quearn_stage::graph::{BinaryOp, Conv2d, Dim, Graph, Literal, Node, Op, ReduceOp, Scalar};

/// The product of the bytes, rescaled.
pub fn quantised_product(graph: &Graph, node: Node) -> Option<Patch> {
    let (op, inputs) = (graph.op(node), graph.inputs(node));
    let padded = match op {
        Op::MatMul => false,
        Op::Conv2d(conv) => conv.padding != [0, 0],
        _ => return None,
    };
    let scalar = graph.ty(node).as_tensor()?.0.scalar;
    let (left, right) = (Scaled::of(graph, inputs[0])?, Scaled::of(graph, inputs[1])?);
    let fits = scalar == Scalar::F32
        && right.of == Scalar::I8
        && right.zero == 0.0
        && is_weight(graph, right.bytes)
        && elements(graph, left.scale) == Some(1)
        && (op != &Op::MatMul || shape(graph, right.bytes)?.len() == 2);
    let zero = left.zero + if left.of == Scalar::I8 { 128.0 } else { 0.0 };
    if !fits || padded && zero != 0.0 || !is_small(graph, op, right.bytes) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let p = &mut patch;
    let unsigned = if left.of == Scalar::I8 { shifted(p, left.bytes)? } else { left.bytes };
    let sums = p.add(op.clone(), &[unsigned, right.bytes]);
    let mut y = p.add(Op::Cast(scalar), &[sums]);
    if zero != 0.0 {
        let axes = if let Op::Conv2d(_) = op { vec![1, 2, 3] } else { vec![0] };
        let sum = p.add(Op::Reduce { op: ReduceOp::Sum, axes, keep: false }, &[right.bytes]);
        let sum = p.add(Op::Cast(scalar), &[sum]);
        let zero = p.add(Op::Const(Literal::float(scalar, zero)?), &[]);
        let offset = p.add(Op::Binary(BinaryOp::Mul), &[sum, zero]);
        let offset = for_each_channel(graph, p, op, right.bytes, offset);
        y = p.add(Op::Binary(BinaryOp::Sub), &[y, offset]);
    }
    // One number, whatever its shape is.
    let left_scale = p.add(Op::Reshape(vec![]), &[left.scale]);
    let right_scale = match elements(graph, right.scale)? {
        1 => p.add(Op::Reshape(vec![]), &[right.scale]),
        _ => {
            let channels = channel_extent(graph, op, right.bytes)?;
            (per_channel(graph, op, right.scale)? == channels).then_some(())?;
            let flat = p.add(Op::Reshape(vec![channels]), &[right.scale]);
            for_each_channel(graph, p, op, right.bytes, flat)
        }
    };
    let scale = p.add(Op::Binary(BinaryOp::Mul), &[right_scale, left_scale]);
    y = p.add(Op::Binary(BinaryOp::Mul), &[y, scale]);
    if let Some(&bias) = inputs.get(2) {
        let bias = for_each_channel(graph, p, op, right.bytes, bias);
        y = p.add(Op::Binary(BinaryOp::Add), &[y, bias]);
    }
    Some(patch.replace(node, y))
}

/// `(cast(bytes) - zero) * scale`
struct Scaled {
    bytes: Node,
    of: Scalar,
    zero: f64,
    scale: Node,
}

impl Scaled {
    fn of(graph: &Graph, node: Node) -> Option<Scaled> {
        let (Op::Binary(BinaryOp::Mul), &[x, scale]) = (graph.op(node), graph.inputs(node)) else { return None };
        let (cast, zero) = match (graph.op(x), graph.inputs(x)) {
            (Op::Binary(BinaryOp::Sub), &[cast, zero]) => (cast, number(graph, zero)?),
            _ => (x, 0.0),
        };
        let (Op::Cast(Scalar::F32), &[bytes]) = (graph.op(cast), graph.inputs(cast)) else { return None };
        let of = graph.ty(bytes).as_tensor()?.0;
        let is_byte = matches!(of.scalar, Scalar::U8 | Scalar::I8) && !of.nullable;
        // A scale with more dimensions would stretch the operand.
        let keeps_shape = shape(graph, bytes)? == shape(graph, node)?;
        (is_byte && keeps_shape).then_some(Scaled { bytes, of: of.scalar, zero, scale })
    }
}

/// Signed bytes plus 128, as unsigned ones.
fn shifted(p: &mut Patch, bytes: Node) -> Option<Node> {
    let wide = p.add(Op::Cast(Scalar::I32), &[bytes]);
    let half = p.add(Op::Const(Literal::int(Scalar::I32, 128)?), &[]);
    let moved = p.add(Op::Binary(BinaryOp::Add), &[wide, half]);
    Some(p.add(Op::Cast(Scalar::U8), &[moved]))
}

fn shape(graph: &Graph, node: Node) -> Option<&[Dim]> {
    Some(graph.ty(node).as_tensor()?.1)
}

fn elements(graph: &Graph, node: Node) -> Option<u64> {
    shape(graph, node)?.iter().try_fold(1u64, |n, dim| n.checked_mul(dim.as_const()?))
}

fn channel_axis(op: &Op) -> usize {
    if let Op::Conv2d(_) = op { 0 } else { 1 }
}

fn channel_extent(graph: &Graph, op: &Op, weight: Node) -> Option<Dim> {
    shape(graph, weight)?.get(channel_axis(op)).cloned()
}

/// The extent of a tensor that has one number for each output channel of the weight it broadcasts to.
fn per_channel(graph: &Graph, op: &Op, scale: Node) -> Option<Dim> {
    let shape = shape(graph, scale)?;
    let rank = if let Op::Conv2d(_) = op { 4 } else { 2 };
    let axis = channel_axis(op).checked_sub(rank - shape.len())?;
    let others = shape.iter().enumerate().filter(|(i, _)| *i != axis);
    others.map(|(_, dim)| dim).all(|dim| *dim == Dim::Const(1)).then(|| shape[axis].clone())
}

/// A vector with one number for each output channel, as it broadcasts to the result.
fn for_each_channel(graph: &Graph, p: &mut Patch, op: &Op, weight: Node, vector: Node) -> Node {
    match (op, channel_extent(graph, op, weight)) {
        (Op::Conv2d(_), Some(channels)) => {
            p.add(Op::Reshape(vec![Dim::Const(1), channels, Dim::Const(1), Dim::Const(1)]), &[vector])
        }
        _ => vector,
    }
}

/// Do sums of the products fit, by the rules of the graph?
fn is_small(graph: &Graph, op: &Op, weight: Node) -> bool {
    let Some(shape) = shape(graph, weight) else { return false };
    let axes = if let Op::Conv2d(Conv2d { .. }) = op { &shape[1..] } else { &shape[..1] };
    axes.iter().try_fold(1u64, |n, dim| n.checked_mul(dim.as_const()?)).is_some_and(|n| n <= MOST_BYTE_PRODUCTS)
}
