//! Tensor operators on the rows of a pipeline: rows gather in a tile, the operators run on the whole tile, then the
//! pipeline goes on row by row.
//!
//! A tile belongs to a worker: columns that the operators read (their left operand, ready in place), rows with what the
//! rest of the pipeline needs, and scratch memory for intermediate tensors. Nothing else is written between the query
//! and the model.

use super::env::{Env, Place};
use super::expr::{cast, column, eval};
use super::join::directory::Access;
use super::join::flags::Marked;
use super::layout::RowLayout;
use super::lookup;
use super::pipeline::{self, Consume};
use super::tensors::is_stacked;
use super::value::{Repr, Value};
use crate::lower::context::{Cx, PipelineNote};
use crate::lower::error::{LowerError, Result};
use crate::lower::frame::{Slot, round_up, workers};
use crate::lower::moves::{Count, MoveKind, Stride};
use crate::lower::once::is_scalar_input;
use crate::lower::tensor::{self, TileBytes, View, storage};
use quearn_stage::graph::fails::can_fail;
use quearn_stage::graph::{Elem, Node, Op, Scalar, Ty as GraphTy};
use quearn_stage::low::{Builder, CastOp, FuncId, Prim, Ty, V};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// Bytes of intermediate tensors that a tile aims at: they stay in the second-level cache.
const TILE_BYTES: u64 = 1 << 20;

/// Rows of a tile whose rows are found by a key: mostly there is one, and the memory of a tile has to be cleared.
const FOUND: u64 = 8;

/// Bytes before the number of rows that a worker has handed on.
const ROWS_SEEN: i64 = 8;

/// Rows of the source that make a morsel, for each row of a tile: some are filtered out on the way.
const SOURCE_ROWS: i64 = 4;

/// Does the operation work on whole tensors, not on one value a row?
pub fn is_tensor_op(op: &Op) -> bool {
    matches!(
        op,
        Op::Iota(_)
            | Op::MatMul
            | Op::Conv2d(_)
            | Op::Conv2dFilters { .. }
            | Op::Pool2d(_)
            | Op::MaxUnpool2d(_)
            | Op::BatchNorm { .. }
            | Op::Softmax { .. }
            | Op::Concat { .. }
            | Op::Reduce { .. }
            | Op::Reshape(_)
            | Op::Transpose(_)
            | Op::Slice { .. }
            | Op::Broadcast(_)
            | Op::CumSum { .. }
            | Op::ArgMax { .. }
            | Op::TreeEnsemble(_)
            | Op::Gather
            | Op::ScatterAdd
            | Op::Stack
            | Op::Steps(_)
            | Op::Foreign { .. }
            | Op::Input { .. }
    )
}

fn shape_len(cx: &Cx<'_>, node: Node) -> usize {
    cx.graph.ty(node).as_tensor().map_or(0, |(_, shape)| shape.len())
}

/// Is the node a scalar that is known before any row: a constant, an input, the value of a table of one row, or made of such?
fn is_given(cx: &Cx<'_>, node: Node) -> bool {
    match cx.graph.op(node) {
        Op::Const(_) | Op::Single => true,
        Op::Input { .. } => is_scalar_input(cx.graph, node),
        op if is_tensor_op(op) || shape_len(cx, node) > 0 => false,
        Op::Param { .. } | Op::Column(_) => false,
        _ => cx.graph.inputs(node).iter().all(|input| is_given(cx, *input)),
    }
}

/// Is the node one value a row, computed from columns without tensor operators? Such nodes are the leaves of a tile.
pub fn is_row_value(cx: &Cx<'_>, node: Node) -> bool {
    match cx.graph.op(node) {
        Op::Column(_) => true,
        Op::Const(_) | Op::Param { .. } => false,
        op if is_tensor_op(op) => false,
        _ => {
            let inputs = cx.graph.inputs(node);
            shape_len(cx, node) == 1 && inputs.iter().all(|&i| is_given(cx, i) || is_row_value(cx, i))
        }
    }
}

/// Is the node in memory when the operators of a tile begin: one value a row, or such values side by side? Trees take their
/// features one by one, so theirs are not put side by side.
pub fn is_leaf(cx: &Cx<'_>, node: Node) -> bool {
    let graph = cx.graph;
    let feeds_trees = || {
        let mut nodes = (0..graph.len() as u32).map(Node);
        nodes.any(|user| matches!(graph.op(user), Op::TreeEnsemble(_)) && graph.inputs(user).contains(&node))
    };
    is_row_value(cx, node) || is_stacked(cx, node) && !feeds_trees()
}

