//! Filters move toward the scans. With `p` over the new rows written with the columns that it has there:
//!
//! ```text
//! filter(project(t, f), p)        = project(filter(t, p after f), f)
//! filter(sort(t, k), p)           = sort(filter(t, p), k)
//! filter(join(l, r), p and q)     = filter(join(filter(l, p), r), q)   p reads l only
//! filter(join(l, r), p and q)     = filter(join(l, filter(r, p)), q)   p reads r only; inner join or product
//! filter(aggregate(t, k), p and q) = filter(aggregate(filter(t, p), k), q)   p reads keys only, of which there are some
//! ```
//!
//! Not below a limit, which counts the rows before the filter; not to the right side of a left join, whose NULL rows the
//! filter is to see.
//!
//! Reason: rows are dropped before they are joined, sorted or grouped.
//!
//! Preconditions: the table in between is read by the filter only. Past a projection a predicate sees the same rows, so
//! it may fail there as before. Past anything else neither the predicate nor the operator may be able to fail: the
//! predicate would see other rows, the operator fewer. A float key stands for several bit patterns (-0 and 0), so a
//! predicate on it stays above the grouping. Projections that run a model are left to `filter_before_model`.

use crate::rewrite::Patch;
use crate::rewrite::expression::{conjuncts, filtered, has_column, is_model, mentions, projections, rows_of};
use crate::rewrite::rows::{Moved, Transport, existing_column};
use crate::rewrite::users::Users;
use quearn_stage::graph::fails::{aggregate_can_fail, any_can_fail};
use quearn_stage::graph::{AggregateOp, Dim, Graph, JoinKind, Node, Op};

/// The filter, or parts of it, below the table operator under it.
pub fn push_filter(graph: &Graph, node: Node) -> Option<Patch> {
    if *graph.op(node) != Op::Filter {
        return None;
    }
    let &[table, predicate] = graph.inputs(node) else { return None };
    let parts = conjuncts(graph, predicate);
    match graph.op(table) {
        Op::Project { .. } if !runs_model(graph, table) => below_projections(graph, node, &parts, &[]),
        Op::Sort(_) => below_sort(graph, node, &parts),
        Op::Join { .. } | Op::Product => below_join(graph, node, &parts),
        Op::Aggregate { .. } => below_aggregate(graph, node, &parts),
        _ => None,
    }
}

fn runs_model(graph: &Graph, table: Node) -> bool {
    let (chain, _) = projections(graph, table);
    chain.iter().any(|&p| graph.inputs(p)[1..].iter().any(|&e| is_model(graph, e)))
}

/// A filter over projections with the parts `moved` below all of them and the parts `kept` above.
pub fn below_projections(graph: &Graph, node: Node, moved: &[Node], kept: &[Node]) -> Option<Patch> {
    let top = graph.inputs(node)[0];
    let Op::Project { names } = graph.op(top) else { return None };
    let (chain, base) = projections(graph, top);
    let users = Users::of(graph);
    let read_above = std::iter::once(node).chain(chain.iter().copied());
    if !chain.iter().zip(read_above).all(|(inner, outer)| users.only_table(*inner, outer)) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let moved = Transport::inline(graph, base)?.expressions(&mut patch, moved)?;
    let below = filtered(&mut patch, base, &moved);
    let expressions = Transport::to_maker(graph, base, below)?.expressions(&mut patch, &graph.inputs(top)[1..])?;
    let inputs: Vec<Node> = std::iter::once(below).chain(expressions).collect();
    let project = patch.add(Op::Project { names: names.clone() }, &inputs);
    let kept = Transport::to_table(graph, top, project, Dim::Rows(below))?.expressions(&mut patch, kept)?;
    let new = filtered(&mut patch, project, &kept);
    Some(patch.replace(node, new))
}

/// May `node` filter the rows of the table below it before they come there?
fn may_pass(graph: &Graph, node: Node, parts: &[Node], strict: &[Node]) -> bool {
    !any_can_fail(graph, parts)
        && !any_can_fail(graph, strict)
        && Users::of(graph).only_table(graph.inputs(node)[0], node)
}

