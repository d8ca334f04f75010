//! Rules of the scalar family, and the promotion of numeric types.

use super::{Cx, Result, Ty};
use crate::graph::{BinaryOp, Elem, Op, Scalar, UnaryOp};

/// The type that values of both types are converted to where they meet: the type itself if they are equal, else what
/// the promotion of [`BinaryOp`] says; `None` for types that do not mix.
pub fn promote(a: Scalar, b: Scalar) -> Option<Scalar> {
    if a == b {
        return Some(a);
    }
    if !a.is_numeric() || !b.is_numeric() {
        return None;
    }
    if a.is_float() || b.is_float() {
        return Some(promote_float(a, b));
    }
    if a.is_int() && b.is_int() {
        return Some(wider_int(a, b));
    }
    let ((p1, s1), (p2, s2)) = (digits(a)?, digits(b)?);
    let scale = s1.max(s2);
    Some(Scalar::decimal(((p1 - s1).max(p2 - s2) + scale).min(38), scale))
}

/// The result type of a binary operation, `None` where it does not take these operands (or a product of decimals has
/// more than 38 digits after the point).
pub fn binary_result(op: BinaryOp, a: Scalar, b: Scalar) -> Option<Scalar> {
    use BinaryOp::*;
    match op {
        And | Or => (a == Scalar::Bool && b == Scalar::Bool).then_some(Scalar::Bool),
        Coalesce => promote(a, b),
        Min | Max => promote(a, b).filter(|t| t.is_numeric() || matches!(t, Scalar::Date | Scalar::Timestamp)),
        Add | Sub if !(a.is_numeric() && b.is_numeric()) => temporal_result(op, a, b),
        Pow => promote(a, b).filter(|t| t.is_float()),
        Rem => promote(a, b).filter(|t| t.is_int() || t.is_float()),
        Add | Sub | Mul | Div => match promote(a, b)? {
            Scalar::Decimal { .. } => decimal_result(op, digits(a)?, digits(b)?),
            other => Some(other).filter(|t| t.is_numeric()),
        },
    }
}

/// The type in which two values are compared, `None` if they cannot be.
pub fn compare_as(a: Scalar, b: Scalar) -> Option<Scalar> {
    promote(a, b).filter(|t| *t != Scalar::Interval)
}

fn temporal_result(op: BinaryOp, a: Scalar, b: Scalar) -> Option<Scalar> {
    match (op, a, b) {
        (_, Scalar::Date | Scalar::Timestamp, Scalar::Interval) => Some(a),
        (BinaryOp::Sub, Scalar::Date, Scalar::Date) => Some(Scalar::I32),
        _ => None,
    }
}

fn decimal_result(op: BinaryOp, (p1, s1): (u8, u8), (p2, s2): (u8, u8)) -> Option<Scalar> {
    let scale = s1.max(s2);
    match op {
        BinaryOp::Mul => (s1 + s2 <= 38).then(|| Scalar::decimal((p1 + p2).min(38), s1 + s2)),
        BinaryOp::Div => Some(Scalar::F64),
        _ => Some(Scalar::decimal(((p1 - s1).max(p2 - s2) + scale + 1).min(38), scale)),
    }
}

/// Precision and scale that hold every value of an integer or (well-formed) decimal type.
fn digits(scalar: Scalar) -> Option<(u8, u8)> {
    Some(match scalar {
        Scalar::I8 | Scalar::U8 => (3, 0),
        Scalar::I16 => (5, 0),
        Scalar::I32 => (10, 0),
        Scalar::I64 => (19, 0),
        Scalar::Decimal { precision, scale } if scale <= precision && precision <= 38 => (precision, scale),
        _ => return None,
    })
}

fn wider_int(a: Scalar, b: Scalar) -> Scalar {
    let rank = |s| match s {
        Scalar::I8 | Scalar::U8 => 1,
        Scalar::I16 => 2,
        Scalar::I32 => 3,
        _ => 4,
    };
    match (rank(a), rank(b)) {
        // i8 and u8: neither holds the other.
        (1, 1) => Scalar::I16,
        (x, y) if x >= y => a,
        _ => b,
    }
}

fn promote_float(a: Scalar, b: Scalar) -> Scalar {
    let rank = |s| match s {
        Scalar::F16 | Scalar::BF16 => 1,
        Scalar::F32 => 2,
        _ => 3,
    };
    match (a.is_float(), b.is_float()) {
        (true, true) if rank(a) == 1 && rank(b) == 1 => Scalar::F32,
        (true, true) => {
            if rank(a) > rank(b) {
                a
            } else {
                b
            }
        }
        (float_left, _) => match if float_left { (a, b) } else { (b, a) } {
            (_, Scalar::I64 | Scalar::Decimal { .. }) => Scalar::F64,
            (float, _) => float,
        },
    }
}

pub(super) fn infer(cx: &Cx) -> Result<Ty> {
    match cx.op {
        Op::Const(literal) => {
            cx.arity(0)?;
            cx.well_formed(literal.scalar())?;
            Ok(Ty::scalar(Elem { scalar: literal.scalar(), nullable: literal.is_null() }))
        }
        Op::Unary(op) => unary(cx, *op),
        Op::Binary(op) => binary(cx, *op),
        Op::Compare(_) => compare(cx),
        Op::Select => select(cx),
        Op::Cast(to) => cast(cx, *to),
        Op::Like(pattern) => {
            cx.check(escapes_end(pattern), || format!("the pattern {pattern:?} ends in a lone escape"))?;
            of_string(cx, Scalar::Bool)
        }
        Op::Substring { start, .. } => {
            cx.check(*start >= 1, || "positions count from 1, found 0".to_owned())?;
            of_string(cx, Scalar::String)
        }
        Op::Clean(_) => of_string(cx, Scalar::String),
        Op::Hash => of_string(cx, Scalar::I64),
        Op::Random(to) => random(cx, *to),
        _ => cx.error("is not of the scalar family"),
    }
}