/// The tensor operators behind the columns of a projection whose results are one value a row.
pub fn roots(cx: &Cx<'_>, project: Node) -> Vec<Node> {
    let Op::Project { names } = cx.graph.op(project) else { return vec![] };
    let inputs = &cx.graph.inputs(project)[1..];
    let needed = names.iter().zip(inputs).filter(|(name, _)| cx.needed.contains(project, name));
    let (mut found, mut tiled) = (BTreeSet::new(), HashMap::new());
    let mut stack: Vec<Node> = needed.map(|(_, e)| *e).collect();
    while let Some(node) = stack.pop() {
        if is_tiled(cx, node, &mut tiled) {
            found.insert(node);
        } else if !matches!(cx.graph.op(node), Op::Column(_)) {
            stack.extend(cx.graph.inputs(node));
        }
    }
    found.into_iter().collect()
}

/// Is the node computed for a whole tile: by tensor operators, and what is made of their results alone?
fn is_tiled(cx: &Cx<'_>, node: Node, known: &mut HashMap<Node, bool>) -> bool {
    let op = cx.graph.op(node);
    if is_scalar_input(cx.graph, node) {
        return false;
    }
    let from_steps = |n: &Node| matches!(cx.graph.op(*n), Op::Steps(_));
    if is_tensor_op(op) || shape_len(cx, node) > 1 || cx.graph.inputs(node).iter().any(from_steps) {
        return true;
    }
    if let Some(known) = known.get(&node) {
        return *known;
    }
    let of_numbers = |node: &Node| {
        let elem = cx.graph.ty(*node).as_tensor().map(|(elem, _)| elem);
        elem.is_some_and(|elem| !elem.nullable && (elem.scalar.is_int() || elem.scalar.is_float()))
    };
    let elementwise = matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_));
    let inputs = cx.graph.inputs(node);
    // A comparison gives truth values; what is chosen by it may be numbers.
    let comparison = matches!(op, Op::Compare(_)) && inputs.iter().all(of_numbers);
    let tiled = (comparison || elementwise && of_numbers(&node))
        && shape_len(cx, node) == 1
        && inputs.iter().all(|input| {
            matches!(cx.graph.op(*input), Op::Const(_))
                || is_scalar_input(cx.graph, *input)
                || is_tiled(cx, *input, known)
        });
    known.insert(node, tiled);
    tiled
}

/// A column of a tile that tensor operators read, or several of them side by side.
struct Leaf {
    node: Node,
    /// What is stored for a row, one after the other.
    parts: Vec<Node>,
    elem: Scalar,
    prim: Prim,
    /// Offset of the column in the worker's memory.
    offset: i64,
}

impl Leaf {
    /// Bytes of a row.
    fn width(&self) -> i64 {
        (self.parts.len() * self.prim.bytes()) as i64
    }

    /// The leaf in a tile's memory.
    fn view<'b>(&self, tile: V<'b>) -> View<'b> {
        let base = tile.at(self.offset);
        if self.parts == [self.node] {
            return View { base, elem: self.elem, strides: vec![self.width()], inner: vec![] };
        }
        let strides = vec![self.width(), self.prim.bytes() as i64];
        View { base, elem: self.elem, strides, inner: vec![self.parts.len() as u64] }
    }
}

/// What the rest of the pipeline needs of a row.
struct Kept {
    table: Node,
    name: String,
    elem: Elem,
}

struct Tile {
    roots: Vec<Node>,
    leaves: Vec<Leaf>,
    kept: Vec<Kept>,
    rows: i64,
    arena: i64,
    rows_at: i64,
    /// Slot with the address of the first worker's memory.
    memory: Slot,
    /// Slot with the distance to the next worker's.
    stride: Slot,
}

/// Bytes of a column and of what separates it from the next one: the elements of a row are written side by side, and would
/// push one another out of the first-level cache at distances that are multiples of a page.
fn apart(bytes: i64) -> i64 {
    if bytes % 1024 == 0 { bytes + 64 } else { bytes }
}

fn unsupported(cx: &Cx<'_>, node: Node, what: &str) -> LowerError {
    LowerError::Unsupported { node: cx.describe(node), what: what.to_owned() }
}

