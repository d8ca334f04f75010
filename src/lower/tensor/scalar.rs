//! Elementwise operations on staged values: what one lane, or every lane of a vector, goes through.
//!
//! Values are in their *compute* type ([`super::spec::compute`]): small integers as `i32`, 16-bit floats as `f32`.

use super::math;
use super::spec::{compute, storage};
use quearn_stage::graph::{BinaryOp, CompareOp, Literal, Scalar, UnaryOp, literal};
use quearn_stage::low::{BinOp, Builder, CastOp, CmpOp, FailKind, OvfOp, Prim, ReduceOp, Ty, UnOp, V};

/// A literal in every lane; `None` for types that tensors do not hold.
pub fn constant<'b>(b: &'b Builder, literal: &Literal, lanes: u16) -> Option<V<'b>> {
    let ty = Ty::vector(compute(literal.scalar())?, lanes);
    match literal.value() {
        literal::Value::Bool(x) => Some(b.int(ty, (*x).into())),
        literal::Value::Int(x) => Some(b.int(ty, *x)),
        literal::Value::Float(bits) => Some(b.float(ty, f64::from_bits(*bits))),
        _ => None,
    }
}

/// Leaves the function if `bad` is true in any lane that `mask` admits.
pub fn fail_if<'b>(b: &'b Builder, bad: V<'b>, mask: Option<V<'b>>, kind: FailKind, message: &str) {
    if bad.as_int() == Some(0) {
        return;
    }
    let bad = mask.map_or(bad, |m| bad & m);
    b.fail_if(bad.reduce(ReduceOp::Or), kind, message);
}

/// Where an operation stands: what its failures need.
#[derive(Clone, Copy)]
pub struct Place<'a, 'b> {
    /// The lanes that count.
    pub mask: Option<V<'b>>,
    /// The operation in the user's terms.
    pub message: &'a str,
}

/// Fails where an integer does not fit the (narrower) type `to`.
fn check_range<'b>(x: V<'b>, to: Scalar, place: Place<'_, 'b>) {
    let (Some((lo, hi)), Some(bits)) = (literal::int_range(to), x.ty().prim.int_bits()) else { return };
    if hi >= (1i128 << (bits - 1)) - 1 && lo <= -(1i128 << (bits - 1)) {
        return;
    }
    let b = x.builder();
    let bad = x.lt(b.int(x.ty(), lo)) | x.gt(b.int(x.ty(), hi));
    fail_if(b, bad, place.mask, FailKind::Overflow, place.message);
}

/// An operation of one operand of type `of`; `None` if it has no meaning on tensors.
pub fn unary<'b>(op: UnaryOp, x: V<'b>, of: Scalar, place: Place<'_, 'b>) -> Option<V<'b>> {
    let b = x.builder();
    let float = of.is_float();
    let zero = b.zero(x.ty());
    Some(match op {
        UnaryOp::Neg | UnaryOp::Abs if !float => {
            fail_if(b, zero.overflows(OvfOp::Sub, x), place.mask, FailKind::Overflow, place.message);
            let negated = zero - x;
            let y = if op == UnaryOp::Neg { negated } else { x.max(negated) };
            check_range(y, of, place);
            y
        }
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.un(UnOp::Abs),
        UnaryOp::Not if of == Scalar::Bool => !x,
        UnaryOp::IsNull => b.int(x.ty().with_prim(Prim::Bool), 0),
        // The comparison is false for NaN, which stays.
        UnaryOp::Relu if float => x.lt(zero).select(zero, x),
        UnaryOp::Relu => x.max(zero),
        _ if !float => return None,
        UnaryOp::Exp => math::exp(x),
        UnaryOp::Log => math::log(x),
        UnaryOp::Sqrt => x.un(UnOp::Sqrt),
        UnaryOp::Tanh => math::tanh(x),
        UnaryOp::Sigmoid => math::sigmoid(x),
        UnaryOp::Erf => math::erf(x),
        UnaryOp::Sin => math::sin(x),
        UnaryOp::Cos => math::cos(x),
        UnaryOp::Floor => x.un(UnOp::Floor),
        UnaryOp::Ceil => x.un(UnOp::Ceil),
        UnaryOp::Round => x.un(UnOp::Round),
        UnaryOp::Atan => math::atan(x),
        UnaryOp::Detach => x,
        _ => return None,
    })
}

