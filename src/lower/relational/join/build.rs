//! The build side: a pipeline that writes its rows out, and passes over these rows that arrange them.

use super::super::env::Env;
use super::super::expr::{column, elem_of};
use super::super::hash;
use super::super::layout::{RowField, RowLayout};
use super::super::materialise::{self, Lists, Spans};
use super::super::pipeline::{self, Sink, when};
use super::super::value::{Value, both_valid};
use super::directory::{self, Access, Index, RANK_BYTES, Rows, Slots, offset};
use super::{Join, Probe, is_unique, kept, key, plain};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::Slot;
use quearn_backends::abi;
use quearn_stage::graph::Elem;
use quearn_stage::low::{BinOp, Builder, Prim, RmwOp, Ty, UnOp, V};
use std::rc::Rc;

struct Build {
    join: Join,
    columns: Vec<(String, Elem)>,
    /// Does a combination of keys have one row at most?
    unique: bool,
    lists: Lists,
    slots: Slots,
    operator: String,
    layout: RowLayout,
    fields: Vec<usize>,
    access: Option<Access>,
}

/// Emits the pipeline of the right side and the passes after it.
pub fn build(cx: &Cx<'_>, join: Join) -> Result<Probe> {
    let operator = format!("build side of {}", cx.describe(join.node));
    let right = join.right;
    let mut sink = Build {
        columns: kept(cx, &join),
        unique: is_unique(cx, right, &join.right_keys()),
        lists: Lists::new(cx, &operator),
        slots: Slots::new(cx),
        operator,
        layout: RowLayout::with_header(abi::ENTRY_KEYS),
        fields: vec![],
        access: None,
        join,
    };
    pipeline::run(cx, "build", right, &mut sink)?;
    let access = sink.access.expect("planned with the first row");
    Passes { cx, build: &sink, in_order: cx.sums_floats && !sink.unique }.run(access);
    let Build { join, unique, slots, layout, fields, .. } = sink;
    Ok(Probe { join, layout: Rc::new(layout), fields, access, slots, unique })
}

impl Build {
    fn plan(&mut self, cx: &Cx<'_>, keys: &[Value<'_>], values: &[Value<'_>]) -> Result<Access> {
        if let Some(access) = self.access {
            return Ok(access);
        }
        for ((name, elem), value) in self.columns.iter().zip(values) {
            self.layout.add(name, *elem, value);
        }
        for (&(_, own), value) in self.join.keys.iter().zip(keys) {
            // Keys in rows are never NULL: rows with a NULL key are left out.
            let elem = elem_of(cx, own)?.scalar.required();
            self.fields.push(self.layout.add("", elem, &value.with_valid(None)));
        }
        let access = directory::choose(cx, &self.join, keys, self.unique);
        self.access = Some(access);
        Ok(access)
    }

    /// Do rows come in order of the only key, so that threads see different ones?
    fn in_order(&self, cx: &Cx<'_>) -> bool {
        self.join.keys.iter().all(|&(_, own)| cx.estimate.column(own).is_some_and(|column| column.stats.sorted))
    }
}

impl Sink for Build {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let keys = self.join.keys.iter().map(|&(other, own)| key(cx, env, own, other));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let values = self.columns.iter().map(|(name, _)| column::column(cx, env, self.join.right, name));
        let values = values.collect::<Result<Vec<_>>>()?;
        let access = self.plan(cx, &keys, &values)?;
        let b = env.b;
        let valid = keys.iter().fold(None, |all, k| both_valid(all, k.valid)).unwrap_or_else(|| b.bool(true));
        when(b, valid, || {
            match access {
                Access::Flags(range) => {
                    let flag = self.slots.heads.get(b, env.frame).index(offset(keys[0], range), 1);
                    let set = || b.store(flag, 0, b.bool(true));
                    // A store takes the cache line away from other threads, even if it changes nothing: where all of them
                    // see the same keys it is worth a branch.
                    match self.in_order(cx) {
                        true => set(),
                        false => b.if_(!b.load(Ty::BOOL, flag, 0), set),
                    }
                    return Ok(());
                }
                Access::Array { key, index: index @ Index::Rank(_), .. } => {
                    index.mark(self.slots.ranks.get(b, env.frame), keys[key]);
                }
                _ => {}
            }
            let list = self.lists.of(b, env.frame, env.worker);
            let row = materialise::append(cx, b, env.frame, list, self.layout.width(), &self.operator);
            if access == Access::Hashed {
                b.store(row, abi::ENTRY_HASH, hash::hash(cx, env, &plain(&keys)));
            }
            for (field, value) in self.layout.fields.iter().zip(values.iter().chain(&keys)) {
                field.store(b, row, value);
            }
            Ok(())
        })
    }

    fn allocate(&mut self, cx: &Cx<'_>) -> Result<()> {
        match self.access {
            Some(Access::Flags(range)) => {
                zeros(cx, self.slots.heads, range.count().unwrap_or(0) as i64, &self.operator);
            }
            Some(Access::Array { index: index @ Index::Rank(_), .. }) => {
                zeros(cx, self.slots.ranks, index.words() * RANK_BYTES, &self.operator);
            }
            _ => {}
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let bytes = self.layout.width();
        let keys = |index: Index| index.range().count().unwrap_or(0);
        let structure = match self.access {
            Some(Access::Flags(r)) => {
                return format!("{}: {} bytes of key flags", self.operator, r.count().unwrap_or(0));
            }
            Some(Access::Array { index: i @ Index::Offset(_), rows: Rows::Chain, .. }) => {
                format!("array of {} heads", keys(i))
            }
            Some(Access::Array { index: i @ Index::Offset(_), .. }) => format!("grouped by {} keys", keys(i)),
            Some(Access::Array { index: i, rows: Rows::Placed, .. }) => {
                format!("placed by rank among {} keys", keys(i))
            }
            Some(Access::Array { index: i, .. }) => format!("grouped by rank among {} keys", keys(i)),
            _ => "hash table".to_owned(),
        };
        format!("{}: {bytes} bytes a row, {structure}", self.operator)
    }
}

