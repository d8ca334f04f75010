//! Group-join: an aggregation of a join whose groups are the rows of the left side. The rows of the right side are folded
//! into groups by their join key, and each row of the left side looks its group up: no pair is ever formed (Moerkotte and
//! Neumann, "Accelerating queries with group-by and join by groupjoin", VLDB 2011).

use super::super::env::{Env, Place};
use super::super::expr::{elem_of, eval};
use super::super::hash;
use super::super::join::{Join, directory as index, unique};
use super::super::pipeline::{self, Consume, when};
use super::directory::{self, Directory};
use super::group::GroupLayout;
use super::{Aggregation, Groups, merge};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use crate::lower::frame::{Slot, workers};
use crate::lower::relational::expr::column;
use quearn_backends::abi;
use quearn_stage::graph::{AggregateOp, JoinKind, Node, Op, Scalar};
use quearn_stage::low::V;
use std::collections::BTreeSet;
use std::rc::Rc;

/// The groups of the right side.
pub struct GroupJoin {
    join: Join,
    layout: Rc<GroupLayout>,
    directory: Directory,
    /// Address of the array, or of the first worker's table.
    state: Slot,
}

/// The join of an aggregation that can be a group-join.
pub fn applies(cx: &Cx<'_>, table: Node) -> Option<Join> {
    let of = Aggregation::of(cx, table);
    let Op::Join { kind: kind @ (JoinKind::Inner | JoinKind::Left), .. } = cx.graph.op(of.input) else { return None };
    let join = Join::of(cx, of.input);
    let [(left_key, right_key)] = join.keys[..] else { return None };
    let scalar = |node| elem_of(cx, node).ok().map(|e| e.scalar).filter(|s| *s != Scalar::String && !s.is_float());
    let batched = pipeline::is_batched(cx, join.left) || pipeline::is_batched(cx, join.right);
    if join.residual.is_some() || batched || cx.is_shared(of.input) || scalar(left_key)? != scalar(right_key)? {
        return None;
    }
    let on_left = |name: &str| column::fields(cx, join.left).iter().any(|f| f.name == name);
    let keys = of.keys.iter().map(|&key| column_of(cx, key, join.node).filter(|name| on_left(name)));
    let keys = keys.collect::<Option<BTreeSet<String>>>()?;
    let Op::Aggregate { aggregates, .. } = cx.graph.op(table) else { return None };
    let folds_right = |(op, argument): (AggregateOp, &Option<Node>)| match argument {
        None => op == AggregateOp::CountRows && *kind == JoinKind::Inner,
        // The one row of NULLs that an outer join gives must not count.
        Some(node) if *kind == JoinKind::Left => column_of(cx, *node, join.node).is_some_and(|name| !on_left(&name)),
        Some(node) => reads_right(cx, *node, &join, &on_left),
    };
    let right_only = aggregates.iter().map(|a| a.op).zip(&of.arguments).all(folds_right);
    (right_only && unique::unique_by(cx, join.left, &keys)).then_some(join)
}

/// The name of a column of `table` that an expression is.
fn column_of(cx: &Cx<'_>, node: Node, table: Node) -> Option<String> {
    match cx.graph.op(node) {
        Op::Column(name) if cx.graph.inputs(node)[0] == table => Some(name.clone()),
        _ => None,
    }
}

/// Does an expression read columns of the right side only?
fn reads_right(cx: &Cx<'_>, node: Node, join: &Join, on_left: &dyn Fn(&str) -> bool) -> bool {
    match cx.graph.op(node) {
        Op::Column(_) => column_of(cx, node, join.node).is_some_and(|name| !on_left(&name)),
        _ => cx.graph.inputs(node).iter().all(|&i| reads_right(cx, i, join, on_left)),
    }
}

/// Emits the pipeline that folds the right side into groups, when it is first asked for.
fn prepare(cx: &Cx<'_>, table: Node, join: Join) -> Result<Rc<GroupJoin>> {
    if let Some(known) = cx.group_joins.get(&table, cx.prepares()) {
        return Ok(known);
    }
    let aggregation = Aggregation::of(cx, table);
    let of = Aggregation {
        input: join.right,
        keys: vec![join.keys[0].1],
        key_names: vec![String::new()],
        right_of: Some(join.clone()),
        ..aggregation
    };
    let mut sink = Groups::new(cx, of, false, None);
    let right = join.right;
    pipeline::run(cx, "aggregate", right, &mut sink)?;
    let (layout, directory) = sink.layout();
    let state = match directory {
        Directory::Dense(groups) => {
            merge::merge_in_place(cx, &sink, &layout, groups);
            sink.state
        }
        _ => merge::merge_hashed(cx, &sink, &layout).address,
    };
    let known = Rc::new(GroupJoin { join, layout, directory, state });
    cx.group_joins.insert(table, cx.prepares(), Rc::clone(&known));
    Ok(known)
}

/// Produces the groups: the rows of the left side with what their keys' groups hold.
pub fn produce<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    table: Node,
    join: Join,
    tile: (V<'b>, V<'b>),
    consume: &mut Consume<'_>,
) -> Result<()> {
    let groups = prepare(cx, table, join)?;
    let of = Aggregation::of(cx, table);
    pipeline::produce(cx, env, groups.join.left, tile, &[], &mut |env| {
        let (group, found) = groups.find(cx, env)?;
        let keys = of.key_names.iter().zip(&of.keys).map(|(name, &key)| Ok((name.clone(), eval(cx, env, key)?)));
        let mut values = keys.collect::<Result<Vec<_>>>()?;
        values.extend(groups.layout.results(env.b, group));
        let group = Env::new(env.b, env.frame, env.worker).bind(table, Place::Values(Rc::new(values)));
        match groups.join.kind {
            JoinKind::Left => consume(&group),
            _ => when(env.b, found, || consume(&group.branch())),
        }
    })
}

impl GroupJoin {
    /// The group of the current row of the left side, and whether it has one; an empty one if not.
    fn find<'b>(&self, cx: &Cx<'_>, env: &Env<'b>) -> Result<(V<'b>, V<'b>)> {
        let (b, layout) = (env.b, &self.layout);
        let empty = b.alloca(layout.width() as u32, 16);
        b.in_prologue(|| layout.init(b, empty));
        let key = eval(cx, env, self.join.keys[0].0)?;
        let (valid, plain) = (key.valid, key.with_valid(None));
        let stored = &layout.keys()[0];
        let state = self.state.get(b, env.frame);
        let group = match (self.directory, stored.range) {
            (Directory::Dense(_), Some(range)) => {
                // NULL has the first group.
                let skipped = i64::from(stored.valid.is_some());
                let at = || vec![state.index(index::offset(plain, range) + skipped, layout.width())];
                let group = b.if_else(index::inside(b, plain, range, valid), at, || vec![empty])[0];
                layout.occurs(b, group).select(group, empty)
            }
            _ => {
                let find = || {
                    let hash = hash::hash(cx, env, &[plain]);
                    let table = state
                        .at(-abi::GROUPS_ROWS)
                        .index(hash::partition(hash, workers(b, env.frame)), abi::GROUPS_BYTES);
                    vec![directory::find(cx, env, table, hash, &[plain], layout)]
                };
                let found = b.if_else(valid.unwrap_or_else(|| b.bool(true)), find, || vec![b.null()])[0];
                found.is_null().select(empty, found)
            }
        };
        Ok((group, group.ne(empty)))
    }
}
