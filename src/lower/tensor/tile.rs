//! Tensor operators inside a query pipeline: the rows of a tile are the items of a tensor program.

use super::plan::{Place, Plan};
use super::program::{Pass, Program, Schedule, Source, layouts, needed, schedule, written};
use super::spec::{Size, storage};
use super::stage::{Functions, Param};
use super::target::Target;
use crate::lower::Cx;
use crate::lower::error::LowerError;
use quearn_stage::graph::{Node, Scalar};
use quearn_stage::low::{Builder, V};
use std::collections::HashMap;
use std::rc::Rc;

type Result<T> = std::result::Result<T, LowerError>;

/// A tensor over the rows of a tile, in memory.
#[derive(Clone)]
pub struct View<'b> {
    /// Address of the first element of the first row.
    pub base: V<'b>,
    /// Type of the stored elements; 16-bit floats may be stored as `f32`.
    pub elem: Scalar,
    /// Bytes from one row to the next, then from one element to the next along each inner axis.
    pub strides: Vec<i64>,
    /// Extents of the inner axes.
    pub inner: Vec<u64>,
}

/// Images in a tile.
const IMAGES: u64 = 4;
/// Results start on a cache line.
const ALIGN: u64 = 64;

fn is_leaf(cx: &Cx<'_>, node: Node) -> bool {
    crate::lower::relational::batch::is_leaf(cx, node)
}

/// Extents of a node behind the rows, which have to be known.
fn inner_extents(cx: &Cx<'_>, node: Node) -> Vec<u64> {
    super::plan::shape_of(cx.graph, node).iter().skip(1).map(|d| d.as_const().unwrap_or(1)).collect()
}

fn row_major_strides(inner: &[u64], unit: i64) -> Vec<i64> {
    (0..=inner.len()).map(|i| unit * inner[i..].iter().product::<u64>() as i64).collect()
}

fn row_bytes(cx: &Cx<'_>, node: Node) -> u64 {
    let unit = storage(super::plan::scalar_of(cx.graph, node)).map_or(8, |p| p.bytes() as u64);
    unit * inner_extents(cx, node).iter().product::<u64>()
}

fn numbered(roots: &[Node]) -> Vec<(Node, Option<usize>)> {
    roots.iter().enumerate().map(|(i, n)| (*n, Some(i))).collect()
}

/// The rows must go through the graph each on its own, or a tile could not be computed without the others.
fn check_rows(cx: &Cx<'_>, nodes: &[Node], roots: &[Node]) -> Result<()> {
    if super::plan::find_items(cx.graph, nodes, roots).is_some() {
        return Ok(());
    }
    let node = roots.first().map_or("an empty list of tensors".to_owned(), |r| cx.describe(*r));
    Err(LowerError::Unsupported { node, what: "a tensor whose rows depend on other rows, inside a pipeline,".into() })
}

/// Rows beyond which a larger tile gains nothing. Where a row is an image this is few: each is worth a morsel, and the
/// images of a query should be spread over all workers.
pub fn tile_row_limit(cx: &Cx<'_>, roots: &[Node]) -> u64 {
    let nodes = needed(cx.graph, roots, &|n| is_leaf(cx, n));
    match schedule(cx.graph, &nodes, roots).0.rows {
        Some(1) => IMAGES,
        _ => u64::MAX,
    }
}

/// How much memory [`lower_tile`] needs for some roots.
#[derive(Clone, Copy, Debug)]
pub struct TileBytes {
    /// Scratch memory whatever the number of rows, and for each.
    scratch: [u64; 2],
    /// Bytes that are written whatever the number of rows, and for each.
    written: [u64; 2],
    /// Rows that go through the operators together, if that is known.
    rows: Option<u64>,
    /// Results, and bytes of them for a row.
    results: [u64; 2],
}

impl TileBytes {
    /// Plans the operators, once for all who ask.
    pub fn of(cx: &Cx<'_>, roots: &[Node]) -> Result<TileBytes> {
        if let Some(&known) = cx.tile_bytes.borrow().get(roots) {
            return Ok(known);
        }
        let (plan, schedule) = tile_plan(cx, roots)?;
        let params: Vec<Vec<Param>> =
            plan.stages.iter().map(|s| Functions::params(&plan, s)).collect::<Result<Vec<_>>>()?;
        let params: Vec<&[Param]> = params.iter().map(Vec::as_slice).collect();
        let bytes = TileBytes {
            scratch: layouts(&plan, &params).map(|layout| layout.bytes),
            written: written(&plan),
            rows: schedule.rows,
            results: [roots.len() as u64, roots.iter().map(|root| row_bytes(cx, *root)).sum()],
        };
        cx.tile_bytes.borrow_mut().insert(roots.to_vec(), bytes);
        Ok(bytes)
    }

