//! Reductions, and positions of extremes.

use super::Write;
use crate::emit::{Emit, Fallible};
use crate::value::Call;
use quearn_stage::graph::{CompareOp, Node, Op, ReduceOp, Scalar, UnaryOp};

pub(super) const ROWS: &[(&str, Write)] = &[
    ("ArgMax", |c| arg(c, false)),
    ("ArgMin", |c| arg(c, true)),
    ("CumProd", |c| {
        cumulative(c, 1.0, |e, x, axis| {
            let (mut products, mut last) = (vec![], None);
            for at in 0..e.extent(x, axis)? {
                let next = e.slice(x, axis, at, 1, 1)?;
                let product = last.map_or(Ok(next), |last| e.mul(last, next))?;
                products.push(product);
                last = Some(product);
            }
            e.concat(&products, axis)
        })
    }),
    ("CumSum", |c| cumulative(c, 0.0, |e, x, axis| e.op(Op::CumSum { axis }, &[x]))),
    ("ReduceL1", |c| composed(c, Some(|e, x| e.unary(UnaryOp::Abs, x)), None)),
    ("ReduceL2", |c| composed(c, Some(|e, x| e.mul(x, x)), Some(root))),
    ("ReduceLogSum", |c| composed(c, None, Some(|e, x| e.unary(UnaryOp::Log, x)))),
    ("ReduceLogSumExp", log_sum_exp),
    ("ReduceMax", |c| plain(c, ReduceOp::Max)),
    ("ReduceMean", |c| plain(c, ReduceOp::Mean)),
    ("ReduceMin", |c| plain(c, ReduceOp::Min)),
    ("ReduceProd", |c| plain(c, ReduceOp::Prod)),
    ("ReduceSum", |c| plain(c, ReduceOp::Sum)),
    ("ReduceSumSquare", |c| composed(c, Some(|e, x| e.mul(x, x)), None)),
];

type Step = fn(&mut Emit, Node) -> Fallible<Node>;

/// The axes to reduce; `None` if nothing is to be done.
fn axes(c: &mut Call, rank: usize) -> Fallible<Option<Vec<usize>>> {
    let axes = c.ints_from("axes", 1)?.unwrap_or_default();
    if !axes.is_empty() {
        return c.axes(&axes, rank).map(Some);
    }
    Ok((c.int("noop_with_empty_axes", 0) == 0).then(|| (0..rank).collect()))
}

fn fold(c: &mut Call, op: ReduceOp, x: Node, axes: &[usize], keep: bool) -> Fallible<Node> {
    let e = &mut *c.emit;
    let scalar = e.scalar(x);
    // The sum of integers is wider than they are; bools have no order, and integers no mean.
    let wide = match (op, scalar) {
        (_, Scalar::Bool) => e.cast(x, Scalar::U8)?,
        (ReduceOp::Mean, s) if !s.is_float() => e.cast(x, Scalar::F64)?,
        _ => x,
    };
    let folded = e.op(Op::Reduce { op, axes: axes.to_vec(), keep }, &[wide])?;
    e.cast(folded, scalar)
}

fn plain(c: &mut Call, op: ReduceOp) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let keep = c.int("keepdims", 1) != 0;
    match axes(c, c.emit.rank(x))? {
        Some(axes) => Ok(vec![fold(c, op, x, &axes, keep)?]),
        None => Ok(vec![x]),
    }
}

/// A sum of what `before` makes of the elements, on which `after` works.
fn composed(c: &mut Call, before: Option<Step>, after: Option<Step>) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let (keep, axes) = (c.int("keepdims", 1) != 0, axes(c, c.emit.rank(x))?);
    let mut y = match before {
        Some(before) => before(c.emit, x)?,
        None => x,
    };
    if let Some(axes) = axes {
        y = fold(c, ReduceOp::Sum, y, &axes, keep)?;
    }
    match after {
        Some(after) => Ok(vec![after(c.emit, y)?]),
        None => Ok(vec![y]),
    }
}

fn root(e: &mut Emit, x: Node) -> Fallible<Node> {
    let scalar = e.scalar(x);
    let wide = if scalar.is_float() { x } else { e.cast(x, Scalar::F64)? };
    let root = e.unary(UnaryOp::Sqrt, wide)?;
    e.cast(root, scalar)
}

/// Relative to the largest element, so that nothing overflows.
fn log_sum_exp(c: &mut Call) -> Fallible<Vec<Node>> {
    let x = c.x(0)?;
    let (keep, rank) = (c.int("keepdims", 1) != 0, c.emit.rank(x));
    let Some(axes) = axes(c, rank)? else { return Ok(vec![x]) };
    let e = &mut *c.emit;
    let top = e.reduce_keep(ReduceOp::Max, x, &axes)?;
    let size = e.unary(UnaryOp::Abs, top)?;
    let (finite, zero) = (e.test(CompareOp::Lt, size, f64::INFINITY)?, e.like(x, 0.0)?);
    let top = e.select(finite, top, zero)?;
    let away = e.sub(x, top)?;
    let powers = e.unary(UnaryOp::Exp, away)?;
    let sum = e.reduce_keep(ReduceOp::Sum, powers, &axes)?;
    let log = e.unary(UnaryOp::Log, sum)?;
    let mut result = e.add(log, top)?;
    if !keep {
        let shape = e.shape(result);
        let kept = shape.into_iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, dim)| dim);
        result = e.reshape(result, kept.collect())?;
    }
    Ok(vec![result])
}

fn arg(c: &mut Call, smallest: bool) -> Fallible<Vec<Node>> {
    let mut x = c.x(0)?;
    let axis = c.axis(c.int("axis", 0), c.emit.rank(x))?;
    let (last, keep) = (c.int("select_last_index", 0) != 0, c.int("keepdims", 1) != 0);
    let e = &mut *c.emit;
    let extent = e.extent(x, axis)?;
    if smallest {
        // Small integers have a negative in a wider type.
        x = if e.scalar(x).is_float() { x } else { e.cast(x, Scalar::I64)? };
        x = e.unary(UnaryOp::Neg, x)?;
    }
    if last {
        x = e.reverse(x, axis)?;
    }
    let mut at = e.op(Op::ArgMax { axis }, &[x])?;
    if last {
        let end = e.like(at, extent as f64 - 1.0)?;
        at = e.sub(end, at)?;
    }
    Ok(vec![if keep { e.insert_axis(at, axis)? } else { at }])
}

/// `fold` of the elements up to each one; `nothing` is what it gives for none.
fn cumulative(c: &mut Call, nothing: f64, fold: fn(&mut Emit, Node, usize) -> Fallible<Node>) -> Fallible<Vec<Node>> {
    let mut x = c.x(0)?;
    let axis = c.axis(c.known_number(1)? as i64, c.emit.rank(x))?;
    let (reverse, exclusive) = (c.int("reverse", 0) != 0, c.int("exclusive", 0) != 0);
    let e = &mut *c.emit;
    let scalar = e.scalar(x);
    if reverse {
        x = e.reverse(x, axis)?;
    }
    if exclusive {
        let nothing = e.like(x, nothing)?;
        x = e.pad(x, axis, [1, -1], nothing)?;
    }
    let folded = fold(e, x, axis)?;
    let folded = e.cast(folded, scalar)?;
    Ok(vec![if reverse { e.reverse(folded, axis)? } else { folded }])
}
