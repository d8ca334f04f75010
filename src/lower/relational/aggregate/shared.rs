//! Aggregations of the same rows: their pipeline runs once and folds every row into the groups of all of them.
//!
//! What is shared is a pipeline with a join or a model in it: to run that again costs more than another sink does. A scan
//! with a filter is cheap, and each aggregation has better loops for it of its own.
//!
//! The aggregations may filter the common rows differently; they must not need each other.

use super::super::env::Env;
use super::super::expr::eval;
use super::super::pipeline::{self, Sink, when};
use super::super::{batch, materialise::Spans};
use super::{Aggregation, Groups, finish, in_pipeline, ordered};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use quearn_stage::graph::{Node, Op};
use std::collections::HashSet;
use std::rc::Rc;

/// Aggregations over one table.
pub struct Shared {
    table: Node,
    /// Each with the predicates between its rows and those of the table, the lowest first.
    parts: Vec<(Aggregation, Vec<Node>)>,
}

/// `first` with those that can share its pipeline, if there are any and it pays.
pub fn find(cx: &Cx<'_>, first: Node) -> Option<Shared> {
    let own = chain(cx, cx.graph.inputs(first)[0]);
    let source = own.last()?;
    // Of a request, some groups are made once and others in each run.
    if cx.requests.is_request() || !is_worth_sharing(cx, *source) || !breaks_pipeline(cx, first) {
        return None;
    }
    let mut parts = vec![first];
    for node in cx.graph.reachable() {
        let fits = matches!(cx.graph.op(node), Op::Aggregate { .. })
            && !parts.contains(&node)
            && cx.materialised.get(&node, cx.prepares()).is_none()
            && chain(cx, cx.graph.inputs(node)[0]).last() == Some(source)
            && breaks_pipeline(cx, node);
        if fits && parts.iter().all(|&part| !needs(cx, part, node) && !needs(cx, node, part)) {
            parts.push(node);
        }
    }
    if parts.len() == 1 {
        return None;
    }
    let chains: Vec<Vec<Node>> = parts.iter().map(|&part| chain(cx, cx.graph.inputs(part)[0])).collect();
    let table = own.into_iter().find(|table| chains.iter().all(|chain| chain.contains(table)))?;
    let parts = parts.into_iter().zip(chains);
    let parts = parts.map(|(part, chain)| (Aggregation::of(cx, part), predicates(cx, &chain, table))).collect();
    Some(Shared { table, parts })
}

/// The tables from `table` down to the first that does more than pass rows on or drop them.
fn chain(cx: &Cx<'_>, table: Node) -> Vec<Node> {
    let mut chain = vec![table];
    let mut at = table;
    loop {
        match cx.graph.op(at) {
            Op::Filter => {}
            Op::Project { .. } if batch::roots(cx, at).is_empty() => {}
            _ => return chain,
        }
        at = cx.graph.inputs(at)[0];
        chain.push(at);
    }
}

fn predicates(cx: &Cx<'_>, chain: &[Node], table: Node) -> Vec<Node> {
    let above = chain.iter().take_while(|node| **node != table);
    let mut predicates: Vec<Node> =
        above.filter(|node| *cx.graph.op(**node) == Op::Filter).map(|node| cx.graph.inputs(*node)[1]).collect();
    predicates.reverse();
    predicates
}

fn is_worth_sharing(cx: &Cx<'_>, table: Node) -> bool {
    matches!(cx.graph.op(table), Op::Join { .. } | Op::Project { .. })
}

/// Is the aggregation a sink of its own, which takes rows in any order?
fn breaks_pipeline(cx: &Cx<'_>, node: Node) -> bool {
    in_pipeline(cx, node).is_none() && ordered::sorted_key(cx, &Aggregation::of(cx, node)).is_none()
}

/// Does a node depend on another?
fn needs(cx: &Cx<'_>, node: Node, on: Node) -> bool {
    let (mut seen, mut stack) = (HashSet::new(), vec![node]);
    while let Some(node) = stack.pop() {
        if node == on {
            return true;
        }
        // Inputs come before users.
        if node > on && seen.insert(node) {
            stack.extend(cx.graph.dependencies(node));
        }
    }
    false
}

/// All sinks of a pipeline.
struct Sinks(Vec<(Vec<Node>, Groups)>);

impl Sink for Sinks {
    fn row<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        self.0.iter_mut().try_for_each(|(predicates, groups)| pass(cx, env, predicates, groups))
    }

    fn end<'b>(&mut self, cx: &Cx<'_>, env: &Env<'b>) -> Result<()> {
        self.0.iter_mut().try_for_each(|(_, groups)| groups.end(cx, env))
    }

    fn allocate(&mut self, cx: &Cx<'_>) -> Result<()> {
        self.0.iter_mut().try_for_each(|(_, groups)| groups.allocate(cx))
    }

    fn expressions(&self, cx: &Cx<'_>) -> Vec<Node> {
        let of_every_row = self.0.iter().filter(|(predicates, _)| predicates.is_empty());
        of_every_row.flat_map(|(_, groups)| groups.expressions(cx)).collect()
    }

    fn describe(&self) -> String {
        let all: Vec<String> = self.0.iter().map(|(_, groups)| groups.describe()).collect();
        all.join("; ")
    }
}

/// Hands the current row to a sink if all predicates are true.
fn pass(cx: &Cx<'_>, env: &Env<'_>, predicates: &[Node], sink: &mut Groups) -> Result<()> {
    let Some((predicate, rest)) = predicates.split_first() else { return sink.row(cx, env) };
    let keep = eval(cx, env, *predicate)?.is_true();
    when(env.b, keep, || pass(cx, &env.branch(), rest, sink))
}

/// Emits the pipeline of all of them; gives the groups of the first, and leaves those of the others to whoever asks.
pub fn lower(cx: &Cx<'_>, shared: Shared) -> Result<Spans> {
    let batched = pipeline::is_batched(cx, shared.table);
    let sinks = shared.parts.into_iter().map(|(of, predicates)| {
        let local = of.keys.is_empty() && !batched;
        (predicates, Groups::new(cx, of, local, None))
    });
    let mut sinks = Sinks(sinks.collect());
    pipeline::run(cx, "aggregates", shared.table, &mut sinks)?;
    let mut spans = sinks.0.iter().map(|(_, groups)| (groups.of.node, finish(cx, groups)));
    let (_, first) = spans.next().expect("the first aggregation");
    for (node, spans) in spans {
        cx.materialised.insert(node, cx.prepares(), Rc::new(spans));
    }
    Ok(first)
}
