//! `f(concat(a, b)) = concat(f(a), f(b))` for elementwise `f` of one tensor and numbers.
//!
//! Reason: what makes `a` and `b` then applies `f` in registers and writes its part of the result in place; a pass over the
//! whole is gone.
//!
//! Preconditions: only `f` reads the concatenation; all other operands of `f` are constants of one element. Equal.

use super::number;
use crate::rewrite::Patch;
use crate::rewrite::expression::is_elementwise;
use crate::rewrite::users::Users;
use quearn_stage::graph::{Graph, Node, Op};

/// The concatenation of what an operation makes of the parts.
pub fn join_later(graph: &Graph, node: Node) -> Option<Patch> {
    if !is_elementwise(graph.op(node)) {
        return None;
    }
    let inputs = graph.inputs(node);
    let at = inputs.iter().position(|&n| matches!(graph.op(n), Op::Concat { .. }))?;
    let others = inputs.iter().enumerate().filter(|(i, _)| *i != at);
    let joined = inputs[at];
    let constant = |n: Node| number(graph, n).is_some();
    if !others.into_iter().all(|(_, &n)| constant(n)) || !Users::of(graph).only(joined, node) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let part = |patch: &mut Patch, part: Node| {
        let operands: Vec<Node> = inputs.iter().enumerate().map(|(i, &n)| if i == at { part } else { n }).collect();
        patch.add(graph.op(node).clone(), &operands)
    };
    let parts: Vec<Node> = graph.inputs(joined).iter().map(|&n| part(&mut patch, n)).collect();
    let new = patch.add(graph.op(joined).clone(), &parts);
    Some(patch.replace(node, new))
}
