//! Arithmetic. Integers and decimals are exact: the range of the operands shows whether the result can leave its type,
//! and only then is it tested; what is tested is computed in a machine type that holds it.

use super::super::env::Env;
use super::super::value::{Range, Repr, Value, both_valid, common, float_like, to_float, widen};
use super::{cast, dates};
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use crate::lower::tensor::math::{atan, erf};
use quearn_stage::graph::{BinaryOp, Node, Scalar, UnaryOp};
use quearn_stage::low::{BinOp, CastOp, FailKind, OvfOp, Prim, Ty, UnOp, V};

/// Converts a number to the type in which two operands meet.
pub fn promote<'b>(env: &Env<'b>, a: Value<'b>, from: Scalar, to: Scalar) -> Result<Value<'b>> {
    match (from, to) {
        _ if from == to => Ok(a),
        (Scalar::Decimal { scale: s, .. }, Scalar::Decimal { scale: t, .. }) => {
            scale_up(env, a, t.saturating_sub(s), to, "rescaling a decimal")
        }
        (_, Scalar::Decimal { scale, .. }) if from.is_int() => scale_up(env, a, scale, to, "an integer as a decimal"),
        _ if to.is_float() => Ok(cast::to_float_type(env, a, from, to)),
        _ => Ok(a),
    }
}

fn scale_up<'b>(env: &Env<'b>, a: Value<'b>, digits: u8, to: Scalar, what: &str) -> Result<Value<'b>> {
    if digits == 0 {
        return Ok(a);
    }
    let factor = env.int(10i128.pow(digits.into()));
    Ok(exact(env, BinaryOp::Mul, a, factor, Range::of(to).unwrap_or(Range::I128), what))
}

/// Arithmetic of two operands. `node` names the place in error messages.
pub fn binary<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    node: Node,
    op: BinaryOp,
    (a, ta): (Value<'b>, Scalar),
    (b, tb): (Value<'b>, Scalar),
    result: Scalar,
) -> Result<Value<'b>> {
    if matches!((ta, tb), (Scalar::Interval, _) | (_, Scalar::Interval))
        || ta == Scalar::Date
        || ta == Scalar::Timestamp
    {
        return dates::binary(cx, env, node, op, (a, ta), (b, tb));
    }
    if result.is_float() {
        let (a, b) = (cast::to_float_type(env, a, ta, result), cast::to_float_type(env, b, tb, result));
        let decimal = |t: Scalar| matches!(t, Scalar::Decimal { .. });
        if op == BinaryOp::Div && (decimal(ta) || decimal(tb)) && !ta.is_float() && !tb.is_float() {
            let zero = b.scalar().eq(float_like(env.b, b.scalar(), 0.0));
            let failing = b.valid.map_or(zero, |v| v & zero);
            env.b.fail_if(failing, FailKind::DivisionByZero, &message(cx, node));
        }
        return Ok(float(op, a, b));
    }
    let what = message(cx, node);
    let limit = Range::of(result).unwrap_or(Range::I128);
    match (op, result) {
        // The scales add up by themselves.
        (BinaryOp::Mul, _) => Ok(exact(env, op, a, b, limit, &what)),
        (_, Scalar::Decimal { scale, .. }) => {
            let to = Scalar::decimal(38, scale);
            let (a, b) = (promote(env, a, ta, to)?, promote(env, b, tb, to)?);
            Ok(exact(env, op, a, b, limit, &what))
        }
        _ => Ok(exact(env, op, a, b, limit, &what)),
    }
}

/// The text by which an error names an expression: the columns it reads.
pub fn message(cx: &Cx<'_>, node: Node) -> String {
    crate::lower::relational::needed::spell(cx.graph, node)
}

fn float<'b>(op: BinaryOp, a: Value<'b>, b: Value<'b>) -> Value<'b> {
    let (x, y) = (a.scalar(), b.scalar());
    let v = if op == BinaryOp::Pow { x.bin(BinOp::Pow, y) } else { machine(op, x, y) };
    Value::prim(v).with_valid(both_valid(a.valid, b.valid))
}

