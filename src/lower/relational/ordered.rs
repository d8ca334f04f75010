//! Grouping by a sorted column: the rows of a group follow one another, so that a group is finished when the key
//! changes and no table of groups is needed.
//!
//! Tiles are moved to the next change of the key: every group then lies inside one tile, and nothing has to be merged.

use super::env::{Env, Place};
use super::expr::{column, compare};
use super::{join, scan};
use crate::lower::context::{Cx, Fact};
use crate::lower::error::Result;
use crate::lower::frame::Bind;
use quearn_stage::graph::{Node, Op};
use quearn_stage::low::V;

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

/// The sorted column by which rows with equal `keys` follow one another: one of the keys is that column, and the others
/// depend on it.
pub fn sorted_key(cx: &Cx<'_>, keys: &[Node]) -> Option<SortedColumn> {
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
/// side that has one row at most for it.
fn depends(cx: &Cx<'_>, key: Node, on: &SortedColumn) -> bool {
    let Op::Column(name) = cx.graph.op(key) else { return matches!(cx.graph.op(key), Op::Const(_)) };
    let mut at = (cx.graph.inputs(key)[0], name.clone());
    loop {
        let inputs = cx.graph.inputs(at.0);
        at = match cx.graph.op(at.0) {
            Op::Filter => (inputs[0], at.1),
            Op::Join { .. } if column::fields(cx, inputs[0]).iter().any(|f| f.name == at.1) => (inputs[0], at.1),
            Op::Join { .. } => {
                let (left, right) = join::keys(cx, at.0);
                let same = left.len() == 1 && scanned(cx, left[0]).as_ref() == Some(on);
                return same && join::is_unique(cx, inputs[1], &right);
            }
            _ => return false,
        };
    }
}

/// The tile moved on both ends to the next change of the key.
pub fn align_tile<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    key: &SortedColumn,
    (lo, hi): (V<'b>, V<'b>),
) -> Result<(V<'b>, V<'b>)> {
    let b = env.b;
    let table = scan::stored_table(cx, key.scan)?.name().to_owned();
    let rows = cx.frame.bind(Bind::Rows { table }).get(b, env.frame);
    let mut outcome = Ok(());
    let mut value_at = |row: V<'b>| {
        let place = env.bind(key.scan, Place::Stored(row));
        place.forget();
        match scan::load(cx, &place, key.scan, &key.column, row) {
            Ok(value) => Some(value),
            Err(error) => {
                outcome = Err(error);
                None
            }
        }
    };
    let mut next_change = |from: V<'b>| {
        let mut same_as_before = |row: V<'b>| match (value_at(row - 1), value_at(row)) {
            (Some(x), Some(y)) => compare::keys_equal(cx, env, x, y),
            _ => b.bool(false),
        };
        b.while_(
            &[from],
            |c| {
                let inside = c[0].gt(b.i64(0)) & c[0].lt(rows);
                b.if_else(inside, || vec![same_as_before(c[0])], || vec![b.bool(false)])[0]
            },
            |c| vec![c[0] + 1],
        )[0]
    };
    let tile = (next_change(lo), next_change(hi));
    outcome?;
    Ok(tile)
}