/// An operation of two operands of the result's type `of`; `None` if it has no meaning on tensors.
pub fn binary<'b>(op: BinaryOp, x: V<'b>, y: V<'b>, of: Scalar, place: Place<'_, 'b>) -> Option<V<'b>> {
    if of == Scalar::Bool {
        return match op {
            BinaryOp::And => Some(x & y),
            BinaryOp::Or => Some(x | y),
            BinaryOp::Coalesce => Some(x),
            _ => None,
        };
    }
    if of.is_float() { float_binary(op, x, y) } else { int_binary(op, x, y, of, place) }
}

fn float_binary<'b>(op: BinaryOp, x: V<'b>, y: V<'b>) -> Option<V<'b>> {
    Some(match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x * y,
        BinaryOp::Div => x / y,
        BinaryOp::Rem => x % y,
        BinaryOp::Min => x.min(y),
        BinaryOp::Max => x.max(y),
        BinaryOp::Pow => x.bin(BinOp::Pow, y),
        BinaryOp::Coalesce => x,
        BinaryOp::And | BinaryOp::Or => return None,
    })
}

fn int_binary<'b>(op: BinaryOp, x: V<'b>, y: V<'b>, of: Scalar, place: Place<'_, 'b>) -> Option<V<'b>> {
    let b = x.builder();
    let exact = |ovf: OvfOp, result: V<'b>| {
        fail_if(b, x.overflows(ovf, y), place.mask, FailKind::Overflow, place.message);
        check_range(result, of, place);
        result
    };
    Some(match op {
        BinaryOp::Add => exact(OvfOp::Add, x + y),
        BinaryOp::Sub => exact(OvfOp::Sub, x - y),
        BinaryOp::Mul => exact(OvfOp::Mul, x * y),
        BinaryOp::Div | BinaryOp::Rem => return Some(divide(op, x, y, of, place)),
        BinaryOp::Min => x.min(y),
        BinaryOp::Max => x.max(y),
        BinaryOp::Coalesce => x,
        BinaryOp::Pow | BinaryOp::And | BinaryOp::Or => return None,
    })
}

/// Quotient or remainder; lanes that do not count divide by one.
fn divide<'b>(op: BinaryOp, x: V<'b>, y: V<'b>, of: Scalar, place: Place<'_, 'b>) -> V<'b> {
    let b = x.builder();
    let y = place.mask.map_or(y, |m| m.select(y, y.same(1)));
    fail_if(b, y.eq(b.zero(y.ty())), place.mask, FailKind::DivisionByZero, place.message);
    let bits = x.ty().prim.int_bits().unwrap_or(64);
    let min = b.int(x.ty(), -(1i128 << (bits - 1)));
    let overflows = x.eq(min) & y.eq(b.int(y.ty(), -1));
    if op == BinaryOp::Rem {
        return x % overflows.select(y.same(1), y);
    }
    fail_if(b, overflows, place.mask, FailKind::Overflow, place.message);
    let quotient = x / y;
    check_range(quotient, of, place);
    quotient
}

/// A comparison of two operands of one type.
pub fn compare<'b>(op: CompareOp, x: V<'b>, y: V<'b>) -> V<'b> {
    let (x, y) = match x.ty().prim {
        Prim::Bool => (x.zext(Prim::I32), y.zext(Prim::I32)),
        _ => (x, y),
    };
    x.cmp(
        match op {
            CompareOp::Eq => CmpOp::Eq,
            CompareOp::Ne => CmpOp::Ne,
            CompareOp::Lt => CmpOp::Lt,
            CompareOp::Le => CmpOp::Le,
            CompareOp::Gt => CmpOp::Gt,
            CompareOp::Ge => CmpOp::Ge,
        },
        y,
    )
}

