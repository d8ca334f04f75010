//! Code for LLVM's fast instruction selector, which it uses where nothing is optimised. It goes through a block from the
//! end, and leaves whatever stands above an instruction that it does not know to the selector that takes ten times
//! as long. So such an instruction begins a block.

use super::error::Result;
use super::func::FuncTranslator;
use inkwell::IntPredicate;
use inkwell::values::BasicValueEnum;
use quearn_stage::low::{Inst, Op, Prim, Ty, Value};

impl<'ctx> FuncTranslator<'_, 'ctx> {
    /// Begins a block if fast selection does not know `inst` but what was written before it.
    pub(super) fn separate(&mut self, inst: Inst) -> Result<()> {
        let op = &self.func.inst(inst).op;
        if !self.fast || matches!(op, Op::Const(_)) {
            return Ok(());
        }
        let slow = self.is_slow(inst);
        let starts = self.here()?.get_last_instruction().is_none();
        if slow && !self.after_slow && !starts {
            let on = self.append("");
            self.builder.build_unconditional_branch(on)?;
            self.builder.position_at_end(on);
        }
        self.after_slow = slow;
        Ok(())
    }

    /// Is this an instruction on vectors or integers of 128 bits, or an atomic one? Instructions of blocks below it are
    /// asked by themselves, and calls are always selected on their own.
    fn is_slow(&self, inst: Inst) -> bool {
        let data = self.func.inst(inst);
        match &data.op {
            Op::AtomicRmw { .. } | Op::CmpXchg { .. } => true,
            Op::Call { .. } | Op::If { .. } | Op::For { .. } | Op::While { .. } => false,
            op => op.operands().iter().chain(&data.results).any(|&v| is_wide(self.func.ty(v))),
        }
    }

    /// The least or greatest of two integers by a comparison, where the intrinsic would be slow to select.
    pub(super) fn select_by(
        &self,
        predicate: IntPredicate,
        a: BasicValueEnum<'ctx>,
        b: BasicValueEnum<'ctx>,
    ) -> Result<BasicValueEnum<'ctx>> {
        let is_first = self.int_compare(predicate, a, b)?.into_int_value();
        Ok(self.builder.build_select(is_first, a, b, "")?)
    }

    /// Are least and greatest of values like this one found by [`select_by`](Self::select_by)?
    pub(super) fn selects(&self, value: Value) -> bool {
        let ty = self.func.ty(value);
        self.fast && ty.lanes == 1 && !ty.prim.is_float()
    }
}

fn is_wide(ty: Ty) -> bool {
    ty.lanes > 1 || ty.prim == Prim::I128
}
