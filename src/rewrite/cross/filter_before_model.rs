//! `filter(project(t, model), p and q) = filter(project(filter(t, p), model), q)` where `p` needs no tensor operator.
//!
//! Reason: a model costs thousands of times more for a row than a predicate does; every row that is dropped before is
//! won. It is one of the rules for which query and model are compiled together.
//!
//! Preconditions: the model works row by row, so that its outputs for the rows that stay do not change (an operator that
//! mixes rows, such as a softmax over them, keeps the filter above); nothing in it folds all rows into one value, such as
//! their mean, which would need the model for the rows before the filter and again for those after it; the projection is
//! read by the filter only.
//!
//! Failures: `p` sees the rows that it saw before. The model and `q` see fewer, so they no longer fail on rows that `p`
//! drops: a filter promises nothing about rows that it drops. This is the one rule that may lose such a failure.

use crate::rewrite::Patch;
use crate::rewrite::expression::{conjuncts, fold_rows, is_model, projections, rows_of};
use crate::rewrite::relational::below_projections;
use quearn_stage::graph::{Graph, Node, Op};

/// The parts of a filter that do not need the model below the projection that runs it.
pub fn filter_before_model(graph: &Graph, node: Node) -> Option<Patch> {
    if *graph.op(node) != Op::Filter {
        return None;
    }
    let &[table, predicate] = graph.inputs(node) else { return None };
    let (chain, base) = projections(graph, table);
    let expressions: Vec<Node> = chain.iter().flat_map(|&p| &graph.inputs(p)[1..]).copied().collect();
    let holds_model = expressions.iter().any(|&e| is_model(graph, e));
    if !holds_model || fold_rows(graph, &expressions, rows_of(graph, base)?) {
        return None;
    }
    let (kept, moved): (Vec<Node>, Vec<Node>) =
        conjuncts(graph, predicate).into_iter().partition(|&part| is_model(graph, part));
    if moved.is_empty() {
        return None;
    }
    below_projections(graph, node, &moved, &kept)
}
