//! The laws by which an instruction is folded when it is built. Each gives a value that is there already or a
//! cheaper operation; none changes a result, floats included (`x + 0.0` is not `x` for `-0.0`).

use super::build::wrap;
use super::inst::*;
use super::ty::{Prim, Ty};

/// What became of an operation.
pub enum Simplified {
    /// An existing value.
    Value(Value),
    /// A cheaper operation.
    Op(Op),
    /// Nothing better is known.
    Keep,
}

/// Applies the first law that fits.
pub fn simplify(func: &Func, op: &Op, ty: Ty) -> Simplified {
    let int = |v: Value| match func.as_const(v) {
        Some(Const::Int(i)) => Some(i),
        _ => None,
    };
    let float = |v: Value| match func.as_const(v) {
        Some(Const::Float(bits)) => Some(f64::from_bits(bits)),
        _ => None,
    };
    let folded = |i: i128| Simplified::Op(Op::Const(Const::Int(wrap(ty.prim, i))));
    match *op {
        Op::Bin(bin, a, b) => match (int(a), int(b)) {
            (Some(x), Some(y)) => fold_int(bin, ty.prim, x, y).map_or(Simplified::Keep, folded),
            _ => match (float(a), float(b)) {
                (Some(x), Some(y)) => fold_float(bin, ty.prim, x, y),
                _ => identity(bin, ty, a, b, int(a), int(b)),
            },
        },
        Op::Cmp(cmp, a, b) => match (int(a), int(b)) {
            (Some(x), Some(y)) => folded(compare(cmp, func.ty(a).prim, x, y).into()),
            _ if a == b && !func.ty(a).prim.is_float() => {
                folded(matches!(cmp, CmpOp::Eq | CmpOp::Le | CmpOp::Ge | CmpOp::Ule).into())
            }
            _ => Simplified::Keep,
        },
        Op::Un(UnOp::Not, a) => match int(a) {
            Some(x) => folded(if ty.prim == Prim::Bool { 1 - x } else { !x }),
            None => match defining(func, a) {
                Some(Op::Un(UnOp::Not, inner)) => Simplified::Value(*inner),
                _ => Simplified::Keep,
            },
        },
        Op::Un(UnOp::Neg, a) => match (int(a), float(a)) {
            (Some(x), _) => folded(x.wrapping_neg()),
            (_, Some(x)) => Simplified::Op(Op::Const(Const::Float((-x).to_bits()))),
            _ => Simplified::Keep,
        },
        Op::Ovf(ovf, a, b) => match (int(a), int(b)) {
            (Some(x), Some(y)) => folded(overflows(ovf, func.ty(a).prim, x, y).into()),
            (_, Some(0)) => folded(0),
            (Some(0), _) if ovf != OvfOp::Sub => folded(0),
            (_, Some(1)) | (Some(1), _) if ovf == OvfOp::Mul => folded(0),
            _ => Simplified::Keep,
        },
        Op::Cast(cast, a) => fold_cast(func, cast, a, ty, int(a), float(a)),
        Op::Select(c, a, b) => match int(c) {
            Some(0) => Simplified::Value(b),
            Some(_) => Simplified::Value(a),
            None if a == b => Simplified::Value(a),
            None if ty == Ty::BOOL && int(a) == Some(1) => Simplified::Op(Op::Bin(BinOp::Or, c, b)),
            None if ty == Ty::BOOL && int(b) == Some(0) => Simplified::Op(Op::Bin(BinOp::And, c, a)),
            None => Simplified::Keep,
        },
        Op::Splat(a) => match func.as_const(a) {
            Some(c) => Simplified::Op(Op::Const(c)),
            None => Simplified::Keep,
        },
        Op::Extract(a, _) => match (func.as_const(a), defining(func, a)) {
            (Some(c), _) => Simplified::Op(Op::Const(c)),
            (None, Some(Op::Splat(s))) => Simplified::Value(*s),
            _ => Simplified::Keep,
        },
        Op::PtrAdd { base, index, scale, offset } => fold_ptr(func, base, index, scale, offset, index.and_then(int)),
        Op::Load { ptr, offset, align, invariant } => {
            let (base, folded) = fold_address(func, ptr, offset);
            if base == ptr {
                return Simplified::Keep;
            }
            Simplified::Op(Op::Load { ptr: base, offset: folded, align, invariant })
        }
        _ => Simplified::Keep,
    }
}

