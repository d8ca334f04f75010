//! Comparisons.

use super::super::env::Env;
use super::super::value::{Range, Repr, Value, both_valid, common};
use super::{arith, text};
use crate::lower::context::Cx;
use crate::lower::error::Result;
use quearn_stage::graph::{CompareOp, Scalar, infer};
use quearn_stage::low::{CmpOp, V};

/// The machine comparison.
pub fn machine(op: CompareOp) -> CmpOp {
    match op {
        CompareOp::Eq => CmpOp::Eq,
        CompareOp::Ne => CmpOp::Ne,
        CompareOp::Lt => CmpOp::Lt,
        CompareOp::Le => CmpOp::Le,
        CompareOp::Gt => CmpOp::Gt,
        CompareOp::Ge => CmpOp::Ge,
    }
}

/// Compares two values; NULL where one is NULL.
pub fn compare<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    op: CompareOp,
    (a, ta): (Value<'b>, Scalar),
    (b, tb): (Value<'b>, Scalar),
) -> Result<Value<'b>> {
    let valid = both_valid(a.valid, b.valid);
    let result = match (a.repr, b.repr) {
        (Repr::Code { code: x, dict: p }, Repr::Code { code: y, dict: q }) if p == q => x.cmp(machine(op), y),
        (Repr::Prim(_), Repr::Prim(_)) => {
            let to = infer::promote(ta, tb).unwrap_or(ta);
            let (a, b) = (arith::promote(env, a, ta, to)?, arith::promote(env, b, tb, to)?);
            prims(env, op, a, b)
        }
        _ => {
            let (a, b) = (text::as_text(cx, env, a), text::as_text(cx, env, b));
            text::compare(env.b, op, a, b)
        }
    };
    Ok(Value::prim(result).with_valid(valid))
}

fn prims<'b>(env: &Env<'b>, op: CompareOp, a: Value<'b>, b: Value<'b>) -> V<'b> {
    let (x, y) = (a.scalar(), b.scalar());
    let (Some(p), Some(q)) = (a.range, b.range) else { return bools_or_floats(op, x, y) };
    if let Some(known) = decided(op, p, q) {
        return env.b.bool(known);
    }
    let (x, y) = common(x, y);
    x.cmp(machine(op), y)
}

fn bools_or_floats<'b>(op: CompareOp, x: V<'b>, y: V<'b>) -> V<'b> {
    use quearn_stage::low::Prim;
    // A signed 1-bit comparison would order true before false.
    if x.ty().prim == Prim::Bool && !matches!(op, CompareOp::Eq | CompareOp::Ne) {
        return x.zext(Prim::I32).cmp(machine(op), y.zext(Prim::I32));
    }
    x.cmp(machine(op), y)
}

/// The answer, where the ranges leave only one.
fn decided(op: CompareOp, p: Range, q: Range) -> Option<bool> {
    let below = p.max < q.min;
    let above = p.min > q.max;
    let not_above = p.max <= q.min;
    let not_below = p.min >= q.max;
    match op {
        CompareOp::Eq if below || above => Some(false),
        CompareOp::Ne if below || above => Some(true),
        CompareOp::Lt if below => Some(true),
        CompareOp::Lt if not_below => Some(false),
        CompareOp::Le if not_above => Some(true),
        CompareOp::Le if above => Some(false),
        CompareOp::Gt if above => Some(true),
        CompareOp::Gt if not_above => Some(false),
        CompareOp::Ge if not_below => Some(true),
        CompareOp::Ge if below => Some(false),
        _ => None,
    }
}

/// Are two key values equal (neither is NULL)? Both have one logical type.
pub fn keys_equal<'b>(cx: &Cx<'_>, env: &Env<'b>, a: Value<'b>, b: Value<'b>) -> V<'b> {
    match (a.repr, b.repr) {
        (Repr::Prim(x), Repr::Prim(y)) if a.range.is_some() => {
            let (x, y) = common(x, y);
            x.eq(y)
        }
        (Repr::Prim(x), Repr::Prim(y)) => x.eq(y),
        (Repr::Code { code: x, dict: p }, Repr::Code { code: y, dict: q }) if p == q => x.eq(y),
        _ => text::compare(env.b, CompareOp::Eq, text::as_text(cx, env, a), text::as_text(cx, env, b)),
    }
}
