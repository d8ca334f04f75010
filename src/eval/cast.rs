//! Conversions between scalar types: the implicit ones of promotion and the explicit ones of `Cast`.

use super::value::Datum;
use quearn_stage::graph::Scalar;
use quearn_stage::graph::literal::int_range;
use quearn_stage::low::FailKind;

const MICROS_PER_DAY: i128 = 86_400_000_000;

/// A float rounded to its type. 16-bit types compute in `f32`, so they are rounded through it.
pub fn round_float(x: f64, scalar: Scalar) -> f64 {
    match scalar {
        Scalar::F16 => half::f16::from_f32(x as f32).to_f64(),
        Scalar::BF16 => half::bf16::from_f32(x as f32).to_f64(),
        Scalar::F32 => x as f32 as f64,
        _ => x,
    }
}

/// An integer, or the integer behind a decimal, date or timestamp, if its type holds it.
pub fn fit(value: Option<i128>, scalar: Scalar, otherwise: FailKind) -> Result<Datum, FailKind> {
    let (lo, hi) = match scalar {
        Scalar::Decimal { precision, .. } => (1 - 10i128.pow(precision.into()), 10i128.pow(precision.into()) - 1),
        Scalar::Date => (i32::MIN.into(), i32::MAX.into()),
        Scalar::Timestamp => (i64::MIN.into(), i64::MAX.into()),
        _ => int_range(scalar).expect("an integer type"),
    };
    value.filter(|v| (lo..=hi).contains(v)).map(Datum::Int).ok_or(otherwise)
}

/// Digits after the point of an exact number.
pub fn scale(scalar: Scalar) -> u8 {
    match scalar {
        Scalar::Decimal { scale, .. } => scale,
        _ => 0,
    }
}

/// The nearest float of an exact number; then a division that rounds once more.
pub fn exact_to_f64(value: i128, scale: u8) -> f64 {
    if scale == 0 { value as f64 } else { value as f64 / 10f64.powi(scale.into()) }
}

/// A value under the type that promotion chose for it and its neighbour.
///
/// # Errors
/// An overflow where the digits of a decimal do not suffice for both.
pub fn promote(datum: &Datum, from: Scalar, to: Scalar) -> Result<Datum, FailKind> {
    match datum {
        Datum::Int(i) if to.is_float() => Ok(Datum::Float(round_float(exact_to_f64(*i, scale(from)), to))),
        Datum::Int(i) if from != to => {
            let factor = 10i128.checked_pow((scale(to) - scale(from)).into());
            fit(factor.and_then(|f| i.checked_mul(f)), to, FailKind::Overflow)
        }
        Datum::Float(x) => Ok(Datum::Float(round_float(*x, to))),
        other => Ok(other.clone()),
    }
}

/// `Cast`.
///
/// # Errors
/// A value that the type does not hold.
pub fn cast(datum: &Datum, from: Scalar, to: Scalar) -> Result<Datum, FailKind> {
    match datum {
        Datum::Bool(b) if to != Scalar::Bool => cast(&Datum::Int((*b).into()), Scalar::I8, to),
        Datum::Int(i) if matches!((from, to), (Scalar::Date, Scalar::Timestamp)) => {
            fit(i.checked_mul(MICROS_PER_DAY), to, FailKind::BadCast)
        }
        Datum::Int(i) if matches!((from, to), (Scalar::Timestamp, Scalar::Date)) => {
            fit(Some(i.div_euclid(MICROS_PER_DAY)), to, FailKind::BadCast)
        }
        Datum::Int(i) if to.is_float() => Ok(Datum::Float(round_float(exact_to_f64(*i, scale(from)), to))),
        Datum::Int(i) => fit(rescale(*i, scale(from), scale(to)), to, FailKind::BadCast),
        Datum::Float(x) if to.is_float() => Ok(Datum::Float(round_float(*x, to))),
        Datum::Float(x) => cast_float(*x, to),
        other => Ok(other.clone()),
    }
}

/// More digits exactly, fewer rounded half away from zero.
fn rescale(value: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        return value.checked_mul(10i128.pow((to - from).into()));
    }
    let divisor = 10i128.pow((from - to).into());
    let (quotient, rest) = (value / divisor, value % divisor);
    let away = rest.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2);
    Some(quotient + if away { value.signum() } else { 0 })
}

/// Toward zero for integers, half away from zero for the last digit of decimals.
fn cast_float(x: f64, to: Scalar) -> Result<Datum, FailKind> {
    let whole = match to {
        Scalar::Decimal { scale, .. } => (x * 10f64.powi(scale.into())).round(),
        _ => x.trunc(),
    };
    // A little less than 2^127: what is below fits an i128, what is above fits no type.
    let representable = whole.abs() < 1.7e38;
    fit(representable.then_some(whole as i128), to, FailKind::BadCast)
}
