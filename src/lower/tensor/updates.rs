//! Results that are next values of inputs: which of them may be written where the present value lies.

use super::plan::{Kind, Place, Plan, Stage, is_elementwise};
use super::spec::{BufferId, Spec};
use super::stage::{Code, Param};
use crate::lower::Update;
use quearn_stage::graph::{Graph, Node};
use std::collections::HashSet;

/// The buffers of inputs that have next values.
pub fn inputs(plan: &Plan<'_>) -> HashSet<BufferId> {
    let updates = Update::of(plan.graph);
    updates.iter().filter_map(|(_, input)| plan.home(*input)).map(|spec| spec.buffer).collect()
}

/// The results (by position) that may share the memory of their inputs: nothing reads the present value after the first
/// stage that writes the next one, and that stage, if it reads it, reads each element just before it writes it.
///
/// A stage is free to compute an element twice if that gives the same value both times, as most products do at their edges; so
/// only elementwise stages, and products that say so, may read what they write.
pub(super) fn in_place(graph: &Graph, plan: &Plan<'_>, stages: &[Code]) -> Vec<usize> {
    let touched: Vec<HashSet<BufferId>> = stages.iter().map(|code| touched(plan, code)).collect();
    let may = |(update, input): &(Update, Node)| {
        let input = plan.home(*input)?.buffer;
        let is = |place: &Place| matches!(place, Place::Output { index, .. } if *index == update.output);
        let output = BufferId(plan.buffers.iter().position(|buffer| is(&buffer.place))? as u32);
        let first = touched.iter().position(|touched| touched.contains(&output))?;
        let last = touched.iter().rposition(|touched| touched.contains(&input)).unwrap_or(0);
        let apart = last < first || last == first && reads_just_before(plan, &plan.stages[first], [input, output]);
        apart.then_some(update.output)
    };
    Update::of(graph).iter().filter_map(may).collect()
}

/// The buffers that a stage reads or writes.
fn touched(plan: &Plan<'_>, code: &Code) -> HashSet<BufferId> {
    let buffer = |param: Param| match param {
        Param::Buffer(id) => Some(plan.whole(id)),
        _ => None,
    };
    code.params().into_iter().filter_map(buffer).collect()
}

/// Does the stage read an element of the input only to compute elements of the same index, once?
fn reads_just_before(plan: &Plan<'_>, stage: &Stage, [input, output]: [BufferId; 2]) -> bool {
    let results = match &stage.kind {
        Kind::Map { results, .. } => results,
        Kind::Blocked(product) if product.may_update() => &product.results,
        _ => return false,
    };
    let Some((_, next)) = results.iter().find(|(_, out)| out.buffer == output) else { return false };
    results.iter().all(|(root, out)| match plan.home(*root) {
        Some(home) if home != out => same_place(plan, home, next, input),
        _ => is_computed_in_place(plan, *root, next, input),
    })
}

fn is_computed_in_place(plan: &Plan<'_>, node: Node, out: &Spec, input: BufferId) -> bool {
    let op = plan.graph.op(node);
    plan.graph.inputs(node).iter().all(|&operand| match plan.home(operand) {
        Some(home) => same_place(plan, home, out, input) && (is_elementwise(op) || plan.whole(home.buffer) != input),
        None => is_computed_in_place(plan, operand, out, input),
    }) && (is_elementwise(op) || !reads(plan, node, input))
}

/// Does a value in memory lie elsewhere than in the input, or each of its elements where that of the result goes?
fn same_place(plan: &Plan<'_>, home: &Spec, out: &Spec, input: BufferId) -> bool {
    plan.whole(home.buffer) != input
        || home.buffer == input && (home.offset, &home.axes, home.elem) == (out.offset, &out.axes, out.elem)
}

/// Does the expression read the input anywhere?
fn reads(plan: &Plan<'_>, node: Node, input: BufferId) -> bool {
    plan.graph.inputs(node).iter().any(|&operand| match plan.home(operand) {
        Some(home) => plan.whole(home.buffer) == input,
        None => reads(plan, operand, input),
    })
}
