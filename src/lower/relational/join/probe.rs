//! The probe side: the code that looks the current row of the left side up, inside its pipeline.

use super::super::env::{Env, Place, Sides};
use super::super::expr::{compare, eval};
use super::super::hash;
use super::super::pipeline::{self, when};
use super::super::value::{Value, both_valid};
use super::build::stored_keys;
use super::directory::{self, Access, Index, Ranked, Rows, inside, offset};
use super::{Probe, key, plain};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use quearn_backends::abi;
use quearn_stage::graph::JoinKind;
use quearn_stage::low::{BinOp, CastOp, Prim, Ty, V};
use std::rc::Rc;

/// Generates the probe for the current row of the left side.
pub fn probe<'b>(cx: &Cx<'_>, env: &Env<'b>, probe: &Probe, consume: &mut pipeline::Consume<'_>) -> Result<()> {
    let keys = probe.join.keys.iter().map(|&(own, other)| key(cx, env, own, other)).collect::<Result<Vec<_>>>()?;
    let b = env.b;
    let valid = keys.iter().fold(None, |all, k| both_valid(all, k.valid));
    let keys = plain(&keys);
    let mut chain = Chain { cx, env, probe, hash: None, keys, end: None };
    match probe.access {
        Access::Flags(range) => {
            let flag = || {
                let at = probe.slots.heads.get(b, env.frame).index(offset(chain.keys[0], range), 1);
                vec![b.load_invariant(Ty::BOOL, at, 0)]
            };
            let occurs = b.if_else(inside(b, chain.keys[0], range, valid), flag, || vec![b.bool(false)])[0];
            return chain.one_sided(occurs, consume);
        }
        Access::Bits(range) => {
            let bit = || vec![directory::test_bit(probe.slots.heads.get(b, env.frame), chain.keys[0], range)];
            let occurs = b.if_else(inside(b, chain.keys[0], range, valid), bit, || vec![b.bool(false)])[0];
            return chain.one_sided(occurs, consume);
        }
        Access::Positional { scan, range } => return chain.positional(scan, range, valid, consume),
        Access::Hashed => chain.hash = Some(hash::hash(cx, env, &chain.keys)),
        Access::Array { .. } => {}
    }
    let first = chain.first(valid);
    match &probe.join.kind {
        JoinKind::Inner if probe.unique => {
            let row = chain.next_match(first)?;
            when(b, !row.is_null(), || consume(&chain.bind(row, None)))
        }
        JoinKind::Inner => chain.each(first, consume),
        JoinKind::Left => chain.outer(first, consume),
        JoinKind::Semi | JoinKind::Anti | JoinKind::Mark(_) => {
            let found = !chain.next_match(first)?.is_null();
            chain.one_sided(found, consume)
        }
    }
}

/// Asks for the cache lines of the first row of the build side that the keys which the directory uses (on some row of the
/// left side, whatever else the join demands of it) will lead to.
pub fn ask<'b>(cx: &Cx<'_>, env: &Env<'b>, probe: &Probe, keys: &[Value<'b>]) {
    let valid = keys.iter().fold(None, |all, k| both_valid(all, k.valid));
    let keys = plain(keys);
    let hash = (probe.access == Access::Hashed).then(|| hash::hash(cx, env, &keys));
    let mut chain = Chain { cx, env, probe, hash, keys, end: None };
    let first = chain.first_at(0, valid);
    for line in (0..probe.width()).step_by(64) {
        env.b.prefetch(first.at(line));
    }
}

/// The rows of the build side that a key of the left side may match.
struct Chain<'x, 'c, 'g, 'b> {
    cx: &'x Cx<'g>,
    env: &'x Env<'b>,
    probe: &'c Probe,
    hash: Option<V<'b>>,
    keys: Vec<Value<'b>>,
    /// Where the rows of a grouped key end.
    end: Option<V<'b>>,
}