fn below_sort(graph: &Graph, node: Node, parts: &[Node]) -> Option<Patch> {
    let sort = graph.inputs(node)[0];
    let (&below, keys) = graph.inputs(sort).split_first()?;
    if !may_pass(graph, node, parts, keys) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let to_rows = rows_of(graph, below)?.clone();
    let moved = Transport::to_table(graph, sort, below, to_rows)?.expressions(&mut patch, parts)?;
    let filter = filtered(&mut patch, below, &moved);
    let keys = Transport::to_maker(graph, below, filter)?.expressions(&mut patch, keys)?;
    let inputs: Vec<Node> = std::iter::once(filter).chain(keys).collect();
    let new = patch.add(graph.op(sort).clone(), &inputs);
    Some(patch.replace(node, new))
}

fn below_aggregate(graph: &Graph, node: Node, parts: &[Node]) -> Option<Patch> {
    let group = graph.inputs(node)[0];
    let Op::Aggregate { keys, aggregates } = graph.op(group) else { return None };
    let (&below, operands) = graph.inputs(group).split_first()?;
    let ops: Vec<AggregateOp> = aggregates.iter().map(|a| a.op).collect();
    let strict = !keys.is_empty() && may_pass(graph, node, parts, operands);
    if !strict || groups_can_fail(graph, &ops, &operands[keys.len()..]) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let key = |_: &mut Patch, name: &str| exact_key(graph, operands[keys.iter().position(|key| key == name)?]);
    let mut transport = Transport::new(graph, group, rows_of(graph, below)?.clone(), key)?;
    let (moved, kept) = split(graph, group, parts, |part| transport.expression(&mut patch, part));
    if moved.is_empty() {
        return None;
    }
    let filter = filtered(&mut patch, below, &moved);
    let operands = Transport::to_maker(graph, below, filter)?.expressions(&mut patch, operands)?;
    let inputs: Vec<Node> = std::iter::once(filter).chain(operands).collect();
    let regrouped = patch.add(graph.op(group).clone(), &inputs);
    above(graph, node, patch, regrouped, &kept)
}

/// A key, if equal keys are the same value.
fn exact_key(graph: &Graph, key: Node) -> Option<Moved> {
    let (elem, shape) = graph.ty(key).as_tensor()?;
    (!elem.scalar.is_float()).then_some(Moved { node: key, scalar: shape.is_empty() })
}

fn groups_can_fail(graph: &Graph, ops: &[AggregateOp], arguments: &[Node]) -> bool {
    let mut arguments = arguments.iter();
    ops.iter().any(|&op| {
        let argument = if op == AggregateOp::CountRows { None } else { arguments.next() };
        let scalar = argument.and_then(|&a| graph.ty(a).as_tensor()).map(|(elem, _)| elem.scalar);
        aggregate_can_fail(op, scalar)
    })
}

/// The parts about rows of `table` that `moves` takes, moved, and the others as they are.
fn split(
    graph: &Graph,
    table: Node,
    parts: &[Node],
    mut moves: impl FnMut(Node) -> Option<Node>,
) -> (Vec<Node>, Vec<Node>) {
    let (mut moved, mut kept) = (vec![], vec![]);
    for &part in parts {
        let about_rows = rows_of(graph, table).is_some_and(|rows| mentions(graph.ty(part), rows));
        match Some(part).filter(|_| about_rows).and_then(&mut moves) {
            Some(new) => moved.push(new),
            None => kept.push(part),
        }
    }
    (moved, kept)
}

/// Replaces the filter `node` by the new table under it, filtered by what is left.
fn above(graph: &Graph, node: Node, mut patch: Patch, table: Node, kept: &[Node]) -> Option<Patch> {
    let mut transport = Transport::to_maker(graph, graph.inputs(node)[0], table)?;
    let kept = transport.expressions(&mut patch, kept)?;
    let new = filtered(&mut patch, table, &kept);
    Some(patch.replace(node, new))
}

