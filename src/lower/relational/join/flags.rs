//! Flags of the keys that a build side has found, where nothing else of its rows matters.
//!
//! They end the search for a match early: where a model decides which rows there are, a row whose key was found before is not shown
//! to it. Rows that are in a tile at once do not know of one another, so a key may still be found some times.

use super::super::env::Env;
use super::super::sideways::FLAGS_PAD;
use super::super::value::{Range, Value};
use super::directory::{self, Access, Slots, offset};
use super::{Join, key};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::round_up;
use quearn_stage::graph::fails::any_can_fail_but;
use quearn_stage::graph::{Node, Op};
use quearn_stage::low::{Builder, Ty, V};
use std::cell::Cell;

/// Bytes of flags of which each worker has a copy, at most: what stays in its second-level cache.
const MOST_COPIED: i64 = 2 << 20;
/// The same for each row of the build side.
const COPIED_A_ROW: f64 = 4.0;
/// Flags in a register.
pub const FLAG_LANES: u16 = 64;

/// The build side of a join, as its keys are marked.
pub struct Marked {
    /// The join.
    pub join: Join,
    /// Where its directory is.
    pub slots: Slots,
    /// Does a combination of keys have one row at most?
    pub unique: bool,
    access: Cell<Option<Access>>,
    /// Has each worker flags of its own?
    copies: Cell<bool>,
}

impl Marked {
    /// A build side whose structure is not chosen yet.
    pub fn new(join: Join, slots: Slots, unique: bool) -> Marked {
        Marked { join, slots, unique, access: Cell::default(), copies: Cell::default() }
    }

    /// The structure, once it is chosen.
    pub fn access(&self) -> Option<Access> {
        self.access.get()
    }

    /// The structure, chosen for keys with these values when it is first asked for.
    pub fn choose(&self, cx: &Cx<'_>, keys: &[Value<'_>]) -> Access {
        let access = self.access.get().unwrap_or_else(|| directory::choose(cx, &self.join, keys, self.unique));
        self.access.set(Some(access));
        self.copies.set(matches!(access, Access::Flags(range) if self.wants_copies(cx, range)));
        access
    }

    /// Has each worker flags of its own?
    pub fn has_copies(&self) -> bool {
        self.copies.get()
    }

    /// Should it? Where all of them see the same keys in no order, each new flag of a shared array takes the cache line away from the
    /// others. It pays while a copy stays in the second-level cache, and there are not many more flags to bring together than rows.
    fn wants_copies(&self, cx: &Cx<'_>, range: Range) -> bool {
        let bytes = flag_bytes(range);
        !self.in_order(cx) && bytes <= MOST_COPIED && bytes as f64 <= COPIED_A_ROW * cx.estimate.rows(self.join.right)
    }

    /// Do rows come in order of the only key, so that threads see different ones?
    pub fn in_order(&self, cx: &Cx<'_>) -> bool {
        self.join.keys.iter().all(|&(_, own)| cx.estimate.column(own).is_some_and(|column| column.stats.sorted))
    }

    /// The flag of a key that the worker sets.
    pub fn flag<'b>(&self, env: &Env<'b>, key: Value<'b>, range: Range) -> V<'b> {
        let first = self.slots.heads.get(env.b, env.frame);
        let own = if self.has_copies() { first.index(env.worker, flag_bytes(range)) } else { first };
        own.index(offset(key, range), 1)
    }

    /// Can rows be left out before the projection, whose keys were found? The key is a column that the projection and what is above
    /// it only pass on, and nothing there can fail on a row for which these `known` nodes are there.
    pub fn ends_early(&self, cx: &Cx<'_>, project: Node, known: &[Node]) -> bool {
        if !cx.stop_at_match || !self.join.existence() || self.unique {
            return false;
        }
        let &[(_, mut column)] = &self.join.keys[..] else { return false };
        let mut table = self.join.right;
        loop {
            let Op::Column(name) = cx.graph.op(column) else { return false };
            let inputs = cx.graph.inputs(table);
            if any_can_fail_but(cx.graph, &inputs[1..], known) {
                return false;
            }
            match cx.graph.op(table) {
                Op::Project { names } => {
                    let Some(at) = names.iter().position(|own| own == name) else { return false };
                    if table == project {
                        return matches!(cx.graph.op(inputs[1 + at]), Op::Column(_));
                    }
                    (table, column) = (inputs[0], inputs[1 + at]);
                }
                Op::Filter => table = inputs[0],
                _ => return false,
            }
        }
    }

    /// Could the current row make a match that is new? Not if its key was found before, or is NULL.
    pub fn wants<'b>(&self, cx: &Cx<'_>, env: &Env<'b>) -> Result<V<'b>> {
        let b: &'b Builder = env.b;
        let (other, own) = self.join.keys[0];
        let key = key(cx, env, own, other)?;
        let Access::Flags(range) = self.choose(cx, &[key]) else { return Ok(b.bool(true)) };
        let is_new = |b: &'b Builder| !b.load(Ty::BOOL, self.flag(env, key, range), 0);
        Ok(match key.valid {
            Some(valid) => b.if_else(valid, || vec![is_new(b)], || vec![b.bool(false)])[0],
            None => is_new(b),
        })
    }
}

/// Bytes of the flags of a range, whole registers of [`FLAG_LANES`].
pub fn flag_bytes(range: Range) -> i64 {
    round_up(range.count().unwrap_or(0) as i64 + FLAGS_PAD, FLAG_LANES.into())
}