/// The type in which two numeric operands meet.
pub fn promote(a: Scalar, b: Scalar) -> Scalar {
    let rank = |s: Scalar| match s {
        Scalar::Bool => 0,
        Scalar::I8 => 1,
        Scalar::U8 => 2,
        Scalar::I16 => 3,
        Scalar::I32 => 4,
        Scalar::I64 => 5,
        Scalar::F16 => 6,
        Scalar::BF16 => 7,
        Scalar::F32 => 8,
        Scalar::F64 => 9,
        _ => 10,
    };
    let wide = if rank(a) >= rank(b) { a } else { b };
    match (a, b, wide) {
        (Scalar::I64, _, w) | (_, Scalar::I64, w) if w.is_float() => Scalar::F64,
        (Scalar::F16, Scalar::BF16, _) | (Scalar::BF16, Scalar::F16, _) => Scalar::F32,
        (Scalar::I8, Scalar::U8, _) | (Scalar::U8, Scalar::I8, _) => Scalar::I16,
        _ => wide,
    }
}

/// Converts between numeric types (and bool); values that do not fit are errors.
pub fn cast<'b>(x: V<'b>, from: Scalar, to: Scalar, place: Place<'_, 'b>) -> Option<V<'b>> {
    let (source, target) = (compute(from)?, compute(to)?);
    if from == to {
        return Some(x);
    }
    let b = x.builder();
    Some(match (from, to) {
        (Scalar::Bool, _) if to.is_float() => x.cast(CastOp::UiToFp, target),
        (Scalar::Bool, _) => x.zext(target),
        (_, Scalar::Bool) => x.ne(b.zero(x.ty())),
        (Scalar::Date | Scalar::Timestamp, _) | (_, Scalar::Date | Scalar::Timestamp) => return None,
        _ if from.is_float() && to.is_float() => float_to_float(x, to, target),
        _ if from.is_float() => float_to_int(x, to, target, place),
        _ if to.is_float() => x.cast(CastOp::SiToFp, target),
        _ if target.bytes() >= source.bytes() => {
            let y = x.sext(target);
            check_range(y, to, Place { message: place.message, ..place });
            y
        }
        _ => {
            check_range(x, to, place);
            x.sext(target)
        }
    })
}

/// Rounds to the precision of `to`, also when it is stored in a wider type meanwhile.
fn float_to_float<'b>(x: V<'b>, to: Scalar, target: Prim) -> V<'b> {
    let widened = |y: V<'b>| y.cast(if y.ty().prim == Prim::F64 { CastOp::FpTrunc } else { CastOp::FpExt }, target);
    match storage(to) {
        Some(narrow @ (Prim::F16 | Prim::BF16)) => x.cast(CastOp::FpTrunc, narrow).cast(CastOp::FpExt, target),
        _ => widened(x),
    }
}

fn float_to_int<'b>(x: V<'b>, to: Scalar, target: Prim, place: Place<'_, 'b>) -> V<'b> {
    let b = x.builder();
    let (lo, hi) = literal::int_range(to).unwrap_or((0, 0));
    if x.clamp().is_some_and(|[low, high]| lo as f64 <= low && high < (hi + 1) as f64) {
        return x.cast(CastOp::FpToSi, target);
    }
    // The bounds are exact floats: lo is 0 or -2^k, hi + 1 is 2^k.
    let below = math::like(x, lo as f64 - 1.0);
    let small = if lo == 0 || x.ty().prim == Prim::F64 && lo > i64::MIN.into() || lo > -(1 << 24) {
        x.gt(below)
    } else {
        x.ge(math::like(x, lo as f64))
    };
    let fits = small & x.lt(math::like(x, (hi + 1) as f64));
    fail_if(b, !fits, place.mask, FailKind::BadCast, place.message);
    x.cast(CastOp::FpToSi, target)
}
