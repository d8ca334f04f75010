//! The groups of all workers brought together.

use super::super::env::Env;
use super::super::hash;
use super::super::materialise::{self, Lists};
use super::Groups;
use super::directory::{find_or_insert, grow};
use super::group::GroupLayout;
use crate::lower::context::Cx;
use crate::lower::frame::{Slot, workers};
use quearn_backends::abi;
use quearn_stage::low::{FuncId, Ty, V};
use std::rc::Rc;

/// Merges the workers' arrays into one list of the groups that occur.
pub fn merge_dense(cx: &Cx<'_>, sink: &Groups, layout: &Rc<GroupLayout>, groups: u64) -> Lists {
    let lists = Lists::new(cx, &sink.operator);
    let each = groups as i64 * layout.width();
    let always = sink.of.keys.is_empty();
    let func = cx.task_over("merge_groups", groups as f64, |b, frame, worker, lo, hi| {
        let arrays = sink.state.get(b, frame);
        let list = lists.of(b, frame, worker);
        b.for_(lo, hi, |at| {
            let first = arrays.index(at, layout.width());
            let merged = b.for_carry(b.i64(0), workers(b, frame), 1, &[b.null()], |w, c| {
                let group = first.index(w, each);
                let occurs = layout.occurs(b, group);
                let fold = || {
                    let fresh = || {
                        let row = materialise::append(cx, b, frame, list, layout.width(), &sink.operator);
                        layout.copy(b, row, group);
                        vec![row]
                    };
                    let more = || {
                        layout.merge(b, c[0], group);
                        vec![c[0]]
                    };
                    b.if_else(c[0].is_null(), fresh, more)
                };
                b.if_else(occurs, fold, || vec![c[0]])
            });
            if always {
                b.if_(merged[0].is_null(), || {
                    let row = materialise::append(cx, b, frame, list, layout.width(), &sink.operator);
                    layout.init(b, row);
                });
            }
        });
    });
    cx.step(move |_, b, frame| b.par_for(func, frame, b.i64(groups as i64), b.i64(1 << 10)));
    lists
}

/// Merges the workers' arrays into the first.
pub fn merge_in_place(cx: &Cx<'_>, sink: &Groups, layout: &Rc<GroupLayout>, groups: u64) {
    let each = groups as i64 * layout.width();
    let func = cx.task_over("merge_groups", groups as f64, |b, frame, _, lo, hi| {
        let arrays = sink.state.get(b, frame);
        b.for_(lo, hi, |at| {
            let first = arrays.index(at, layout.width());
            b.for_(b.i64(1), workers(b, frame), |w| {
                let group = first.index(w, each);
                let occurs = |group: V<'_>| layout.occurs(b, b.value(group.id));
                b.if_(occurs(group), || {
                    let merge = || {
                        layout.merge(b, first, group);
                        vec![]
                    };
                    b.if_else(occurs(first), merge, || {
                        layout.copy(b, first, group);
                        vec![]
                    });
                });
            });
        });
    });
    cx.step(move |_, b, frame| {
        b.if_(workers(b, frame).gt(b.i64(1)), || b.par_for(func, frame, b.i64(groups as i64), b.i64(1 << 12)));
    });
}

/// Merges the workers' hash tables, each worker one partition of the hashes; nothing to do for one worker.
pub fn merge_hashed(cx: &Cx<'_>, sink: &Groups, layout: &Rc<GroupLayout>) -> Lists {
    let merged = cx.frame.slot(Ty::PTR);
    let lists = Lists { address: cx.frame.slot(Ty::PTR), stride: abi::GROUPS_BYTES, count: None };
    let own = Lists { address: cx.frame.slot(Ty::PTR), stride: abi::GROUPS_BYTES, count: None };
    let (spans, span_count) = (cx.frame.slot(Ty::PTR), cx.frame.slot(Ty::I64));
    let func = merge_task(cx, sink, layout, merged, spans, span_count);
    let (state, operator, width) = (sink.state, sink.operator.clone(), layout.width());
    cx.step(move |cx, b, frame| {
        let n = workers(b, frame);
        let tables = state.read(b, frame);
        own.address.set(b, frame, tables.at(abi::GROUPS_ROWS));
        let merge = || {
            let memory = cx.alloc(b, frame, n * abi::GROUPS_BYTES, &operator);
            b.for_(b.i64(0), n, |w| grow(cx, b, frame, memory.index(w, abi::GROUPS_BYTES), b.i64(0), &operator));
            merged.set(b, frame, memory);
            let [run, first, n, stride] = own.arguments(b, frame);
            let rows = b.i64((1 << 16) / width + 1);
            let args = [run, first, n, stride, rows, b.i64(cx.operator(&operator)), frame.at(spans.offset)];
            let made = b.call("qn_rows_spans", Ty::I64, &args);
            b.fail_if_runtime(made.lt(b.i64(0)));
            span_count.set(b, frame, made);
            b.par_for(func, frame, n, b.i64(1));
            vec![memory]
        };
        let last = b.if_else(n.gt(b.i64(1)), merge, || vec![tables]);
        lists.address.set(b, frame, last[0].at(abi::GROUPS_ROWS));
    });
    lists
}

fn merge_task(
    cx: &Cx<'_>,
    sink: &Groups,
    layout: &Rc<GroupLayout>,
    merged: Slot,
    spans: Slot,
    span_count: Slot,
) -> FuncId {
    let groups = cx.estimate.rows(sink.of.node);
    cx.task_over("merge_groups", groups, |b, frame, worker, lo, hi| {
        let env = Env::new(b, frame, worker);
        b.for_(lo, hi, |part| {
            let table = merged.get(b, frame).index(part, abi::GROUPS_BYTES);
            b.for_(b.i64(0), span_count.get(b, frame), |s| {
                let span = spans.get(b, frame).index(s, abi::SPAN_BYTES);
                let (rows, count) = (b.load(Ty::PTR, span, 0), b.load(Ty::I64, span, 8));
                b.for_(b.i64(0), count, |i| {
                    let row = rows.index(i, layout.width());
                    let hash = b.load(Ty::I64, row, abi::ENTRY_HASH);
                    let mine = hash::partition(hash, workers(b, frame)).eq(part);
                    b.if_(mine, || {
                        let keys = layout.load_keys(b, row);
                        let copy = |to: V<'_>| layout.copy(b, b.value(to.id), row);
                        let fold = |to: V<'_>| layout.merge(b, b.value(to.id), row);
                        find_or_insert(cx, &env, table, hash, &keys, layout, &sink.operator, copy, fold);
                    });
                });
            });
        });
    })
}
