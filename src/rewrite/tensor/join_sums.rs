//! `concat(a, 0) + concat(0, b) = concat(a, b)`: of concatenations that are added, parts of zeros are not.
//!
//! Reason: the adjoint of a tensor of which parts were read is a sum of these parts' adjoints among zeros. Each part is then
//! written where it belongs, once.
//!
//! Preconditions: the same axis, and nobody else reads the concatenations. A part that is not zeros must not meet several
//! parts of the other one. Equal (a negative zero may become a positive one).

use super::number;
use crate::rewrite::Patch;
use crate::rewrite::users::Users;
use quearn_stage::graph::{BinaryOp, Dim, Graph, Node, Op};
use std::collections::BTreeSet;

/// The concatenation of the sums of parts.
pub fn join_sums(graph: &Graph, node: Node) -> Option<Patch> {
    let (Op::Binary(BinaryOp::Add), &[x, y]) = (graph.op(node), graph.inputs(node)) else { return None };
    let (Op::Concat { axis }, Op::Concat { axis: other }) = (graph.op(x), graph.op(y)) else { return None };
    let users = Users::of(graph);
    if axis != other || graph.ty(x) != graph.ty(y) || !users.only(x, node) || !users.only(y, node) {
        return None;
    }
    let [left, right] = [parts(graph, x, *axis)?, parts(graph, y, *axis)?];
    let cuts: BTreeSet<u64> = left.iter().chain(&right).flat_map(|part| [part.start, part.end]).collect();
    let cuts: Vec<u64> = cuts.into_iter().collect();
    let (mut patch, mut sums, mut gained) = (Patch::new(graph), vec![], false);
    for cut in cuts.windows(2) {
        let within = |parts: &[Part]| parts.iter().find(|part| part.start <= cut[0] && cut[1] <= part.end).copied();
        let (a, b) = (within(&left)?, within(&right)?);
        if [a, b].iter().any(|part| !part.zero && [part.start, part.end] != [cut[0], cut[1]]) {
            return None;
        }
        gained |= a.zero != b.zero;
        sums.push(match (a.zero, b.zero) {
            (false, false) => patch.add(Op::Binary(BinaryOp::Add), &[a.node, b.node]),
            (false, true) => a.node,
            (true, false) => b.node,
            (true, true) => patch
                .add(Op::Slice { axis: *axis, start: cut[0] - a.start, step: 1, count: cut[1] - cut[0] }, &[a.node]),
        });
    }
    let new = patch.add(Op::Concat { axis: *axis }, &sums);
    gained.then(|| patch.replace(node, new))
}

/// A part of a concatenation, from one index of its axis up to another.
#[derive(Clone, Copy)]
struct Part {
    node: Node,
    start: u64,
    end: u64,
    zero: bool,
}

fn parts(graph: &Graph, concat: Node, axis: usize) -> Option<Vec<Part>> {
    let (mut parts, mut start) = (vec![], 0);
    for &node in graph.inputs(concat) {
        let end = start + graph.ty(node).as_tensor()?.1.get(axis).and_then(Dim::as_const)?;
        if end > start {
            parts.push(Part { node, start, end, zero: is_zero(graph, node) });
        }
        start = end;
    }
    Some(parts)
}

/// Is the tensor zero everywhere?
fn is_zero(graph: &Graph, node: Node) -> bool {
    match graph.op(node) {
        Op::Broadcast(_) | Op::Reshape(_) | Op::Slice { .. } => is_zero(graph, graph.inputs(node)[0]),
        _ => number(graph, node) == Some(0.0),
    }
}
