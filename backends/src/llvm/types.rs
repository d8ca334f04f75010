//! Low types and constants as LLVM's. A `Bool` is an `i1` in registers and a byte in memory.

use inkwell::AddressSpace;
use inkwell::context::Context;
use inkwell::types::{BasicType, BasicTypeEnum, FunctionType, IntType, VectorType};
use inkwell::values::{BasicValue, BasicValueEnum, IntValue, VectorValue};
use quearn_stage::low::{Const, Extern, Func, Prim, Ty};

/// The type of a value in registers.
pub(super) fn value_type(cx: &Context, ty: Ty) -> BasicTypeEnum<'_> {
    lanes_of(scalar_type(cx, ty.prim), ty.lanes)
}

/// The type of a value in memory.
pub(super) fn memory_type(cx: &Context, ty: Ty) -> BasicTypeEnum<'_> {
    match ty.prim {
        Prim::Bool => lanes_of(cx.i8_type().into(), ty.lanes),
        _ => value_type(cx, ty),
    }
}

/// A vector of `lanes` of `element`; the element itself for one lane.
pub(super) fn lanes_of(element: BasicTypeEnum<'_>, lanes: u16) -> BasicTypeEnum<'_> {
    let n = u32::from(lanes);
    match element {
        _ if lanes == 1 => element,
        BasicTypeEnum::FloatType(t) => t.vec_type(n).into(),
        BasicTypeEnum::PointerType(t) => t.vec_type(n).into(),
        other => other.into_int_type().vec_type(n).into(),
    }
}

fn scalar_type(cx: &Context, prim: Prim) -> BasicTypeEnum<'_> {
    match prim {
        Prim::F16 => cx.f16_type().into(),
        Prim::BF16 => cx.bf16_type().into(),
        Prim::F32 => cx.f32_type().into(),
        Prim::F64 => cx.f64_type().into(),
        Prim::Ptr => cx.ptr_type(AddressSpace::default()).into(),
        Prim::Bool => cx.bool_type().into(),
        Prim::I8 => cx.i8_type().into(),
        Prim::I16 => cx.i16_type().into(),
        Prim::I32 => cx.i32_type().into(),
        Prim::I64 => cx.i64_type().into(),
        Prim::I128 => cx.i128_type().into(),
    }
}

/// The LLVM signature of a low function: every one returns an `i32` status.
pub(super) fn function_type<'ctx>(cx: &'ctx Context, func: &Func) -> FunctionType<'ctx> {
    let params: Vec<_> = func.params.iter().map(|&p| value_type(cx, func.ty(p)).into()).collect();
    cx.i32_type().fn_type(&params, false)
}

/// The LLVM signature of a runtime function.
pub(super) fn extern_type<'ctx>(cx: &'ctx Context, callee: &Extern) -> FunctionType<'ctx> {
    let params: Vec<_> = callee.params.iter().map(|&ty| value_type(cx, ty).into()).collect();
    match callee.ret {
        Some(ty) => value_type(cx, ty).fn_type(&params, false),
        None => cx.void_type().fn_type(&params, false),
    }
}

/// A constant of a type; a splat for vectors.
pub(super) fn constant(cx: &Context, ty: Ty, value: Const) -> BasicValueEnum<'_> {
    let scalar = match (scalar_type(cx, ty.prim), value) {
        (BasicTypeEnum::PointerType(t), Const::Int(0)) => t.const_null().into(),
        (BasicTypeEnum::PointerType(t), Const::Int(i)) => int_constant(cx.i64_type(), i).const_to_pointer(t).into(),
        (t, Const::Int(i)) => int_constant(t.into_int_type(), i).into(),
        (t, Const::Float(bits)) => t.into_float_type().const_float(f64::from_bits(bits)).into(),
    };
    if ty.is_vector() { splat(scalar, ty.lanes).into() } else { scalar }
}

fn int_constant(ty: IntType<'_>, value: i128) -> IntValue<'_> {
    ty.const_int_arbitrary_precision(&[value as u64, (value >> 64) as u64])
}

fn splat<'ctx>(scalar: BasicValueEnum<'ctx>, lanes: u16) -> VectorValue<'ctx> {
    let scalars = vec![scalar; usize::from(lanes)];
    VectorType::const_vector(&scalars)
}

/// `[0, 1, 2, …]`.
pub(super) fn iota(cx: &Context, ty: Ty) -> BasicValueEnum<'_> {
    let element = Ty::scalar(ty.prim);
    let scalars: Vec<_> = (0..ty.lanes).map(|i| constant(cx, element, Const::Int(i.into()))).collect();
    VectorType::const_vector(&scalars).as_basic_value_enum()
}
