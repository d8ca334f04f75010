//! Scalar operations on single data: the meaning of `Unary`, `Binary` and `Compare`.

use super::calendar;
use super::cast::{fit, promote, round_float};
use super::value::Datum;
use quearn_stage::graph::infer::compare_as;
use quearn_stage::graph::{BinaryOp, CompareOp, Scalar, UnaryOp};
use quearn_stage::low::FailKind;
use std::cmp::Ordering;

/// A datum, or why there is none.
pub type Outcome = Result<Datum, FailKind>;

/// `op` of a value of type `from`.
pub fn unary(op: UnaryOp, a: &Datum, from: Scalar) -> Outcome {
    use UnaryOp::*;
    match (op, a) {
        (_, Datum::Fail(kind)) => Err(*kind),
        (IsNull, a) => Ok(Datum::Bool(*a == Datum::Null)),
        (_, Datum::Null) => Ok(Datum::Null),
        (Not, Datum::Bool(b)) => Ok(Datum::Bool(!b)),
        (Neg, Datum::Int(i)) => fit(i.checked_neg(), from, FailKind::Overflow),
        (Abs, Datum::Int(i)) => fit(i.checked_abs(), from, FailKind::Overflow),
        (Relu, Datum::Int(i)) => Ok(Datum::Int((*i).max(0))),
        (Year | Month | Day, Datum::Int(i)) => calendar::part(op, *i, from),
        (_, Datum::Float(x)) => Ok(Datum::Float(round_float(float_function(op, *x), from))),
        (op, a) => unreachable!("{} of {a:?}", op.name()),
    }
}

fn float_function(op: UnaryOp, x: f64) -> f64 {
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Exp => x.exp(),
        UnaryOp::Log => x.ln(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        // NaN stays.
        UnaryOp::Relu => {
            if x < 0.0 {
                0.0
            } else {
                x
            }
        }
        UnaryOp::Erf => erf(x),
        UnaryOp::Sin => x.sin(),
        UnaryOp::Cos => x.cos(),
        UnaryOp::Floor => x.floor(),
        UnaryOp::Ceil => x.ceil(),
        UnaryOp::Round => x.round_ties_even(),
        UnaryOp::Atan => x.atan(),
        UnaryOp::Detach => x,
        other => unreachable!("{} of a float", other.name()),
    }
}

