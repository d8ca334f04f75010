//! Pipelines: a source of rows, operators that pass rows on, and a sink, fused into one function.
//!
//! Data-centric code generation (Neumann, "Efficiently compiling efficient query plans", VLDB 2011): an operator
//! calls its consumer once, while the program is generated, with the staged row. The function handles a tile (a range
//! of rows or of spans of materialised rows), which is also the morsel by which threads share work.

use super::aggregate::ordered::{self, SortedColumn};
use super::aggregate::{self, InPipeline, group_join};
use super::env::{Env, Place};
use super::expr::eval;
use super::join::flags::Marked;
use super::materialise::{self, Spans};
use super::select::{self, Selection};
use super::sideways::Hints;
use super::{batch, join, lookup, scan, zones};
use crate::lower::context::{Cx, PipelineNote};
use crate::lower::error::{LowerError, Result};
use crate::lower::frame::{Bind, Slot};
use quearn_stage::graph::{Node, Op};
use quearn_stage::low::{Builder, Ty, V};
use std::rc::Rc;

/// Rows of a stored table in a tile: their live columns fit the second-level cache.
pub const TILE_ROWS: i64 = 1 << 14;

/// What receives the rows of a pipeline.
pub trait Sink {
    /// Handles one row.
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()>;

    /// Called last in the function of the pipeline's source.
    fn end<'b>(&mut self, _cx: &Cx<'_>, _env: &Env<'b>) -> Result<()> {
        Ok(())
    }

    /// Adds the steps that make the sink's memory, after the pipeline was generated and before it runs.
    fn allocate(&mut self, _cx: &Cx<'_>) -> Result<()> {
        Ok(())
    }

    /// A sorted column of the scanned table whose runs of equal values must each lie in one tile.
    fn runs(&self) -> Option<SortedColumn> {
        None
    }

    /// Expressions that it evaluates on every row.
    fn expressions(&self, _cx: &Cx<'_>) -> Vec<Node> {
        vec![]
    }

    /// The keys that it marks, if it is a build side.
    fn marked(&self) -> Option<Rc<Marked>> {
        None
    }

    /// What the sink writes, for `explain`.
    fn describe(&self) -> String;
}

/// A consumer of rows. It may be called in another function than the one that produces (behind a batch step), so it
/// keeps no staged values of its own.
pub type Consume<'c> = dyn for<'b> FnMut(&Env<'b>) -> Result<()> + 'c;

/// Emits the pipeline that feeds the rows of `table` to `sink`: its function, and the step that runs it. Pipelines that
/// it needs (build sides, inputs of pipeline breakers) are emitted before.
pub fn run(cx: &Cx<'_>, name: &str, table: Node, sink: &mut dyn Sink) -> Result<()> {
    let mut outcome = Ok(());
    let func = cx.task_over(name, rows_handled(cx, table), |b, frame, worker, lo, hi| {
        outcome = task(cx, &Env::new(b, frame, worker), table, (lo, hi), sink);
    });
    outcome?;
    let extent = extent(cx, table)?;
    sink.allocate(cx)?;
    cx.step(move |_, b, frame| {
        let (n, grain) = extent.get(b, frame);
        b.par_for(func, frame, n, grain);
    });
    let mut fused = vec![];
    collect_names(cx, table, &mut fused);
    let scans = scanned(cx, table);
    cx.note(PipelineNote { name: name.to_owned(), scans, once: false, fused, materialised: vec![sink.describe()] });
    Ok(())
}

fn task<'b>(cx: &Cx<'_>, env: &Env<'b>, table: Node, tile: (V<'b>, V<'b>), sink: &mut dyn Sink) -> Result<()> {
    let by_key = lookup::at_source(cx, table).is_some();
    let env = &if by_key { env.finding_by_key() } else { env.clone() };
    let tile = match sink.runs() {
        // One tile has all rows.
        Some(_) if by_key => tile,
        Some(key) => ordered::align_tile(cx, env, &key, tile)?,
        None => tile,
    };
    let hints = Hints { expressions: sink.expressions(cx).into(), marked: sink.marked(), ..Hints::default() };
    produce_hinted(cx, env, table, tile, &hints, &mut |env| sink.row(cx, env))?;
    sink.end(cx, env)
}