/// A step that makes memory of known size.
fn zeros(cx: &Cx<'_>, slot: Slot, bytes: i64, operator: &str) {
    let operator = operator.to_owned();
    cx.step(move |cx, b, frame| slot.set(b, frame, cx.alloc(b, frame, b.i64(bytes), &operator)));
}

/// Passes over the rows that were written out.
struct Passes<'x, 'g> {
    cx: &'x Cx<'g>,
    build: &'x Build,
    /// Must rows of one key stay in order?
    in_order: bool,
}

impl Passes<'_, '_> {
    fn run(&self, access: Access) {
        let slots = self.build.slots;
        match access {
            Access::Flags(_) | Access::Positional { .. } => {}
            Access::Hashed => {
                self.hashed_heads();
                self.link(self.spans(), move |b, frame, row| {
                    b.load(Ty::I64, row, abi::ENTRY_HASH) & slots.mask.get(b, frame)
                });
            }
            Access::Array { key, index, rows } => self.array(key, index, rows),
        }
    }

    fn array(&self, key: usize, index: Index, rows: Rows) {
        let (cx, slots, operator) = (self.cx, self.build.slots, self.build.operator.clone());
        if let Index::Rank(_) = index {
            self.sum_up(index);
        }
        let spans = self.spans();
        let field = self.build.layout.fields[self.build.fields[key]].clone();
        let position = move |b: &Builder, frame: V<'_>, row: V<'_>| -> quearn_stage::low::Value {
            let (frame, row) = (b.value(frame.id), b.value(row.id));
            index.position(slots.ranks.get(b, frame), field.load(b, row, None)).id
        };
        match rows {
            Rows::Chain => {
                zeros(cx, slots.heads, index.range().count().unwrap_or(0) as i64 * 8, &operator);
                self.link(spans, move |b, frame, row| b.value(position(b, frame, row)));
            }
            Rows::Placed => {
                self.room();
                self.place(&spans, move |b, frame, row| b.value(position(b, frame, row)));
            }
            Rows::Grouped => self.group(&spans, index, position),
        }
    }

    fn spans(&self) -> Spans {
        let build = self.build;
        let form = materialise::Form::Row(Rc::new(build.layout.clone()));
        materialise::spans_of_lists(self.cx, build.lists, build.layout.width(), form, &build.operator)
    }