/// Rows of a tile: as many as keep its intermediate tensors small. A network that takes its rows one by one in the same
/// memory has much to compute for each: a few rows are work enough, and more would leave too few tiles to share out.
fn tile_rows(cx: &Cx<'_>, project: Node, roots: &[Node]) -> Result<i64> {
    let bytes = TileBytes::of(cx, roots)?;
    let each = bytes.arena(2).saturating_sub(bytes.arena(1)).max(1);
    let most = if lookup::at_source(cx, project).is_some() { FOUND } else { 1024 };
    Ok((TILE_BYTES / each).clamp(4, most).min(tensor::tile_row_limit(cx, roots)) as i64)
}

/// Rows of the source in a morsel of a pipeline with this projection.
pub fn source_rows(cx: &Cx<'_>, project: Node) -> Result<i64> {
    Ok(tile_rows(cx, project, &roots(cx, project))? * SOURCE_ROWS)
}

impl Tile {
    fn plan(cx: &Cx<'_>, project: Node) -> Result<Tile> {
        let roots = roots(cx, project);
        if let Some(root) = roots.iter().find(|r| shape_len(cx, **r) != 1) {
            return Err(unsupported(cx, *root, "a tensor (more than one value a row) as a column"));
        }
        let rows = tile_rows(cx, project, &roots)?;
        let mut at = 64;
        let mut leaves = vec![];
        for node in leaf_nodes(cx, &roots) {
            let GraphTy::Tensor { elem, shape } = cx.graph.ty(node) else { continue };
            let is_row = is_row_value(cx, node);
            if is_row && shape.len() != 1 || elem.nullable {
                return Err(unsupported(
                    cx,
                    node,
                    "a column of tensors or of NULLs as an operand of a tensor operator",
                ));
            }
            let wrong = || unsupported(cx, node, "a column of this type as an operand of a tensor operator");
            let prim = storage(elem.scalar).ok_or_else(wrong)?;
            let parts = if is_row { vec![node] } else { cx.graph.inputs(node).to_vec() };
            let leaf = Leaf { node, parts, elem: elem.scalar, prim, offset: at };
            at += apart(round_up(rows * leaf.width(), 64));
            leaves.push(leaf);
        }
        let arena = at;
        at = round_up(at + TileBytes::of(cx, &roots)?.arena(rows as u64) as i64, 64);
        let (memory, stride) = (cx.frame.slot(Ty::PTR), cx.frame.slot(Ty::I64));
        Ok(Tile { roots, leaves, kept: kept(cx, project), rows, arena, rows_at: at, memory, stride })
    }