/// About how many rows pass the busiest place of a pipeline.
fn rows_handled(cx: &Cx<'_>, table: Node) -> f64 {
    let own = cx.estimate.rows(table);
    match cx.graph.op(table) {
        Op::Filter | Op::Project { .. } | Op::Join { .. } => own.max(rows_handled(cx, cx.graph.inputs(table)[0])),
        Op::Aggregate { .. } if aggregate::in_pipeline(cx, table).is_some() => {
            rows_handled(cx, cx.graph.inputs(table)[0])
        }
        _ => own,
    }
}

/// The stored table that is the source of a pipeline.
pub fn scanned(cx: &Cx<'_>, table: Node) -> Option<String> {
    match cx.graph.op(table) {
        Op::Scan { table, .. } => Some(table.clone()),
        Op::Filter | Op::Project { .. } | Op::Join { .. } => scanned(cx, cx.graph.inputs(table)[0]),
        Op::Aggregate { .. } if aggregate::in_pipeline(cx, table).is_some() => scanned(cx, cx.graph.inputs(table)[0]),
        _ => None,
    }
}

/// Names of the operators in one pipeline, source first.
pub fn collect_names(cx: &Cx<'_>, table: Node, names: &mut Vec<String>) {
    let found = lookup::at_source(cx, table);
    let at = names.len();
    collect(cx, table, found.is_some(), names);
    if let Some(found) = found {
        // Behind the scan, before its filter.
        names.insert((at + 1).min(names.len()), found.describe());
    }
}

fn aggregate_in_pipeline(cx: &Cx<'_>, table: Node) -> Option<InPipeline> {
    matches!(cx.graph.op(table), Op::Aggregate { .. }).then(|| aggregate::in_pipeline(cx, table))?
}

/// As [`collect_names`], of operators that are handed a few rows at a time or not.
fn collect(cx: &Cx<'_>, table: Node, few_rows: bool, names: &mut Vec<String>) {
    let inputs = cx.graph.inputs(table);
    match (cx.graph.op(table), aggregate_in_pipeline(cx, table)) {
        (Op::Filter | Op::Project { .. } | Op::Join { .. }, _) => collect(cx, inputs[0], few_rows, names),
        (Op::Scan { .. }, _) => {}
        (_, Some(how)) => collect(cx, inputs[0], few_rows || matches!(how, InPipeline::Ordered(_)), names),
        _ => {
            names.push(format!("rows of {}", cx.describe(table)));
            return;
        }
    }
    let zones = if few_rows || *cx.graph.op(table) != Op::Filter { vec![] } else { zones::columns(cx, table) };
    if !zones.is_empty() {
        names.push(format!("zones {}", zones.join(", ")));
    }
    names.push(match cx.graph.op(table) {
        Op::Filter => format!("filter {}", super::needed::spell(cx.graph, inputs[1])),
        Op::Join { .. } => format!("probe {}", cx.describe(table)),
        Op::Aggregate { .. } => match aggregate::in_pipeline(cx, table) {
            Some(InPipeline::GroupJoin(_)) => format!("{} as a group-join", cx.describe(table)),
            _ => format!("{} in order", cx.describe(table)),
        },
        Op::Scan { .. } => cx.describe(table) + &cx.hinted.borrow_mut().remove(&table).unwrap_or_default(),
        _ => cx.describe(table),
    });
}

/// How many items the source of a pipeline has, and how many make a tile.
enum Extent {
    /// Rows of a stored table.
    Rows { rows: Slot, grain: i64 },
    /// Spans of materialised rows, one a tile, in any order.
    Spans(Slot),
    /// All spans in one tile, in order; or the rows of a stored table with one key.
    Ordered,
}

impl Extent {
    fn get<'b>(&self, b: &'b Builder, frame: V<'b>) -> (V<'b>, V<'b>) {
        match self {
            Extent::Rows { rows, grain } => (rows.get(b, frame), b.i64(*grain)),
            Extent::Spans(count) => (count.read(b, frame), b.i64(1)),
            Extent::Ordered => (b.i64(1), b.i64(1)),
        }
    }
}

