//! Small questions about expressions, and conjunctions taken apart and put together.

use super::patch::Patch;
pub use quearn_stage::graph::fails::{has_column, projected};
use quearn_stage::graph::{Aggregate, AggregateOp, BinaryOp, Dim, Graph, Node, Op, Ty};
use std::collections::HashSet;

/// Does the operation work on one element at a time, with broadcasting?
pub fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_))
        || matches!(op, Op::Like(_) | Op::Substring { .. } | Op::Clean(_) | Op::Hash | Op::If)
}

/// The parts of a predicate that all must be true.
pub fn conjuncts(graph: &Graph, predicate: Node) -> Vec<Node> {
    let mut parts = vec![];
    let mut stack = vec![predicate];
    while let Some(node) = stack.pop() {
        match graph.op(node) {
            Op::Binary(BinaryOp::And) => stack.extend(graph.inputs(node).iter().rev()),
            _ if parts.contains(&node) => {}
            _ => parts.push(node),
        }
    }
    parts
}

/// The predicate that is true where all parts are; `None` if there are none.
pub fn conjunction(patch: &mut Patch, parts: &[Node]) -> Option<Node> {
    let (first, rest) = parts.split_first()?;
    Some(rest.iter().fold(*first, |all, part| patch.add(Op::Binary(BinaryOp::And), &[all, *part])))
}

/// `table` filtered by all parts, or `table` itself if there are none.
pub fn filtered(patch: &mut Patch, table: Node, parts: &[Node]) -> Node {
    match conjunction(patch, parts) {
        Some(predicate) => patch.add(Op::Filter, &[table, predicate]),
        None => table,
    }
}

/// The row dimension of a table.
pub fn rows_of(graph: &Graph, table: Node) -> Option<&Dim> {
    graph.ty(table).as_table().map(|(_, rows)| rows)
}

/// The projections on top of each other from `table` down, and the table below them, which makes their rows.
pub fn projections(graph: &Graph, table: Node) -> (Vec<Node>, Node) {
    let (mut chain, mut base) = (vec![], table);
    while matches!(graph.op(base), Op::Project { .. }) {
        chain.push(base);
        base = graph.inputs(base)[0];
    }
    (chain, base)
}

/// Does an expression hold a tensor operator, that is, more than columns, constants, inputs and elementwise operations
/// (columns of projections looked through)?
pub fn is_model(graph: &Graph, expression: Node) -> bool {
    let mut seen = HashSet::new();
    let mut stack = vec![expression];
    while let Some(node) = stack.pop() {
        if !seen.insert(node) {
            continue;
        }
        match graph.op(node) {
            Op::Column(name) => stack.extend(projected(graph, graph.inputs(node)[0], name)),
            // What happens inside another table is not work of this one.
            Op::Single | Op::Const(_) | Op::Input { .. } | Op::Param { .. } => {}
            op if is_elementwise(op) => stack.extend(graph.inputs(node)),
            _ => return true,
        }
    }
    false
}

/// The aggregates of an aggregation with their arguments.
pub fn arguments<'g>(
    graph: &'g Graph,
    node: Node,
    keys: usize,
    aggregates: &'g [Aggregate],
) -> impl Iterator<Item = (&'g Aggregate, Option<Node>)> {
    let mut operands = graph.inputs(node)[1 + keys..].iter();
    aggregates.iter().map(move |a| {
        let argument = if a.op == AggregateOp::CountRows { None } else { operands.next().copied() };
        (a, argument)
    })
}

/// Does the type mention the dimension?
pub fn mentions(ty: &Ty, dim: &Dim) -> bool {
    match ty {
        Ty::Tensor { shape, .. } => shape.contains(dim),
        Ty::Table { rows, .. } => rows == dim,
        Ty::Tuple(items) => items.iter().any(|item| mentions(item, dim)),
    }
}

/// Is somewhere in the expressions a value without these rows computed from one that has them?
pub fn fold_rows(graph: &Graph, expressions: &[Node], rows: &Dim) -> bool {
    let has_rows = |node: Node| mentions(graph.ty(node), rows);
    let mut seen = HashSet::new();
    let mut stack = expressions.to_vec();
    while let Some(node) = stack.pop() {
        // Below a column is another table's work.
        if matches!(graph.op(node), Op::Column(_)) || !seen.insert(node) {
            continue;
        }
        let inputs = graph.inputs(node);
        if !has_rows(node) && inputs.iter().any(|&input| has_rows(input)) {
            return true;
        }
        stack.extend(inputs);
    }
    false
}

/// Is the tensor made from weights and constants only?
pub fn is_weight(graph: &Graph, node: Node) -> bool {
    let mut seen = HashSet::new();
    let mut stack = vec![node];
    while let Some(node) = stack.pop() {
        match graph.op(node) {
            Op::Input { weight: false, .. } | Op::Param { .. } | Op::Column(_) => return false,
            _ if seen.insert(node) => stack.extend(graph.dependencies(node)),
            _ => {}
        }
    }
    true
}