fn below_join(graph: &Graph, node: Node, parts: &[Node]) -> Option<Patch> {
    let join = graph.inputs(node)[0];
    let &[left, right, ref strict @ ..] = graph.inputs(join) else { return None };
    if !may_pass(graph, node, parts, strict) {
        return None;
    }
    let mut patch = Patch::new(graph);
    let right_too = matches!(graph.op(join), Op::Product | Op::Join { kind: JoinKind::Inner, .. });
    let (to_left, kept) = side_parts(graph, join, parts, left, &mut patch, |_| true)?;
    let not_left = |name: &str| right_too && !has_column(graph, left, name);
    let (to_right, kept) = side_parts(graph, join, &kept, right, &mut patch, not_left)?;
    if to_left.is_empty() && to_right.is_empty() {
        return None;
    }
    let sides = [filtered(&mut patch, left, &to_left), filtered(&mut patch, right, &to_right)];
    let new = rejoin(graph, join, sides, &mut patch)?;
    above(graph, node, patch, new, &kept)
}

/// The parts that read columns of one side only, over the rows of that side, and the others.
fn side_parts(
    graph: &Graph,
    join: Node,
    parts: &[Node],
    side: Node,
    patch: &mut Patch,
    is_its: impl Fn(&str) -> bool,
) -> Option<(Vec<Node>, Vec<Node>)> {
    let leaf = |patch: &mut Patch, name: &str| existing_column(graph, patch, side, name).filter(|_| is_its(name));
    let mut transport = Transport::new(graph, join, rows_of(graph, side)?.clone(), leaf)?;
    Some(split(graph, join, parts, |part| transport.expression(patch, part)))
}

/// The join (or product) of other sides, with keys and residual over them.
fn rejoin(graph: &Graph, join: Node, sides: [Node; 2], patch: &mut Patch) -> Option<Node> {
    let old = graph.inputs(join);
    let mut inputs = sides.to_vec();
    if let Op::Join { keys, .. } = graph.op(join) {
        let (on_left, rest) = old[2..].split_at(*keys);
        let (on_right, residual) = rest.split_at(*keys);
        inputs.extend(moved_to(graph, old[0], sides[0], on_left, patch)?);
        inputs.extend(moved_to(graph, old[1], sides[1], on_right, patch)?);
        inputs.extend(match residual {
            [residual] => Some(moved_residual(graph, *residual, sides, patch)?),
            _ => None,
        });
    }
    Some(patch.add(graph.op(join).clone(), &inputs))
}

fn moved_to(graph: &Graph, from: Node, to: Node, expressions: &[Node], patch: &mut Patch) -> Option<Vec<Node>> {
    if from == to {
        return Some(expressions.to_vec());
    }
    Transport::to_maker(graph, from, to)?.expressions(patch, expressions)
}

fn moved_residual(graph: &Graph, residual: Node, sides: [Node; 2], patch: &mut Patch) -> Option<Node> {
    let Some(Dim::Rows(product)) = graph.ty(residual).as_tensor()?.1.first() else { return Some(residual) };
    let paired = patch.add(Op::Product, &sides);
    Transport::to_maker(graph, *product, paired)?.expression(patch, residual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quearn_stage::graph::fails::can_fail;
    use quearn_stage::graph::parse;

    /// A predicate that can fail sees the same rows below a projection, but not below a join.
    #[test]
    fn failing_predicates_stay_above_joins() {
        let text = "
            v0: {a: i64} = rel.scan \"t\"
            v1: {b: i64} = rel.scan \"u\"
            v2: [rows(v0)] i64 = bridge.column v0 \"a\"
            v3: [rows(v1)] i64 = bridge.column v1 \"b\"
            v4: {a: i64, b: i64} = rel.join_inner v0, v1, v2, v3 keys 1
            v5: [rows(v4)] i64 = bridge.column v4 \"a\"
            v6: [rows(v4)] i64 = scalar.div v5, v5
            v7: i64 = scalar.const 1:i64
            v8: [rows(v4)] bool = scalar.eq v6, v7
            v9: {a: i64, b: i64} = rel.filter v4, v8
            return \"out\" v9";
        let graph = parse(text).unwrap();
        let filter = graph.outputs()[0].1;
        assert!(can_fail(&graph, graph.inputs(filter)[1]));
        assert!(push_filter(&graph, filter).is_none());
    }
}
