//! The build side: a pipeline that writes its rows out, and the step that arranges them.

use super::super::env::Env;
use super::super::expr::{column, elem_of};
use super::super::hash;
use super::super::layout::{RowField, RowLayout};
use super::super::materialise::{self, Lists};
use super::super::pipeline::{self, Sink, when};
use super::super::value::{Range, Value, both_valid};
use super::directory::{self, Access, Index, Rows, Slots};
use super::flags::{FLAG_LANES, Marked, flag_bytes};
use super::{Join, Probe, is_unique, kept, key, plain};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::{Slot, run_handle, workers};
use quearn_backends::abi;
use quearn_stage::graph::Elem;
use quearn_stage::low::{Builder, Prim, Ty, V};
use std::rc::Rc;

/// Registers of flags that a worker brings together at a time.
const UNITED: i64 = 1 << 10;

struct Build {
    marked: Rc<Marked>,
    columns: Vec<(String, Elem)>,
    lists: Lists,
    operator: String,
    layout: RowLayout,
    fields: Vec<usize>,
    /// Is it known what rows look like?
    planned: bool,
}

/// Emits the pipeline of the right side and the passes after it.
pub fn build(cx: &Cx<'_>, join: Join) -> Result<Probe> {
    let operator = format!("build side of {}", cx.describe(join.node));
    let right = join.right;
    let unique = is_unique(cx, right, &join.right_keys());
    let mut sink = Build {
        columns: kept(cx, &join),
        lists: Lists::new(cx, &operator),
        operator,
        layout: RowLayout::with_header(abi::ENTRY_KEYS),
        fields: vec![],
        planned: false,
        marked: Rc::new(Marked::new(join, Slots::new(cx), unique)),
    };
    pipeline::run(cx, "build", right, &mut sink)?;
    let (access, slots) = (sink.marked.access().expect("planned with the first row"), sink.marked.slots);
    if let Access::Flags(range) = access
        && sink.marked.has_copies()
    {
        unite(cx, slots.heads, flag_bytes(range));
    }
    arrange(cx, &sink, access);
    let Build { marked, layout, fields, .. } = sink;
    Ok(Probe { join: marked.join.clone(), layout: Rc::new(layout), fields, access, slots, unique })
}

impl Build {
    fn plan(&mut self, cx: &Cx<'_>, keys: &[Value<'_>], values: &[Value<'_>]) -> Result<Access> {
        let access = self.marked.choose(cx, keys);
        if std::mem::replace(&mut self.planned, true) {
            return Ok(access);
        }
        for ((name, elem), value) in self.columns.iter().zip(values) {
            self.layout.add(name, *elem, value);
        }
        for (&(_, own), value) in self.marked.join.keys.iter().zip(keys) {
            // Keys in rows are never NULL: rows with a NULL key are left out.
            let elem = elem_of(cx, own)?.scalar.required();
            self.fields.push(self.layout.add("", elem, &value.with_valid(None)));
        }
        Ok(access)
    }
}

impl Sink for Build {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        let (join, slots) = (&self.marked.join, self.marked.slots);
        let keys = join.keys.iter().map(|&(other, own)| key(cx, env, own, other));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let values = self.columns.iter().map(|(name, _)| column::column(cx, env, join.right, name));
        let values = values.collect::<Result<Vec<_>>>()?;
        let access = self.plan(cx, &keys, &values)?;
        let b = env.b;
        let valid = keys.iter().fold(None, |all, k| both_valid(all, k.valid)).unwrap_or_else(|| b.bool(true));
        when(b, valid, || {
            match access {
                Access::Flags(range) => {
                    let flag = self.marked.flag(env, keys[0], range);
                    let set = || b.store(flag, 0, b.bool(true));
                    // A store takes the cache line away from other threads, even if it changes nothing: where all of them
                    // see the same keys it is worth a branch.
                    match self.marked.has_copies() || self.marked.in_order(cx) {
                        true => set(),
                        false => b.if_(!b.load(Ty::BOOL, flag, 0), set),
                    }
                    return Ok(());
                }
                Access::Bits(range) => {
                    directory::mark_bit(slots.heads.get(b, env.frame), keys[0], range);
                    return Ok(());
                }
                Access::Array { key, index: index @ Index::Rank(_), .. } => {
                    index.mark(slots.ranks.get(b, env.frame), keys[key]);
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

    fn marked(&self) -> Option<Rc<Marked>> {
        Some(Rc::clone(&self.marked))
    }

    fn allocate(&mut self, cx: &Cx<'_>) -> Result<()> {
        let slots = self.marked.slots;
        match self.marked.access() {
            Some(Access::Flags(range)) => {
                zeros(cx, slots.heads, flag_bytes(range), self.marked.has_copies(), &self.operator);
            }
            Some(Access::Bits(range)) => {
                let bytes = 8 * (range.count().unwrap_or(0) as i64 / 64 + 1);
                zeros(cx, slots.heads, bytes, false, &self.operator);
            }
            Some(Access::Array { index: index @ Index::Rank(_), .. }) => {
                zeros(cx, slots.ranks, index.words() * abi::RANK_BYTES, false, &self.operator);
            }
            _ => {}
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let bytes = self.layout.width();
        let keys = |index: Index| index.range().count().unwrap_or(0);
        let structure = match self.marked.access() {
            Some(Access::Flags(r)) => {
                let each = if self.marked.has_copies() { " a worker" } else { "" };
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
    let in_order = cx.sums_floats && !build.marked.unique;
    let (lists, block, width) = (build.lists, build.marked.slots.block, build.layout.width());
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