fn random(cx: &Cx, to: Scalar) -> Result<Ty> {
    cx.arity(3)?;
    cx.check(matches!(to, Scalar::F32 | Scalar::F64 | Scalar::I64), || format!("makes f32, f64 or i64, not {to}"))?;
    let mut shapes = vec![];
    for i in 0..3 {
        let (elem, shape) = cx.tensor(i)?;
        cx.check(elem == Scalar::I64.required(), || cx.expected(i, "an i64 that is not NULL"))?;
        shapes.push(shape);
    }
    Ok(Ty::Tensor { elem: to.required(), shape: cx.broadcast(&shapes)? })
}

/// Does every `\` of a LIKE pattern have a character to escape?
fn escapes_end(pattern: &str) -> bool {
    pattern.chars().rev().take_while(|&c| c == '\\').count() % 2 == 0
}

fn of_string(cx: &Cx, result: Scalar) -> Result<Ty> {
    cx.arity(1)?;
    let (elem, shape) = cx.tensor(0)?;
    cx.check(elem.scalar == Scalar::String, || cx.expected(0, "a string"))?;
    Ok(Ty::Tensor { elem: Elem { scalar: result, ..elem }, shape: shape.to_vec() })
}

fn unary(cx: &Cx, op: UnaryOp) -> Result<Ty> {
    cx.arity(1)?;
    let (elem, shape) = cx.tensor(0)?;
    let ty = elem.scalar;
    let (takes, what, scalar) = match op {
        UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Relu => (ty.is_numeric(), "a number", ty),
        UnaryOp::Not => (ty == Scalar::Bool, "a bool", ty),
        UnaryOp::IsNull => (true, "", Scalar::Bool),
        UnaryOp::Year | UnaryOp::Month | UnaryOp::Day => {
            (matches!(ty, Scalar::Date | Scalar::Timestamp), "a date or timestamp", Scalar::I32)
        }
        _ => (ty.is_float(), "a float", ty),
    };
    cx.check(takes, || cx.expected(0, what))?;
    let nullable = elem.nullable && op != UnaryOp::IsNull;
    Ok(Ty::Tensor { elem: Elem { scalar, nullable }, shape: shape.to_vec() })
}

fn binary(cx: &Cx, op: BinaryOp) -> Result<Ty> {
    cx.arity(2)?;
    let ((a, left), (b, right)) = (cx.tensor(0)?, cx.tensor(1)?);
    let Some(scalar) = binary_result(op, a.scalar, b.scalar) else {
        return cx.error(format!("does not take {} ({a}) and {} ({b})", cx.operand(0), cx.operand(1)));
    };
    let nullable = match op {
        BinaryOp::Coalesce => a.nullable && b.nullable,
        _ => a.nullable || b.nullable,
    };
    Ok(Ty::Tensor { elem: Elem { scalar, nullable }, shape: cx.broadcast(&[left, right])? })
}

fn compare(cx: &Cx) -> Result<Ty> {
    cx.arity(2)?;
    let ((a, left), (b, right)) = (cx.tensor(0)?, cx.tensor(1)?);
    cx.check(compare_as(a.scalar, b.scalar).is_some(), || {
        format!("cannot compare {} ({a}) with {} ({b})", cx.operand(0), cx.operand(1))
    })?;
    let elem = Elem { scalar: Scalar::Bool, nullable: a.nullable || b.nullable };
    Ok(Ty::Tensor { elem, shape: cx.broadcast(&[left, right])? })
}

/// `Select` and `If`: a bool condition and two arms that meet in one type.
pub(super) fn select(cx: &Cx) -> Result<Ty> {
    cx.arity(3)?;
    let ((cond, shape), (a, left), (b, right)) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    cx.check(cond.scalar == Scalar::Bool, || cx.expected(0, "a bool"))?;
    let Some(scalar) = promote(a.scalar, b.scalar) else {
        return cx.error(format!("the arms differ: {} is {a}, {} is {b}", cx.operand(1), cx.operand(2)));
    };
    let elem = Elem { scalar, nullable: a.nullable || b.nullable };
    Ok(Ty::Tensor { elem, shape: cx.broadcast(&[shape, left, right])? })
}

fn cast(cx: &Cx, to: Scalar) -> Result<Ty> {
    cx.arity(1)?;
    cx.well_formed(to)?;
    let (elem, shape) = cx.tensor(0)?;
    let from = elem.scalar;
    let takes = match (from, to) {
        (Scalar::Date | Scalar::Timestamp, Scalar::Date | Scalar::Timestamp) => true,
        (Scalar::Bool, _) => to.is_numeric() || to == Scalar::Bool,
        _ => from == to || (from.is_numeric() && to.is_numeric()),
    };
    cx.check(takes, || format!("{} ({elem}) cannot be converted to {to}", cx.operand(0)))?;
    Ok(Ty::Tensor { elem: Elem { scalar: to, ..elem }, shape: shape.to_vec() })
}