    /// The worker's memory: a row count, the number of rows that were handed on, then what `plan` laid out.
    fn of<'b>(&self, b: &'b Builder, frame: V<'b>, worker: V<'b>) -> V<'b> {
        let stride = self.stride.get(b, frame);
        self.memory.get(b, frame).index(worker * stride, 1)
    }

    /// Bytes that are written for a row: operands, what is kept, tensors.
    fn row_bytes(&self, cx: &Cx<'_>, layout: &RowLayout) -> Result<u64> {
        let leaves: u64 = self.leaves.iter().map(|leaf| leaf.width() as u64).sum();
        Ok(leaves + layout.width() as u64 + TileBytes::of(cx, &self.roots)?.row())
    }

    fn allocate(&self, cx: &Cx<'_>, layout: &RowLayout, operator: &str) {
        let bytes = round_up(self.rows_at + self.rows * layout.width(), 64);
        let (memory, stride, operator) = (self.memory, self.stride, operator.to_owned());
        cx.step(move |cx, b, frame| {
            stride.set(b, frame, b.i64(bytes));
            memory.set(b, frame, cx.alloc(b, frame, workers(b, frame) * bytes, &operator));
        });
    }

    /// Writes the current row into the tile at position `n`; the layout of rows is made with the first one.
    fn append<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, tile: V<'b>, n: V<'b>, layout: &mut RowLayout) -> Result<()> {
        let b = env.b;
        for leaf in &self.leaves {
            let at = tile.at(leaf.offset).index(n, leaf.width());
            for (i, part) in leaf.parts.iter().enumerate() {
                b.store(at, (i * leaf.prim.bytes()) as i64, leaf_value(eval(cx, env, *part)?, leaf.prim));
            }
        }
        let mut values = vec![];
        for kept in &self.kept {
            values.push(column::column(cx, env, kept.table, &kept.name)?);
        }
        if layout.fields.is_empty() {
            for (kept, value) in self.kept.iter().zip(&values) {
                layout.add(&kept.name, kept.elem, value);
            }
        }
        let row = tile.at(self.rows_at).index(n, layout.width());
        for (field, value) in layout.fields.iter().zip(&values) {
            field.store(b, row, value);
        }
        Ok(())
    }

    /// The function that runs the operators on a tile and hands its rows on.
    fn flush(&self, cx: &Cx<'_>, layout: &RowLayout, consume: &mut Consume<'_>) -> Result<FuncId> {
        let mut outcome = Ok(());
        let func = cx.task("tile", |b, frame, worker, _, hi| {
            outcome = self.hand_on(cx, &Env::new(b, frame, worker), hi, layout, consume);
        });
        outcome?;
        Ok(func)
    }

    fn hand_on<'b>(
        &self,
        cx: &Cx<'_>,
        env: &Env<'b>,
        n: V<'b>,
        layout: &RowLayout,
        consume: &mut Consume<'_>,
    ) -> Result<()> {
        let b = env.b;
        let tile = self.of(b, env.frame, env.worker);
        let leaf = |node: Node| Some(self.leaves.iter().find(|l| l.node == node)?.view(tile));
        let views = tensor::lower_tile(cx, b, env.frame, tile.at(self.arena), n, &self.roots, &leaf)?;
        pipeline::for_each(b, (b.i64(0), n), |i| {
            let row = tile.at(self.rows_at).index(i, layout.width());
            let mut env = self.bind(env, row, layout);
            for (root, view) in self.roots.iter().zip(&views) {
                env.remember(*root, element(cx, b, *root, view, i)?);
            }
            env = env.branch();
            consume(&env)
        })
    }

    /// The environment in which the kept columns of every table are at hand.
    fn bind<'b>(&self, env: &Env<'b>, row: V<'b>, layout: &RowLayout) -> Env<'b> {
        let tables: BTreeSet<Node> = self.kept.iter().map(|k| k.table).collect();
        tables.into_iter().fold(env.branch(), |env, table| {
            let kept = self.kept.iter().zip(&layout.fields).filter(|(k, _)| k.table == table);
            let values = kept.map(|(k, field)| (k.name.clone(), field.load(env.b, row, None))).collect();
            env.bind(table, Place::Values(Rc::new(values)))
        })
    }
}

/// The machine value in the type that tensors store.
pub fn leaf_value<'b>(value: Value<'b>, prim: Prim) -> V<'b> {
    let v = value.scalar();
    match (v.ty().prim, prim) {
        (from, to) if from == to => v,
        (from, to) if from.is_float() && to.is_float() => {
            v.cast(if to.bytes() < from.bytes() { CastOp::FpTrunc } else { CastOp::FpExt }, to)
        }
        (_, to) => v.sext(to),
    }
}

/// The value of a root for one row of a tile.
fn element<'b>(cx: &Cx<'_>, b: &'b Builder, root: Node, view: &View<'b>, row: V<'b>) -> Result<Value<'b>> {
    let prim = storage(view.elem).ok_or_else(|| unsupported(cx, root, "this type as a column"))?;
    let v = b.load(Ty::scalar(prim), view.base.index(row, view.strides[0]), 0);
    // The position of a largest element lies inside its axis: the keys of a group-by can index an array.
    let range = match cx.graph.op(root) {
        Op::ArgMax { axis } => {
            let (_, shape) = cx.graph.ty(cx.graph.inputs(root)[0]).as_tensor().unwrap_or((view.elem.required(), &[]));
            shape.get(*axis).and_then(|d| d.as_const()).map(|n| super::value::Range::new(0, n.max(1) as i128 - 1))
        }
        _ => None,
    };
    Ok(in_range(view.elem, v, range))
}