impl<'b> Chain<'_, '_, '_, 'b> {
    /// A semi-, anti- or mark join whose match was found or not.
    fn one_sided(&self, found: V<'b>, consume: &mut pipeline::Consume<'_>) -> Result<()> {
        let join = &self.probe.join;
        let keep = match join.kind {
            JoinKind::Mark(_) => return consume(&self.env.with_mark(join.node, found)),
            JoinKind::Anti => !found,
            _ => found,
        };
        when(self.env.b, keep, || consume(&self.env.branch()))
    }

    fn positional(
        &self,
        scan: quearn_stage::graph::Node,
        range: super::super::value::Range,
        valid: Option<V<'b>>,
        consume: &mut pipeline::Consume<'_>,
    ) -> Result<()> {
        let (b, join) = (self.env.b, &self.probe.join);
        let found = inside(b, self.keys[0], range, valid);
        if join.kind != JoinKind::Inner {
            return self.one_sided(found, consume);
        }
        when(b, found, || {
            let right = Env::new(b, self.env.frame, self.env.worker);
            let right = right.bind(scan, Place::Stored(offset(self.keys[0], range)));
            let Some(residual) = join.residual else { return consume(&self.pair(right)) };
            let env = self.pair(right);
            let keep = eval(self.cx, &env, residual)?.is_true();
            when(b, keep, || consume(&env.branch()))
        })
    }

    /// First row of the chain, or null.
    fn first(&mut self, valid: Option<V<'b>>) -> V<'b> {
        let key = if let Access::Array { key, .. } = self.probe.access { key } else { 0 };
        self.first_at(key, valid)
    }

    /// As `first`, where a position comes from the key of that number.
    fn first_at(&mut self, key: usize, valid: Option<V<'b>>) -> V<'b> {
        let (b, frame, slots) = (self.env.b, self.env.frame, self.probe.slots);
        // The directory is complete before anything probes it.
        let head = |at: V<'b>| vec![b.load_invariant(Ty::PTR, slots.heads.get(b, frame).index(at, 8), 0)];
        let (index, rows) = match (self.probe.access, self.hash) {
            (Access::Array { index, rows, .. }, _) => (index, rows),
            (_, Some(hash)) => {
                let at = slots.heads.get(b, frame).index(hash & slots.mask.get(b, frame), 8);
                let tagged = || {
                    let head = b.load_invariant(Ty::I64, at, 0);
                    let tag = head.lshr(abi::HEAD_TAGS).bin(BinOp::LShr, hash.lshr(60)).cast(CastOp::Trunc, Prim::Bool);
                    vec![tag.select((head & abi::HEAD_ADDRESS).bitcast(Ty::PTR), b.null())]
                };
                return b.if_else(valid.unwrap_or_else(|| b.bool(true)), tagged, || vec![b.null()])[0];
            }
            _ => return b.null(),
        };
        let width = self.probe.layout.width();
        let row = |at: V<'b>| slots.rows.get(b, frame).index(at, width);
        let grouped = |at: V<'b>| {
            let positions = slots.heads.get(b, frame).index(at, 4);
            let position = |k: i64| b.load_invariant(Ty::I32, positions, 4 * k).zext(Prim::I64);
            vec![row(position(0)), row(position(1))]
        };
        let at = |position: V<'b>| match rows {
            Rows::Chain => head(position),
            Rows::Placed => vec![row(position)],
            Rows::Grouped => grouped(position),
        };
        let none = || if rows == Rows::Grouped { vec![b.null(), b.null()] } else { vec![b.null()] };
        let key = self.keys[key];
        let found = b.if_else(
            inside(b, key, index.range(), valid),
            || match index {
                Index::Offset(range) => at(offset(key, range)),
                Index::Rank(range) => {
                    let ranked = Ranked::find(slots.ranks.get(b, frame), offset(key, range));
                    b.if_else(ranked.occurs(), || at(ranked.rank()), none)
                }
            },
            none,
        );
        let first = found[0];
        self.end = found.get(1).copied();
        match (self.end, index) {
            // An offset without rows begins where it ends; a rank has rows.
            (Some(end), Index::Offset(_)) => first.eq(end).select(b.null(), first),
            _ => first,
        }
    }

    fn next(&self, row: V<'b>) -> V<'b> {
        let b = self.env.b;
        match (self.end, self.probe.access) {
            (Some(end), _) => {
                let next = row.at(self.probe.layout.width());
                next.eq(end).select(b.null(), next)
            }
            (None, Access::Array { rows: Rows::Placed, .. }) => b.null(),
            (None, _) => b.load_invariant(Ty::PTR, row, abi::ENTRY_NEXT),
        }
    }

    /// The environment with a row of the right side (which may be absent in an outer join).
    fn bind(&self, row: V<'b>, present: Option<V<'b>>) -> Env<'b> {
        let place = Place::Row { ptr: row, layout: Rc::clone(&self.probe.layout), present };
        let right = Env::new(self.env.b, self.env.frame, self.env.worker);
        self.pair(right.bind(self.probe.join.right, place))
    }

    /// The environment with the rows of both sides. Each side has its own: they may read the same table.
    fn pair(&self, right: Env<'b>) -> Env<'b> {
        let join = &self.probe.join;
        let sides = Sides { left: (join.left, self.env.branch()), right: (join.right, right) };
        let sides = Place::Sides(Rc::new(sides));
        let env = self.env.branch().bind(join.node, sides.clone());
        match join.residual.and_then(|residual| super::pairs_of(self.cx, residual)) {
            Some(pairs) => env.bind(pairs, sides),
            None => env,
        }
    }

    /// Do the keys of `row` match, and the residual hold?
    fn matches(&self, row: V<'b>) -> Result<V<'b>> {
        let b = self.env.b;
        let compared = self.compared_keys();
        let equal = || {
            let stored = stored_keys(b, &self.probe.layout, &self.probe.fields, row);
            compared
                .iter()
                .fold(b.bool(true), |all, &k| all & compare::keys_equal(self.cx, self.env, self.keys[k], stored[k]))
        };
        let test = match self.hash {
            Some(hash) => {
                let same = b.load_invariant(Ty::I64, row, abi::ENTRY_HASH).eq(hash);
                if compared.is_empty() { same } else { b.if_else(same, || vec![equal()], || vec![b.bool(false)])[0] }
            }
            None => equal(),
        };
        let Some(residual) = self.probe.join.residual else { return Ok(test) };
        let mut outcome = Ok(());
        let both = b.if_else(
            test,
            || match eval(self.cx, &self.bind(row, None), residual) {
                Ok(value) => vec![value.is_true()],
                Err(error) => {
                    outcome = Err(error);
                    vec![b.bool(false)]
                }
            },
            || vec![b.bool(false)],
        );
        outcome?;
        Ok(both[0])
    }

    /// The keys that the directory does not decide.
    fn compared_keys(&self) -> Vec<usize> {
        let all = 0..self.keys.len();
        match self.probe.access {
            Access::Array { key, .. } => all.filter(|&k| k != key).collect(),
            _ => {
                let fields = self.probe.fields.iter().map(|&f| &self.probe.layout.fields[f]);
                let exact = hash::is_exact(&self.keys) && hash::is_exact_stored(fields);
                if exact { vec![] } else { all.collect() }
            }
        }
    }

    /// The first match at or after `row`, or null.
    fn next_match(&self, row: V<'b>) -> Result<V<'b>> {
        if self.hash.is_none() && self.keys.len() == 1 && self.probe.join.residual.is_none() {
            return Ok(row);
        }
        let b = self.env.b;
        let mut outcome = Ok(());
        let mut other = |row: V<'b>| match self.matches(row) {
            Ok(test) => !test,
            Err(error) => {
                outcome = Err(error);
                b.bool(false)
            }
        };
        let found = b.while_(
            &[row],
            |c| b.if_else(c[0].is_null(), || vec![b.bool(false)], || vec![other(c[0])])[0],
            |c| vec![self.next(c[0])],
        );
        outcome?;
        Ok(found[0])
    }

    /// Calls `consume` for every match.
    fn each(&self, first: V<'b>, consume: &mut pipeline::Consume<'_>) -> Result<()> {
        let b = self.env.b;
        let mut outcome = Ok(());
        b.while_(
            &[first],
            |c| !c[0].is_null(),
            |c| {
                let row = c[0];
                outcome = match self.matches(row) {
                    Ok(test) => when(b, test, || consume(&self.bind(row, None))),
                    Err(error) => Err(error),
                };
                vec![self.next(row)]
            },
        );
        outcome
    }

    /// Calls `consume` for every match, or once without a row if there is none. One copy of the consumer serves both:
    /// a missing row is read from a row of zeros.
    fn outer(&self, first: V<'b>, consume: &mut pipeline::Consume<'_>) -> Result<()> {
        let b = self.env.b;
        let width = self.probe.layout.width();
        let zeros = b.alloca(width as u32, 16);
        b.in_prologue(|| {
            for at in (0..width).step_by(8) {
                b.store(zeros, at, b.i64(0));
            }
        });
        let start = self.next_match(first)?;
        let mut outcome = Ok(());
        b.while_(
            &[start, b.bool(true)],
            |c| c[1] | !c[0].is_null(),
            |c| {
                let present = !c[0].is_null();
                let row = present.select(c[0], zeros);
                let next = consume(&self.bind(row, Some(present))).and_then(|()| {
                    let after = b.if_else(present, || vec![self.next(c[0])], || vec![b.null()])[0];
                    self.next_match(after)
                });
                match next {
                    Ok(next) => vec![next, b.bool(false)],
                    Err(error) => {
                        outcome = Err(error);
                        c.to_vec()
                    }
                }
            },
        );
        outcome
    }
}
