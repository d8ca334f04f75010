//! Constants and conversions.

use super::super::env::Env;
use super::super::value::{Range, Repr, Value, to_float, widen};
use super::arith;
use crate::lower::context::Cx;
use crate::lower::error::{LowerError, Result};
use quearn_stage::graph::literal::Value as LiteralValue;
use quearn_stage::graph::{Elem, Literal, Node, Scalar};
use quearn_stage::low::{BinOp, CastOp, CmpOp, FailKind, Prim, Ty, UnOp, V};

/// The machine float that computes a float type: halves are computed in `f32`.
pub fn float_prim(scalar: Scalar) -> Prim {
    if scalar == Scalar::F64 { Prim::F64 } else { Prim::F32 }
}

/// A staged literal.
pub fn constant<'b>(cx: &Cx<'_>, env: &Env<'b>, literal: &Literal) -> Option<Value<'b>> {
    let b = env.b;
    let scalar = literal.scalar();
    Some(match literal.value() {
        LiteralValue::Null => null(env, scalar),
        LiteralValue::Bool(x) => Value::prim(b.bool(*x)),
        LiteralValue::Int(i) => env.int(*i),
        LiteralValue::Float(bits) => Value::prim(b.float(Ty::scalar(float_prim(scalar)), f64::from_bits(*bits))),
        LiteralValue::Interval { months, days, micros } => {
            let packed =
                (i128::from(*micros) << 64) | i128::from((*days as u32 as u64) << 32 | u64::from(*months as u32));
            Value::prim(b.int(Ty::I128, packed))
        }
        LiteralValue::String(text) => text_constant(cx, env, text),
    })
}

fn null<'b>(env: &Env<'b>, scalar: Scalar) -> Value<'b> {
    let b = env.b;
    let form = match scalar {
        Scalar::Bool => Value::prim(b.bool(false)),
        Scalar::String => Value::text(b.null(), b.i64(0)),
        Scalar::Interval => Value::prim(b.int(Ty::I128, 0)),
        s if s.is_float() => Value::prim(b.float(Ty::scalar(float_prim(s)), 0.0)),
        _ => env.int(0),
    };
    form.with_valid(Some(b.bool(false)))
}

/// Text known now. It lives in the frame, written when the program starts: rows may keep its address.
fn text_constant<'b>(cx: &Cx<'_>, env: &Env<'b>, text: &str) -> Value<'b> {
    let known = cx.texts.get(text, cx.prepares());
    let at = known.unwrap_or_else(|| {
        let at = place_text(cx, text);
        cx.texts.insert(text.to_owned(), cx.prepares(), at);
        at
    });
    Value::text(env.frame.at(at), env.b.i64(text.len() as i64))
}

fn place_text(cx: &Cx<'_>, text: &str) -> i64 {
    let at = cx.frame.block(text.len().next_multiple_of(8).max(8) as i64, 8);
    let bytes = text.as_bytes().to_vec();
    cx.step(move |_, b, frame| {
        for (i, chunk) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            b.store(frame, at + 8 * i as i64, b.i64(i64::from_le_bytes(word)));
        }
    });
    at
}

/// A number as a float type.
pub fn to_float_type<'b>(env: &Env<'b>, a: Value<'b>, from: Scalar, to: Scalar) -> Value<'b> {
    let prim = float_prim(to);
    let v = a.scalar();
    let converted = match from {
        Scalar::Decimal { scale, .. } => arith::unscaled_to_float(env, v, scale, prim),
        _ if from.is_float() => float_to_float(v, prim),
        _ => to_float(v, prim),
    };
    Value::prim(converted).with_valid(a.valid)
}

fn float_to_float(v: V<'_>, prim: Prim) -> V<'_> {
    let narrower = prim.bytes() < v.ty().prim.bytes();
    v.cast(if narrower { CastOp::FpTrunc } else { CastOp::FpExt }, prim)
}

/// The value in the widest machine form of its logical type: for places that join values of unknown origin.
pub fn widest<'b>(value: Value<'b>, elem: Elem) -> Value<'b> {
    match (value.repr, Range::of(elem.scalar)) {
        (Repr::Prim(v), Some(range)) => Value { repr: Repr::Prim(v.sext(range.prim())), range: Some(range), ..value },
        _ => value,
    }
}

/// The decimal of the same scale with all digits there are: whether the value fits is tested afterwards.
fn whole_width(to: Scalar) -> Scalar {
    if let Scalar::Decimal { scale, .. } = to { Scalar::decimal(38, scale) } else { to }
}