/// Integer arithmetic whose exact result lies in `limit` or is an error.
fn exact<'b>(env: &Env<'b>, op: BinaryOp, a: Value<'b>, b: Value<'b>, limit: Range, what: &str) -> Value<'b> {
    let (p, q) = (a.range.unwrap_or(Range::I128), b.range.unwrap_or(Range::I128));
    let valid = both_valid(a.valid, b.valid);
    // Where an operand is NULL its machine value is arbitrary, so that a test must not see it.
    let guard = |cond: V<'b>| valid.map_or(cond, |v| v & cond);
    if matches!(op, BinaryOp::Div | BinaryOp::Rem) && q.min <= 0 && q.max >= 0 {
        let zero = b.scalar().eq(b.scalar().same(0));
        env.b.fail_if(guard(zero), FailKind::DivisionByZero, what);
    }
    let result = result_range(op, p, q);
    let prim = machine_type(p, q, result, limit);
    let (mut x, mut y) = same_lanes(widen(a.scalar(), prim), widen(b.scalar(), prim));
    if matches!(op, BinaryOp::Div | BinaryOp::Rem) && (valid.is_some() || q.contains(Range::point(0))) {
        // The machine divides before the failing test is taken, or where a NULL left any bits.
        let zero = y.eq(y.same(0));
        y = zero.select(y.same(1), y);
        if p.min == prim_min(prim) {
            x = (x.eq(env.b.int(Ty::scalar(prim), p.min)) & y.eq(y.same(-1))).select(x.same(0), x);
        }
    }
    let holds = result.is_some_and(|r| limit.contains(r));
    if !holds
        && !result.is_some_and(|r| machine_range(prim).contains(r))
        && let Some(ovf) = overflow_op(op)
    {
        env.b.fail_if(guard(x.overflows(ovf, y)), FailKind::Overflow, what);
    }
    let v = machine(op, x, y);
    if !holds {
        let below = v.lt(env.b.int(Ty::scalar(prim), limit.min.max(machine_range(prim).min)));
        let above = v.gt(env.b.int(Ty::scalar(prim), limit.max.min(machine_range(prim).max)));
        env.b.fail_if(guard(below | above), FailKind::Overflow, what);
    }
    let range = result.map_or(limit, |r| r.intersect(limit));
    Value::int(v, range).with_valid(valid)
}

/// A literal beside a register of rows is the same in every lane.
fn same_lanes<'b>(x: V<'b>, y: V<'b>) -> (V<'b>, V<'b>) {
    match (x.ty().is_vector(), y.ty().is_vector()) {
        (true, false) => (x, y.splat(x.ty().lanes)),
        (false, true) => (x.splat(y.ty().lanes), y),
        _ => (x, y),
    }
}

fn machine_type(p: Range, q: Range, result: Option<Range>, limit: Range) -> Prim {
    let operands = p.union(q);
    match result {
        Some(r) => r.union(operands).prim(),
        None => limit.union(operands).prim().max(Prim::I128),
    }
}

fn prim_min(prim: Prim) -> i128 {
    machine_range(prim).min
}

fn machine_range(prim: Prim) -> Range {
    match prim {
        Prim::I32 => Range::I32,
        Prim::I64 => Range::I64,
        _ => Range::I128,
    }
}

fn overflow_op(op: BinaryOp) -> Option<OvfOp> {
    match op {
        BinaryOp::Add => Some(OvfOp::Add),
        BinaryOp::Sub => Some(OvfOp::Sub),
        BinaryOp::Mul => Some(OvfOp::Mul),
        _ => None,
    }
}

/// The machine's own operation of two integers or floats, in every lane.
pub fn machine<'b>(op: BinaryOp, x: V<'b>, y: V<'b>) -> V<'b> {
    match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::Rem => x % y,
        BinaryOp::Min => x.min(y),
        _ => x.max(y),
    }
}

/// All values that the exact result can have; `None` if an `i128` cannot hold them.
fn result_range(op: BinaryOp, p: Range, q: Range) -> Option<Range> {
    let corners = |f: fn(i128, i128) -> Option<i128>| {
        let all = [f(p.min, q.min)?, f(p.min, q.max)?, f(p.max, q.min)?, f(p.max, q.max)?];
        Some(Range::new(*all.iter().min()?, *all.iter().max()?))
    };
    let magnitude = |r: Range| Some(r.min.checked_abs()?.max(r.max.checked_abs()?));
    match op {
        BinaryOp::Add => corners(i128::checked_add),
        BinaryOp::Sub => corners(i128::checked_sub),
        BinaryOp::Mul => corners(i128::checked_mul),
        BinaryOp::Div => magnitude(p).map(|m| Range::new(-m, m)),
        BinaryOp::Rem => {
            let m = magnitude(q)?.saturating_sub(1).min(magnitude(p)?);
            Some(Range::new(if p.min < 0 { -m } else { 0 }, m))
        }
        BinaryOp::Min => Some(Range::new(p.min.min(q.min), p.max.min(q.max))),
        _ => Some(Range::new(p.min.max(q.min), p.max.max(q.max))),
    }
}