fn defining(func: &Func, value: Value) -> Option<&Op> {
    match func.values[value.index()].def {
        ValueDef::Result(inst, _) => Some(&func.inst(inst).op),
        _ => None,
    }
}

/// `ptr + offset` with the constant part of the address moved into the offset.
pub fn fold_address(func: &Func, ptr: Value, offset: i64) -> (Value, i64) {
    match defining(func, ptr) {
        Some(&Op::PtrAdd { base, index: None, offset: inner, .. }) => (base, inner + offset),
        _ => (ptr, offset),
    }
}

fn fold_ptr(
    func: &Func,
    base: Value,
    index: Option<Value>,
    scale: i64,
    offset: i64,
    known: Option<i128>,
) -> Simplified {
    if let Some(i) = known {
        let offset = offset + i as i64 * scale;
        return match fold_ptr(func, base, None, 1, offset, None) {
            Simplified::Keep => Simplified::Op(Op::PtrAdd { base, index: None, scale: 1, offset }),
            better => better,
        };
    }
    if index.is_none() && offset == 0 {
        return Simplified::Value(base);
    }
    match defining(func, base) {
        Some(&Op::PtrAdd { base, index: None, offset: inner, .. }) => {
            let offset = inner + offset;
            if index.is_none() && offset == 0 {
                return Simplified::Value(base);
            }
            Simplified::Op(Op::PtrAdd { base, index, scale, offset })
        }
        Some(&Op::PtrAdd { base, index: Some(i), scale, offset: inner }) if index.is_none() => {
            Simplified::Op(Op::PtrAdd { base, index: Some(i), scale, offset: inner + offset })
        }
        _ => Simplified::Keep,
    }
}

fn fold_int(op: BinOp, prim: Prim, x: i128, y: i128) -> Option<i128> {
    let bits = prim.int_bits()?;
    let mask = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
    let (ux, uy) = (x as u128 & mask, y as u128 & mask);
    let shift = u32::try_from(y).ok().filter(|&s| s < bits);
    Some(match op {
        BinOp::Add => x.wrapping_add(y),
        BinOp::Sub => x.wrapping_sub(y),
        BinOp::Mul => x.wrapping_mul(y),
        BinOp::Div => x.checked_div(y)?,
        BinOp::Rem => x.checked_rem(y)?,
        BinOp::UDiv => ux.checked_div(uy)? as i128,
        BinOp::URem => ux.checked_rem(uy)? as i128,
        BinOp::And => x & y,
        BinOp::Or => x | y,
        BinOp::Xor => x ^ y,
        BinOp::Shl => x << shift?,
        BinOp::LShr => (ux >> shift?) as i128,
        BinOp::AShr => x >> shift?,
        BinOp::Min => x.min(y),
        BinOp::Max => x.max(y),
        BinOp::Pow => return None,
    })
}

fn fold_float(op: BinOp, prim: Prim, x: f64, y: f64) -> Simplified {
    let exact = match op {
        BinOp::Add => x + y,
        BinOp::Sub => x - y,
        BinOp::Mul => x * y,
        BinOp::Div => x / y,
        _ => return Simplified::Keep,
    };
    // The f64 result of f32 operands, rounded once more, is the f32 result (Figueroa 1995).
    let value = match prim {
        Prim::F32 => exact as f32 as f64,
        Prim::F64 => exact,
        _ => return Simplified::Keep,
    };
    Simplified::Op(Op::Const(Const::Float(value.to_bits())))
}

