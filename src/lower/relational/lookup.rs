//! Rows of a stored table that are found by a key instead of by reading all of them: where a filter compares a column with
//! a value that is known before any row, and the column counts the rows up, or is sorted, or (in a request) has an index,
//! which is made once: its values with the numbers of their rows, sorted.
//!
//! The pipeline then has one tile: the rows that have the key.

use super::env::{Env, Place};
use super::expr::{can_fail, elem_of, eval};
use super::materialise::{self, Lists};
use super::pipeline::{self, Consume, Sink};
use super::scan;
use super::value::{Range, Value, widen};
use crate::data::Table;
use crate::lower::context::{Cx, Fact};
use crate::lower::error::{LowerError, Result};
use crate::lower::frame::{Bind, Slot, run_handle};
use crate::lower::once::is_scalar_input;
use crate::lower::parameter;
use quearn_stage::graph::{BinaryOp, CompareOp, Node, Op};
use quearn_stage::low::{BinOp, CmpOp, Prim, Ty, V};

/// Rows with one key, at most, about: one worker handles them.
const FEW: f64 = 4096.0;
/// Rows of a table from which on searching pays, if its column is only sorted.
const MANY: usize = 4096;

/// A filter that finds its rows by a key.
pub struct Lookup {
    /// The filter.
    pub filter: Node,
    scan: Node,
    comparison: Node,
    /// Which operand of the comparison is the column.
    side: usize,
    column: String,
    how: How,
}

enum How {
    /// Row `i` has the key `min + i`.
    CountsUp(Range),
    /// Keys ascend.
    Sorted(Range),
    /// There is an index.
    Indexed(Range),
}

/// The look-up at the source of a pipeline, if there is one.
pub fn at_source(cx: &Cx<'_>, table: Node) -> Option<Lookup> {
    let input = || cx.graph.inputs(table)[0];
    match cx.graph.op(table) {
        Op::Filter if matches!(cx.graph.op(input()), Op::Scan { .. }) => plan(cx, table),
        Op::Filter | Op::Project { .. } | Op::Join { .. } => at_source(cx, input()),
        _ => None,
    }
}

/// The look-up of a filter over a stored table.
pub fn plan(cx: &Cx<'_>, filter: Node) -> Option<Lookup> {
    let &[scan, predicate] = cx.graph.inputs(filter) else { return None };
    if !matches!(cx.graph.op(scan), Op::Scan { .. }) || scan::check(cx, scan).is_err() {
        return None;
    }
    let table = scan::stored_table(cx, scan).ok()?;
    let found = conjuncts(cx, predicate).into_iter().find_map(|node| compared(cx, filter, table, node))?;
    // Where the predicate can fail it has to see every row. What cannot be lowered is said where it is lowered.
    (!can_fail(cx, scan, &[predicate]).unwrap_or(true)).then_some(found)
}

fn conjuncts(cx: &Cx<'_>, predicate: Node) -> Vec<Node> {
    match cx.graph.op(predicate) {
        Op::Binary(BinaryOp::And) => cx.graph.inputs(predicate).iter().flat_map(|&i| conjuncts(cx, i)).collect(),
        _ => vec![predicate],
    }
}

