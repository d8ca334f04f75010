//! Instructions that touch memory or make addresses.

use super::error::{Error, Result};
use super::func::FuncTranslator;
use super::target;
use super::types::{constant, iota, lanes_of, memory_type, value_type};
use inkwell::attributes::{Attribute, AttributeLoc};
use inkwell::types::BasicType;
use inkwell::values::{
    AsValueRef, BasicMetadataValueEnum, BasicValue, BasicValueEnum, CallSiteValue, InstructionOpcode, IntValue,
    PointerValue, VectorValue,
};
use inkwell::{AtomicOrdering, AtomicRMWBinOp, IntPredicate};
use quearn_stage::low::{Const, Op, Prim, RmwOp, Ty, Value};

const ORDER: AtomicOrdering = AtomicOrdering::SequentiallyConsistent;

impl<'ctx> FuncTranslator<'_, 'ctx> {
    /// Translates an operation that reads memory or gives an address.
    pub(super) fn memory_value(&mut self, op: &Op, ty: Ty) -> Result<BasicValueEnum<'ctx>> {
        match *op {
            Op::PtrAdd { base, index, scale, offset } => self.pointer_add(base, index, scale, offset),
            Op::Load { ptr, offset, align, invariant } => self.load(ty, ptr, offset, align, invariant),
            Op::MaskedLoad { ptr, mask, invariant } => self.masked_load(ty, ptr, mask, invariant),
            Op::Gather { base, index, scale, mask, invariant } => self.gather(ty, base, index, scale, mask, invariant),
            Op::AtomicRmw { op, ptr, value } => self.atomic(op, ptr, value),
            Op::CmpXchg { ptr, expected, new } => self.compare_exchange(ptr, expected, new),
            Op::Alloca { bytes, align } => {
                let place = self.builder.build_alloca(self.cx.i8_type().array_type(bytes), "")?;
                if let Some(inst) = place.as_instruction_value() {
                    inst.set_alignment(align.into())?;
                }
                Ok(place.into())
            }
            ref other => Err(Error::new(format!("{other:?} gives no value"))),
        }
    }

    /// Translates an operation that writes memory and gives nothing.
    pub(super) fn write(&mut self, op: &Op) -> Result<()> {
        match *op {
            Op::Store { ptr, offset, align, value } => {
                let at = self.offset(self.pointer(ptr)?, offset)?;
                let value = self.to_memory(value)?;
                self.builder.build_store(at, value)?.set_alignment(align.into())?;
                Ok(())
            }
            Op::MaskedStore { ptr, mask, value } => {
                let (at, mask) = (self.pointer(ptr)?, self.get(mask)?);
                self.masked_store(self.to_memory(value)?, at, mask, self.func.ty(value))
            }
            Op::CompressStore { ptr, mask, value } => self.compress_store(ptr, mask, value),
            Op::Prefetch { ptr, far } => {
                let at = self.pointer(ptr)?;
                let (read, keep, data) = (self.i32(0), self.i32(if far { 2 } else { 3 }), self.i32(1));
                let args = [at.into(), read.into(), keep.into(), data.into()];
                self.intrinsic("llvm.prefetch", &[at.get_type().into()], &args)?;
                Ok(())
            }
            ref other => Err(Error::new(format!("{other:?} does not write"))),
        }
    }

    fn i32(&self, value: u64) -> IntValue<'ctx> {
        self.cx.i32_type().const_int(value, false)
    }

    fn pointer(&self, value: Value) -> Result<PointerValue<'ctx>> {
        Ok(self.get(value)?.into_pointer_value())
    }

    /// The address `offset` bytes on.
    pub(super) fn offset(&self, ptr: PointerValue<'ctx>, offset: i64) -> Result<PointerValue<'ctx>> {
        if offset == 0 {
            return Ok(ptr);
        }
        let offset = self.cx.i64_type().const_int(offset as u64, true);
        self.step(self.cx.i8_type(), ptr, offset)
    }

    fn step<T: BasicType<'ctx>>(
        &self,
        unit: T,
        ptr: PointerValue<'ctx>,
        index: IntValue<'ctx>,
    ) -> Result<PointerValue<'ctx>> {
        // SAFETY: the one index steps over whole units; without `inbounds` any address is defined.
        Ok(unsafe { self.builder.build_gep(unit, ptr, &[index], "")? })
    }

    fn pointer_add(&self, base: Value, index: Option<Value>, scale: i64, offset: i64) -> Result<BasicValueEnum<'ctx>> {
        let mut at = self.pointer(base)?;
        if let Some(index) = index {
            let index = self.get(index)?.into_int_value();
            at = match u32::try_from(scale) {
                Ok(bytes) => self.step(self.cx.i8_type().array_type(bytes), at, index)?,
                Err(_) => {
                    let scale = self.cx.i64_type().const_int(scale as u64, true);
                    self.step(self.cx.i8_type(), at, self.builder.build_int_mul(index, scale, "")?)?
                }
            };
        }
        Ok(self.offset(at, offset)?.into())
    }

    fn load(&self, ty: Ty, ptr: Value, offset: i64, align: u16, invariant: bool) -> Result<BasicValueEnum<'ctx>> {
        let at = self.offset(self.pointer(ptr)?, offset)?;
        let loaded = self.builder.build_load(memory_type(self.cx, ty), at, "")?;
        if let Some(inst) = loaded.as_instruction_value() {
            inst.set_alignment(align.into())?;
        }
        self.mark_invariant(loaded, invariant)?;
        self.to_register(loaded, ty)
    }

    fn mark_invariant(&self, loaded: BasicValueEnum<'ctx>, invariant: bool) -> Result<()> {
        match loaded.as_instruction_value() {
            Some(inst) if invariant => Ok(inst.set_metadata(self.marks.empty, self.marks.invariant)?),
            _ => Ok(()),
        }
    }

    /// The bytes of a `Bool` as truth values; anything else as it is.
    fn to_register(&self, value: BasicValueEnum<'ctx>, ty: Ty) -> Result<BasicValueEnum<'ctx>> {
        if ty.prim != Prim::Bool {
            return Ok(value);
        }
        let zero = constant(self.cx, ty.with_prim(Prim::I8), Const::Int(0));
        self.int_compare(IntPredicate::NE, value, zero)
    }

    fn to_memory(&self, value: Value) -> Result<BasicValueEnum<'ctx>> {
        let ty = self.func.ty(value);
        let value = self.get(value)?;
        if ty.prim != Prim::Bool {
            return Ok(value);
        }
        Ok(self.builder.build_cast(InstructionOpcode::ZExt, value, memory_type(self.cx, ty), "")?)
    }

    fn masked_load(&self, ty: Ty, ptr: Value, mask: Value, invariant: bool) -> Result<BasicValueEnum<'ctx>> {
        let (at, mask) = (self.pointer(ptr)?, self.get(mask)?);
        let memory = memory_type(self.cx, ty);
        let zero = memory.into_vector_type().const_zero();
        let types = [memory, at.get_type().into()];
        let args = [at.into(), mask.into(), zero.into()];
        let loaded = self.call_value(self.aligned("llvm.masked.load", &types, &args, 0, ty)?)?;
        self.mark_invariant(loaded, invariant)?;
        self.to_register(loaded, ty)
    }

    fn masked_store(
        &self,
        value: BasicValueEnum<'ctx>,
        at: PointerValue<'ctx>,
        mask: BasicValueEnum<'ctx>,
        ty: Ty,
    ) -> Result<()> {
        let types = [value.get_type(), at.get_type().into()];
        self.aligned("llvm.masked.store", &types, &[value.into(), at.into(), mask.into()], 1, ty)?;
        Ok(())
    }

    /// Calls a masked intrinsic whose address is operand `at`. The alignment of an element is an operand behind it
    /// for LLVM 19, an attribute of it for LLVM 22.
    fn aligned(
        &self,
        name: &'static str,
        types: &[inkwell::types::BasicTypeEnum<'ctx>],
        args: &[BasicMetadataValueEnum<'ctx>],
        at: u32,
        ty: Ty,
    ) -> Result<CallSiteValue<'ctx>> {
        let align = ty.prim.bytes() as u64;
        let callee = self.module.intrinsic(name, types)?;
        if callee.count_params() as usize > args.len() {
            let mut args = args.to_vec();
            args.insert(at as usize + 1, self.i32(align).into());
            return Ok(self.builder.build_call(callee, &args, "")?);
        }
        let call = self.builder.build_call(callee, args, "")?;
        let kind = Attribute::get_named_enum_kind_id("align");
        call.add_attribute(AttributeLoc::Param(at), self.cx.create_enum_attribute(kind, align));
        Ok(call)
    }

    fn gather(
        &self,
        ty: Ty,
        base: Value,
        index: Value,
        scale: u8,
        mask: Value,
        invariant: bool,
    ) -> Result<BasicValueEnum<'ctx>> {
        let at = self.vector_step(scale, self.pointer(base)?, self.get(index)?.into_vector_value())?;
        let memory = memory_type(self.cx, ty);
        let zero = memory.into_vector_type().const_zero();
        let types = [memory, at.get_type().into()];
        let args = [at.into(), self.get(mask)?.into(), zero.into()];
        let loaded = self.call_value(self.aligned("llvm.masked.gather", &types, &args, 0, ty)?)?;
        self.mark_invariant(loaded, invariant)?;
        self.to_register(loaded, ty)
    }

    /// The addresses `base + index[lane] * scale`.
    fn vector_step(&self, scale: u8, base: PointerValue<'ctx>, index: VectorValue<'ctx>) -> Result<VectorValue<'ctx>> {
        let unit = self.cx.i8_type().array_type(scale.into());
        // SAFETY: LLVM takes a vector as the index of a scalar base and gives a vector of addresses; inkwell has no
        // types for that, and its wrappers do not look at what they hold.
        unsafe {
            let index = IntValue::new(index.as_value_ref());
            let at = self.builder.build_gep(unit, base, &[index], "")?;
            Ok(VectorValue::new(at.as_value_ref()))
        }
    }

    fn compress_store(&self, ptr: Value, mask: Value, value: Value) -> Result<()> {
        let ty = self.func.ty(value);
        let (at, mask) = (self.pointer(ptr)?, self.get(mask)?);
        let value = self.to_memory(value)?;
        let vector = value.get_type();
        if target::compresses_in_register() {
            let undefined = vector.into_vector_type().get_poison();
            let args = [value.into(), mask.into(), undefined.into()];
            let packed = self.call_value(self.intrinsic(target::COMPRESS, &[vector], &args)?)?;
            return self.masked_store(packed, at, self.prefix_of(mask, ty.lanes)?, ty);
        }
        let args = [value.into(), at.into(), mask.into()];
        self.intrinsic("llvm.masked.compressstore", &[vector], &args)?;
        Ok(())
    }

    /// As many leading lanes as `mask` has lanes that are true.
    fn prefix_of(&self, mask: BasicValueEnum<'ctx>, lanes: u16) -> Result<BasicValueEnum<'ctx>> {
        let counts = lanes_of(self.cx.i16_type().into(), lanes);
        let ones = self.builder.build_cast(InstructionOpcode::ZExt, mask, counts, "")?;
        let count = self.call_value(self.intrinsic("llvm.vector.reduce.add", &[counts], &[ones.into()])?)?;
        let ty = Ty::vector(Prim::I16, lanes);
        let count = self.splat(count, ty)?;
        self.int_compare(IntPredicate::ULT, iota(self.cx, ty), count)
    }

    fn atomic(&self, op: RmwOp, ptr: Value, value: Value) -> Result<BasicValueEnum<'ctx>> {
        let ty = self.func.ty(value);
        let at = self.pointer(ptr)?;
        let op = match op {
            RmwOp::Xchg => AtomicRMWBinOp::Xchg,
            RmwOp::Add => AtomicRMWBinOp::Add,
            RmwOp::Or => AtomicRMWBinOp::Or,
        };
        let value = self.address_bits(self.to_memory(value)?)?;
        let old = self.builder.build_atomicrmw(op, at, value, ORDER)?;
        self.exchanged(old.into(), ty)
    }

    fn compare_exchange(&self, ptr: Value, expected: Value, new: Value) -> Result<BasicValueEnum<'ctx>> {
        let ty = self.func.ty(new);
        let at = self.pointer(ptr)?;
        let (expected, new) = (self.to_memory(expected)?, self.to_memory(new)?);
        let pair = self.builder.build_cmpxchg(at, expected, new, ORDER, ORDER)?;
        let old = self.builder.build_extract_value(pair, 0, "")?;
        self.to_register(old, ty)
    }

    /// Atomic arithmetic is on integers: an address takes part as its bits.
    fn address_bits(&self, value: BasicValueEnum<'ctx>) -> Result<IntValue<'ctx>> {
        Ok(match value {
            BasicValueEnum::PointerValue(p) => self.builder.build_ptr_to_int(p, self.cx.i64_type(), "")?,
            other => other.into_int_value(),
        })
    }

    fn exchanged(&self, old: BasicValueEnum<'ctx>, ty: Ty) -> Result<BasicValueEnum<'ctx>> {
        if ty.prim != Prim::Ptr {
            return self.to_register(old, ty);
        }
        let ptr = value_type(self.cx, ty).into_pointer_type();
        Ok(self.builder.build_int_to_ptr(old.into_int_value(), ptr, "")?.into())
    }
}
