//! Values of tables as operands of a tensor program: rows are written out once, side by side, before it runs.
//!
//! What is one value a row (or several stacked) becomes a part of a row in memory, a scalar a place of its own. The
//! rows of a table come in any order, the same for all operands.

use super::batch::{is_row_value, is_tensor_op};
use super::env::Env;
use super::expr::eval;
use super::materialise::{self, Lists};
use super::pipeline::{self, Sink};
use super::products;
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use crate::lower::frame::{Slot, round_up};
use crate::lower::moves::MoveKind;
use crate::lower::once::is_scalar_input;
use crate::lower::tensor::storage;
use quearn_stage::graph::{Dim, Node, Op};
use quearn_stage::low::{Prim, Ty, V};
use std::collections::{BTreeMap, BTreeSet};

/// An operand in memory.
#[derive(Clone, Debug)]
pub struct Operand {
    /// Slot with an address.
    pub base: Slot,
    /// Bytes from there to the first element.
    pub offset: i64,
    /// Bytes from one element to the next, for each axis.
    pub strides: Vec<i64>,
}

/// What a tensor program reads of tables.
#[derive(Default)]
pub struct Operands {
    /// By node.
    pub leaves: BTreeMap<Node, Operand>,
    /// The dimension of the rows, and the slot with their number.
    pub rows: Option<(Dim, Slot)>,
}

/// Can a scalar be computed without tensor operators?
pub fn is_scalar_value(cx: &Cx<'_>, node: Node) -> bool {
    match cx.graph.op(node) {
        Op::Single => true,
        Op::Input { .. } if is_scalar_input(cx.graph, node) => true,
        op if is_tensor_op(op) => false,
        _ => cx.graph.inputs(node).iter().all(|input| is_scalar_value(cx, *input)),
    }
}

/// Emits what computes the operands of a tensor program with these results, and tells where they are.
pub fn operands(cx: &Cx<'_>, results: &[Node]) -> Result<Operands> {
    let Leaves { rows, scalars, products } = leaves(cx, results);
    let mut operands = Operands::default();
    for (node, of) in products {
        operands.leaves.insert(node, products::lower(cx, node, of)?);
    }
    if !scalars.is_empty() {
        scalars_to(cx, &scalars, &mut operands)?;
    }
    if !rows.is_empty() {
        rows_to(cx, &rows, &mut operands)?;
    }
    Ok(operands)
}

/// What a tensor program is given.
#[derive(Default)]
struct Leaves {
    /// A value for each row of a table, or several.
    rows: BTreeSet<Node>,
    /// Scalars.
    scalars: BTreeSet<Node>,
    /// Products that sum over rows, with their operands.
    products: BTreeMap<Node, [Node; 2]>,
}

fn leaves(cx: &Cx<'_>, results: &[Node]) -> Leaves {
    let (mut leaves, mut seen) = (Leaves::default(), BTreeSet::new());
    let mut stack = results.to_vec();
    while let Some(node) = stack.pop() {
        if !seen.insert(node) {
            continue;
        }
        if is_table_scalar(cx, node) {
            leaves.scalars.insert(node);
        } else if is_row_value(cx, node) || is_stacked(cx, node) {
            leaves.rows.insert(node);
        } else if let Some(operands) = products::operands(cx, node, |operand| is_stacked(cx, operand)) {
            leaves.products.insert(node, operands);
        } else {
            stack.extend(cx.graph.dependencies(node));
        }
    }
    leaves
}

/// Is the node a scalar that comes from tables, and needs no tensor operator?
fn is_table_scalar(cx: &Cx<'_>, node: Node) -> bool {
    let is_scalar = cx.graph.ty(node).as_tensor().is_some_and(|(_, shape)| shape.is_empty());
    is_scalar && is_scalar_value(cx, node) && reads_single(cx, node)
}

fn reads_single(cx: &Cx<'_>, node: Node) -> bool {
    *cx.graph.op(node) == Op::Single || cx.graph.inputs(node).iter().any(|input| reads_single(cx, *input))
}

/// Is the node values of one row side by side?
pub fn is_stacked(cx: &Cx<'_>, node: Node) -> bool {
    *cx.graph.op(node) == Op::Stack && cx.graph.inputs(node).iter().all(|input| is_row_value(cx, *input))
}

fn unsupported(cx: &Cx<'_>, node: Node, what: &str) -> LowerError {
    LowerError::Unsupported { node: cx.describe(node), what: what.to_owned() }
}

/// How the elements of an operand are stored.
pub(super) fn element(cx: &Cx<'_>, node: Node) -> Result<Prim> {
    let elem = cx.graph.ty(node).as_tensor().map(|(elem, _)| elem);
    let prim = elem.filter(|elem| !elem.nullable).and_then(|elem| storage(elem.scalar));
    prim.ok_or_else(|| unsupported(cx, node, "a value of this type (or NULL) as an operand of a tensor program"))
}

