//! One low function as one LLVM function: the map from values to values, and the walk over blocks.

use super::error::{Error, Result};
use super::module::{Marks, ModuleTranslator};
use inkwell::basic_block::BasicBlock;
use inkwell::builder::Builder;
use inkwell::context::Context;
use inkwell::types::BasicTypeEnum;
use inkwell::values::{BasicMetadataValueEnum, BasicValueEnum, CallSiteValue, FunctionValue, PhiValue, StructValue};
use quearn_stage::low::{Block, Func, Inst, Op, OvfOp, Value};
use std::collections::HashMap;

/// The operations of a block that are tested for overflow, and the `{result, overflowed}` pair once it is there.
pub(super) type Checked<'ctx> = HashMap<(OvfOp, Value, Value), Option<StructValue<'ctx>>>;

/// Translates the body of one function.
pub(super) struct FuncTranslator<'a, 'ctx> {
    pub(super) cx: &'ctx Context,
    pub(super) module: &'a ModuleTranslator<'a, 'ctx>,
    pub(super) marks: Marks<'ctx>,
    pub(super) func: &'a Func,
    pub(super) builder: Builder<'ctx>,
    /// The block that failures branch to, once there is one, and the status that it returns.
    pub(super) exit: Option<(BasicBlock<'ctx>, PhiValue<'ctx>)>,
    /// One table for each open block, outermost first.
    pub(super) checked: Vec<Checked<'ctx>>,
    /// Is this for fast instruction selection?
    pub(super) fast: bool,
    /// Is the last instruction one that fast selection does not know?
    pub(super) after_slow: bool,
    function: FunctionValue<'ctx>,
    values: Vec<Option<BasicValueEnum<'ctx>>>,
}

impl<'a, 'ctx> FuncTranslator<'a, 'ctx> {
    /// A translator of `func` into the declared `function`.
    pub(super) fn new(module: &'a ModuleTranslator<'a, 'ctx>, func: &'a Func, function: FunctionValue<'ctx>) -> Self {
        let cx = module.cx;
        FuncTranslator {
            cx,
            module,
            marks: module.marks,
            func,
            builder: cx.create_builder(),
            exit: None,
            checked: vec![],
            fast: module.fast,
            after_slow: false,
            function,
            values: vec![None; func.values.len()],
        }
    }

    /// Writes the function's body.
    pub(super) fn run(mut self) -> Result<()> {
        let entry = self.append("entry");
        self.builder.position_at_end(entry);
        let params = self.function.get_params();
        self.set_all(&self.func.params, &params);
        let yields = self.block(self.func.entry)?;
        let status = yields.first().ok_or_else(|| Error::new("a function yields no status"))?;
        self.builder.build_return(Some(status))?;
        Ok(())
    }

    /// Translates the instructions of a block at the builder's position; gives what the block yields.
    pub(super) fn block(&mut self, block: Block) -> Result<Vec<BasicValueEnum<'ctx>>> {
        let func = self.func;
        let insts = &func.block(block).insts;
        self.checked.push(checked_in(func, insts));
        for &inst in insts {
            self.separate(inst)?;
            let results = self.inst(inst)?;
            self.set_all(&func.inst(inst).results, &results);
        }
        self.checked.pop();
        self.yields(block)
    }

    /// What a block yields.
    pub(super) fn yields(&self, block: Block) -> Result<Vec<BasicValueEnum<'ctx>>> {
        self.get_all(&self.func.block(block).yields)
    }

    /// The translation of a value.
    pub(super) fn get(&self, value: Value) -> Result<BasicValueEnum<'ctx>> {
        self.values[value.index()].ok_or_else(|| Error::new(format!("{value} is used before it is defined")))
    }

    /// The translations of several values.
    pub(super) fn get_all(&self, values: &[Value]) -> Result<Vec<BasicValueEnum<'ctx>>> {
        values.iter().map(|&v| self.get(v)).collect()
    }

    /// Defines the translation of a value.
    pub(super) fn set(&mut self, value: Value, translation: BasicValueEnum<'ctx>) {
        self.values[value.index()] = Some(translation);
    }

    /// Defines the translations of several values.
    pub(super) fn set_all(&mut self, values: &[Value], translations: &[BasicValueEnum<'ctx>]) {
        for (&value, &translation) in values.iter().zip(translations) {
            self.set(value, translation);
        }
    }

    /// The block that the builder writes to.
    pub(super) fn here(&self) -> Result<BasicBlock<'ctx>> {
        self.builder.get_insert_block().ok_or_else(|| Error::new("the builder is nowhere"))
    }

    /// A new block at the end of the function.
    pub(super) fn append(&self, name: &str) -> BasicBlock<'ctx> {
        self.cx.append_basic_block(self.function, name)
    }

    /// Calls an intrinsic, overloaded on `types`.
    pub(super) fn intrinsic(
        &self,
        name: &'static str,
        types: &[BasicTypeEnum<'ctx>],
        args: &[BasicMetadataValueEnum<'ctx>],
    ) -> Result<CallSiteValue<'ctx>> {
        let callee = self.module.intrinsic(name, types)?;
        Ok(self.builder.build_call(callee, args, "")?)
    }

    /// The result of a call that has one.
    pub(super) fn call_value(&self, call: CallSiteValue<'ctx>) -> Result<BasicValueEnum<'ctx>> {
        call.try_as_basic_value().basic().ok_or_else(|| Error::new("a call gives no value"))
    }
}

fn checked_in<'ctx>(func: &Func, insts: &[Inst]) -> Checked<'ctx> {
    let keys = insts.iter().filter_map(|&i| match func.inst(i).op {
        Op::Ovf(op, a, b) => Some(((op, a, b), None)),
        _ => None,
    });
    keys.collect()
}
