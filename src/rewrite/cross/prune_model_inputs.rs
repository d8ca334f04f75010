//! `project(t, (model, g)) = project(t, g)` where nobody reads the model's output; and what only the model read is
//! neither computed nor scanned: `project(scan(t, (a, b)), model(a)) = project(scan(t, a), model(a))`.
//!
//! Reason: a head of a model that a query does not ask for, and the columns that feed it, cost nothing. It is the
//! counterpart of `prune_projection` for columns made by tensor operators, and the two are switched apart.
//!
//! Preconditions: as there; nobody reads the column, at any distance. Aggregates that nobody reads go too, since they
//! would read it.

use crate::rewrite::Patch;
use crate::rewrite::expression::is_model;
use crate::rewrite::needed::Needed;
use quearn_stage::graph::{Graph, Node, Op};

/// Projections without model outputs that nobody reads, and scans without the columns that only those read.
pub fn prune_model_inputs(graph: &Graph) -> Option<Patch> {
    let holds_model = |node: Node| match graph.op(node) {
        Op::Project { .. } => graph.inputs(node)[1..].iter().any(|&e| is_model(graph, e)),
        _ => false,
    };
    if !graph.reachable().into_iter().any(holds_model) {
        return None;
    }
    Needed::of(graph, |graph, expression| !is_model(graph, expression)).patch()
}