/// SQL CAST.
pub fn cast<'b>(cx: &Cx<'_>, env: &Env<'b>, node: Node, a: Value<'b>, from: Scalar, to: Scalar) -> Result<Value<'b>> {
    if from == to {
        return Ok(a);
    }
    let what = format!("cast of {} to {to}", arith::message(cx, cx.graph.inputs(node)[0]));
    let check = |v: V<'b>, range: Range| narrowed(env, Value { repr: Repr::Prim(v), ..a }, range, to, &what);
    match (from, to) {
        _ if to.is_float() && from.is_numeric() => {
            let float = to_float_type(env, a, from, to);
            Ok(Value::prim(through_half(float.scalar(), to)).with_valid(a.valid))
        }
        (Scalar::Bool, _) if to.is_int() => {
            Ok(Value::int(a.scalar().zext(Prim::I32), Range::new(0, 1)).with_valid(a.valid))
        }
        (Scalar::Bool, _) if to.is_float() => {
            Ok(Value::prim(a.scalar().cast(CastOp::UiToFp, float_prim(to))).with_valid(a.valid))
        }
        (_, Scalar::Bool) if from.is_int() => Ok(Value::prim(a.scalar().ne(a.scalar().same(0))).with_valid(a.valid)),
        _ if from.is_int() && to.is_int() => Ok(check(a.scalar(), a.range.unwrap_or(Range::I64))),
        _ if from.is_int() && matches!(to, Scalar::Decimal { .. }) => {
            let scaled = arith::promote(env, a, from, whole_width(to))?;
            Ok(narrowed(env, scaled, scaled.range.unwrap_or(Range::I128), to, &what))
        }
        (Scalar::Decimal { scale: s, .. }, Scalar::Decimal { scale: t, .. }) => {
            let scaled =
                if t >= s { arith::promote(env, a, from, whole_width(to))? } else { scale_down(env, a, s - t) };
            Ok(narrowed(env, scaled, scaled.range.unwrap_or(Range::I128), to, &what))
        }
        (Scalar::Decimal { scale, .. }, _) if to.is_int() => {
            let whole = scale_down(env, a, scale);
            Ok(narrowed(env, whole, whole.range.unwrap_or(Range::I128), to, &what))
        }
        _ if from.is_float() && to.is_int() => Ok(float_to_int(env, a, to, &what)),
        (_, Scalar::Decimal { scale, .. }) if from.is_float() => {
            let wide = float_to_float(a.scalar(), Prim::F64) * env.b.f64(10f64.powi(scale.into()));
            // Half away from zero.
            let half = wide.lt(env.b.f64(0.0)).select(env.b.f64(-0.5), env.b.f64(0.5));
            Ok(float_to_int(env, Value { repr: Repr::Prim(wide + half), ..a }, to, &what))
        }
        (Scalar::Date, Scalar::Timestamp) => {
            let micros = widen(a.scalar(), Prim::I64) * 86_400_000_000;
            Ok(Value::int(micros, Range::I64).with_valid(a.valid))
        }
        (Scalar::Timestamp, Scalar::Date) => {
            let days = super::dates::floor_div(widen(a.scalar(), Prim::I64), 86_400_000_000);
            Ok(Value::int(days, Range::I32).with_valid(a.valid))
        }
        _ => Err(LowerError::Unsupported { node: cx.describe(node), what: format!("a cast from {from} to {to}") }),
    }
}

/// Rounds an `f32` as if it had been stored in a half type.
fn through_half(v: V<'_>, to: Scalar) -> V<'_> {
    match to {
        Scalar::F16 => v.cast(CastOp::FpTrunc, Prim::F16).cast(CastOp::FpExt, Prim::F32),
        Scalar::BF16 => v.cast(CastOp::FpTrunc, Prim::BF16).cast(CastOp::FpExt, Prim::F32),
        _ => v,
    }
}

/// Fails where an integer does not fit the type.
fn narrowed<'b>(env: &Env<'b>, a: Value<'b>, range: Range, to: Scalar, what: &str) -> Value<'b> {
    let limit = Range::of(to).unwrap_or(Range::I128);
    let v = a.scalar();
    if limit.contains(range) {
        return Value::int(v, range).with_valid(a.valid);
    }
    let ty = v.ty();
    let held = range.intersect(limit);
    let bad = v.lt(env.b.int(ty, held.min)) | v.gt(env.b.int(ty, held.max));
    let bad = if range.max < limit.min || range.min > limit.max { env.b.bool(true) } else { bad };
    env.b.fail_if(a.valid.map_or(bad, |valid| valid & bad), FailKind::BadCast, what);
    Value::int(v, held).with_valid(a.valid)
}

/// Divides by 10^`digits`, half away from zero.
fn scale_down<'b>(env: &Env<'b>, a: Value<'b>, digits: u8) -> Value<'b> {
    if digits == 0 {
        return a;
    }
    let factor = 10i128.pow(digits.into());
    let range = a.range.unwrap_or(Range::I128);
    let halved = Range::new(range.min.saturating_sub(factor), range.max.saturating_add(factor));
    let prim = halved.union(Range::new(-factor, factor)).prim();
    let v = widen(a.scalar(), prim);
    let ty = Ty::scalar(prim);
    let (half, zero) = (env.b.int(ty, factor / 2), env.b.int(ty, 0));
    let rounded = (v + v.lt(zero).select(-half, half)).bin(BinOp::Div, env.b.int(ty, factor));
    Value::int(rounded, Range::new(halved.min / factor, halved.max / factor)).with_valid(a.valid)
}

/// Toward zero; NaN and values outside are errors.
fn float_to_int<'b>(env: &Env<'b>, a: Value<'b>, to: Scalar, what: &str) -> Value<'b> {
    let limit = Range::of(to).unwrap_or(Range::I64);
    let x = float_to_float(a.scalar(), Prim::F64);
    let zero = env.b.f64(0.0);
    let whole = x.lt(zero).select(x.un(UnOp::Ceil), x.un(UnOp::Floor));
    // 2^63 is a float, 2^63 - 1 is not: compare with the open bound above.
    let low = whole.cmp(CmpOp::Ge, env.b.f64(limit.min as f64));
    let high = whole.cmp(CmpOp::Lt, env.b.f64(limit.max as f64 + if limit.max < 1 << 52 { 1.0 } else { 0.0 }));
    let bad = !(low & high);
    env.b.fail_if(a.valid.map_or(bad, |valid| valid & bad), FailKind::BadCast, what);
    Value::int(whole.cast(CastOp::FpToSi, limit.prim()), limit).with_valid(a.valid)
}
