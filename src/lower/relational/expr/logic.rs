//! Three-valued logic and selection.

use super::super::env::Env;
use super::super::value::{Range, Repr, Value, both_valid, common};
use super::{arith, eval, text};
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use quearn_stage::graph::{BinaryOp, Node, UnaryOp};

/// Is it one of the operations of this file?
pub fn is_logic(op: BinaryOp) -> bool {
    matches!(op, BinaryOp::And | BinaryOp::Or | BinaryOp::Coalesce)
}

/// NOT and IS NULL.
pub fn unary<'b>(env: &Env<'b>, op: UnaryOp, a: Value<'b>) -> Result<Value<'b>> {
    Ok(match op {
        UnaryOp::IsNull => Value::prim(!a.is_valid(env.b)),
        _ => Value::prim(!a.scalar()).with_valid(a.valid),
    })
}

/// AND, OR and COALESCE. Both sides of AND and OR are evaluated: that is what a branch-free loop wants, and an error on
/// either side is an error of the whole, as in the evaluator.
pub fn binary<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node, op: BinaryOp) -> Result<Value<'b>> {
    let inputs = cx.graph.inputs(node);
    match op {
        BinaryOp::And => Ok(and(env, eval(cx, env, inputs[0])?, eval(cx, env, inputs[1])?)),
        BinaryOp::Or => Ok(or(env, eval(cx, env, inputs[0])?, eval(cx, env, inputs[1])?)),
        _ => coalesce(cx, env, operand(cx, env, inputs[0], node)?, operand(cx, env, inputs[1], node)?),
    }
}

/// An operand of `node` as the type of `node`.
fn operand<'b>(cx: &Cx<'_>, env: &Env<'b>, input: Node, node: Node) -> Result<Value<'b>> {
    let (from, to) = (super::elem_of(cx, input)?.scalar, super::elem_of(cx, node)?.scalar);
    arith::promote(env, eval(cx, env, input)?, from, to)
}

fn coalesce<'b>(cx: &Cx<'_>, env: &Env<'b>, x: Value<'b>, y: Value<'b>) -> Result<Value<'b>> {
    match x.valid {
        None => Ok(x),
        Some(valid) => {
            let (x, y) = unify(cx, env, x, y)?;
            let picked = pick(valid, x, y);
            let is_valid = y.valid.map(|other| valid | other);
            Ok(picked.with_valid(is_valid))
        }
    }
}

/// Three-valued AND: false wins over NULL.
pub fn and<'b>(env: &Env<'b>, x: Value<'b>, y: Value<'b>) -> Value<'b> {
    let (a, b) = (x.scalar(), y.scalar());
    let valid = match (x.valid, y.valid) {
        (None, None) => None,
        (vx, vy) => {
            let (vx, vy) = (vx.unwrap_or(env.b.bool(true)), vy.unwrap_or(env.b.bool(true)));
            Some((vx & vy) | (vx & !a) | (vy & !b))
        }
    };
    Value::prim(a & b).with_valid(valid)
}

/// Three-valued OR: true wins over NULL.
pub fn or<'b>(env: &Env<'b>, x: Value<'b>, y: Value<'b>) -> Value<'b> {
    let (a, b) = (x.is_true(), y.is_true());
    let valid = match (x.valid, y.valid) {
        (None, None) => None,
        (vx, vy) => {
            let (vx, vy) = (vx.unwrap_or(env.b.bool(true)), vy.unwrap_or(env.b.bool(true)));
            Some((vx & vy) | a | b)
        }
    };
    Value::prim(a | b).with_valid(valid)
}

/// `a` where `cond` is true, else `b`; both were evaluated.
pub fn select<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node) -> Result<Value<'b>> {
    let inputs = cx.graph.inputs(node);
    let test = eval(cx, env, inputs[0])?.is_true();
    let (a, b) = unify(cx, env, operand(cx, env, inputs[1], node)?, operand(cx, env, inputs[2], node)?)?;
    let valid = match (a.valid, b.valid) {
        (None, None) => None,
        (x, y) => {
            let one = env.b.bool(true);
            Some(test.select(x.unwrap_or(one), y.unwrap_or(one)))
        }
    };
    Ok(pick(test, a, b).with_valid(valid))
}

/// `a` where `cond` is true, else `b`; only the chosen one is evaluated.
pub fn branch<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node) -> Result<Value<'b>> {
    let (b, inputs) = (env.b, cx.graph.inputs(node));
    let test = eval(cx, env, inputs[0])?.is_true();
    let arm = |input: Node| {
        let value = super::cast::widest(operand(cx, &env.branch(), input, node)?, super::elem_of(cx, node)?);
        let value = text_of(cx, env, value);
        let valid = value.is_valid(b);
        Ok(value.with_valid(Some(valid)))
    };
    let (mut left, mut right) = (None, None);
    let parts = b.if_else(
        test,
        || {
            let value = left.insert(arm(inputs[1]));
            value.as_ref().map(|v| v.pack()).unwrap_or_default()
        },
        || {
            let value = right.insert(arm(inputs[2]));
            value.as_ref().map(|v| v.pack()).unwrap_or_default()
        },
    );
    let form = match (left, right) {
        (Some(left), Some(right)) => {
            right?;
            left?
        }
        // The condition is known now: one arm was generated.
        (left, right) => return left.or(right).expect("one arm is always generated"),
    };
    Ok(form.unpack(&parts))
}

fn text_of<'b>(cx: &Cx<'_>, env: &Env<'b>, value: Value<'b>) -> Value<'b> {
    match value.repr {
        Repr::Code { .. } => text::as_text(cx, env, value),
        _ => value,
    }
}

/// Brings two values of one logical type into one form.
pub fn unify<'b>(cx: &Cx<'_>, env: &Env<'b>, a: Value<'b>, b: Value<'b>) -> Result<(Value<'b>, Value<'b>)> {
    match (a.repr, b.repr) {
        (Repr::Prim(x), Repr::Prim(y)) => {
            let range = match (a.range, b.range) {
                (Some(p), Some(q)) => Some(p.union(q)),
                _ => None,
            };
            let (x, y) = if range.is_some() { common(x, y) } else { (x, y) };
            if x.ty() != y.ty() {
                let what = format!("arms of types {} and {}", x.ty(), y.ty());
                return Err(LowerError::Internal { node: "select".into(), what });
            }
            Ok((Value { repr: Repr::Prim(x), range, ..a }, Value { repr: Repr::Prim(y), range, ..b }))
        }
        (Repr::Code { dict: p, .. }, Repr::Code { dict: q, .. }) if p == q => Ok((a, b)),
        _ => Ok((text::as_text(cx, env, a), text::as_text(cx, env, b))),
    }
}

fn pick<'b>(test: quearn_stage::low::V<'b>, a: Value<'b>, b: Value<'b>) -> Value<'b> {
    let repr = match (a.repr, b.repr) {
        (Repr::Prim(x), Repr::Prim(y)) => Repr::Prim(test.select(x, y)),
        (Repr::Code { code: x, dict }, Repr::Code { code: y, .. }) => Repr::Code { code: test.select(x, y), dict },
        (Repr::Text { ptr: p, len: n }, Repr::Text { ptr: q, len: m }) => {
            Repr::Text { ptr: test.select(p, q), len: test.select(n, m) }
        }
        _ => unreachable!("unify gives both arms one form"),
    };
    Value {
        repr,
        valid: both_valid(a.valid, b.valid),
        range: a.range.zip(b.range).map(|(p, q): (Range, Range)| p.union(q)),
    }
}