/// A value as tensors store it.
pub fn of_tensor(elem: Scalar, v: V<'_>) -> Value<'_> {
    in_range(elem, v, None)
}

fn in_range(elem: Scalar, v: V<'_>, range: Option<super::value::Range>) -> Value<'_> {
    let v = match elem {
        Scalar::U8 => v.zext(Prim::I32),
        Scalar::F16 | Scalar::BF16 => v.cast(CastOp::FpExt, Prim::F32),
        _ => v,
    };
    let value = match range.or(super::value::Range::of(elem)) {
        Some(range) => Value::int(v, range),
        None => Value::prim(v),
    };
    match value.repr {
        Repr::Prim(_) if range.is_none() => cast::widest(value, elem.required()),
        _ => value,
    }
}

fn leaf_nodes(cx: &Cx<'_>, roots: &[Node]) -> BTreeSet<Node> {
    let (mut leaves, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut stack = roots.to_vec();
    while let Some(node) = stack.pop() {
        if !seen.insert(node) {
            continue;
        }
        if is_leaf(cx, node) {
            leaves.insert(node);
        } else {
            stack.extend(cx.graph.dependencies(node));
        }
    }
    leaves
}

/// Needed columns of the projection's input and of the projections below it, which have the same rows.
fn kept(cx: &Cx<'_>, project: Node) -> Vec<Kept> {
    let mut all = vec![];
    let mut table = project;
    while matches!(cx.graph.op(table), Op::Project { .. }) {
        table = cx.graph.inputs(table)[0];
        for field in column::fields(cx, table) {
            if cx.needed.contains(table, &field.name) && field.shape.is_empty() {
                all.push(Kept { table, name: field.name.clone(), elem: field.elem });
            }
        }
    }
    all
}

/// Produces the rows of a projection with tensor operators; of those whose key a build side has `marked` already, none.
pub fn produce<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    project: Node,
    range: (V<'b>, V<'b>),
    marked: Option<&Marked>,
    consume: &mut Consume<'_>,
) -> Result<()> {
    let tile = Tile::plan(cx, project)?;
    let input = cx.graph.inputs(project)[0];
    let mut layout = RowLayout::default();
    let mut flush = None;
    let leaves: Vec<Node> = tile.leaves.iter().flat_map(|leaf| leaf.parts.iter().copied()).collect();
    let marked = marked.filter(|marked| marked.ends_early(cx, project, &leaves));
    let failing: Vec<Node> = leaves.iter().copied().filter(|leaf| can_fail(cx.graph, *leaf)).collect();
    let mut add = |env: &Env<'_>| -> Result<()> {
        let b = env.b;
        let memory = tile.of(b, env.frame, env.worker);
        let n = b.load(Ty::I64, memory, 0);
        tile.append(cx, env, memory, n, &mut layout)?;
        b.store(memory, 0, n + 1);
        let func = tile.flush(cx, &layout, consume)?;
        flush = Some(func);
        let full = (n + 1).eq(b.i64(tile.rows));
        b.if_(full, || run_tile(b, env.frame, memory, func, b.i64(tile.rows)));
        Ok(())
    };
    pipeline::produce(cx, env, input, range, &leaves, &mut |env| match marked {
        Some(marked) => {
            // Whether a program fails does not depend on which of its rows came first.
            failing.iter().try_for_each(|leaf| eval(cx, env, *leaf).map(|_| ()))?;
            pipeline::when(env.b, marked.wants(cx, env)?, || add(&env.branch()))
        }
        None => add(env),
    })?;
    let func = flush.ok_or_else(|| unsupported(cx, project, "a projection of no rows"))?;
    let (b, frame) = (env.b, env.frame);
    let memory = tile.of(b, frame, env.worker);
    let rest = b.load(Ty::I64, memory, 0);
    b.if_(rest.gt(b.i64(0)), || run_tile(b, frame, memory, func, rest));
    let operator = format!("the tile of {}", cx.describe(project));
    tile.allocate(cx, &layout, &operator);
    let bytes = tile.rows_at + tile.rows * layout.width();
    cx.classify(&operator, None);
    let rows = Count::Workers {
        memory: tile.memory,
        stride: Stride::Slot(tile.stride),
        offset: ROWS_SEEN,
        bytes: tile.row_bytes(cx, &layout)?,
    };
    cx.moved(&operator, MoveKind::Tile, rows);
    cx.note(PipelineNote {
        name: "tile".to_owned(),
        scans: None,
        once: false,
        fused: tile.roots.iter().map(|r| cx.describe(*r)).collect(),
        materialised: vec![format!("{operator}: {} rows, {bytes} bytes a worker{}", tile.rows, found(marked))],
    });
    Ok(())
}

/// Which rows do not come, for `explain`.
fn found(marked: Option<&Marked>) -> &'static str {
    let ends = marked.is_some_and(|marked| matches!(marked.access(), Some(Access::Flags(_))));
    if ends { ", none whose key was found" } else { "" }
}

/// Runs the operators on a tile of `n` rows, on this worker, and empties it.
fn run_tile<'b>(b: &'b Builder, frame: V<'b>, memory: V<'b>, func: FuncId, n: V<'b>) {
    b.store(memory, 0, b.i64(0));
    b.store(memory, ROWS_SEEN, b.load(Ty::I64, memory, ROWS_SEEN) + n);
    b.par_for(func, frame, n, n);
}
