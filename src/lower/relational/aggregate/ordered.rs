//! Grouping by a sorted column: the rows of a group follow one another, so that a group is finished when the key
//! changes, and no directory is needed.
//!
//! Where most rows of the stored table belong to a group, the aggregation breaks no pipeline: a loop over groups has
//! within it the loop over their rows, the state stays in registers, and the groups go on. Where few do, going through
//! the groups one by one would cost more than the rows: they are filtered by vectors, and groups are written out.
//!
//! Tiles are moved to the next change of the key: every group then lies inside one tile, and nothing has to be merged.

use super::super::env::{Env, Place};
use super::super::expr::{column, compare};
use super::super::join::{Join, is_unique};
use super::super::materialise;
use super::super::pipeline::{self, Consume, when};
use super::super::scan;
use super::super::value::Value;
use super::directory::same_keys;
use super::{Aggregation, GroupLayout};
use crate::lower::context::{Cx, Fact};
use crate::lower::error::Result;
use crate::lower::frame::Bind;
use quearn_backends::abi;
use quearn_stage::graph::{JoinKind, Node, Op};
use quearn_stage::low::{Ty, V};
use std::rc::Rc;

/// Part of the rows from which on groups go on through the pipeline.
const MOST_ROWS: f64 = 0.5;

/// A sorted column of the table that a pipeline scans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SortedColumn {
    /// The scan.
    pub scan: Node,
    /// The column.
    pub column: String,
}

/// The stored column that a row expression passes on, if the pipeline below `table` scans it and keeps its order.
fn scanned(cx: &Cx<'_>, node: Node) -> Option<SortedColumn> {
    let Op::Column(name) = cx.graph.op(node) else { return None };
    let mut at = (cx.graph.inputs(node)[0], name.clone());
    loop {
        let inputs = cx.graph.inputs(at.0);
        at = match cx.graph.op(at.0) {
            Op::Scan { .. } => return Some(SortedColumn { scan: at.0, column: at.1 }),
            Op::Filter => (inputs[0], at.1),
            Op::Join { .. } if column::fields(cx, inputs[0]).iter().any(|f| f.name == at.1) => (inputs[0], at.1),
            Op::Project { names } => {
                let inner = inputs[1 + names.iter().position(|n| *n == at.1)?];
                match cx.graph.op(inner) {
                    Op::Column(name) => (cx.graph.inputs(inner)[0], name.clone()),
                    _ => return None,
                }
            }
            _ => return None,
        };
    }
}

fn is_sorted(cx: &Cx<'_>, found: &SortedColumn) -> bool {
    let Ok(table) = scan::stored_table(cx, found.scan) else { return false };
    table.column(&found.column).is_ok_and(|c| c.stats.sorted && c.stats.nulls == 0)
}

/// The sorted column by which the groups of an aggregation follow one another, if going from group to group pays.
pub fn in_pipeline(cx: &Cx<'_>, table: Node) -> Option<SortedColumn> {
    let of = Aggregation::of(cx, table);
    let key = sorted_key(cx, &of)?;
    let kept = cx.estimate.rows(of.input) / cx.estimate.rows(key.scan);
    (kept >= MOST_ROWS).then_some(key)
}

/// Produces the groups of the rows in a tile.
pub fn produce<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    table: Node,
    key: &SortedColumn,
    tile: (V<'b>, V<'b>),
    consume: &mut Consume<'_>,
) -> Result<()> {
    let of = Aggregation::of(cx, table);
    let b = env.b;
    let (lo, hi) = align_tile(cx, env, key, tile)?;
    let mut outcome = Ok(lo);
    b.while_(
        &[lo],
        |c| c[0].lt(hi),
        |c| {
            let end = next_change(cx, env, key, c[0] + 1);
            outcome = end.and_then(|end| {
                group(cx, env, &of, (c[0], end), consume)?;
                Ok(end)
            });
            match &outcome {
                Ok(end) => vec![*end],
                Err(_) => vec![hi],
            }
        },
    );
    outcome.map(|_| ())
}

/// Folds the rows of one group and hands it on.
fn group<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    of: &Aggregation,
    rows: (V<'b>, V<'b>),
    consume: &mut Consume<'_>,
) -> Result<()> {
    let b = env.b;
    // What the state looks like is known with the first row; it begins before the loop over the rows.
    let mut planned: Option<(Rc<GroupLayout>, quearn_stage::low::Value)> = None;
    let start = b.mark();
    let mut each = env.branch();
    each.few_rows = true;
    pipeline::produce(cx, &each, of.input, rows, &[], &mut |env| {
        let (keys, arguments) = of.eval(cx, env)?;
        let b = env.b;
        let layout = Rc::new(GroupLayout::plan(cx, of, 0, &keys, &arguments)?);
        let state = b.alloca(layout.width() as u32, 16);
        layout.store_keys(b, state, &keys);
        layout.update(b, state, &arguments);
        planned = Some((layout, state.id));
        Ok(())
    })?;
    let Some((layout, state)) = planned else { return Ok(()) };
    let state = b.value(state);
    b.at_mark(start, || layout.init(b, state));
    let occurs = layout.occurs(b, state);
    when(b, occurs, || {
        let place = Place::Group { ptr: state, groups: Rc::clone(&layout) };
        let group = Env::new(b, env.frame, env.worker).bind(of.node, place);
        consume(&group)
    })
}