    /// Bytes of scratch memory for tiles of at most `max_rows` rows.
    pub fn arena(&self, max_rows: u64) -> u64 {
        let ([fixed, per_item], [results, row]) = (self.scratch, self.results);
        fixed + per_item * self.rows.unwrap_or(max_rows) + row * max_rows + ALIGN * results
    }

    /// Bytes that are written for each row, about.
    pub fn row(&self) -> u64 {
        let [fixed, per_item] = self.written;
        fixed.div_ceil(self.rows.unwrap_or(1).max(1)) + per_item + self.results[1]
    }
}

fn tile_plan<'g>(cx: &Cx<'g>, roots: &[Node]) -> Result<(Plan<'g>, Schedule)> {
    let nodes = needed(cx.graph, roots, &|n| is_leaf(cx, n));
    check_rows(cx, &nodes, roots)?;
    let strides = |n: &Node| {
        let unit = storage(super::plan::scalar_of(cx.graph, *n)).map_or(1, |p| p.bytes() as i64);
        (*n, row_major_strides(&inner_extents(cx, *n), unit))
    };
    let leaves: HashMap<Node, Vec<i64>> = nodes.iter().filter(|n| is_leaf(cx, **n)).map(strides).collect();
    let source = Source {
        graph: cx.graph,
        nodes: &nodes,
        roots: &numbered(roots),
        leaves: &leaves,
        schedule: schedule(cx.graph, &nodes, roots),
        target: Target::host(),
    };
    Ok((source.plan()?, source.schedule.0))
}

/// Computes `roots` for the `n` rows of a tile, serially or with the help of idle workers; gives them row-major in
/// `arena` (memory of [`TileBytes::arena`], 64-byte aligned), valid until it is used again.
///
/// `leaf` gives the columns of the tile, and those that are put side by side. The leading dimension of every root is the rows of the table.
pub fn lower_tile<'b>(
    cx: &Cx<'_>,
    b: &'b Builder,
    frame: V<'b>,
    arena: V<'b>,
    n: V<'b>,
    roots: &[Node],
    leaf: &dyn Fn(Node) -> Option<View<'b>>,
) -> Result<Vec<View<'b>>> {
    let nodes = needed(cx.graph, roots, &|n| is_leaf(cx, n));
    check_rows(cx, &nodes, roots)?;
    let views: HashMap<Node, View<'b>> =
        nodes.iter().filter(|n| is_leaf(cx, **n)).filter_map(|n| Some((*n, leaf(*n)?))).collect();
    let leaves = views.iter().map(|(n, view)| (*n, view.strides.clone())).collect();
    let source = Source {
        graph: cx.graph,
        nodes: &nodes,
        roots: &numbered(roots),
        leaves: &leaves,
        schedule: schedule(cx.graph, &nodes, roots),
        target: Target::host(),
    };
    let program = Rc::new(Program::new(cx, &source)?);
    program.register(cx);
    let results = results(cx, b, &program, arena, n, roots);
    passes(b, &program, frame, arena, n, &views, &results);
    Ok(results)
}

/// Where the results go: behind the arena of the intermediate tensors.
fn results<'b>(
    cx: &Cx<'_>,
    b: &'b Builder,
    program: &Program<'_>,
    arena: V<'b>,
    n: V<'b>,
    roots: &[Node],
) -> Vec<View<'b>> {
    let [fixed, per_item] = program.arena_bytes();
    let room = program.schedule.rows.map_or(n, |rows| b.i64(rows as i64));
    let mut base = arena.at(fixed as i64).index(room, per_item as i64);
    let mut views = vec![];
    for &root in roots {
        let elem = super::plan::scalar_of(cx.graph, root);
        let inner = inner_extents(cx, root);
        let unit = storage(elem).map_or(1, |p| p.bytes() as i64);
        views.push(View { base, elem, strides: row_major_strides(&inner, unit), inner });
        let bytes = n * row_bytes(cx, root) as i64 + (ALIGN as i64 - 1);
        base = base.index(bytes & -(ALIGN as i64), 1);
    }
    views
}

/// The tile's rows in passes of as many as the program takes at a time.
fn passes<'b>(
    b: &'b Builder,
    program: &Program<'_>,
    frame: V<'b>,
    arena: V<'b>,
    n: V<'b>,
    leaves: &HashMap<Node, View<'b>>,
    results: &[View<'b>],
) {
    let room = program.schedule.rows.map_or(n, |rows| b.i64(rows as i64));
    let step = program.schedule.rows.map_or(i64::MAX, |rows| rows as i64);
    b.for_carry(b.i64(0), n, step, &[], |first, _| {
        let count = if program.schedule.items.size == Size::Items { room.min(n - first) } else { room };
        let given = |place: &Place| match place {
            Place::Leaf(node) => leaves.get(node).map(|view| view.base.index(first, view.strides[0])),
            Place::Output { index, .. } => results.get(*index).map(|view| view.base),
            _ => None,
        };
        program.pass(b, &Pass { frame, arena: Some(arena), room, first, count, given: &given, steps: vec![] });
        vec![]
    });
}