/// The error function by its series with positive terms only, 2/sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (2n+1)!!.
pub fn erf(x: f64) -> f64 {
    if x.is_nan() || x.abs() > 6.0 {
        // erfc(6) is below half a unit in the last place of 1.
        return if x.is_nan() { x } else { x.signum() };
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > sum.abs() * 1e-17 {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

/// `a op b` for values of the types `at` and `bt`; the result is of type `to`.
pub fn binary(op: BinaryOp, (a, at): (&Datum, Scalar), (b, bt): (&Datum, Scalar), to: Scalar) -> Outcome {
    match (op, a, b) {
        (_, Datum::Fail(kind), _) | (_, _, Datum::Fail(kind)) => Err(*kind),
        (BinaryOp::And, a, b) => Ok(three_valued(a, b, false)),
        (BinaryOp::Or, a, b) => Ok(three_valued(a, b, true)),
        (BinaryOp::Coalesce, Datum::Null, b) => promote(b, bt, to),
        (BinaryOp::Coalesce, a, _) => promote(a, at, to),
        (_, Datum::Null, _) | (_, _, Datum::Null) => Ok(Datum::Null),
        (BinaryOp::Add, Datum::Int(i), Datum::Interval(by)) => calendar::shift(*i, at, *by, 1),
        (BinaryOp::Sub, Datum::Int(i), Datum::Interval(by)) => calendar::shift(*i, at, *by, -1),
        (BinaryOp::Sub, Datum::Int(x), Datum::Int(y)) if at == Scalar::Date => fit(Some(x - y), to, FailKind::Overflow),
        (BinaryOp::Mul, Datum::Int(x), Datum::Int(y)) if !to.is_float() => {
            fit(x.checked_mul(*y), to, FailKind::Overflow)
        }
        // Integers are told below, where they are divided.
        (BinaryOp::Div, _, Datum::Int(0)) if !at.is_float() => Err(FailKind::DivisionByZero),
        _ => match (promote(a, at, to)?, promote(b, bt, to)?) {
            (Datum::Float(x), Datum::Float(y)) => Ok(Datum::Float(round_float(float_binary(op, x, y), to))),
            (Datum::Int(x), Datum::Int(y)) => fit(int_binary(op, x, y)?, to, FailKind::Overflow),
            (a, b) => unreachable!("{} of {a:?} and {b:?}", op.name()),
        },
    }
}

/// AND (`decisive` is false) and OR (`decisive` is true): the decisive value wins over NULL.
fn three_valued(a: &Datum, b: &Datum, decisive: bool) -> Datum {
    let (decisive, neutral) = (Datum::Bool(decisive), Datum::Bool(!decisive));
    match () {
        () if *a == decisive || *b == decisive => decisive,
        () if *a == neutral && *b == neutral => neutral,
        () => Datum::Null,
    }
}

fn float_binary(op: BinaryOp, x: f64, y: f64) -> f64 {
    match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::Rem => x % y,
        // As in the low-level program: where one operand is NaN, the other.
        BinaryOp::Min => x.min(y),
        BinaryOp::Max => x.max(y),
        BinaryOp::Pow => x.powf(y),
        other => unreachable!("{} of floats", other.name()),
    }
}

fn int_binary(op: BinaryOp, x: i128, y: i128) -> Result<Option<i128>, FailKind> {
    Ok(match op {
        BinaryOp::Add => x.checked_add(y),
        BinaryOp::Sub => x.checked_sub(y),
        BinaryOp::Div | BinaryOp::Rem if y == 0 => return Err(FailKind::DivisionByZero),
        BinaryOp::Div => x.checked_div(y),
        BinaryOp::Rem => x.checked_rem(y),
        BinaryOp::Min => Some(x.min(y)),
        BinaryOp::Max => Some(x.max(y)),
        other => unreachable!("{} of integers", other.name()),
    })
}

/// `a op b` as a bool or NULL.
pub fn compare(op: CompareOp, (a, at): (&Datum, Scalar), (b, bt): (&Datum, Scalar)) -> Outcome {
    match (a, b) {
        (Datum::Fail(kind), _) | (_, Datum::Fail(kind)) => return Err(*kind),
        (Datum::Null, _) | (_, Datum::Null) => return Ok(Datum::Null),
        _ => {}
    }
    let common = compare_as(at, bt).expect("types that compare");
    let ordering = partial_order(&promote(a, at, common)?, &promote(b, bt, common)?);
    Ok(Datum::Bool(match op {
        CompareOp::Eq => ordering == Some(Ordering::Equal),
        CompareOp::Ne => ordering != Some(Ordering::Equal),
        CompareOp::Lt => ordering == Some(Ordering::Less),
        CompareOp::Le => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        CompareOp::Gt => ordering == Some(Ordering::Greater),
        CompareOp::Ge => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
    }))
}

/// Order of two values of one type; none where a float is NaN.
pub fn partial_order(a: &Datum, b: &Datum) -> Option<Ordering> {
    match (a, b) {
        (Datum::Bool(x), Datum::Bool(y)) => Some(x.cmp(y)),
        (Datum::Int(x), Datum::Int(y)) => Some(x.cmp(y)),
        (Datum::Float(x), Datum::Float(y)) => x.partial_cmp(y),
        (Datum::Str(x), Datum::Str(y)) => Some(x.as_bytes().cmp(y.as_bytes())),
        (a, b) => unreachable!("order of {a:?} and {b:?}"),
    }
}

/// Order of two values of one type for sorting, minimum and maximum: NaN is the largest float.
pub fn total_order(a: &Datum, b: &Datum) -> Ordering {
    let nan = |d: &Datum| matches!(d, Datum::Float(x) if x.is_nan());
    partial_order(a, b).unwrap_or_else(|| nan(a).cmp(&nan(b)))
}
