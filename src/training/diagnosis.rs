//! Where a loss that is not finite comes from.

use crate::eval::{self, EvalValue, Inputs};
use quearn_stage::graph::{Graph, Node, Op};
use std::collections::HashSet;

/// The first operator that makes a NaN or infinite value of finite ones, or the input that has one, in words. The graph is
/// evaluated node by node, slowly.
pub(super) fn first_not_finite(graph: &Graph, inputs: &Inputs) -> String {
    let floats = floats(graph);
    let mut all = graph.clone();
    all.clear_outputs();
    floats.iter().for_each(|node| all.output(node.to_string(), *node));
    let values = match eval::evaluate(&all, inputs) {
        Ok(values) => values,
        Err(error) => return format!("an operator that fails: {error}"),
    };
    let bad: HashSet<Node> =
        floats.iter().zip(&values).filter(|(_, (_, value))| !is_finite(value)).map(|(node, _)| *node).collect();
    let made = |node: &&Node| bad.contains(node) && !graph.inputs(**node).iter().any(|input| bad.contains(input));
    match floats.iter().find(made) {
        Some(node) => describe(graph, *node),
        None => "no operator that the evaluator finds; its sums are more exact than those of compiled code".to_owned(),
    }
}

/// The float tensors that have a value outside of loops, inputs before users; infinite constants are meant.
fn floats(graph: &Graph) -> Vec<Node> {
    let mut inside = HashSet::new();
    let mut floats = vec![];
    let mut nodes = graph.reachable();
    nodes.sort_unstable();
    for node in nodes {
        let op = graph.op(node);
        if matches!(op, Op::Param { .. }) || graph.inputs(node).iter().any(|input| inside.contains(input)) {
            inside.insert(node);
            continue;
        }
        let is_float = graph.ty(node).as_tensor().is_some_and(|(elem, _)| elem.scalar.is_float());
        if is_float && !matches!(op, Op::Const(_)) {
            floats.push(node);
        }
    }
    floats
}

fn is_finite(value: &EvalValue) -> bool {
    value.tensor().as_floats().iter().all(|x| x.is_finite())
}

fn describe(graph: &Graph, node: Node) -> String {
    if let Op::Input { name, .. } = graph.op(node) {
        return format!("\"{name}\", which is not finite itself");
    }
    let operand = |input: &Node| match graph.op(*input) {
        Op::Input { name, .. } => format!("\"{name}\""),
        op => format!("{} {input}", op.name()),
    };
    let operands: Vec<String> = graph.inputs(node).iter().map(operand).collect();
    format!("{} {node}: {} of {}", graph.op(node).name(), graph.ty(node), operands.join(", "))
}
