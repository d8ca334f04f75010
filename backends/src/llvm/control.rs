//! Structured control flow as basic blocks and phi nodes, and the ways out of a function.

use super::error::{Error, Result};
use super::func::FuncTranslator;
use super::types::value_type;
use crate::abi;
use inkwell::IntPredicate;
use inkwell::basic_block::BasicBlock;
use inkwell::values::{BasicValueEnum, IntValue, PhiValue};
use quearn_stage::low::{Block, Const, FuncId, Op, Ty, Value};

/// The runtime function behind `par_for`: `(run, func, frame, n, grain) -> i32`.
const PAR_FOR: &str = "qn_par_for";

impl<'ctx> FuncTranslator<'_, 'ctx> {
    /// Translates an operation that has blocks below it.
    pub(super) fn control(&mut self, op: &Op) -> Result<Vec<BasicValueEnum<'ctx>>> {
        match op {
            Op::If { cond, then, els } => self.if_(*cond, *then, *els),
            Op::For { lo, hi, step, init, body } => self.for_(*lo, *hi, *step, init, *body),
            Op::While { init, cond, body } => self.while_(init, *cond, *body),
            other => Err(Error::new(format!("{other:?} is not control flow"))),
        }
    }

    fn if_(&mut self, cond: Value, then: Block, els: Block) -> Result<Vec<BasicValueEnum<'ctx>>> {
        let cond = self.get(cond)?.into_int_value();
        let start = self.here()?;
        let (then_start, after) = (self.append("then"), self.append("endif"));
        let is_empty = self.func.block(els).insts.is_empty();
        let els_start = if is_empty { after } else { self.append("else") };
        self.builder.build_conditional_branch(cond, then_start, els_start)?;
        let (then_yields, then_end) = self.branch_of_if(then, then_start, after)?;
        let (els_yields, els_end) =
            if is_empty { (self.yields(els)?, start) } else { self.branch_of_if(els, els_start, after)? };
        self.builder.position_at_end(after);
        let pairs = then_yields.iter().zip(&els_yields);
        pairs.map(|(&a, &b)| self.merge(a, then_end, b, els_end)).collect()
    }

    fn branch_of_if(
        &mut self,
        block: Block,
        start: BasicBlock<'ctx>,
        after: BasicBlock<'ctx>,
    ) -> Result<(Vec<BasicValueEnum<'ctx>>, BasicBlock<'ctx>)> {
        self.builder.position_at_end(start);
        let yields = self.block(block)?;
        let end = self.here()?;
        self.builder.build_unconditional_branch(after)?;
        Ok((yields, end))
    }

    /// A loop whose test is at its end, behind a test that it runs at all.
    fn for_(
        &mut self,
        lo: Value,
        hi: Value,
        step: i64,
        init: &[Value],
        body: Block,
    ) -> Result<Vec<BasicValueEnum<'ctx>>> {
        let (first, bound) = (self.get(lo)?.into_int_value(), self.get(hi)?.into_int_value());
        let init = self.get_all(init)?;
        let guard = self.here()?;
        let (start, after) = (self.append("for"), self.append("endfor"));
        let skippable = !self.is_below(lo, hi);
        let enter = if skippable { self.guard(first, bound, after)? } else { guard };
        self.builder.build_unconditional_branch(start)?;

        self.builder.position_at_end(start);
        let params = self.func.block(body).params.clone();
        let phis = self.loop_params(&params, std::iter::once(first.into()).chain(init.iter().copied()), enter)?;
        let yields = self.block(body)?;
        let end = self.here()?;
        let next = self.next_counter(phis[0], step)?;
        let again = self.builder.build_int_compare(IntPredicate::SLT, next, bound, "")?;
        self.builder.build_conditional_branch(again, start, after)?;
        close_loop(&phis, std::iter::once(next.into()).chain(yields.iter().copied()), end);

        self.builder.position_at_end(after);
        if !skippable {
            return Ok(yields);
        }
        let pairs = init.iter().zip(&yields);
        pairs.map(|(&skipped, &last)| self.merge(skipped, guard, last, end)).collect()
    }

    /// Skips a loop from `first` to `bound` that has no round; gives the block before its first round.
    fn guard(
        &mut self,
        first: IntValue<'ctx>,
        bound: IntValue<'ctx>,
        after: BasicBlock<'ctx>,
    ) -> Result<BasicBlock<'ctx>> {
        let enter = self.append("enter");
        let runs = self.builder.build_int_compare(IntPredicate::SLT, first, bound, "")?;
        self.builder.build_conditional_branch(runs, enter, after)?;
        self.builder.position_at_end(enter);
        Ok(enter)
    }

    /// Is it known that `lo < hi`?
    fn is_below(&self, lo: Value, hi: Value) -> bool {
        matches!((self.func.as_const(lo), self.func.as_const(hi)), (Some(Const::Int(l)), Some(Const::Int(h))) if l < h)
    }

    fn next_counter(&self, counter: PhiValue<'ctx>, step: i64) -> Result<IntValue<'ctx>> {
        let step = self.cx.i64_type().const_int(step as u64, true);
        let counter = counter.as_basic_value().into_int_value();
        Ok(self.builder.build_int_nsw_add(counter, step, "")?)
    }

    fn while_(&mut self, init: &[Value], cond: Block, body: Block) -> Result<Vec<BasicValueEnum<'ctx>>> {
        let init = self.get_all(init)?;
        let enter = self.here()?;
        let (test, start, after) = (self.append("while"), self.append("do"), self.append("endwhile"));
        self.builder.build_unconditional_branch(test)?;

        self.builder.position_at_end(test);
        let params = self.func.block(cond).params.clone();
        let phis = self.loop_params(&params, init.into_iter(), enter)?;
        let goes_on = self.block(cond)?;
        let goes_on = goes_on.first().ok_or_else(|| Error::new("the test of a while yields nothing"))?;
        self.builder.build_conditional_branch(goes_on.into_int_value(), start, after)?;

        self.builder.position_at_end(start);
        let carried: Vec<_> = phis.iter().map(|p| p.as_basic_value()).collect();
        self.set_all(&self.func.block(body).params, &carried);
        let yields = self.block(body)?;
        let end = self.here()?;
        self.builder.build_unconditional_branch(test)?;
        close_loop(&phis, yields.into_iter(), end);
        self.builder.position_at_end(after);
        Ok(carried)
    }

    /// Phi nodes for the parameters of a loop's first block, with their values from outside.
    fn loop_params(
        &mut self,
        params: &[Value],
        init: impl Iterator<Item = BasicValueEnum<'ctx>>,
        from: BasicBlock<'ctx>,
    ) -> Result<Vec<PhiValue<'ctx>>> {
        let mut phis = Vec::with_capacity(params.len());
        for (&param, value) in params.iter().zip(init) {
            let phi = self.builder.build_phi(value_type(self.cx, self.func.ty(param)), "")?;
            phi.add_incoming(&[(&value, from)]);
            self.set(param, phi.as_basic_value());
            phis.push(phi);
        }
        Ok(phis)
    }

    fn merge(
        &self,
        a: BasicValueEnum<'ctx>,
        from_a: BasicBlock<'ctx>,
        b: BasicValueEnum<'ctx>,
        from_b: BasicBlock<'ctx>,
    ) -> Result<BasicValueEnum<'ctx>> {
        let phi = self.builder.build_phi(a.get_type(), "")?;
        phi.add_incoming(&[(&a, from_a), (&b, from_b)]);
        Ok(phi.as_basic_value())
    }

    /// Leaves the function with a constant status when `cond` is true.
    pub(super) fn fail_if(&mut self, cond: Value, code: i32) -> Result<()> {
        let cond = self.get(cond)?.into_int_value();
        let status = self.cx.i32_type().const_int(code as u64, true);
        self.leave_if(cond, status)
    }

    /// Leaves the function with `status` when it is not zero.
    pub(super) fn check(&mut self, status: Value) -> Result<()> {
        let status = self.get(status)?.into_int_value();
        let zero = status.get_type().const_zero();
        let failed = self.builder.build_int_compare(IntPredicate::NE, status, zero, "")?;
        self.leave_if(failed, status)
    }

    fn leave_if(&mut self, cond: IntValue<'ctx>, status: IntValue<'ctx>) -> Result<()> {
        let from = self.here()?;
        let (exit, phi) = self.exit()?;
        let on = self.append("");
        let branch = self.builder.build_conditional_branch(cond, exit, on)?;
        branch.set_metadata(self.marks.unlikely, self.marks.prof)?;
        phi.add_incoming(&[(&status, from)]);
        self.builder.position_at_end(on);
        Ok(())
    }

    /// The block that all failures share, and its status.
    fn exit(&mut self) -> Result<(BasicBlock<'ctx>, PhiValue<'ctx>)> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let from = self.here()?;
        let block = self.append("exit");
        self.builder.position_at_end(block);
        let phi = self.builder.build_phi(self.cx.i32_type(), "status")?;
        self.builder.build_return(Some(&phi.as_basic_value()))?;
        self.builder.position_at_end(from);
        self.exit = Some((block, phi));
        Ok((block, phi))
    }

    /// Calls the scheduler with the address of another low function.
    pub(super) fn par_for(
        &mut self,
        func: FuncId,
        frame: Value,
        n: Value,
        grain: Value,
    ) -> Result<BasicValueEnum<'ctx>> {
        let ptr = value_type(self.cx, Ty::PTR);
        let i64 = self.cx.i64_type();
        let frame = self.get(frame)?;
        let run_at = self.offset(frame.into_pointer_value(), abi::FRAME_RUN)?;
        let run = self.builder.build_load(ptr, run_at, "run")?;
        let func = self.module.function(func).as_global_value().as_pointer_value();
        let args = [run.into(), func.into(), frame.into(), self.get(n)?.into(), self.get(grain)?.into()];
        let ty = self.cx.i32_type().fn_type(&[ptr.into(), ptr.into(), ptr.into(), i64.into(), i64.into()], false);
        let callee = self.module.runtime_function(PAR_FOR, ty);
        self.call_value(self.builder.build_call(callee, &args, "")?)
    }
}

fn close_loop<'ctx>(phis: &[PhiValue<'ctx>], next: impl Iterator<Item = BasicValueEnum<'ctx>>, from: BasicBlock<'ctx>) {
    for (phi, value) in phis.iter().zip(next) {
        phi.add_incoming(&[(&value, from)]);
    }
}
