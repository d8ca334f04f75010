//! `filter(filter(t, p), q) = filter(t, p and q)`; `filter(t, true) = t`.
//!
//! Reason: parts of a predicate move one by one, whichever filter they were written in; and a table is tested once.
//!
//! Precondition: `q` cannot fail, since it now runs on rows that `p` drops. The inner filter is read by the outer one
//! only, or its rows would be tested twice.

use crate::rewrite::Patch;
use crate::rewrite::expression::{conjuncts, filtered, rows_of};
use crate::rewrite::rows::Transport;
use crate::rewrite::users::Users;
use quearn_stage::graph::fails::can_fail;
use quearn_stage::graph::{Graph, Literal, Node, Op};

/// The filter without parts that are true, and together with a filter below it.
pub fn merge_filters(graph: &Graph, node: Node) -> Option<Patch> {
    if *graph.op(node) != Op::Filter {
        return None;
    }
    let &[table, predicate] = graph.inputs(node) else { return None };
    without_true(graph, node, table, predicate).or_else(|| with_inner(graph, node, table, predicate))
}

fn without_true(graph: &Graph, node: Node, table: Node, predicate: Node) -> Option<Patch> {
    let all = conjuncts(graph, predicate);
    let is_true = |part: &Node| *graph.op(*part) == Op::Const(Literal::bool(true));
    let parts: Vec<Node> = all.iter().copied().filter(|part| !is_true(part)).collect();
    if parts.len() == all.len() {
        return None;
    }
    let mut patch = Patch::new(graph);
    let new = filtered(&mut patch, table, &parts);
    Some(patch.replace(node, new))
}

fn with_inner(graph: &Graph, node: Node, table: Node, outer: Node) -> Option<Patch> {
    if *graph.op(table) != Op::Filter || can_fail(graph, outer) || !Users::of(graph).only_table(table, node) {
        return None;
    }
    let &[below, inner] = graph.inputs(table) else { return None };
    let mut patch = Patch::new(graph);
    let mut transport = Transport::to_table(graph, table, below, rows_of(graph, below)?.clone())?;
    let moved = transport.expression(&mut patch, outer)?;
    let new = filtered(&mut patch, below, &[inner, moved]);
    Some(patch.replace(node, new))
}
