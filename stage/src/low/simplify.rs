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
        Op::MaskedLoad { ptr, mask, invariant } if int(mask).is_some_and(|m| m != 0) => {
            let align = ty.prim.bytes() as u16;
            Simplified::Op(Op::Load { ptr, offset: 0, align, invariant })
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
        Some(&Op::PtrAdd { base, index: None, offset: inner, .. }) => (base, inner.wrapping_add(offset)),
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
        let offset = offset.wrapping_add((i as i64).wrapping_mul(scale));
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
            let offset = inner.wrapping_add(offset);
            if index.is_none() && offset == 0 {
                return Simplified::Value(base);
            }
            Simplified::Op(Op::PtrAdd { base, index, scale, offset })
        }
        Some(&Op::PtrAdd { base, index: Some(i), scale, offset: inner }) if index.is_none() => {
            Simplified::Op(Op::PtrAdd { base, index: Some(i), scale, offset: inner.wrapping_add(offset) })
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
        (BinOp::Add | BinOp::Sub | BinOp::Or | BinOp::Xor | BinOp::Shl | BinOp::LShr | BinOp::AShr, _, Some(0)) => {
            Simplified::Value(a)
        }
        (BinOp::Mul | BinOp::And, Some(0), _) | (BinOp::Mul | BinOp::And, _, Some(0)) => zero(),
        (BinOp::Mul, Some(1), _) if ty.prim != Prim::Bool => Simplified::Value(b),
        (BinOp::Mul | BinOp::Div | BinOp::UDiv, _, Some(1)) if ty.prim != Prim::Bool => Simplified::Value(a),
        (BinOp::And, Some(v), _) if v == ones => Simplified::Value(b),
        (BinOp::And, _, Some(v)) if v == ones => Simplified::Value(a),
        (BinOp::Or, Some(v), _) if v == ones => Simplified::Value(a),
        (BinOp::Or, _, Some(v)) if v == ones => Simplified::Value(b),
        (BinOp::And | BinOp::Or | BinOp::Min | BinOp::Max, _, _) if a == b => Simplified::Value(a),
        (BinOp::Min | BinOp::Max, _, Some(v)) if ty.prim != Prim::Bool => match (op == BinOp::Min, extreme(ty.prim, v))
        {
            (min, Some(Extreme::Greatest)) => Simplified::Value(if min { a } else { b }),
            (min, Some(Extreme::Least)) => Simplified::Value(if min { b } else { a }),
            (_, None) => Simplified::Keep,
        },
        (BinOp::Sub | BinOp::Xor, _, _) if a == b => zero(),
        _ => Simplified::Keep,
    }
}

/// An end of the range of a type.
enum Extreme {
    Least,
    Greatest,
}

fn extreme(prim: Prim, v: i128) -> Option<Extreme> {
    let least = i128::MIN >> (128 - prim.int_bits()?);
    match v {
        v if v == least => Some(Extreme::Least),
        v if v == !least => Some(Extreme::Greatest),
        _ => None,
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
        // A signed one-bit number would be 0 or -1, which no one means: the verifier rejects it.
        (CastOp::SiToFp, ..) if from == Prim::Bool => Simplified::Keep,
        (CastOp::SiToFp, Some(i), _) if ty.prim == Prim::F64 => rounded(i as f64),
        (CastOp::SiToFp, Some(i), _) if ty.prim == Prim::F32 => {
            Simplified::Op(Op::Const(Const::Float((i as f32 as f64).to_bits())))
        }
        (CastOp::FpExt, _, Some(x)) if ty.prim == Prim::F64 && from == Prim::F32 => rounded(x),
        (CastOp::FpTrunc, _, Some(x)) if ty.prim == Prim::F32 => rounded(x),
        _ => Simplified::Keep,
    }
}

#[cfg(test)]
mod tests {
    use super::super::build::{Builder, ModuleBuilder, V};
    use super::super::{RmwOp, verify};
    use super::*;

