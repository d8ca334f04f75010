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
    if !rises_with_bytes(graph, f) || !Users::of(graph).only(f, node) {
        return None;
    }
    let (x, others) = graph.inputs(f).split_first()?;
    let mut patch = Patch::new(graph);
    let pooled = patch.add(graph.op(node).clone(), &[*x]);
    let operands: Vec<Node> = std::iter::once(pooled).chain(others.iter().copied()).collect();
    let new = patch.add(graph.op(f).clone(), &operands);
    Some(patch.replace(node, new))
}

/// Is the node made of bytes and numbers, and never less for larger bytes?
fn rises_with_bytes(graph: &Graph, node: Node) -> bool {
    let inputs = graph.inputs(node);
    let of_rising =
        |is_good: fn(f64) -> bool| number(graph, inputs[1]).is_some_and(is_good) && rises_with_bytes(graph, inputs[0]);
    match graph.op(node) {
        Op::Cast(to) => {
            let of = graph.ty(inputs[0]).as_tensor().map(|(elem, _)| elem.scalar);
            to.is_float() && matches!(of, Some(Scalar::U8 | Scalar::I8))
        }
        Op::Binary(BinaryOp::Mul) => of_rising(|c| c > 0.0),
        Op::Binary(BinaryOp::Add | BinaryOp::Sub) => of_rising(|_| true),
        _ => false,
    }
}
