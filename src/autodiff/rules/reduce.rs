//! Sums and the like along axes, softmax.

use super::Done;
use crate::autodiff::emit::Made;
use crate::autodiff::reverse::{Call, Reverse};
use quearn_stage::graph::{BinaryOp, CompareOp, Dim, Node, Op, ReduceOp, Shape};

/// The result of a reduction, or its adjoint, with the reduced axes as 1.
fn kept(r: &mut Reverse<'_, '_>, call: &Call, value: Node) -> Made {
    let Op::Reduce { axes, keep, .. } = &call.op else { return Ok(value) };
    if *keep || r.e.shape(value).is_empty() {
        return Ok(value);
    }
    let to = with_ones(&r.e.shape(call.inputs[0]), axes);
    let rank = r.e.shape(call.node).len();
    let aligned = r.e.aligned(value, rank)?;
    // Dimensions that the adjoint lacks stay 1.
    let mut found = r.e.shape(aligned).into_iter();
    let shape = (0..to.len()).map(|i| match axes.contains(&i) {
        true => Dim::Const(1),
        false => found.next().unwrap_or(Dim::Const(1)),
    });
    let shape = shape.collect();
    r.e.reshape(aligned, shape)
}

fn with_ones(shape: &[Dim], axes: &[usize]) -> Shape {
    let one = |(i, dim): (usize, &Dim)| if axes.contains(&i) { Dim::Const(1) } else { dim.clone() };
    shape.iter().enumerate().map(one).collect()
}

/// Sums and means.
pub(super) fn sum(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Reduce { op, axes, .. } = &call.op else { return Ok(()) };
    let mut part = kept(r, call, call.tensor())?;
    if *op == ReduceOp::Mean {
        let shape = r.e.shape(call.inputs[0]);
        let count = r.e.extents(axes.iter().map(|&axis| &shape[axis]), r.e.scalar(part))?;
        part = match r.e.value(count) {
            Some(count) => r.e.times(part, 1.0 / count)?,
            None => r.e.div(part, count)?,
        };
    }
    r.give(call.inputs[0], part)
}

/// Minima and maxima: equal elements share the adjoint.
pub(super) fn extreme(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Reduce { axes, .. } = &call.op else { return Ok(()) };
    let x = call.inputs[0];
    let (adjoint, best) = (kept(r, call, call.tensor())?, kept(r, call, call.node)?);
    let is_best = r.e.compare(CompareOp::Eq, x, best)?;
    let one = r.e.number_like(x, 1.0)?;
    let marks = r.e.only(is_best, one)?;
    let count = r.e.reduce(ReduceOp::Sum, marks, axes, true)?;
    let share = r.e.div(adjoint, count)?;
    let part = r.e.only(is_best, share)?;
    r.give(x, part)
}

/// Products: of all others, for an element.
///
/// Elements that are zero are taken out of the product, and what is left has a slope everywhere. Of the others one may be zero:
/// then it is a factor beside it, as a sum of the only one, so that this slope has a slope, too. With more of them the slope is
/// zero, and its own slope as well; only third derivatives would be of products of two zeros, which are taken as constant.
pub(super) fn product(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Reduce { axes, .. } = &call.op else { return Ok(()) };
    let x = call.inputs[0];
    let adjoint = kept(r, call, call.tensor())?;
    let (zero, one) = (r.e.number_like(x, 0.0)?, r.e.number_like(x, 1.0)?);
    let is_zero = r.e.compare(CompareOp::Eq, x, zero)?;
    let marks = r.e.only(is_zero, one)?;
    let zeros = r.e.reduce(ReduceOp::Sum, marks, axes, true)?;
    let without = r.e.select(is_zero, one, x)?;
    let rest = r.e.reduce(ReduceOp::Prod, without, axes, true)?;
    let slope = r.e.div(rest, without)?;
    // Of the other elements: how many are zero, and their sum.
    let others = r.e.sub(zeros, marks)?;
    let mine = r.e.only(is_zero, x)?;
    let sum = r.e.reduce(ReduceOp::Sum, mine, axes, true)?;
    let sum = r.e.sub(sum, mine)?;
    let (none, single) = (r.e.compare(CompareOp::Eq, others, zero)?, r.e.compare(CompareOp::Eq, others, one)?);
    let factor = r.e.only(single, sum)?;
    let factor = r.e.select(none, one, factor)?;
    let slope = r.e.mul(slope, factor)?;
    let part = r.e.mul(adjoint, slope)?;
    r.give(x, part)
}

/// y (a - sum of a y)
pub(super) fn softmax(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::Softmax { axis } = call.op else { return Ok(()) };
    let (y, adjoint) = (call.node, call.tensor());
    let weighted = r.e.mul(adjoint, y)?;
    // The elements of a softmax sum up to one.
    let rank = r.e.shape(y).len();
    if r.e.shape(weighted).len() < rank {
        return Ok(());
    }
    let sum = r.e.reduce(ReduceOp::Sum, weighted, &[axis], true)?;
    let away = r.e.binary(BinaryOp::Sub, adjoint, sum)?;
    let part = r.e.mul(y, away)?;
    r.give(call.inputs[0], part)
}

/// The sum of the adjoints from an element on: of all, without those before it.
pub(super) fn cum_sum(r: &mut Reverse<'_, '_>, call: &Call) -> Done {
    let Op::CumSum { axis } = call.op else { return Ok(()) };
    let adjoint = r.e.full(call.tensor(), call.node)?;
    let part = match r.e.shape(call.node)[axis].as_const() {
        Some(count) => {
            let back = r.e.slice(adjoint, axis, count - 1, -1, count)?;
            let sums = r.e.node(Op::CumSum { axis }, &[back])?;
            r.e.slice(sums, axis, count - 1, -1, count)?
        }
        None => {
            let all = r.e.reduce(ReduceOp::Sum, adjoint, &[axis], true)?;
            let before = r.e.node(Op::CumSum { axis }, &[adjoint])?;
            let before = r.e.sub(before, adjoint)?;
            r.e.sub(all, before)?
        }
    };
    r.give(call.inputs[0], part)
}