    /// Calls `body` for the built rows in parallel, unless the order in which they are seen matters.
    fn over_rows(
        &self,
        spans: &Spans,
        name: &str,
        in_order: bool,
        body: impl for<'b> FnOnce(&'b Builder, V<'b>, V<'b>),
    ) {
        let rows = self.cx.estimate.rows(self.build.join.right);
        let func = self.cx.task_over(name, rows, |b, frame, _, lo, hi| {
            b.for_(lo, hi, |s| {
                let span = spans.address.get(b, frame).index(s, abi::SPAN_BYTES);
                let (rows, count) = (b.load(Ty::PTR, span, 0), b.load(Ty::I64, span, 8));
                b.for_(b.i64(0), count, |i| body(b, frame, rows.index(i, spans.width)));
            });
        });
        let count = spans.count;
        self.cx.step(move |_, b, frame| {
            let n = count.read(b, frame);
            b.par_for(func, frame, n, if in_order { n.max(b.i64(1)) } else { b.i64(1) });
        });
    }

    /// Puts every row at the head of its chain.
    fn link(&self, spans: Spans, head: impl for<'b> Fn(&'b Builder, V<'b>, V<'b>) -> V<'b>) {
        let heads = self.build.slots.heads;
        self.over_rows(&spans, "link", self.in_order, |b, frame, row| {
            let head = heads.get(b, frame).index(head(b, frame, row), 8);
            let next = b.atomic(RmwOp::Xchg, head, row);
            b.store(row, abi::ENTRY_NEXT, next);
        });
    }

    /// A directory of at least twice as many heads as rows.
    fn hashed_heads(&self) {
        let (lists, slots, operator) = (self.build.lists, self.build.slots, self.build.operator.clone());
        self.cx.step(move |cx, b, frame| {
            let rows = b.call("qn_rows_count", Ty::I64, &lists.arguments(b, frame));
            let bits = b.i64(64) - (rows * 2 + 15).un(UnOp::Clz);
            let size = b.i64(1).bin(BinOp::Shl, bits);
            slots.heads.set(b, frame, cx.alloc(b, frame, size * 8, &operator));
            slots.mask.set(b, frame, size - 1);
        });
    }

    /// Completes the counts of a bitmap.
    fn sum_up(&self, index: Index) {
        let (ranks, words) = (self.build.slots.ranks, index.words());
        let func = self.cx.task_over("rank", words as f64, |b, frame, _, _, _| {
            directory::sum_up(b, ranks.get(b, frame), b.i64(words));
        });
        self.cx.step(move |_, b, frame| b.par_for(func, frame, b.i64(1), b.i64(1)));
    }

    /// Memory for all rows in one array.
    fn room(&self) {
        let (lists, slots, operator) = (self.build.lists, self.build.slots, self.build.operator.clone());
        let width = self.build.layout.width();
        self.cx.step(move |cx, b, frame| {
            let n = b.call("qn_rows_count", Ty::I64, &lists.arguments(b, frame));
            slots.rows.set(b, frame, cx.alloc(b, frame, n * width + 1, &operator));
        });
    }

    /// Copies every row to its position.
    fn place(&self, spans: &Spans, position: impl for<'b> Fn(&'b Builder, V<'b>, V<'b>) -> V<'b>) {
        let (rows, width) = (self.build.slots.rows, self.build.layout.width());
        self.over_rows(spans, "place", false, |b, frame, row| {
            let to = rows.get(b, frame).index(position(b, frame, row), width);
            copy(b, to, row, width);
        });
    }

    /// Brings the rows of each position together: counts them, sums the counts up, copies the rows.
    fn group(
        &self,
        spans: &Spans,
        index: Index,
        position: impl Fn(&Builder, V<'_>, V<'_>) -> quearn_stage::low::Value + Clone,
    ) {
        let (slots, operator) = (self.build.slots, self.build.operator.clone());
        let positions = index.range().count().unwrap_or(0) as i64;
        // Ranks are at most as many as rows.
        let (lists, by_rank) = (self.build.lists, matches!(index, Index::Rank(_)));
        let counters = self.cx.frame.slot(Ty::I64);
        self.cx.step(move |cx, b, frame| {
            let all = b.i64(positions);
            let n = if by_rank { b.call("qn_rows_count", Ty::I64, &lists.arguments(b, frame)).min(all) } else { all };
            counters.set(b, frame, n);
            slots.heads.set(b, frame, cx.alloc(b, frame, (n + 1) * 4, &operator));
        });
        // The count of position k stands at k + 1: sums then are positions. A row remembers how many came before it.
        let own = position.clone();
        self.over_rows(spans, "count", self.in_order, |b, frame, row| {
            let counter = slots.heads.get(b, frame).index(b.value(own(b, frame, row)), 4).at(4);
            let rank = b.atomic(RmwOp::Add, counter, b.i32(1));
            b.store(row, abi::ENTRY_NEXT, rank);
        });
        let estimate = if by_rank { self.cx.estimate.rows(self.build.join.right) } else { positions as f64 };
        let sums = self.cx.task_over("positions", estimate, |b, frame, _, _, _| {
            let heads = slots.heads.get(b, frame);
            b.for_carry(b.i64(0), counters.get(b, frame), 1, &[b.i32(0)], |k, c| {
                let counter = heads.index(k, 4);
                let sum = c[0] + b.load(Ty::I32, counter, 4);
                b.store(counter, 4, sum);
                vec![sum]
            });
        });
        self.cx.step(move |_, b, frame| b.par_for(sums, frame, b.i64(1), b.i64(1)));
        self.room();
        let width = self.build.layout.width();
        self.over_rows(spans, "group", false, |b, frame, row| {
            let start = slots.heads.get(b, frame).index(b.value(position(b, frame, row)), 4);
            let at = b.load(Ty::I32, start, 0) + b.load(Ty::I32, row, abi::ENTRY_NEXT);
            copy(b, slots.rows.get(b, frame).index(at.sext(Prim::I64), width), row, width);
        });
    }
}

/// Copies a row, but for the link to the next one.
fn copy<'b>(b: &'b Builder, to: V<'b>, row: V<'b>, width: i64) {
    for word in (abi::ENTRY_HASH..width).step_by(8) {
        b.store(to, word, b.load(Ty::I64, row, word));
    }
}

/// The stored keys of a row.
pub fn stored_keys<'b>(b: &'b Builder, layout: &RowLayout, fields: &[usize], row: V<'b>) -> Vec<Value<'b>> {
    let field = |&field: &usize| -> &RowField { &layout.fields[field] };
    fields.iter().map(field).map(|field| field.load(b, row, None)).collect()
}
