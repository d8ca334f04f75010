//! Rules for the operations without blocks: which types their operands and results have.

use super::super::build::wrap;
use super::super::inst::*;
use super::super::ty::{Prim, Ty};
use super::{Rule, require, result_types};

/// A set of primitives with its name in messages.
type Class = (fn(Prim) -> bool, &'static str);

const INT: Class = (is_int, "integers");
const BITS: Class = (Prim::is_int, "integers or bool");
const FLOAT: Class = (is_float, "f32 or f64");
const NUMBER: Class = (|p| is_int(p) || is_float(p), "integers, f32 or f64");
const EQUAL: Class = (|p| !is_storage(p), "not f16 or bf16");
const UNSIGNED: Class = (|p| p.is_int() || p == Prim::Ptr, "integers, bool or pointers");
const I32: Class = (|p| p == Prim::I32, "i32");
const INDEX: Class = (|p| matches!(p, Prim::I32 | Prim::I64), "i32 or i64");
const WORD: Class = (|p| is_int(p) || p == Prim::Ptr, "integers or pointers");

fn is_int(prim: Prim) -> bool {
    prim.is_int() && prim != Prim::Bool
}

fn is_float(prim: Prim) -> bool {
    matches!(prim, Prim::F32 | Prim::F64)
}

fn is_storage(prim: Prim) -> bool {
    matches!(prim, Prim::F16 | Prim::BF16)
}

/// Bits of a value in a register: a `bool` is one.
fn bits(ty: Ty) -> usize {
    let lane = if ty.prim == Prim::Bool { 1 } else { ty.prim.bytes() * 8 };
    lane * usize::from(ty.lanes)
}

/// Checks an operation that has no rules beyond those on types.
pub(super) fn check(func: &Func, op: &Op, results: &[Ty]) -> Rule {
    let ty = |v: Value| func.ty(v);
    if let Some(rule) = write(op, &ty) {
        rule?;
        return result_types(results, &[]);
    }
    let &[result] = results else { return Err("there is one result".into()) };
    lanewise(op, &ty, result).or_else(|| lanes(op, &ty, result)).unwrap_or_else(|| memory(op, &ty, result))
}

/// Operations without a result; `None` for others.
fn write(op: &Op, ty: &impl Fn(Value) -> Ty) -> Option<Rule> {
    Some(match *op {
        Op::Store { ptr, align, .. } => address(ty(ptr)).and_then(|()| aligned(align)),
        Op::MaskedStore { ptr, mask, value } | Op::CompressStore { ptr, mask, value } => {
            address(ty(ptr)).and_then(|()| masked(ty(value), ty(mask)))
        }
        Op::Prefetch { ptr, .. } => address(ty(ptr)),
        _ => return None,
    })
}

/// Operations that work lane by lane; `None` for others.
fn lanewise(op: &Op, ty: &impl Fn(Value) -> Ty, result: Ty) -> Option<Rule> {
    Some(match *op {
        Op::Const(c) => constant(c, result.prim),
        Op::Un(op, a) => same(&[ty(a), result]).and_then(|()| class(result, un_class(op))),
        Op::Bin(op, a, b) => same(&[ty(a), ty(b), result]).and_then(|()| class(result, bin_class(op))),
        Op::Fma(a, b, c) => same(&[ty(a), ty(b), ty(c), result]).and_then(|()| class(result, FLOAT)),
        Op::Dot4(a, b, c) => same(&[ty(a), ty(b), ty(c), result]).and_then(|()| class(result, I32)),
        Op::Cmp(op, a, b) => test([ty(a), ty(b)], result, cmp_class(op)),
        Op::Ovf(_, a, b) => test([ty(a), ty(b)], result, INT),
        Op::Cast(op, a) => cast(op, ty(a), result),
        Op::Select(c, a, b) => same(&[ty(a), ty(b), result]).and_then(|()| {
            let fits = ty(c) == Ty::BOOL || ty(c) == result.with_prim(Prim::Bool);
            require(fits, || "the condition is a bool, or one for each lane".into())
        }),
        _ => return None,
    })
}

/// Operations between vectors and scalars; `None` for others.
fn lanes(op: &Op, ty: &impl Fn(Value) -> Ty, result: Ty) -> Option<Rule> {
    let vector_of = |vector: Ty, scalar: Ty| {
        vector_type(vector)?;
        require(scalar == Ty::scalar(vector.prim), || "the scalar has the type of a lane".into())
    };
    let lane_of = |vector: Ty, lane| require(lane < vector.lanes, || "the vector has that lane".into());
    Some(match *op {
        Op::Splat(a) => vector_of(result, ty(a)),
        Op::Extract(a, lane) => vector_of(ty(a), result).and_then(|()| lane_of(ty(a), lane)),
        Op::Insert(a, b, lane) => {
            same(&[ty(a), result]).and_then(|()| vector_of(result, ty(b))).and_then(|()| lane_of(result, lane))
        }
        Op::Iota => vector_type(result).and_then(|()| class(result, INT)),
        Op::Reduce(op, a) => vector_of(ty(a), result).and_then(|()| class(result, reduce_class(op))),
        _ => return None,
    })
}

/// Addresses, and operations on memory that give a value.
fn memory(op: &Op, ty: &impl Fn(Value) -> Ty, result: Ty) -> Rule {
    let positive = |scale: i64| require(scale > 0, || "the scale is above zero".into());
    match *op {
        Op::PtrAdd { base, index, scale, .. } => {
            address(ty(base))?;
            require(index.is_none_or(|i| ty(i) == Ty::I64), || "the index is an i64".into())?;
            positive(scale)?;
            result_types(&[result], &[Ty::PTR])
        }
        Op::Load { ptr, align, .. } => address(ty(ptr)).and_then(|()| aligned(align)),
        Op::MaskedLoad { ptr, mask, .. } => address(ty(ptr)).and_then(|()| masked(result, ty(mask))),
        Op::Gather { base, index, scale, mask, .. } => {
            address(ty(base))?;
            masked(result, ty(mask))?;
            require(ty(index).lanes == result.lanes, || "the index has the lanes of the data".into())?;
            class(ty(index), INDEX)?;
            positive(scale.into())
        }
        Op::AtomicRmw { op, ptr, value } => {
            atomic(&[ty(value), result], ty(ptr), if op == RmwOp::Xchg { WORD } else { INT })
        }
        Op::CmpXchg { ptr, expected, new } => atomic(&[ty(expected), ty(new), result], ty(ptr), WORD),
        Op::Alloca { align, .. } => aligned(align).and_then(|()| result_types(&[result], &[Ty::PTR])),
        _ => Err("the operation has no rule".into()),
    }
}

fn un_class(op: UnOp) -> Class {
    match op {
        UnOp::Neg | UnOp::Abs => NUMBER,
        UnOp::Not => BITS,
        UnOp::Ctz | UnOp::Clz | UnOp::Popcnt => INT,
        UnOp::Sqrt | UnOp::Exp | UnOp::Log | UnOp::Sin | UnOp::Cos | UnOp::Floor | UnOp::Ceil | UnOp::Round => FLOAT,
    }
}

fn bin_class(op: BinOp) -> Class {
    match op {
        BinOp::Add | BinOp::Sub | BinOp::Mul | BinOp::Div | BinOp::Rem | BinOp::Min | BinOp::Max => NUMBER,
        BinOp::UDiv | BinOp::URem | BinOp::Shl | BinOp::LShr | BinOp::AShr => INT,
        BinOp::And | BinOp::Or | BinOp::Xor => BITS,
        BinOp::Pow => FLOAT,
    }
}

fn cmp_class(op: CmpOp) -> Class {
    match op {
        CmpOp::Eq | CmpOp::Ne => EQUAL,
        CmpOp::Lt | CmpOp::Le | CmpOp::Gt | CmpOp::Ge => NUMBER,
        CmpOp::Ult | CmpOp::Ule => UNSIGNED,
    }
}

fn reduce_class(op: ReduceOp) -> Class {
    match op {
        ReduceOp::Add | ReduceOp::Min | ReduceOp::Max => NUMBER,
        ReduceOp::And | ReduceOp::Or => BITS,
    }
}

fn class(ty: Ty, (member, name): Class) -> Rule {
    require(member(ty.prim), || format!("operands are {name}, not {}", ty.prim))
}

fn same(tys: &[Ty]) -> Rule {
    require(tys.windows(2).all(|w| w[0] == w[1]), || "operands and result have one type".into())
}

fn test(operands: [Ty; 2], result: Ty, operand_class: Class) -> Rule {
    require(operands[0] == operands[1], || "operands have one type".into())?;
    class(operands[0], operand_class)?;
    result_types(&[result], &[operands[0].with_prim(Prim::Bool)])
}

fn constant(c: Const, prim: Prim) -> Rule {
    match c {
        Const::Float(_) => require(prim.is_float(), || format!("a float constant is no {prim}")),
        Const::Int(i) => {
            require(prim.is_int() || prim == Prim::Ptr, || format!("an integer constant is no {prim}"))?;
            require(wrap(prim, i) == i, || format!("the constant is sign-extended from {prim}"))
        }
    }
}

fn cast(op: CastOp, from: Ty, to: Ty) -> Rule {
    if op == CastOp::Bitcast {
        return require(bits(from) == bits(to), || "a bitcast keeps the number of bits".into());
    }
    require(from.lanes == to.lanes, || "a cast keeps the lanes".into())?;
    let wider = |a: Ty, b: Ty| a.prim.int_bits().unwrap_or(0) < b.prim.int_bits().unwrap_or(0);
    let longer = |a: Ty, b: Ty| a.prim.is_float() && b.prim.is_float() && a.prim.bytes() < b.prim.bytes();
    let fits = match op {
        CastOp::SExt | CastOp::ZExt => from.prim.is_int() && wider(from, to),
        CastOp::Trunc => to.prim.is_int() && wider(to, from),
        CastOp::SiToFp => is_int(from.prim) && to.prim.is_float(),
        CastOp::UiToFp => from.prim.is_int() && to.prim.is_float(),
        CastOp::FpToSi => from.prim.is_float() && is_int(to.prim),
        CastOp::FpExt => longer(from, to),
        CastOp::FpTrunc => longer(to, from),
        CastOp::Bitcast => true,
    };
    require(fits, || format!("there is no {} from {from} to {to}", op.name()))
}

fn address(ty: Ty) -> Rule {
    require(ty == Ty::PTR, || "the address is a ptr".into())
}

fn aligned(align: u16) -> Rule {
    require(align.is_power_of_two(), || "the alignment is a power of two".into())
}

fn vector_type(ty: Ty) -> Rule {
    require(ty.is_vector(), || format!("{ty} is no vector"))
}

fn masked(data: Ty, mask: Ty) -> Rule {
    vector_type(data)?;
    require(mask == data.with_prim(Prim::Bool), || "the mask has a bool for each lane".into())
}

fn atomic(tys: &[Ty], ptr: Ty, operand_class: Class) -> Rule {
    address(ptr)?;
    same(tys)?;
    require(tys.iter().all(|ty| ty.lanes == 1), || "atomics are scalar".into())?;
    class(tys[0], operand_class)
}
