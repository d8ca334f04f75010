//! Products of small integers, four to a lane.

use super::error::{Error, Result};
use super::func::FuncTranslator;
use super::target;
use super::types::constant;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicValueEnum, InstructionOpcode};
use quearn_stage::low::{Const, Ty, Value};

impl<'ctx> FuncTranslator<'_, 'ctx> {
    /// `sum + b[0] * c[0] + .. + b[3] * c[3]` with the bytes of each lane of `b` (unsigned) and `c` (signed).
    pub(super) fn dot4(&self, ty: Ty, [sum, b, c]: [Value; 3]) -> Result<BasicValueEnum<'ctx>> {
        let [sum, b, c] = [self.get(sum)?, self.get(b)?, self.get(c)?];
        match instruction(ty) {
            Some(name) => self.dot4_instruction(name, [sum, b, c]),
            None => self.dot4_by_bytes(ty, [sum, b, c]),
        }
    }

    fn dot4_instruction(
        &self,
        name: &'static str,
        operands: [BasicValueEnum<'ctx>; 3],
    ) -> Result<BasicValueEnum<'ctx>> {
        let callee = self.module.intrinsic(name, &[])?;
        let types = callee.get_type().get_param_types();
        // LLVM 22 takes vectors of bytes, LLVM 19 of words.
        let mut args = vec![];
        for (operand, ty) in operands.into_iter().zip(types) {
            let ty = BasicTypeEnum::try_from(ty).map_err(|()| Error::new("an operand that is no value"))?;
            args.push(self.builder.build_bit_cast(operand, ty, "")?.into());
        }
        self.call_value(self.builder.build_call(callee, &args, "")?)
    }

    fn dot4_by_bytes(&self, ty: Ty, [sum, b, c]: [BasicValueEnum<'ctx>; 3]) -> Result<BasicValueEnum<'ctx>> {
        use InstructionOpcode as I;
        let number = |n: i128| constant(self.cx, ty, Const::Int(n));
        let mut sum = sum;
        for byte in 0..4 {
            let unsigned = self.bin(I::And, self.bin(I::LShr, b, number(8 * byte))?, number(255))?;
            let signed = self.bin(I::AShr, self.bin(I::Shl, c, number(24 - 8 * byte))?, number(24))?;
            sum = self.bin(I::Add, sum, self.bin(I::Mul, unsigned, signed)?)?;
        }
        Ok(sum)
    }
}

/// The processor's own instruction for vectors of a type.
fn instruction(ty: Ty) -> Option<&'static str> {
    match ty.lanes {
        16 if target::has_feature("avx512vnni") && target::has_avx512() => Some("llvm.x86.avx512.vpdpbusd.512"),
        8 if target::has_vnni() => Some("llvm.x86.avx512.vpdpbusd.256"),
        4 if target::has_vnni() => Some("llvm.x86.avx512.vpdpbusd.128"),
        _ => None,
    }
}
