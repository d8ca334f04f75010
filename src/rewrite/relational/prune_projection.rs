//! `project(t, (f, g)) = project(t, f)`, `scan(t, (a, b)) = scan(t, a)` and `aggregate(t, (x, y)) = aggregate(t, x)` where
//! nobody reads the other columns.
//!
//! Reason: bytes that are not read from memory or file, and expressions that are not computed.
//!
//! Preconditions: an aggregate is left out only if it cannot fail, since it fails as a whole. A table of which only the
//! rows count keeps its first column. Columns made by tensor operators are left to `prune_model_inputs`.

use crate::rewrite::Patch;
use crate::rewrite::expression::is_model;
use crate::rewrite::needed::Needed;
use quearn_stage::graph::Graph;

/// Every table without the columns that nobody reads.
pub fn prune_projection(graph: &Graph) -> Option<Patch> {
    Needed::of(graph, is_model).patch()
}
