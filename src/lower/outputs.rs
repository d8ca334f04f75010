//! The results of a program, brought to the forms that can be lowered: tables, and tensors of known size.

use super::context::Cx;
use super::error::{LowerError, Result};
use super::parameter::Parameter;
use super::relational;
use super::relational::tensors::Operands;
use super::{Lowered, Output, Update, tensor};
use crate::data::Catalog;
use quearn_stage::graph::{Dim, Graph, GraphError, Node, Op, Ty};

/// A graph in which results over the rows of a table are tables of one column.
pub fn as_tables(graph: &Graph) -> std::result::Result<Graph, GraphError> {
    let mut made = graph.clone();
    made.clear_outputs();
    for (name, node) in graph.outputs() {
        let rows = match graph.ty(*node) {
            Ty::Tensor { shape, .. } => match shape.first() {
                Some(Dim::Rows(table)) => Some(*table),
                _ => None,
            },
            _ => None,
        };
        let node = match rows {
            Some(table) => made.add(Op::Project { names: vec![name.clone()] }, &[table, *node])?,
            None => *node,
        };
        made.output(name.clone(), node);
    }
    Ok(made)
}

/// Lowers all results of a graph; the program gets these literals when it runs. With `stop_at_match` build sides of which only
/// the keys matter leave out rows whose key was found before.
pub fn lower(graph: &Graph, parameters: &[Parameter], catalog: &Catalog, stop_at_match: bool) -> Result<Lowered> {
    let mut cx = Cx::new(graph, parameters, catalog);
    cx.stop_at_match = stop_at_match;
    let mut outputs: Vec<Option<Output>> = vec![];
    let (mut tensors, mut over_tables) = (vec![], vec![]);
    for (index, (name, node)) in graph.outputs().iter().enumerate() {
        let output = match graph.ty(*node) {
            Ty::Table { .. } => Some(relational::output::lower(&cx, index, name, *node)?),
            Ty::Tensor { elem, shape }
                if shape.is_empty()
                    && reads_tables(graph, *node)
                    && relational::tensors::is_scalar_value(&cx, *node) =>
            {
                Some(relational::output::scalar(&cx, name, *elem, *node)?)
            }
            Ty::Tensor { .. } => {
                let results = if reads_tables(graph, *node) { &mut over_tables } else { &mut tensors };
                results.push((index, name.clone(), *node));
                None
            }
            Ty::Tuple(_) => {
                return Err(LowerError::Unsupported { node: cx.describe(*node), what: "a tuple as a result".into() });
            }
        };
        outputs.push(output);
    }
    if !tensors.is_empty() {
        tensor::lower_program(&cx, &tensors, Operands::default())?;
    }
    if !over_tables.is_empty() {
        let nodes: Vec<Node> = over_tables.iter().map(|(_, _, node)| *node).collect();
        // This program runs after the other, and reads the inputs as they were given.
        let read = reached(graph, &nodes);
        let updates = Update::of(graph).into_iter().filter(|(_, input)| read[input.index()]);
        cx.not_in_place(updates.map(|(update, _)| update.output));
        let operands = relational::tensors::operands(&cx, &nodes)?;
        tensor::lower_program(&cx, &over_tables, operands)?;
    }
    let outputs = outputs.into_iter().zip(graph.outputs());
    let outputs = outputs.map(|(output, (name, node))| output.unwrap_or_else(|| tensor_output(graph, name, *node)));
    let outputs = outputs.collect();
    Ok(cx.finish(outputs))
}

fn tensor_output(graph: &Graph, name: &str, node: Node) -> Output {
    match graph.ty(node) {
        Ty::Tensor { elem, shape } => Output::Tensor { name: name.to_owned(), elem: *elem, shape: shape.clone() },
        _ => unreachable!("only tensors are left to the tensor program"),
    }
}

fn reads_tables(graph: &Graph, node: Node) -> bool {
    let reached = reached(graph, &[node]);
    (0..graph.len() as u32).map(Node).any(|node| reached[node.index()] && matches!(graph.ty(node), Ty::Table { .. }))
}

/// Which nodes do these depend on? They themselves are among them.
fn reached(graph: &Graph, nodes: &[Node]) -> Vec<bool> {
    let mut seen = vec![false; graph.len()];
    let mut stack = nodes.to_vec();
    while let Some(node) = stack.pop() {
        if !std::mem::replace(&mut seen[node.index()], true) {
            stack.extend(graph.dependencies(node));
        }
    }
    seen
}
