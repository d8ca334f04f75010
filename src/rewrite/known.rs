//! What rules may know of the tables: facts, which the rewritten program relies on, and estimates, which only choose.

use crate::data::Catalog;
use crate::estimate::Estimator;
use crate::facts::Facts;
use quearn_stage::graph::Graph;

/// A graph with what is known of the tables that it reads.
pub struct Known<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// What the rewritten program may rely on.
    pub facts: Facts<'a>,
    /// How many rows there will be, about.
    pub estimate: Estimator<'a>,
}

impl<'a> Known<'a> {
    /// What a catalog tells about a graph.
    pub fn new(graph: &'a Graph, catalog: &'a Catalog) -> Known<'a> {
        Known { graph, facts: Facts::new(graph, catalog), estimate: Estimator::new(graph, catalog) }
    }
}