fn extent(cx: &Cx<'_>, table: Node) -> Result<Extent> {
    if lookup::at_source(cx, table).is_some() {
        return Ok(Extent::Ordered);
    }
    let mut at = table;
    let mut grain = TILE_ROWS;
    loop {
        match cx.graph.op(at) {
            Op::Scan { table, .. } => {
                let rows = cx.frame.bind(Bind::Rows { table: table.clone() });
                return Ok(Extent::Rows { rows, grain });
            }
            Op::Project { .. } => {
                if !batch::roots(cx, at).is_empty() {
                    grain = grain.min(batch::source_rows(cx, at)?);
                }
                at = cx.graph.inputs(at)[0];
            }
            Op::Filter | Op::Join { .. } => at = cx.graph.inputs(at)[0],
            Op::Aggregate { .. } if aggregate::in_pipeline(cx, at).is_some() => at = cx.graph.inputs(at)[0],
            _ => {
                let spans = materialise::spans(cx, at)?;
                return Ok(if spans.ordered { Extent::Ordered } else { Extent::Spans(spans.count) });
            }
        }
    }
}

/// Does a pipeline hand its rows on in batches, from a function of their own?
pub fn is_batched(cx: &Cx<'_>, table: Node) -> bool {
    match cx.graph.op(table) {
        Op::Project { .. } if !batch::roots(cx, table).is_empty() => true,
        Op::Filter | Op::Project { .. } | Op::Join { .. } => is_batched(cx, cx.graph.inputs(table)[0]),
        _ => false,
    }
}

/// Generates the loop over the rows of `table` in a tile and calls `consume` in it, which will evaluate these expressions.
pub fn produce<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    table: Node,
    tile: (V<'b>, V<'b>),
    expressions: &[Node],
    consume: &mut Consume<'_>,
) -> Result<()> {
    let hints = Hints { expressions: expressions.into(), ..Hints::default() };
    produce_hinted(cx, env, table, tile, &hints, consume)
}

/// As [`produce`], with hints of the operators above; rows that their tests drop need not come.
fn produce_hinted<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    table: Node,
    tile: (V<'b>, V<'b>),
    hints: &Hints,
    consume: &mut Consume<'_>,
) -> Result<()> {
    let inputs = cx.graph.inputs(table);
    let hints = &hints.below(cx, table);
    match cx.graph.op(table) {
        Op::Scan { .. } => {
            scan::check(cx, table)?;
            if let Some(selection) = selection(cx, env, table, hints)? {
                return selection.produce(cx, env, tile, consume);
            }
            for_each(env.b, tile, |row| consume(&env.bind(table, Place::Stored(row))))
        }
        Op::Filter => {
            if env.by_key
                && let Some(found) = lookup::plan(cx, table)
            {
                return found.each(cx, env, &mut |env| {
                    let keep = eval(cx, env, inputs[1])?.is_true();
                    when(env.b, keep, || consume(&env.branch()))
                });
            }
            let tile = if env.few_rows { tile } else { zones::narrowed(cx, env, table, tile) };
            if let Some(selection) = selection(cx, env, table, hints)? {
                return selection.produce(cx, env, tile, consume);
            }
            let (input, predicate) = (inputs[0], inputs[1]);
            produce_hinted(cx, env, input, tile, hints, &mut |env| {
                let keep = eval(cx, env, predicate)?.is_true();
                when(env.b, keep, || consume(&env.branch()))
            })
        }
        Op::Project { .. } if !batch::roots(cx, table).is_empty() => {
            batch::produce(cx, env, table, tile, hints.marked.as_deref(), consume)
        }
        Op::Project { .. } => produce_hinted(cx, env, inputs[0], tile, hints, consume),
        Op::Join { .. } => {
            let probe = join::prepare(cx, table)?;
            let hints = hints.and(cx, &probe);
            produce_hinted(cx, env, inputs[0], tile, &hints, &mut |env| join::probe(cx, env, &probe, consume))
        }
        Op::Aggregate { .. } | Op::Sort(_) | Op::Limit { .. } | Op::Union { .. } => {
            match aggregate::in_pipeline(cx, table) {
                Some(InPipeline::Ordered(key)) => return ordered::produce(cx, env, table, &key, tile, consume),
                Some(InPipeline::GroupJoin(join)) => {
                    return group_join::produce(cx, env, table, join, tile, consume);
                }
                None => {}
            }
            let spans = materialise::spans(cx, table)?;
            over_spans(env, table, &spans, tile, consume)
        }
        _ => Err(LowerError::Unsupported { node: cx.describe(table), what: "this table operator".into() }),
    }
}

