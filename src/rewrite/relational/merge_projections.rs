//! `project(project(t, f), g) = project(t, g after f)`; `project(t, every column of t) = t`.
//!
//! Reason: a projection that only passes columns on is no work of its own, but it hides the table below from the rules.
//!
//! Precondition: the inner projection is read by nobody else, so that no expression is computed in two places. Within
//! one projection equal expressions are one node, so that nothing is computed twice there.

use crate::rewrite::Patch;
use crate::rewrite::expression::projections;
use crate::rewrite::rows::Transport;
use crate::rewrite::users::Users;
use quearn_stage::graph::{Field, Graph, Node, Op};

/// The projection together with those below it, or nothing at all if it changes nothing.
pub fn merge_projections(graph: &Graph, node: Node) -> Option<Patch> {
    let Op::Project { names } = graph.op(node) else { return None };
    let below = graph.inputs(node)[0];
    if passes_all_on(graph, node, below) {
        return Some(Patch::new(graph).replace(node, below));
    }
    let (chain, base) = projections(graph, below);
    if chain.is_empty() {
        return None;
    }
    let users = Users::of(graph);
    let read_above = std::iter::once(node).chain(chain.iter().copied());
    if !chain.iter().zip(read_above).all(|(inner, outer)| users.only_table(*inner, outer)) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let expressions = Transport::inline(graph, base)?.expressions(&mut patch, &graph.inputs(node)[1..])?;
    let inputs: Vec<Node> = std::iter::once(base).chain(expressions).collect();
    let new = patch.add(Op::Project { names: names.clone() }, &inputs);
    Some(patch.replace(node, new))
}

/// Are the columns of the projection those of the table below, in the same order?
fn passes_all_on(graph: &Graph, node: Node, below: Node) -> bool {
    let fields = |table: Node| -> &[Field] { graph.ty(table).as_table().map_or(&[], |(fields, _)| fields) };
    let expressions = &graph.inputs(node)[1..];
    let passed = |(field, &expression): (&Field, &Node)| {
        *graph.op(expression) == Op::Column(field.name.clone()) && graph.inputs(expression) == [below]
    };
    fields(node) == fields(below) && fields(node).iter().zip(expressions).all(passed)
}
