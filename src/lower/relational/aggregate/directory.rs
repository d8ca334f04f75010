//! Where groups are found by their keys.

use super::super::env::Env;
use super::super::expr::compare;
use super::super::hash;
use super::super::materialise;
use super::super::value::{Repr, Value};
use super::group::GroupLayout;
use crate::lower::context::Cx;
use crate::lower::frame::run_handle;
use quearn_backends::abi;
use quearn_stage::low::{Builder, CmpOp, Prim, Ty, V};

/// Groups that are kept in an array rather than a hash table, at most.
const DENSE_GROUPS: u64 = 1 << 14;

/// Groups that are kept in an array where there are at least twice as many rows, at most: a hash table would be larger.
const DENSE_GROUPS_OF_MANY_ROWS: u64 = 1 << 24;

/// Where groups are while rows are folded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// An array of that many groups; each key contributes an offset and a factor.
    Dense(u64),
    /// One `abi::GroupTable` a worker.
    Hashed,
    /// That many partitions, see `super::partitioned`.
    Partitioned(i64),
    /// One `abi::RowList` a worker; the last row is the current group.
    Ordered,
}

/// Picks the structure for keys of these forms in about that many rows.
pub fn directory(keys: &[Value<'_>], rows: f64) -> Directory {
    let domain = |key: &Value<'_>| {
        let values = match (key.range, key.repr) {
            (Some(range), _) => range.count()?,
            (None, Repr::Prim(v)) if v.ty() == Ty::BOOL => 2,
            _ => return None,
        };
        values.checked_add(u64::from(key.valid.is_some()))
    };
    let groups = keys.iter().try_fold(1u64, |all, key| all.checked_mul(domain(key)?));
    match groups {
        Some(groups) if groups <= DENSE_GROUPS || (groups <= DENSE_GROUPS_OF_MANY_ROWS && groups as f64 <= rows) => {
            Directory::Dense(groups)
        }
        _ => Directory::Hashed,
    }
}

/// Position of a combination of keys in the array of all combinations; NULL comes first.
pub fn position<'b>(b: &'b Builder, keys: &[Value<'b>]) -> V<'b> {
    keys.iter().fold(b.i64(0), |at, key| {
        let (least, values) = key.range.map_or((0, 2), |r| (r.min, r.count().unwrap_or(1)));
        let v = key.scalar();
        let v = if v.ty() == Ty::BOOL { v.zext(Prim::I64) } else { v.sext(Prim::I64) };
        let offset = v - least as i64;
        let (offset, values) = match key.valid {
            Some(valid) => (valid.select(offset + 1, b.i64(0)), values + 1),
            None => (offset, values),
        };
        at * values as i64 + offset
    })
}

/// Where the chain of a hash begins in a group table's directory, which may grow.
fn head<'b>(b: &'b Builder, table: V<'b>, hash: V<'b>) -> V<'b> {
    let mask = b.load(Ty::I64, table, abi::GROUPS_MASK);
    b.load(Ty::PTR, table, abi::GROUPS_DIR).index(hash & mask, 8)
}

/// The entry of `keys` in a group table, or null.
pub fn find<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    table: V<'b>,
    hash: V<'b>,
    keys: &[Value<'b>],
    layout: &GroupLayout,
) -> V<'b> {
    let b = env.b;
    let first = b.load(Ty::PTR, head(b, table, hash), 0);
    let other = |entry: V<'b>| {
        let same_hash = b.load(Ty::I64, entry, abi::ENTRY_HASH).eq(hash);
        if hash::is_exact(keys) {
            return !same_hash;
        }
        let same = b.if_else(same_hash, || vec![same_keys(cx, env, entry, keys, layout)], || vec![b.bool(false)]);
        !same[0]
    };
    b.while_(
        &[first],
        |c| b.if_else(c[0].is_null(), || vec![b.bool(false)], || vec![other(c[0])])[0],
        |c| vec![b.load(Ty::PTR, c[0], abi::ENTRY_NEXT)],
    )[0]
}

/// The entry of `keys` in a group table, inserted if it is new.
pub fn find_or_insert<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    table: V<'b>,
    hash: V<'b>,
    keys: &[Value<'b>],
    layout: &GroupLayout,
    operator: &str,
    on_new: impl FnOnce(V<'b>),
    on_found: impl FnOnce(V<'b>),
) -> V<'b> {
    let b = env.b;
    let found = find(cx, env, table, hash, keys, layout);
    let insert = || {
        let count = b.load(Ty::I64, table, abi::GROUPS_COUNT);
        let full = count.cmp(CmpOp::Ge, b.load(Ty::I64, table, abi::GROUPS_LIMIT));
        b.if_(full, || grow(cx, b, env.frame, table, b.i64(0), operator));
        let list = table.at(abi::GROUPS_ROWS);
        let entry = materialise::append(cx, b, env.frame, list, layout.width(), operator);
        let head = head(b, table, hash);
        b.store(entry, abi::ENTRY_NEXT, b.load(Ty::PTR, head, 0));
        b.store(entry, abi::ENTRY_HASH, hash);
        b.store(head, 0, entry);
        b.store(table, abi::GROUPS_COUNT, count + 1);
        on_new(entry);
        vec![entry]
    };
    let found_one = || {
        on_found(found);
        vec![found]
    };
    b.if_else(found.is_null(), insert, found_one)[0]
}

/// Are these the keys of a group?
pub fn same_keys<'b>(cx: &Cx<'_>, env: &Env<'b>, entry: V<'b>, keys: &[Value<'b>], layout: &GroupLayout) -> V<'b> {
    let stored = layout.load_keys(env.b, entry);
    stored.into_iter().zip(keys).fold(env.b.bool(true), |all, (old, new)| {
        let equal = match (old.valid, new.valid) {
            (None, None) => compare::keys_equal(cx, env, old, *new),
            // NULL is a group of its own.
            _ => {
                let (p, q) = (old.is_valid(env.b), new.is_valid(env.b));
                let both = p & q;
                let equal = env.b.if_else(both, || vec![compare::keys_equal(cx, env, old, *new)], || vec![!(p | q)]);
                equal[0]
            }
        };
        all & equal
    })
}

/// Enlarges a table, so that it holds a number of groups at least.
pub fn grow<'b>(cx: &Cx<'_>, b: &'b Builder, frame: V<'b>, table: V<'b>, groups: V<'b>, operator: &str) {
    let args = [run_handle(b, frame), table, groups, b.i64(cx.operator(operator))];
    b.check(b.call("qn_groups_grow", Ty::I32, &args));
}
