//! `transpose(transpose(x) y) = transpose(y) x`.
//!
//! Reason: the gradient of a weight comes out as the weight lies, so that what follows from both reads them side by side, and
//! is computed where the gradient is made.
//!
//! Preconditions: the transposes swap the last two axes and no others; only the outer one reads the product; the rows of `y` are
//! not so short that a transpose of it is read worse than one of `x`. Equal: each element is the sum of the same products in the
//! same order.

use crate::rewrite::Patch;
use crate::rewrite::users::Users;
use quearn_stage::graph::{Dim, Graph, Node, Op};

/// Elements of a row that are worth reading side by side.
const SHORT: u64 = 16;

/// The product the other way round.
pub fn turn_product(graph: &Graph, node: Node) -> Option<Patch> {
    let product = turned(graph, node)?;
    let (Op::MatMul, &[left, y]) = (graph.op(product), graph.inputs(product)) else { return None };
    let x = turned(graph, left)?;
    let shape = |n: Node| graph.ty(n).as_tensor().map_or(&[][..], |(_, shape)| shape);
    let long = shape(y).last().and_then(Dim::as_const).is_some_and(|n| n >= SHORT);
    if !long || shape(x).len() != shape(y).len() || !Users::of(graph).only(product, node) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let left = patch.add(graph.op(node).clone(), &[y]);
    let new = patch.add(Op::MatMul, &[left, x]);
    Some(patch.replace(node, new))
}

/// What a transpose of the last two axes is made of.
fn turned(graph: &Graph, node: Node) -> Option<Node> {
    let Op::Transpose(perm) = graph.op(node) else { return None };
    let (last, leading) = perm.split_last_chunk::<2>().map(|(leading, last)| (*last, leading))?;
    let swaps = last == [perm.len() - 1, perm.len() - 2] && leading.iter().enumerate().all(|(i, axis)| i == *axis);
    swaps.then(|| graph.inputs(node)[0])
}