    /// The body of a function of `(ptr, i64, i64, f64, bool)` as text, after the verifier has accepted it.
    fn body(build: impl for<'b> FnOnce(&'b Builder, &[V<'b>])) -> String {
        let module = ModuleBuilder::new();
        module.func("f", &[Ty::PTR, Ty::I64, Ty::I64, Ty::F64, Ty::BOOL], build);
        let module = module.build();
        verify(&module).expect("the builder makes well-formed functions");
        let text = module.funcs[0].to_string();
        let lines: Vec<&str> = text.lines().collect();
        lines[1..lines.len() - 1].iter().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect()
    }

    /// The instructions that give the value that `build` stores; the status (which takes a number) is left out.
    fn stored(build: impl for<'b> FnOnce(&'b Builder, &[V<'b>]) -> V<'b>) -> String {
        let text = body(|b, p| {
            let value = build(b, p);
            b.store(p[0], 0, value);
        });
        let kept = text.lines().filter(|l| !l.contains("i32 = const 0") && !l.starts_with("yield"));
        kept.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn constants_are_folded_and_wrap() {
        let fold = |ty: Ty, op, x: i128, y: i128| stored(move |b, _| b.int(ty, x).bin(op, b.int(ty, y)));
        let is = |c: &str| format!("v5: i8 = const {c}\nstore v0 align 1, v5");
        assert_eq!(fold(Ty::I8, BinOp::Add, 127, 1), is("-128"));
        assert_eq!(fold(Ty::I8, BinOp::Mul, 16, 16), is("0"));
        assert_eq!(fold(Ty::I8, BinOp::UDiv, -1, 2), is("127"));
        assert_eq!(fold(Ty::I8, BinOp::LShr, -1, 4), is("15"));
        assert_eq!(fold(Ty::I8, BinOp::AShr, -16, 4), is("-1"));
        assert_eq!(fold(Ty::I8, BinOp::Rem, -7, 3), is("-1"));
    }

    #[test]
    fn what_is_undefined_is_not_folded() {
        let div = stored(|b, _| b.i64(1) / b.i64(0));
        assert!(div.contains("div v5, v6"), "{div}");
        let shift = stored(|b, _| b.i64(1).shl(64));
        assert!(shift.contains("shl v5, v6"), "{shift}");
    }

    #[test]
    fn identities_of_integers_give_the_operand() {
        let operand = "store v0 align 8, v1";
        assert_eq!(stored(|_, p| p[1] + 0), operand);
        assert_eq!(stored(|_, p| p[1] * 1), operand);
        assert_eq!(stored(|_, p| p[1] & -1), operand);
        assert_eq!(stored(|_, p| p[1] | p[1]), operand);
        assert_eq!(stored(|_, p| p[1].same(0) + p[1]), operand);
        assert_eq!(stored(|_, p| !!p[1]), operand);
        assert_eq!(stored(|_, p| p[4].select(p[1], p[1])), operand);
        assert_eq!(stored(|b, p| b.bool(true).select(p[1], p[2])), operand);
        assert_eq!(stored(|_, p| p[1] - p[1]), "v5: i64 = const 0\nstore v0 align 8, v5");
    }

    #[test]
    fn least_and_greatest_by_an_end_of_the_range() {
        let operand = "store v0 align 8, v1";
        assert_eq!(stored(|b, p| p[1].min(b.i64(i64::MAX))), operand);
        assert_eq!(stored(|b, p| p[1].max(b.i64(i64::MIN))), operand);
        assert_eq!(
            stored(|b, p| p[1].min(b.i64(i64::MIN))),
            "v5: i64 = const -9223372036854775808\nstore v0 align 8, v5"
        );
        assert!(stored(|b, p| p[1].min(b.i64(i32::MAX.into()))).contains("min v1, v5"));
    }

    #[test]
    fn float_identities_that_change_a_result_are_not_laws() {
        assert_eq!(stored(|_, p| p[3] + 0), "v5: f64 = const 0.0\nv7: f64 = add v3, v5\nstore v0 align 8, v7");
        assert_eq!(stored(|_, p| p[3].eq(p[3])), "v6: bool = cmp eq v3, v3\nstore v0 align 1, v6");
    }

    #[test]
    fn single_precision_is_rounded_after_each_fold() {
        let text = stored(|b, _| b.f32(0.1) + b.f32(0.2));
        assert_eq!(text, format!("v5: f32 = const {:?}\nstore v0 align 4, v5", f64::from(0.1f32 + 0.2f32)));
    }

    #[test]
    fn comparisons_and_overflow_tests_are_folded() {
        let truth = |c: &str| format!("v5: bool = const {c}\nstore v0 align 1, v5");
        assert_eq!(stored(|_, p| p[1].le(p[1])), truth("1"));
        assert_eq!(stored(|_, p| p[1].ult(p[1])), truth("0"));
        assert_eq!(stored(|b, _| b.i64(-1).ult(b.i64(1))), truth("0"));
        assert_eq!(stored(|b, _| b.int(Ty::I8, 100).overflows(OvfOp::Add, b.int(Ty::I8, 28))), truth("1"));
        assert_eq!(stored(|_, p| p[1].overflows(OvfOp::Mul, p[1].same(1))), truth("0"));
        assert_eq!(
            stored(|b, p| p[4].select(b.bool(true), p[1].lt(p[2]))),
            "v6: bool = cmp lt v1, v2\nv7: bool = or v4, v6\nstore v0 align 1, v7"
        );
    }

    #[test]
    fn casts_of_constants_are_folded() {
        let int = |c: &str| format!("v5: i64 = const {c}\nstore v0 align 8, v5");
        assert_eq!(stored(|b, _| b.int(Ty::I8, -1).zext(Prim::I64)), int("255"));
        assert_eq!(stored(|b, _| b.bool(true).sext(Prim::I64)), int("-1"));
        assert_eq!(stored(|b, _| b.bool(true).zext(Prim::I64)), int("1"));
        assert_eq!(stored(|b, _| b.i64(257).sext(Prim::I8)), "v5: i8 = const 1\nstore v0 align 1, v5");
        assert_eq!(
            stored(|b, _| b.i64(3).cast(CastOp::SiToFp, Prim::F64)),
            "v5: f64 = const 3.0\nstore v0 align 8, v5"
        );
    }

    #[test]
    fn a_byte_is_truncated_to_a_bool() {
        let text = stored(|b, p| b.load(Ty::I8, p[0], 0).zext(Prim::Bool));
        assert!(text.contains("trunc"), "{text}");
    }

    #[test]
    fn one_lane_is_a_scalar() {
        assert_eq!(stored(|b, p| b.iota(Ty::I64) + p[1].splat(1)), "store v0 align 8, v1");
        assert_eq!(stored(|_, p| p[1].splat(4).extract(2)), "store v0 align 8, v1");
    }

    #[test]
    fn constant_parts_of_addresses_meet_in_the_offset() {
        assert_eq!(
            body(|b, p| {
                let place = p[0].at(8).at(8).index(b.i64(2), 4);
                let value = b.load(Ty::I64, place, 8);
                b.store(place.index(p[1], 8).at(-24), 4, value);
            }),
            "v5: i32 = const 0\n\
             v6: i64 = load v0 + 32 align 8\n\
             v7: ptr = ptr_add v0 + v1 * 8\n\
             store v7 + 4 align 8, v6\n\
             yield v5\n"
        );
    }

    #[test]
    fn extreme_offsets_do_not_overflow_the_compiler() {
        stored(|b, p| b.load(Ty::I64, p[0].at(i64::MAX).at(i64::MAX).index(b.i64(i64::MAX), 8), i64::MAX));
    }

    #[test]
    fn pure_values_are_shared_in_their_scope_only() {
        assert_eq!(
            body(|b, p| {
                let sum = p[1] + p[2];
                b.if_(p[4], || b.store(p[0], 0, (p[1] + p[2]) * (p[1] - p[2])));
                b.store(p[0], 8, sum * (p[1] - p[2]));
            }),
            "v5: i32 = const 0\n\
             v6: i64 = add v1, v2\n\
             if v4 {\n\
             \x20 v7: i64 = sub v1, v2\n\
             \x20 v8: i64 = mul v6, v7\n\
             \x20 store v0 align 8, v8\n\
             \x20 yield\n\
             } else {\n\
             \x20 yield\n\
             }\n\
             v9: i64 = sub v1, v2\n\
             v10: i64 = mul v6, v9\n\
             store v0 + 8 align 8, v10\n\
             yield v5\n"
        );
    }

    #[test]
    fn what_nothing_needs_is_dropped_but_effects_stay() {
        assert_eq!(
            body(|b, p| {
                let unused = b.load(Ty::I64, p[0], 0) + p[1];
                b.for_(p[1], p[2], |i| {
                    let _ = i + unused;
                });
                b.alloca(64, 8);
                b.atomic(RmwOp::Add, p[0], p[1]);
            }),
            "v5: i32 = const 0\nv6: i64 = atomic add v0, v1\nyield v5\n"
        );
    }

    #[test]
    fn reads_of_changing_memory_are_not_shared() {
        let text = stored(|b, p| {
            let before = b.load(Ty::I64, p[0], 0);
            b.store(p[0], 0, p[1]);
            before + b.load(Ty::I64, p[0], 0)
        });
        assert_eq!(text.matches("load").count(), 2, "{text}");
    }

    #[test]
    fn hoisted_loads_stand_first_and_are_shared() {
        assert_eq!(
            body(|b, p| {
                b.for_(p[1], p[2], |i| {
                    let column = b.load_hoisted(Ty::PTR, p[0], 16);
                    let again = b.load_hoisted(Ty::PTR, p[0], 16);
                    b.store(column.index(i, 8), 0, again);
                });
            }),
            "v5: ptr = load v0 + 16 align 8 invariant\n\
             v6: i32 = const 0\n\
             for v7: i64 in v1..v2 step 1 () {\n\
             \x20 v8: ptr = ptr_add v5 + v7 * 8\n\
             \x20 store v8 align 8, v5\n\
             \x20 yield\n\
             }\n\
             yield v6\n"
        );
    }

    #[test]
    fn known_conditions_leave_no_branch() {
        assert_eq!(
            body(|b, p| {
                b.if_(b.bool(false), || b.store(p[0], 0, p[1]));
                b.if_(b.bool(true), || b.store(p[0], 8, p[1]));
                b.for_(b.i64(3), b.i64(4), |i| b.store(p[0], 16, i));
                b.for_(b.i64(4), b.i64(4), |i| b.store(p[0], 24, i));
                b.fail_if(b.bool(false), FailKind::Overflow, "never");
                b.fail_if_runtime(b.bool(false));
            }),
            "v5: i64 = const 3\n\
             v6: i32 = const 0\n\
             store v0 + 8 align 8, v1\n\
             store v0 + 16 align 8, v5\n\
             yield v6\n"
        );
    }
}