/// The value of a scalar or row expression, as it is stored.
pub(super) fn value<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node) -> Result<V<'b>> {
    let prim = element(cx, node)?;
    Ok(super::batch::leaf_value(eval(cx, env, node)?, prim))
}

fn scalars_to(cx: &Cx<'_>, scalars: &BTreeSet<Node>, operands: &mut Operands) -> Result<()> {
    const UNIT: i64 = 16;
    cx.classify(SCALARS, Some(MoveKind::Border));
    let memory = cx.frame.slot(Ty::PTR);
    let bytes = UNIT * scalars.len() as i64;
    let mut outcome = Ok(());
    let func = cx.task_over("scalars", 1.0, |b, frame, worker, _, _| {
        let env = Env::new(b, frame, worker);
        outcome = scalars.iter().zip(0..).try_for_each(|(node, at)| {
            b.store(memory.get(b, frame), UNIT * at, value(cx, &env, *node)?);
            Ok(())
        });
    });
    outcome?;
    cx.step(move |cx, b, frame| {
        memory.set(b, frame, cx.alloc(b, frame, b.i64(bytes), SCALARS));
        b.par_for(func, frame, b.i64(1), b.i64(1));
    });
    let places =
        scalars.iter().zip(0..).map(|(node, at)| (*node, Operand { base: memory, offset: UNIT * at, strides: vec![] }));
    operands.leaves.extend(places);
    Ok(())
}

/// A value of a row and its place there.
struct Field {
    node: Node,
    offset: i64,
}

/// Writes rows of operands.
struct Gather {
    fields: Vec<Field>,
    width: i64,
    lists: Lists,
}

const OPERATOR: &str = "rows of a tensor program";
const SCALARS: &str = "scalars of a tensor program";

impl Sink for Gather {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let b = env.b;
        let values = self.fields.iter().map(|field| value(cx, env, field.node)).collect::<Result<Vec<_>>>()?;
        let list = self.lists.of(b, env.frame, env.worker);
        let row = materialise::append(cx, b, env.frame, list, self.width, OPERATOR);
        self.fields.iter().zip(values).for_each(|(field, value)| b.store(row, field.offset, value));
        Ok(())
    }

    fn expressions(&self, _: &Cx<'_>) -> Vec<Node> {
        self.fields.iter().map(|field| field.node).collect()
    }

    fn describe(&self) -> String {
        format!("{OPERATOR}: {} bytes a row, copied at the border", self.width)
    }
}

fn rows_to(cx: &Cx<'_>, rows: &BTreeSet<Node>, operands: &mut Operands) -> Result<()> {
    let dim = rows.first().and_then(|node| leading(cx, *node));
    if let Some(other) = rows.iter().find(|node| leading(cx, **node) != dim) {
        return Err(unsupported(cx, *other, "rows of a second table in one tensor program"));
    }
    let (mut fields, mut places, mut width) = (vec![], vec![], 0);
    for &node in rows {
        let unit = element(cx, node)?.bytes() as i64;
        width = round_up(width, unit);
        let parts = if is_row_value(cx, node) { &[node][..] } else { cx.graph.inputs(node) };
        let strides = if is_row_value(cx, node) { vec![] } else { vec![unit] };
        places.push((node, width, strides));
        fields.extend(parts.iter().zip(0..).map(|(part, at)| Field { node: *part, offset: width + unit * at }));
        width += unit * parts.len() as i64;
    }
    let width = round_up(width, 16);
    let table = table_of(cx, rows).ok_or_else(|| unsupported(cx, fields[0].node, "rows of no table"))?;
    cx.classify(OPERATOR, Some(MoveKind::Border));
    let lists = Lists::new(cx, OPERATOR);
    pipeline::run(cx, "rows", table, &mut Gather { fields, width, lists })?;
    let (base, count) = materialise::concat(cx, lists, width, OPERATOR);
    operands.leaves.extend(places.into_iter().map(|(node, offset, inner)| {
        let strides = std::iter::once(width).chain(inner).collect();
        (node, Operand { base, offset, strides })
    }));
    operands.rows = dim.map(|dim| (dim, count));
    Ok(())
}

fn leading(cx: &Cx<'_>, node: Node) -> Option<Dim> {
    cx.graph.ty(node).as_tensor().and_then(|(_, shape)| shape.first().cloned())
}

/// The last of the tables over the same rows whose columns are read: the others are below it.
pub(super) fn table_of(cx: &Cx<'_>, rows: &BTreeSet<Node>) -> Option<Node> {
    let (mut last, mut stack) = (None, rows.iter().copied().collect::<Vec<_>>());
    while let Some(node) = stack.pop() {
        match cx.graph.op(node) {
            Op::Column(_) => last = last.max(Some(cx.graph.inputs(node)[0])),
            _ => stack.extend(cx.graph.inputs(node)),
        }
    }
    last
}
