//! The adjoint of a stored column below filters: that of the rows which pass, and zero for the others.
//!
//! What is computed row by row over the rows of a filter is computed over those of its input just as well.

use super::Error;
use super::emit::Emit;
use quearn_stage::graph::{Dim, Node, Op};
use std::collections::{BTreeSet, HashMap};

/// A value over the rows of a table as one over those of the stored table below it; nothing if there is more than filters
/// between them, or the value is not computed row by row.
pub(super) fn below_filters(e: &mut Emit<'_>, table: Node, value: Node) -> Result<Option<Node>, Error> {
    let (mut table, mut value) = (table, value);
    loop {
        let inputs = e.graph.inputs(table).to_vec();
        match e.graph.op(table) {
            Op::Filter => {
                let Some(moved) = moved(e, value, table, inputs[0])? else { return Ok(None) };
                let passes = inputs[1];
                value = e.only(passes, moved)?;
                table = inputs[0];
            }
            Op::Project { .. } => table = inputs[0],
            Op::Scan { .. } => return Ok(Some(value)),
            _ => return Ok(None),
        }
    }
}

/// A value over the rows of a filter over the rows of its input.
fn moved(e: &mut Emit<'_>, value: Node, from: Node, to: Node) -> Result<Option<Node>, Error> {
    let rows = Dim::Rows(from);
    let Some(to_rows) = e.graph.ty(to).as_table().map(|(_, rows)| rows.clone()) else { return Ok(None) };
    let mut made: HashMap<Node, Node> = HashMap::new();
    for node in over(e, value, &rows) {
        let inputs = e.graph.inputs(node).to_vec();
        let op = match e.graph.op(node).clone() {
            Op::Column(name) if inputs[0] == from => {
                made.insert(node, e.node(Op::Column(name), &[to])?);
                continue;
            }
            op if !works_by_row(e, &op, &inputs, &rows) => return Ok(None),
            Op::Reshape(dims) => Op::Reshape(replaced(dims, &rows, &to_rows)),
            Op::Broadcast(dims) => Op::Broadcast(replaced(dims, &rows, &to_rows)),
            op => op,
        };
        let inputs: Vec<Node> = inputs.iter().map(|n| made.get(n).copied().unwrap_or(*n)).collect();
        made.insert(node, e.node(op, &inputs)?);
    }
    Ok(Some(made.get(&value).copied().unwrap_or(value)))
}

fn replaced(dims: Vec<Dim>, from: &Dim, to: &Dim) -> Vec<Dim> {
    dims.into_iter().map(|dim| if dim == *from { to.clone() } else { dim }).collect()
}

/// The nodes over these rows that a value is made of, inputs before users.
fn over(e: &Emit<'_>, value: Node, rows: &Dim) -> BTreeSet<Node> {
    let (mut nodes, mut stack) = (BTreeSet::new(), vec![value]);
    while let Some(node) = stack.pop() {
        if e.shape(node).contains(rows) && nodes.insert(node) && !matches!(e.graph.op(node), Op::Column(_)) {
            stack.extend(e.graph.inputs(node));
        }
    }
    nodes
}

/// Does each row of the result depend on that row of the operands only?
fn works_by_row(e: &Emit<'_>, op: &Op, inputs: &[Node], rows: &Dim) -> bool {
    match op {
        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::If | Op::Cast(_) | Op::Stack => true,
        Op::Reshape(dims) | Op::Broadcast(dims) => {
            dims.first() == Some(rows) && inputs.iter().all(|n| e.shape(*n).first() == Some(rows))
        }
        Op::Reduce { axes, .. } => !axes.contains(&0),
        Op::MatMul => !e.shape(inputs[1]).contains(rows),
        _ => false,
    }
}
