//! Many groups with few rows each: a hash table of all of them would miss the caches with every row, and merging the workers'
//! tables would do all the work again. So workers append their rows, each a group of its own, to partitions by hash; what
//! falls into the group that a small cache remembers for its hash is folded in at once (which is what skewed keys do). Then
//! each partition is grouped by itself, in a hash table that fits the second-level cache (Leis et al., "Morsel-driven
//! parallelism", SIGMOD 2014, section 4.4; Manegold et al., "Optimizing main-memory join on modern hardware", TKDE 2002).

use super::super::env::Env;
use super::super::hash;
use super::super::materialise::{self, Lists};
use super::super::value::Value;
use super::directory::{find_or_insert, grow, same_keys};
use super::group::GroupLayout;
use super::{Aggregation, Groups};
use crate::lower::context::Cx;
use crate::lower::frame::{run_handle, workers};
use quearn_backends::abi;
use quearn_stage::low::{BinOp, Ty, V};
use std::rc::Rc;

/// Bytes of groups of a partition, about: with the directory they fit the second-level cache.
const PARTITION: f64 = (1 << 19) as f64;
/// Partitions, at most: a worker appends to all of them at a time.
const MOST: f64 = 256.0;
/// Bytes of groups from which on partitions pay.
const LARGE: f64 = (1 << 21) as f64;
/// Rows a group, at most.
const ROWS_A_GROUP: f64 = 4.0;
/// Bytes of a partition's list that are fetched ahead of what is appended.
const AHEAD: i64 = 256;
/// Entries of the cache of a worker: addresses of groups.
const CACHED: i64 = 1 << 12;

/// Into how many partitions the groups of these rows go, if partitions pay.
pub fn parts(cx: &Cx<'_>, of: &Aggregation, layout: &GroupLayout) -> Option<i64> {
    let (rows, groups) = (cx.estimate.rows(of.input), cx.estimate.rows(of.node));
    let bytes = groups * layout.width() as f64;
    let pays = bytes >= LARGE && rows <= ROWS_A_GROUP * groups;
    pays.then(|| (bytes / PARTITION).clamp(8.0, MOST) as i64)
}

/// Bytes of the state of a worker: a list for each partition, then the cache.
pub fn state_bytes(parts: i64) -> i64 {
    parts * abi::ROWS_BYTES + CACHED * 8
}

/// The group to fold the current row into: that of an earlier row, or a new one in the row's partition.
pub fn find<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    (state, parts): (V<'b>, i64),
    keys: &[Value<'b>],
    layout: &GroupLayout,
    operator: &str,
) -> V<'b> {
    let b = env.b;
    let hash = hash::hash(cx, env, keys);
    let own = state.index(env.worker, state_bytes(parts));
    let slot = own.at(parts * abi::ROWS_BYTES).index(hash & (CACHED - 1), 8);
    // The high bits of a slot are those of the hash: most of what is not there is found out without looking at the group.
    let tag = hash.lshr(16) & !abi::HEAD_ADDRESS;
    let head = b.load(Ty::I64, slot, 0);
    let cached = (head & abi::HEAD_ADDRESS).bitcast(Ty::PTR);
    let same = || {
        let same_hash = b.load(Ty::I64, cached, abi::ENTRY_HASH).eq(hash);
        if hash::is_exact(keys) {
            return vec![same_hash];
        }
        vec![b.if_else(same_hash, || vec![same_keys(cx, env, cached, keys, layout)], || vec![b.bool(false)])[0]]
    };
    let maybe = !cached.is_null() & (head & !abi::HEAD_ADDRESS).eq(tag);
    let found = b.if_else(maybe, same, || vec![b.bool(false)])[0];
    let append = || {
        let list = own.index(hash::partition(hash, b.i64(parts)), abi::ROWS_BYTES);
        let group = materialise::append(cx, b, env.frame, list, layout.width(), operator);
        // The processor follows a few streams only, not one a partition.
        b.prefetch(group.at(AHEAD));
        b.store(group, abi::ENTRY_HASH, hash);
        layout.store_keys(b, group, keys);
        layout.init(b, group);
        b.store(slot, 0, group.bitcast(Ty::I64).bin(BinOp::Or, tag));
        vec![group]
    };
    b.if_else(found, || vec![cached], append)[0]
}

/// Emits the step that groups each partition by itself.
pub fn merge(cx: &Cx<'_>, sink: &Groups, layout: &Rc<GroupLayout>, parts: i64) -> Lists {
    let tables = cx.frame.slot(Ty::PTR);
    let lists = Lists { address: cx.frame.slot(Ty::PTR), stride: abi::GROUPS_BYTES, count: Some(parts) };
    let (state, operator) = (sink.state, sink.operator.clone());
    let rows_a_group = (cx.estimate.rows(sink.of.input) / cx.estimate.rows(sink.of.node).max(1.0)).max(1.0) as i64;
    let func = cx.task_over("group_partitions", cx.estimate.rows(sink.of.input), |b, frame, worker, lo, hi| {
        let env = Env::new(b, frame, worker);
        let spans = b.alloca(8, 8);
        b.for_(lo, hi, |part| {
            let table = tables.get(b, frame).index(part, abi::GROUPS_BYTES);
            let first = state.get(b, frame).index(part, abi::ROWS_BYTES);
            let operator_id = b.i64(cx.operator(&operator));
            let (n, stride) = (workers(b, frame), b.i64(state_bytes(parts)));
            let args = [run_handle(b, frame), first, n, stride, b.i64(i64::MAX), operator_id, spans];
            let count = b.call("qn_rows_spans", Ty::I64, &args);
            b.fail_if_runtime(count.lt(b.i64(0)));
            let address = b.load(Ty::PTR, spans, 0);
            let rows = b.for_carry(b.i64(0), count, 1, &[b.i64(0)], |s, sum| {
                vec![sum[0] + b.load(Ty::I64, address.index(s, abi::SPAN_BYTES), 8)]
            });
            // A directory that grows is linked anew each time.
            grow(cx, b, frame, table, rows[0].bin(BinOp::UDiv, b.i64(rows_a_group)), &operator);
            b.for_(b.i64(0), count, |s| {
                let span = address.index(s, abi::SPAN_BYTES);
                let (rows, count) = (b.load(Ty::PTR, span, 0), b.load(Ty::I64, span, 8));
                b.for_(b.i64(0), count, |i| {
                    let row = rows.index(i, layout.width());
                    let hash = b.load(Ty::I64, row, abi::ENTRY_HASH);
                    let keys = layout.load_keys(b, row);
                    let copy = |to: V<'_>| layout.copy(b, b.value(to.id), row);
                    let fold = |to: V<'_>| layout.merge(b, b.value(to.id), row);
                    find_or_insert(cx, &env, table, hash, &keys, layout, &operator, copy, fold);
                });
            });
        });
    });
    let operator = sink.operator.clone();
    cx.step(move |cx, b, frame| {
        let memory = cx.alloc(b, frame, b.i64(parts * abi::GROUPS_BYTES), &operator);
        tables.set(b, frame, memory);
        b.par_for(func, frame, b.i64(parts), b.i64(1));
        lists.address.set(b, frame, memory.at(abi::GROUPS_ROWS));
    });
    lists
}
