//! `transpose(transpose(x)) = transpose(x)`, `reshape(reshape(x)) = reshape(x)`, `relu(relu(x)) = relu(x)`,
//! `cast(cast(x)) = cast(x)` where the inner cast loses nothing; and those that change nothing at all vanish. Beside a
//! reshape, a transpose that moves axes of extent 1 only is one.
//!
//! Reason: loops are fused when operators are lowered, by passing closures, and not here. This rule does what closures
//! cannot: it takes steps out of a chain, and brings operators next to each other that others match as neighbours (a
//! convolution and its normalisation, say).
//!
//! Preconditions: the element type stays the same. A cast in between must hold every value of the type it comes from;
//! decimals are left alone, whose casts round differently from integers and from floats.

use crate::rewrite::Patch;
use quearn_stage::graph::literal::int_range;
use quearn_stage::graph::{Dim, Graph, Node, Op, Scalar, UnaryOp};

/// The node without the step below it, or what is below it without the node.
pub fn fuse_elementwise(graph: &Graph, node: Node) -> Option<Patch> {
    let &[x] = graph.inputs(node) else { return None };
    if changes_nothing(graph, node, x) {
        return Some(Patch::new(graph).replace(node, x));
    }
    let (op, inner) = fused(graph, node, x)?;
    let mut patch = Patch::new(graph);
    let new = patch.add(op, &[inner]);
    Some(patch.replace(node, new))
}

fn changes_nothing(graph: &Graph, node: Node, x: Node) -> bool {
    match graph.op(node) {
        Op::Transpose(perm) => perm.is_sorted(),
        Op::Reshape(_) | Op::Broadcast(_) | Op::Slice { step: 1, .. } | Op::Cast(_) => graph.ty(node) == graph.ty(x),
        Op::Concat { .. } => true,
        Op::Unary(op) => is_idempotent(*op) && graph.op(x) == graph.op(node),
        _ => false,
    }
}

/// Is `op(op(x))` equal to `op(x)`?
fn is_idempotent(op: UnaryOp) -> bool {
    matches!(op, UnaryOp::Relu | UnaryOp::Abs | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round)
}

/// One operation for the node and the one below it, and its operand.
fn fused(graph: &Graph, node: Node, x: Node) -> Option<(Op, Node)> {
    let inner = *graph.inputs(x).first()?;
    match (graph.op(node), graph.op(x)) {
        (Op::Transpose(outer), Op::Transpose(first)) => {
            Some((Op::Transpose(outer.iter().map(|&axis| first[axis]).collect()), inner))
        }
        (Op::Reshape(to), Op::Reshape(_)) => Some((Op::Reshape(to.clone() as Vec<Dim>), inner)),
        (Op::Reshape(to), Op::Transpose(perm)) if keeps_order(graph, inner, perm) => {
            Some((Op::Reshape(to.clone() as Vec<Dim>), inner))
        }
        (Op::Transpose(perm), Op::Reshape(_)) if keeps_order(graph, x, perm) => {
            Some((Op::Reshape(graph.ty(node).as_tensor()?.1.to_vec()), inner))
        }
        (Op::Cast(to), Op::Cast(via)) => {
            let from = graph.ty(inner).as_tensor()?.0.scalar;
            let exact = holds_all(*via, from) && !matches!(to, Scalar::Decimal { .. });
            exact.then_some((Op::Cast(*to), inner))
        }
        _ => None,
    }
}

/// Does a transpose of `x` move axes of extent 1 only?
fn keeps_order(graph: &Graph, x: Node, perm: &[usize]) -> bool {
    let Some((_, shape)) = graph.ty(x).as_tensor() else { return false };
    perm.iter().filter(|axis| shape[**axis] != Dim::Const(1)).is_sorted()
}

/// Does the type `wide` hold every value of `narrow`?
fn holds_all(wide: Scalar, narrow: Scalar) -> bool {
    use Scalar::*;
    match (narrow, wide) {
        (F16 | BF16, F32 | F64) | (F32, F64) | (I8 | U8 | I16, F32 | F64) | (I32, F64) => true,
        _ => match (int_range(narrow), int_range(wide)) {
            (Some((low, high)), Some((least, most))) => least <= low && high <= most,
            _ => false,
        },
    }
}