/// The sorted column by which rows with equal `keys` follow one another: one of the keys is that column, and the others
/// depend on it.
pub fn sorted_key(cx: &Cx<'_>, of: &Aggregation) -> Option<SortedColumn> {
    if pipeline::is_batched(cx, of.input) {
        return None;
    }
    let keys = &of.keys;
    let (at, found) = keys.iter().enumerate().find_map(|(i, &key)| {
        let found = scanned(cx, key).filter(|f| is_sorted(cx, f))?;
        Some((i, found))
    })?;
    let others = keys.iter().enumerate().filter(|(i, _)| *i != at);
    if !others.into_iter().all(|(_, &key)| depends(cx, key, &found)) {
        return None;
    }
    let table = scan::stored_table(cx, found.scan).ok()?.name().to_owned();
    cx.rely_on(Fact::Sorted { table, column: found.column.clone() });
    Some(found)
}

/// Is the value of `key` the same for all rows with one value of the sorted column? It is for columns of a join's right
/// side that has one row at most for it, and for marks, unless a residual tells rows of one key apart.
fn depends(cx: &Cx<'_>, key: Node, on: &SortedColumn) -> bool {
    let Op::Column(name) = cx.graph.op(key) else { return matches!(cx.graph.op(key), Op::Const(_)) };
    let mut at = (cx.graph.inputs(key)[0], name.clone());
    loop {
        let inputs = cx.graph.inputs(at.0);
        at = match cx.graph.op(at.0) {
            Op::Filter => (inputs[0], at.1),
            Op::Join { .. } if column::fields(cx, inputs[0]).iter().any(|f| f.name == at.1) => (inputs[0], at.1),
            Op::Join { .. } => {
                let join = Join::of(cx, at.0);
                let by_key = join.keys.len() == 1 && scanned(cx, join.keys[0].0).as_ref() == Some(on);
                let decided = join.residual.is_none() || join.kind == JoinKind::Inner;
                let one_value = join.kind.is_one_sided() || is_unique(cx, join.right, &[join.keys[0].1]);
                return by_key && decided && one_value;
            }
            _ => return false,
        };
    }
}

/// The group on a worker's list that the row belongs to: the last one, or a new one.
pub fn current<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    lists: V<'b>,
    keys: &[Value<'b>],
    layout: &GroupLayout,
    operator: &str,
) -> V<'b> {
    let b = env.b;
    let last = b.alloca(8, 8);
    b.in_prologue(|| b.store(last, 0, b.null()));
    let group = b.load(Ty::PTR, last, 0);
    let same = || vec![same_keys(cx, env, group, keys, layout)];
    let same = b.if_else(group.is_null(), || vec![b.bool(false)], same)[0];
    let fresh = || {
        let list = lists.index(env.worker, abi::ROWS_BYTES);
        let group = materialise::append(cx, b, env.frame, list, layout.width(), operator);
        layout.store_keys(b, group, keys);
        layout.init(b, group);
        b.store(last, 0, group);
        vec![group]
    };
    b.if_else(same, || vec![group], fresh)[0]
}

/// The tile moved on both ends to the next change of the key.
pub fn align_tile<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    key: &SortedColumn,
    (lo, hi): (V<'b>, V<'b>),
) -> Result<(V<'b>, V<'b>)> {
    let b = env.b;
    let mut outcome = Ok(());
    let mut moved = |row: V<'b>| match next_change(cx, env, key, row) {
        Ok(row) => vec![row],
        Err(error) => {
            outcome = Err(error);
            vec![row]
        }
    };
    // Nothing comes before row 0.
    let first = b.if_else(lo.gt(b.i64(0)), || moved(lo), || vec![lo])[0];
    let end = b.if_else(hi.gt(b.i64(0)), || moved(hi), || vec![hi])[0];
    outcome?;
    Ok((first, end))
}

/// The first row from `from` (at least 1) on whose key is not that of the row before it, or the number of rows.
fn next_change<'b>(cx: &Cx<'_>, env: &Env<'b>, key: &SortedColumn, from: V<'b>) -> Result<V<'b>> {
    let b = env.b;
    let table = scan::stored_table(cx, key.scan)?.name().to_owned();
    let rows = cx.frame.bind(Bind::Rows { table }).get(b, env.frame);
    let mut outcome = Ok(());
    let mut value_at = |row: V<'b>| {
        let place = Env::new(b, env.frame, env.worker).bind(key.scan, Place::Stored(row));
        match scan::load(cx, &place, key.scan, &key.column, row) {
            Ok(value) => Some(value),
            Err(error) => {
                outcome = Err(error);
                None
            }
        }
    };
    let Some(own) = value_at(from - 1) else { return outcome.map(|()| from) };
    let found = b.while_(
        &[from],
        |c| {
            let mut same = || value_at(c[0]).map_or(b.bool(false), |other| compare::keys_equal(cx, env, own, other));
            b.if_else(c[0].lt(rows), || vec![same()], || vec![b.bool(false)])[0]
        },
        |c| vec![c[0] + 1],
    )[0];
    outcome?;
    Ok(found)
}
