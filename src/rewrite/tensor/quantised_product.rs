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
use quearn_stage::graph::infer::byte_products_fit;
use quearn_stage::graph::{BinaryOp, Dim, Graph, Literal, Node, Op, ReduceOp, Scalar};

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
    let weight = Weight::of(op, shape(graph, right.bytes)?)?;
    let fits = scalar == Scalar::F32
        && right.of == Scalar::I8
        && right.zero == 0.0
        && is_weight(graph, right.bytes)
        && elements(graph, left.scale) == Some(1)
        && byte_products_fit(weight.summed());
    let zero = left.zero + if left.of == Scalar::I8 { 128.0 } else { 0.0 };
    if !fits || padded && zero != 0.0 {
        return None;
    }
    let mut patch = Patch::new(graph);
    let p = &mut patch;
    let unsigned = if left.of == Scalar::I8 { shifted(p, left.bytes)? } else { left.bytes };
    let sums = p.add(op.clone(), &[unsigned, right.bytes]);
    let mut y = p.add(Op::Cast(scalar), &[sums]);
    if zero != 0.0 {
        let sum = p.add(Op::Reduce { op: ReduceOp::Sum, axes: weight.axes(), keep: false }, &[right.bytes]);
        let sum = p.add(Op::Cast(scalar), &[sum]);
        let zero = p.add(Op::Const(Literal::float(scalar, zero)?), &[]);
        let offset = p.add(Op::Binary(BinaryOp::Mul), &[sum, zero]);
        let offset = weight.for_each_channel(p, offset);
        y = p.add(Op::Binary(BinaryOp::Sub), &[y, offset]);
    }
    // One number, whatever its shape is.
    let left_scale = p.add(Op::Reshape(vec![]), &[left.scale]);
    let right_scale = match elements(graph, right.scale)? {
        1 => p.add(Op::Reshape(vec![]), &[right.scale]),
        _ if weight.has_one_a_channel(shape(graph, right.scale)?) => {
            let flat = p.add(Op::Reshape(vec![weight.channels().clone()]), &[right.scale]);
            weight.for_each_channel(p, flat)
        }
        _ => return None,
    };
    let scale = p.add(Op::Binary(BinaryOp::Mul), &[right_scale, left_scale]);
    y = p.add(Op::Binary(BinaryOp::Mul), &[y, scale]);
    if let Some(&bias) = inputs.get(2) {
        let bias = weight.for_each_channel(p, bias);
        y = p.add(Op::Binary(BinaryOp::Add), &[y, bias]);
    }
    Some(patch.replace(node, y))
}

/// The shape of a weight: `[channels, ..]` of a convolution, `[.., channels]` of a matrix.
struct Weight<'g> {
    shape: &'g [Dim],
    is_filter: bool,
}

impl<'g> Weight<'g> {
    fn of(op: &Op, shape: &'g [Dim]) -> Option<Weight<'g>> {
        let is_filter = *op != Op::MatMul;
        (is_filter || shape.len() == 2).then_some(Weight { shape, is_filter })
    }

    fn channel_axis(&self) -> usize {
        if self.is_filter { 0 } else { 1 }
    }

    fn channels(&self) -> &'g Dim {
        &self.shape[self.channel_axis()]
    }

    /// The axes that are summed over.
    fn axes(&self) -> Vec<usize> {
        (0..self.shape.len()).filter(|axis| *axis != self.channel_axis()).collect()
    }

    /// Their extents.
    fn summed(&self) -> &'g [Dim] {
        if self.is_filter { &self.shape[1..] } else { &self.shape[..1] }
    }

    /// Is a tensor of this shape, which broadcasts to the weight, one number for each channel?
    fn has_one_a_channel(&self, shape: &[Dim]) -> bool {
        let missing = self.shape.len() - shape.len();
        let fits = |(i, dim): (usize, &Dim)| match i + missing == self.channel_axis() {
            true => dim == self.channels(),
            false => *dim == Dim::Const(1),
        };
        missing <= self.channel_axis() && shape.iter().enumerate().all(fits)
    }

    /// A vector of one number for each channel, as it broadcasts to the result.
    fn for_each_channel(&self, p: &mut Patch, vector: Node) -> Node {
        if !self.is_filter {
            return vector;
        }
        let one = Dim::Const(1);
        p.add(Op::Reshape(vec![one.clone(), self.channels().clone(), one.clone(), one]), &[vector])
    }
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
