//! Several steps as one program: a walk along the learning rates, with the state carried from step to step.

use super::plan::next_value;
use quearn_stage::graph::{Dim, Graph, GraphError, Node, Op, Region, Steps, Ty};
use std::collections::HashMap;

/// The graph that does what `graph` does `count` times: each result that is the next value of an input is that input's value in the
/// next round, and each other result is collected in a new leading dimension. Of the inputs named `along` every round takes
/// one element of a vector.
///
/// # Errors
/// A bug: the graph does not fit into a region.
pub(super) fn repeated(graph: &Graph, count: u64, along: &[&str]) -> Result<Graph, GraphError> {
    let mut nodes = graph.reachable();
    nodes.sort_unstable();
    let inputs = nodes.iter().filter_map(|&node| match graph.op(node) {
        Op::Input { name, ty, weight: false } => Some((node, name, ty)),
        _ => None,
    });
    let inputs: Vec<(Node, &String, &Ty)> = inputs.collect();
    let states = inputs.iter().filter(|(_, name, ty)| next_value(graph, name, ty).is_some());
    let wholes = inputs.iter().filter(|(_, name, _)| along.contains(&name.as_str()));
    let mut body = Body { graph, result: Graph::new(), region: graph.free_region(), made: HashMap::new() };
    let (mut outside, mut params, mut next) = (vec![], vec![], vec![]);
    for &(node, name, ty) in states.clone() {
        outside.push(body.input(name, ty.clone())?);
        params.push(body.param(node, params.len(), ty)?);
        next.extend(next_value(graph, name, ty));
    }
    for &(node, name, ty) in wholes {
        outside.push(body.input(name, with_leading(ty, count))?);
        params.push(body.param(node, params.len(), ty)?);
    }
    let others: Vec<&(String, Node)> =
        graph.outputs().iter().filter(|(name, _)| !states.clone().any(|(_, state, _)| *state == name)).collect();
    next.extend(others.iter().map(|(_, value)| *value));
    nodes.iter().try_for_each(|&node| body.copy(node))?;
    let results = next.iter().map(|node| body.made[node]).collect();
    let carried = states.clone().count();
    let steps = Steps { region: Region { params, results }, count, carried, axis: 0, back: false };
    let mut result = body.result;
    let walk = result.add(Op::Steps(steps), &outside)?;
    let names = states.map(|(_, name, _)| *name).chain(others.iter().map(|(name, _)| name));
    for (i, name) in names.enumerate() {
        let item = if next.len() == 1 { walk } else { result.add(Op::Item(i), &[walk])? };
        result.output(name.clone(), item);
    }
    Ok(result)
}

/// The graph inside the region, while it is made.
struct Body<'g> {
    graph: &'g Graph,
    result: Graph,
    region: u32,
    made: HashMap<Node, Node>,
}

impl Body<'_> {
    fn input(&mut self, name: &str, ty: Ty) -> Result<Node, GraphError> {
        self.result.add(Op::Input { name: name.to_owned(), ty, weight: false }, &[])
    }

    /// A parameter in the place of an input.
    fn param(&mut self, input: Node, index: usize, ty: &Ty) -> Result<Node, GraphError> {
        let op = Op::Param { region: self.region, index: index as u32, ty: ty.clone() };
        let param = self.result.add(op, &[])?;
        self.made.insert(input, param);
        Ok(param)
    }

    fn copy(&mut self, node: Node) -> Result<(), GraphError> {
        if self.made.contains_key(&node) {
            return Ok(());
        }
        let op = self.graph.op(node).moved(|node| self.made[&node], Dim::clone);
        let inputs: Vec<Node> = self.graph.inputs(node).iter().map(|node| self.made[node]).collect();
        let made = self.result.add(op, &inputs)?;
        self.made.insert(node, made);
        Ok(())
    }
}

/// The type with a further leading dimension.
fn with_leading(ty: &Ty, count: u64) -> Ty {
    match ty {
        Ty::Tensor { elem, shape } => {
            let shape = std::iter::once(Dim::Const(count)).chain(shape.iter().cloned()).collect();
            Ty::Tensor { elem: *elem, shape }
        }
        other => other.clone(),
    }
}
