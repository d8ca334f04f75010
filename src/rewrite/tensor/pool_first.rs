//! `max_pool(f(x)) = f(max_pool(x))` for an `f` that never falls: a conversion of bytes, a product with a positive number, a
//! sum with a number.
//!
//! Reason: `f` runs on fewer elements, and bytes are pooled as bytes.
//!
//! Preconditions: only the pooling reads `f(x)`. Equal: the largest element stays the largest.

use super::number;
use crate::rewrite::Patch;
use crate::rewrite::users::Users;
use quearn_stage::graph::{BinaryOp, Graph, Node, Op, Pool2d, PoolKind, Scalar};

/// The operation below a pooling, done after it.
pub fn pool_first(graph: &Graph, node: Node) -> Option<Patch> {
    let Op::Pool2d(Pool2d { kind: PoolKind::Max, .. }) = graph.op(node) else { return None };
    let f = graph.inputs(node)[0];
    let inputs = graph.inputs(f);
    let scalar = |n: Node| graph.ty(n).as_tensor().map(|(elem, _)| elem.scalar);
    let rises = match graph.op(f) {
        Op::Cast(to) => to.is_float() && matches!(scalar(inputs[0]), Some(Scalar::U8 | Scalar::I8)),
        Op::Binary(BinaryOp::Mul) => number(graph, inputs[1]).is_some_and(|c| c > 0.0),
        Op::Binary(BinaryOp::Add | BinaryOp::Sub) => number(graph, inputs[1]).is_some(),
        _ => false,
    };
    let x = *inputs.first()?;
    let comes_from_bytes = rises && is_scaled_bytes(graph, f);
    if !comes_from_bytes || !Users::of(graph).only(f, node) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let pooled = patch.add(graph.op(node).clone(), &[x]);
    let operands: Vec<Node> = std::iter::once(pooled).chain(inputs[1..].iter().copied()).collect();
    let new = patch.add(graph.op(f).clone(), &operands);
    Some(patch.replace(node, new))
}

/// Is the node made of bytes and numbers?
fn is_scaled_bytes(graph: &Graph, node: Node) -> bool {
    let inputs = graph.inputs(node);
    match graph.op(node) {
        Op::Cast(_) => {
            let of = graph.ty(inputs[0]).as_tensor().map(|(elem, _)| elem.scalar);
            matches!(of, Some(Scalar::U8 | Scalar::I8))
        }
        Op::Binary(BinaryOp::Mul | BinaryOp::Add | BinaryOp::Sub) => {
            number(graph, inputs[1]).is_some() && is_scaled_bytes(graph, inputs[0])
        }
        _ => false,
    }
}
