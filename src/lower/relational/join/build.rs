//! The build side: a pipeline that writes its rows out, and the step that arranges them.

use super::super::env::Env;
use super::super::expr::{column, elem_of};
use super::super::hash;
use super::super::layout::{RowField, RowLayout};
use super::super::materialise::{self, Lists};
use super::super::pipeline::{self, Sink, when};
use super::super::sideways::FLAGS_PAD;
use super::super::value::{Range, Value, both_valid};
use super::directory::{self, Access, Index, Rows, Slots, offset};
use super::{Join, Probe, is_unique, kept, key, plain};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::{Slot, round_up, run_handle, workers};
use quearn_backends::abi;
use quearn_stage::graph::Elem;
use quearn_stage::low::{Builder, Prim, Ty, V};
use std::rc::Rc;

/// Bytes of flags of which each worker has a copy, at most: what stays in its second-level cache.
const MOST_COPIED: i64 = 2 << 20;
/// The same for each row of the build side.
const COPIED_A_ROW: f64 = 4.0;
/// Flags in a register.
const FLAG_LANES: u16 = 64;
/// Registers of flags that a worker brings together at a time.
const UNITED: i64 = 1 << 10;

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
    /// Has each worker flags of its own?
    copies: bool,
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
        copies: false,
        join,
    };
    pipeline::run(cx, "build", right, &mut sink)?;
    let access = sink.access.expect("planned with the first row");
    if let Access::Flags(range) = access
        && sink.copies
    {
        unite(cx, sink.slots.heads, flag_bytes(range));
    }
    arrange(cx, &sink, access);
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
        self.copies = matches!(access, Access::Flags(range) if self.wants_copies(cx, range));
        Ok(access)
    }

    /// Should each worker have flags of its own? Where all of them see the same keys in no order, each new flag of a shared array
    /// takes the cache line away from the others. It pays while a copy stays in the second-level cache, and there are not many
    /// more flags to bring together than rows.
    fn wants_copies(&self, cx: &Cx<'_>, range: Range) -> bool {
        let bytes = flag_bytes(range);
        !self.in_order(cx) && bytes <= MOST_COPIED && bytes as f64 <= COPIED_A_ROW * cx.estimate.rows(self.join.right)
    }

    /// The flags that a worker sets.
    fn flags<'b>(&self, b: &'b Builder, frame: V<'b>, worker: V<'b>, range: Range) -> V<'b> {
        let first = self.slots.heads.get(b, frame);
        if self.copies { first.index(worker, flag_bytes(range)) } else { first }
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
                    let flags = self.flags(b, env.frame, env.worker, range);
                    let flag = flags.index(offset(keys[0], range), 1);
                    let set = || b.store(flag, 0, b.bool(true));
                    // A store takes the cache line away from other threads, even if it changes nothing: where all of them
                    // see the same keys it is worth a branch.
                    match self.copies || self.in_order(cx) {
                        true => set(),
                        false => b.if_(!b.load(Ty::BOOL, flag, 0), set),
                    }
                    return Ok(());
                }
                Access::Bits(range) => {
                    directory::mark_bit(self.slots.heads.get(b, env.frame), keys[0], range);
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
                zeros(cx, self.slots.heads, flag_bytes(range), self.copies, &self.operator);
            }
            Some(Access::Bits(range)) => {
                let bytes = 8 * (range.count().unwrap_or(0) as i64 / 64 + 1);
                zeros(cx, self.slots.heads, bytes, false, &self.operator);
            }
            Some(Access::Array { index: index @ Index::Rank(_), .. }) => {
                zeros(cx, self.slots.ranks, index.words() * abi::RANK_BYTES, false, &self.operator);
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
                let each = if self.copies { " a worker" } else { "" };
                return format!("{}: {} bytes of key flags{each}", self.operator, r.count().unwrap_or(0));
            }
            Some(Access::Bits(r)) => {
                return format!("{}: {} key bits", self.operator, r.count().unwrap_or(0));
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

/// A step that makes memory of known size, for each worker or for all of them.
fn zeros(cx: &Cx<'_>, slot: Slot, bytes: i64, each: bool, operator: &str) {
    let operator = operator.to_owned();
    cx.step(move |cx, b, frame| {
        let copies = if each { workers(b, frame) } else { b.i64(1) };
        slot.set(b, frame, cx.alloc(b, frame, copies * bytes, &operator));
    });
}

/// Bytes of the flags of a range, whole registers of [`FLAG_LANES`].
fn flag_bytes(range: Range) -> i64 {
    round_up(range.count().unwrap_or(0) as i64 + FLAGS_PAD, FLAG_LANES.into())
}

/// A step that brings the flags of all workers together in those of the first.
fn unite(cx: &Cx<'_>, slot: Slot, bytes: i64) {
    let ty = Ty::vector(Prim::I8, FLAG_LANES);
    let func = cx.task("unite_flags", |b, frame, _, lo, hi| {
        let first = slot.get(b, frame);
        b.for_(lo, hi, |i| {
            let own = first.index(i, FLAG_LANES.into());
            let all = b.for_carry(b.i64(1), workers(b, frame), 1, &[b.load(ty, own, 0)], |worker, all| {
                vec![all[0] | b.load(ty, own.index(worker, bytes), 0)]
            });
            b.store(own, 0, all[0]);
        });
    });
    let registers = bytes / i64::from(FLAG_LANES);
    cx.step(move |_, b, frame| {
        b.if_(workers(b, frame).gt(b.i64(1)), || b.par_for(func, frame, b.i64(registers), b.i64(UNITED)));
    });
}

/// A step that has the runtime arrange the rows that were written out.
fn arrange(cx: &Cx<'_>, build: &Build, access: Access) {
    let Some(form) = access.form() else { return };
    let (key, range) = match access {
        Access::Array { key, index, .. } => (Some(build.layout.fields[build.fields[key]].clone()), index.range()),
        _ => (None, Range::point(0)),
    };
    let bytes = key.as_ref().map_or(0, |key| key.stored.bytes());
    let place = key.map_or(0, |key| key.offset);
    // Sums of floats depend on the order in which they are added.
    let in_order = cx.sums_floats && !build.unique;
    let (lists, block, width) = (build.lists, build.slots.block, build.layout.width());
    let operator = build.operator.clone();
    cx.step(move |cx, b, frame| {
        let [_, first, workers, stride] = lists.arguments(b, frame);
        let constants = [width, form as i64, place, bytes, range.min as i64, range.count().unwrap_or(0) as i64];
        let constants = constants.into_iter().chain([i64::from(in_order)]).map(|c| b.i64(c));
        for (i, value) in (0..).zip([first, workers, stride].into_iter().chain(constants)) {
            b.store(frame, block + 8 * i, value);
        }
        let args = [run_handle(b, frame), frame.at(block), b.i64(cx.operator(&operator))];
        b.check(b.call("qn_join_directory", Ty::I32, &args));
    });
}

/// The stored keys of a row.
pub fn stored_keys<'b>(b: &'b Builder, layout: &RowLayout, fields: &[usize], row: V<'b>) -> Vec<Value<'b>> {
    let field = |&field: &usize| -> &RowField { &layout.fields[field] };
    fields.iter().map(field).map(|field| field.load(b, row, None)).collect()
}
