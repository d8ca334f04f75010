//! What a well-formed graph is.
//!
//! - Inputs, and the nodes of a region, come before their users: the graph has no cycle.
//! - Every node has the type that inference gives it.
//! - A node that depends on a region's parameters is used only inside that region, and is no output.
//! - Outputs exist and have names of their own.

use super::infer::infer;
use super::{Graph, GraphError, Node, Op, Region};
use std::collections::{BTreeSet, HashSet};

/// Checks a graph; passes run it after each rewrite.
///
/// # Errors
/// The first node or output that breaks a rule.
pub fn verify(graph: &Graph) -> Result<(), GraphError> {
    for index in 0..graph.len() {
        check_node(graph, Node(index as u32))?;
    }
    check_outputs(graph)
}

fn check_node(graph: &Graph, node: Node) -> Result<(), GraphError> {
    let data = graph.node(node);
    let fail = |message: String| Err(GraphError { op: data.op.name(), message: format!("{node}: {message}") });
    let late = graph.dependencies(node).into_iter().find(|input| *input >= node);
    if let Some(late) = late {
        return fail(format!("uses {late}, which comes after it"));
    }
    match infer(graph, node, &data.op, &data.inputs) {
        Ok(ty) if ty == data.ty => Ok(()),
        Ok(ty) => fail(format!("has the type {}, expected {ty}", data.ty)),
        Err(error) => fail(error.message),
    }
}

fn check_outputs(graph: &Graph) -> Result<(), GraphError> {
    let fail = |name: &str, message: String| {
        Err(GraphError { op: "return".to_owned(), message: format!("output {name:?}: {message}") })
    };
    let free = free_regions(graph);
    let mut names = HashSet::new();
    for (name, node) in graph.outputs() {
        if node.index() >= graph.len() {
            return fail(name, format!("{node} does not exist"));
        }
        if !names.insert(name) {
            return fail(name, "two outputs have this name".to_owned());
        }
        if let Some(region) = free[node.index()].first() {
            return fail(name, format!("{node} depends on a parameter of region {region} outside of it"));
        }
    }
    Ok(())
}

/// For each node the regions whose parameters it depends on, and in which alone it has a meaning.
pub(super) fn free_regions(graph: &Graph) -> Vec<BTreeSet<u32>> {
    let mut free: Vec<BTreeSet<u32>> = Vec::with_capacity(graph.len());
    for index in 0..graph.len() {
        let node = Node(index as u32);
        let of = |nodes: &[Node]| nodes.iter().flat_map(|n| free[n.index()].iter().copied()).collect::<BTreeSet<_>>();
        let mut mine = of(graph.inputs(node));
        if let Op::Param { region, .. } = graph.op(node) {
            mine = of(&graph.dependencies(node));
            mine.insert(*region);
        }
        if let Some(region) = graph.op(node).region() {
            let own = region_id(graph, region);
            mine.extend(of(&region.results).into_iter().filter(|id| Some(*id) != own));
        }
        free.push(mine);
    }
    free
}

/// The number that the parameters of a region carry.
pub(super) fn region_id(graph: &Graph, region: &Region) -> Option<u32> {
    match graph.op(*region.params.first()?) {
        Op::Param { region, .. } => Some(*region),
        _ => None,
    }
}