/// Arithmetic of one operand.
pub fn unary<'b>(
    cx: &Cx<'_>,
    env: &Env<'b>,
    node: Node,
    op: UnaryOp,
    a: Value<'b>,
    result: Scalar,
) -> Result<Value<'b>> {
    if result.is_float() {
        let from = super::elem_of(cx, cx.graph.inputs(node)[0])?.scalar;
        let a = cast::to_float_type(env, a, from, result);
        let v = float_unary(cx, env, node, op, a.scalar())?;
        return Ok(Value::prim(v).with_valid(a.valid));
    }
    let what = message(cx, node);
    let limit = Range::of(result).unwrap_or(Range::I128);
    let zero = env.int(0);
    match op {
        UnaryOp::Neg => Ok(exact(env, BinaryOp::Sub, zero, a, limit, &what)),
        UnaryOp::Abs if a.range.is_some_and(|r| r.min >= 0) => Ok(a),
        UnaryOp::Abs => {
            // Of an unsigned type, only the larger of the two is in its range.
            let negated = exact(env, BinaryOp::Sub, zero, a, Range::I128, &what);
            Ok(exact(env, BinaryOp::Max, negated, a, limit, &what))
        }
        UnaryOp::Relu => Ok(exact(env, BinaryOp::Max, zero, a, limit, &what)),
        _ => Err(LowerError::Unsupported { node: cx.describe(node), what: format!("{} of {result}", op.name()) }),
    }
}

fn float_unary<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node, op: UnaryOp, x: V<'b>) -> Result<V<'b>> {
    let constant = |value: f64| float_like(env.b, x, value);
    let machine = match op {
        UnaryOp::Neg => UnOp::Neg,
        UnaryOp::Abs => UnOp::Abs,
        UnaryOp::Exp => UnOp::Exp,
        UnaryOp::Log => UnOp::Log,
        UnaryOp::Sqrt => UnOp::Sqrt,
        UnaryOp::Sin => UnOp::Sin,
        UnaryOp::Cos => UnOp::Cos,
        UnaryOp::Floor => UnOp::Floor,
        UnaryOp::Ceil => UnOp::Ceil,
        UnaryOp::Round => UnOp::Round,
        // The comparison is false for NaN, which stays.
        UnaryOp::Relu => return Ok(x.lt(constant(0.0)).select(constant(0.0), x)),
        UnaryOp::Sigmoid => return Ok(constant(1.0) / (constant(1.0) + (-x).un(UnOp::Exp))),
        UnaryOp::Tanh => return Ok(tanh(env, x)),
        UnaryOp::Erf => return Ok(erf(x)),
        UnaryOp::Atan => return Ok(atan(x)),
        UnaryOp::Detach => return Ok(x),
        _ => {
            return Err(LowerError::Unsupported { node: cx.describe(node), what: format!("{} of a float", op.name()) });
        }
    };
    Ok(x.un(machine))
}

/// tanh x = (1 - e^-2|x|) / (1 + e^-2|x|) with the sign of x: no overflow for large |x|.
fn tanh<'b>(env: &Env<'b>, x: V<'b>) -> V<'b> {
    let one = float_like(env.b, x, 1.0);
    let decay = (x.un(UnOp::Abs) * float_like(env.b, x, -2.0)).un(UnOp::Exp);
    let magnitude = (one - decay) / (one + decay);
    x.lt(float_like(env.b, x, 0.0)).select(-magnitude, magnitude)
}

/// An integer-like value as an exact `f64` or rounded `f32`, divided by 10^`scale`.
pub fn unscaled_to_float<'b>(env: &Env<'b>, v: V<'b>, scale: u8, prim: Prim) -> V<'b> {
    let wide = to_float(v, Prim::F64);
    let exact = if scale == 0 { wide } else { wide / env.b.f64(10f64.powi(scale.into())) };
    exact.cast(CastOp::FpTrunc, prim)
}

/// Sums in a machine type wide enough for `bound` additions of values in `range`; `None` if even `i128` is not.
pub fn sum_type(range: Range, bound: u64) -> Option<Prim> {
    // Of no rows at all the code is still generated, for values of the type.
    let total = |x: i128| x.checked_mul(bound.max(1).into());
    let (min, max) = (total(range.min)?, total(range.max)?);
    Some(Range::new(min.min(0), max.max(0)).prim().max(Prim::I64))
}

/// Brings two integer values to one machine type.
pub fn align<'b>(a: Value<'b>, b: Value<'b>) -> (V<'b>, V<'b>) {
    common(a.scalar(), b.scalar())
}

/// The machine value of an integer in a given machine type.
pub fn as_prim<'b>(value: Value<'b>, prim: Prim) -> V<'b> {
    match value.repr {
        Repr::Prim(v) => widen(v, prim),
        _ => value.scalar(),
    }
}