/// The look-up that an equality of a column and a given value allows.
fn compared(cx: &Cx<'_>, filter: Node, table: &Table, node: Node) -> Option<Lookup> {
    let Op::Compare(CompareOp::Eq) = cx.graph.op(node) else { return None };
    let scan = cx.graph.inputs(filter)[0];
    let operands = cx.graph.inputs(node);
    let (side, name) = [0, 1].into_iter().find_map(|side| {
        let (from, name) = cx.estimate.source(operands[side])?;
        (from == scan && is_given(cx, node, 1 - side)).then_some((side, name))
    })?;
    let scalar = |side: usize| elem_of(cx, operands[side]).ok().map(|elem| elem.scalar);
    let (own, other) = (scalar(side)?, scalar(1 - side)?);
    let same = own == other || own.is_int() && other.is_int();
    let column = table.column(name).ok().filter(|column| column.stats.nulls == 0)?;
    let rows_a_key = table.rows() as f64 / column.stats.distinct.unwrap_or(1).max(1) as f64;
    let range = scan::range(cx, table, column).filter(|range| Range::I64.contains(*range) && same)?;
    let how = match column.counts_up() {
        true => How::CountsUp(range),
        false if column.stats.sorted && table.rows() >= MANY && rows_a_key <= FEW => How::Sorted(range),
        // An index pays where it is kept.
        false if cx.requests.is_request() && table.rows() >= MANY && rows_a_key <= FEW => How::Indexed(range),
        false => return None,
    };
    Some(Lookup { filter, scan, comparison: node, side, column: name.to_owned(), how })
}

/// Is the operand of a comparison known before any row: an input, or a literal that is given to each run?
fn is_given(cx: &Cx<'_>, comparison: Node, side: usize) -> bool {
    let is_parameter = cx.parameters.side(comparison) == Some(side);
    is_parameter || is_scalar_input(cx.graph, cx.graph.inputs(comparison)[side])
}

impl Lookup {
    /// For `explain`.
    pub fn describe(&self) -> String {
        match self.how {
            How::CountsUp(_) => format!("look-up by {}, which counts the rows up", self.column),
            How::Sorted(_) => format!("search in {}, which is sorted", self.column),
            How::Indexed(_) => format!("search in an index of {}", self.column),
        }
    }

    /// Hands on the rows that have the key.
    pub fn each<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, consume: &mut Consume<'_>) -> Result<()> {
        if let How::Indexed(range) = self.how {
            return self.each_indexed(cx, env, range, consume);
        }
        let tile = self.tile(cx, env)?;
        pipeline::for_each(env.b, tile, |row| consume(&env.bind(self.scan, Place::Stored(row))))
    }

    fn each_indexed<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, range: Range, consume: &mut Consume<'_>) -> Result<()> {
        let b = env.b;
        let (entries, count) = index(cx, self.scan, &self.column)?;
        let (entries, count) = (entries.get(b, env.frame), count.get(b, env.frame));
        let key = ascending(self.key(cx, env, range)?);
        let at = |i: V<'b>| Ok(b.load(Ty::I64, entries.index(i, ENTRY), 0));
        let first = search(count, &at, |value| value.cmp(CmpOp::Ult, key))?;
        let last = search(count, &at, |value| value.cmp(CmpOp::Ule, key))?;
        pipeline::for_each(b, (first, last), |i| {
            let row = b.load(Ty::I64, entries.index(i, ENTRY), 8);
            consume(&env.bind(self.scan, Place::Stored(row)))
        })
    }

    /// The rows that have the key, one after the other.
    fn tile<'b>(&self, cx: &Cx<'_>, env: &Env<'b>) -> Result<(V<'b>, V<'b>)> {
        let b = env.b;
        let table = scan::stored_table(cx, self.scan)?.name().to_owned();
        let rows = cx.frame.bind(Bind::Rows { table: table.clone() }).get(b, env.frame);
        let column = self.column.clone();
        match self.how {
            How::CountsUp(range) => {
                cx.rely_on(Fact::CountsUp { table, column, min: range.min, max: range.max });
                let key = self.key(cx, env, range)?;
                let first = key - range.min as i64;
                // Unsigned: a key below the least is a large number.
                let inside = first.cmp(CmpOp::Ult, rows);
                Ok((inside.select(first, b.i64(0)), inside.select(first + 1, b.i64(0))))
            }
            How::Sorted(range) => {
                cx.rely_on(Fact::Sorted { table, column });
                let key = self.key(cx, env, range)?;
                let at = |row: V<'b>| {
                    let value: Value<'b> = scan::load(cx, env, self.scan, &self.column, row)?;
                    Ok(widen(value.scalar(), Prim::I64))
                };
                let first = search(rows, &at, |value| value.cmp(CmpOp::Lt, key))?;
                let last = search(rows, &at, |value| value.cmp(CmpOp::Le, key))?;
                Ok((first, last))
            }
            How::Indexed(_) => Err(LowerError::Internal {
                node: cx.describe(self.filter),
                what: "rows of an index side by side".into(),
            }),
        }
    }

    /// The value that is looked up, as an `i64`.
    fn key<'b>(&self, cx: &Cx<'_>, env: &Env<'b>, range: Range) -> Result<V<'b>> {
        let value = match parameter::value(cx, env.b, env.frame, self.comparison, range) {
            Some(value) => value,
            None => eval(cx, env, cx.graph.inputs(self.comparison)[1 - self.side])?,
        };
        Ok(widen(value.scalar(), Prim::I64))
    }
}