/// How vectors select the rows of a scan or of a filter over one, if that pays.
fn selection(cx: &Cx<'_>, env: &Env<'_>, table: Node, hints: &Hints) -> Result<Option<Selection>> {
    let selection = if env.few_rows { None } else { select::plan(cx, table, hints)? };
    if let Some((scan, note)) = selection.as_ref().and_then(|selection| selection.note(cx)) {
        cx.hinted.borrow_mut().insert(scan, note);
    }
    Ok(selection)
}

fn over_spans<'b>(
    env: &Env<'b>,
    table: Node,
    spans: &Rc<Spans>,
    (lo, hi): (V<'b>, V<'b>),
    consume: &mut Consume<'_>,
) -> Result<()> {
    let b = env.b;
    // An ordered source is one tile that holds all spans.
    let (lo, hi) = if spans.ordered { (b.i64(0), spans.count.get(b, env.frame)) } else { (lo, hi) };
    let base = spans.address.get(b, env.frame);
    for_each(b, (lo, hi), |s| {
        let span = base.index(s, quearn_backends::abi::SPAN_BYTES);
        let rows = b.load(Ty::PTR, span, 0);
        let count = b.load(Ty::I64, span, 8);
        for_each(b, (b.i64(0), count), |i| {
            let place = spans.place(rows.index(i, spans.width));
            consume(&env.bind(table, place))
        })
    })
}

/// A loop whose body may find that it cannot be lowered.
pub fn for_each<'b>(b: &'b Builder, (lo, hi): (V<'b>, V<'b>), body: impl FnOnce(V<'b>) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    b.for_(lo, hi, |i| outcome = body(i));
    outcome
}

/// A branch whose body may find that it cannot be lowered. The body is generated even if the condition is known to be
/// false: sinks learn from the first row what rows look like.
pub fn when<'b>(b: &'b Builder, cond: V<'b>, body: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    let cond = if cond.as_int() == Some(0) { opaque_false(b) } else { cond };
    b.if_(cond, || outcome = body());
    outcome
}

/// False, but not to the builder; the backend finds out and drops what depends on it.
fn opaque_false<'b>(b: &'b Builder) -> V<'b> {
    let at = b.alloca(8, 8);
    b.in_prologue(|| b.store(at, 0, b.bool(false)));
    b.load(Ty::BOOL, at, 0)
}

/// An upper bound of the number of rows of a table, for the width of sums; relied on as facts about stored tables.
pub fn row_bound(cx: &Cx<'_>, table: Node) -> u64 {
    let inputs = cx.graph.inputs(table);
    match cx.graph.op(table) {
        Op::Scan { table: name, .. } => {
            let rows = cx.catalog.table(name).map_or(u64::MAX, |t| t.rows() as u64);
            cx.rely_on(crate::lower::context::Fact::MaxRows { table: name.clone(), rows });
            rows
        }
        Op::Join { .. } => join::row_bound(cx, table),
        Op::Product => row_bound(cx, inputs[0]).saturating_mul(row_bound(cx, inputs[1])),
        Op::Aggregate { keys, .. } if keys.is_empty() => 1,
        Op::Limit { count, .. } => row_bound(cx, inputs[0]).min(*count),
        Op::Union { .. } => inputs.iter().fold(0, |rows, &input| row_bound(cx, input).saturating_add(rows)),
        _ => row_bound(cx, inputs[0]),
    }
}