fn identity(op: BinOp, ty: Ty, a: Value, b: Value, x: Option<i128>, y: Option<i128>) -> Simplified {
    if ty.prim.is_float() {
        return Simplified::Keep;
    }
    let ones = if ty.prim == Prim::Bool { 1 } else { -1 };
    let zero = || Simplified::Op(Op::Const(Const::Int(0)));
    match (op, x, y) {
        (BinOp::Add | BinOp::Or | BinOp::Xor, Some(0), _) => Simplified::Value(b),
        (
            BinOp::Add | BinOp::Sub | BinOp::Or | BinOp::Xor | BinOp::Shl | BinOp::LShr | BinOp::AShr,
            _,
            Some(0),
        ) => Simplified::Value(a),
        (BinOp::Mul | BinOp::And, Some(0), _) | (BinOp::Mul | BinOp::And, _, Some(0)) => zero(),
        (BinOp::Mul, Some(1), _) if ty.prim != Prim::Bool => Simplified::Value(b),
        (BinOp::Mul | BinOp::Div | BinOp::UDiv, _, Some(1)) if ty.prim != Prim::Bool => Simplified::Value(a),
        (BinOp::And, Some(v), _) if v == ones => Simplified::Value(b),
        (BinOp::And, _, Some(v)) if v == ones => Simplified::Value(a),
        (BinOp::Or, Some(v), _) if v == ones => Simplified::Value(a),
        (BinOp::Or, _, Some(v)) if v == ones => Simplified::Value(b),
        (BinOp::And | BinOp::Or | BinOp::Min | BinOp::Max, _, _) if a == b => Simplified::Value(a),
        (BinOp::Sub | BinOp::Xor, _, _) if a == b => zero(),
        _ => Simplified::Keep,
    }
}

fn compare(op: CmpOp, prim: Prim, x: i128, y: i128) -> bool {
    let bits = prim.int_bits().unwrap_or(64);
    let mask = if bits == 128 { u128::MAX } else { (1 << bits) - 1 };
    let (ux, uy) = (x as u128 & mask, y as u128 & mask);
    match op {
        CmpOp::Eq => x == y,
        CmpOp::Ne => x != y,
        CmpOp::Lt => x < y,
        CmpOp::Le => x <= y,
        CmpOp::Gt => x > y,
        CmpOp::Ge => x >= y,
        CmpOp::Ult => ux < uy,
        CmpOp::Ule => ux <= uy,
    }
}

fn overflows(op: OvfOp, prim: Prim, x: i128, y: i128) -> bool {
    let exact = match op {
        OvfOp::Add => x.checked_add(y),
        OvfOp::Sub => x.checked_sub(y),
        OvfOp::Mul => x.checked_mul(y),
    };
    exact.is_none_or(|e| wrap(prim, e) != e)
}

fn fold_cast(func: &Func, cast: CastOp, a: Value, ty: Ty, int: Option<i128>, float: Option<f64>) -> Simplified {
    let from = func.ty(a).prim;
    let folded = |i: i128| Simplified::Op(Op::Const(Const::Int(wrap(ty.prim, i))));
    let rounded = |x: f64| {
        let x = if ty.prim == Prim::F32 { x as f32 as f64 } else { x };
        Simplified::Op(Op::Const(Const::Float(x.to_bits())))
    };
    match (cast, int, float) {
        (CastOp::SExt, Some(i), _) if from == Prim::Bool => folded(-i),
        (CastOp::SExt | CastOp::Trunc, Some(i), _) => folded(i),
        (CastOp::ZExt, Some(i), _) => match from.int_bits() {
            Some(bits) if bits < 128 => folded(i & ((1 << bits) - 1)),
            _ => Simplified::Keep,
        },
        (CastOp::SiToFp, Some(i), _) if ty.prim == Prim::F64 => rounded(i as f64),
        (CastOp::SiToFp, Some(i), _) if ty.prim == Prim::F32 => {
            Simplified::Op(Op::Const(Const::Float((i as f32 as f64).to_bits())))
        }
        (CastOp::FpExt, _, Some(x)) if ty.prim == Prim::F64 && from == Prim::F32 => rounded(x),
        (CastOp::FpTrunc, _, Some(x)) if ty.prim == Prim::F32 => rounded(x),
        _ => Simplified::Keep,
    }
}