/// The first of `count` ascending values that is not before what is searched: a binary search.
fn search<'b>(count: V<'b>, at: &dyn Fn(V<'b>) -> Result<V<'b>>, before: impl Fn(V<'b>) -> V<'b>) -> Result<V<'b>> {
    let b = count.builder();
    let mut outcome = Ok(());
    let more = |range: &[V<'b>]| range[0].lt(range[1]);
    let found = b.while_(&[b.i64(0), count], more, |range| {
        let (lo, hi) = (range[0], range[1]);
        let middle = (lo + hi).lshr(1);
        match at(middle) {
            Ok(value) => {
                let is_before = before(value);
                vec![is_before.select(middle + 1, lo), is_before.select(hi, middle)]
            }
            Err(error) => {
                outcome = Err(error);
                vec![lo, hi]
            }
        }
    });
    outcome.map(|()| found[0])
}

/// A signed number as an unsigned one in the same order.
fn ascending(key: V<'_>) -> V<'_> {
    key.bin(BinOp::Xor, key.builder().i64(i64::MIN))
}

/// Bytes of an entry of an index: a key, by which entries are sorted, and the number of a row.
const ENTRY: i64 = 16;

/// Writes the entries of an index.
struct Entries {
    scan: Node,
    column: String,
    lists: Lists,
    operator: String,
}

impl Sink for Entries {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let Some(&Place::Stored(row)) = env.place(self.scan) else {
            return Err(LowerError::Internal { node: cx.describe(self.scan), what: "its rows have no places".into() });
        };
        let key = scan::load(cx, env, self.scan, &self.column, row)?;
        let list = self.lists.of(env.b, env.frame, env.worker);
        let entry = materialise::append(cx, env.b, env.frame, list, ENTRY, &self.operator);
        env.b.store(entry, 0, ascending(widen(key.scalar(), Prim::I64)));
        env.b.store(entry, 8, row);
        Ok(())
    }

    fn describe(&self) -> String {
        format!("{}: {ENTRY} bytes a row", self.operator)
    }
}

/// The index of a column: slots with the address and the number of its entries.
fn index(cx: &Cx<'_>, scan: Node, column: &str) -> Result<(Slot, Slot)> {
    cx.once(&[scan], || {
        let name = (scan, column.to_owned());
        if let Some(known) = cx.indexes.get(&name, cx.prepares()) {
            return Ok(known);
        }
        let operator = format!("index of {column}");
        let lists = Lists::new(cx, &operator);
        let mut sink = Entries { scan, column: column.to_owned(), lists, operator: operator.clone() };
        pipeline::run(cx, "index", scan, &mut sink)?;
        let (address, count) = materialise::concat(cx, lists, ENTRY, &operator);
        cx.step(move |_, b, frame| {
            let rows = [run_handle(b, frame), address.read(b, frame), count.read(b, frame)];
            let args = [rows[0], rows[1], rows[2], b.i64(ENTRY), b.i64(1), b.i64(-1)];
            b.check(b.call("qn_sort", Ty::I32, &args));
        });
        cx.indexes.insert(name, cx.prepares(), (address, count));
        Ok((address, count))
    })
}
