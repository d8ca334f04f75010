//! What a well-formed module is. A backend may rely on every rule here without a check of its own.
//!
//! Module:
//! - Names of functions are unique, and so are those of externs.
//! - Externs take and give scalars of at most 64 bits.
//!
//! Function:
//! - Every id is inside its table, and every value that a list holds has that place as its origin.
//! - The entry block has no parameters and yields one `i32`.
//! - Each instruction is in at most one block, and each block has one owner.
//! - A value is used only after its definition, in the block of the definition or in one below it.
//!
//! Control flow:
//! - `if`: a `bool` decides; its blocks have no parameters; both yield the types of the results.
//! - `for`: bounds are `i64`, the step is above zero; the body takes an `i64` and the carried values, and yields
//!   their types, which are those of the results.
//! - `while`: both blocks take the carried values; the test yields one `bool`, the body the types of the results.
//! - `par_for`: the callee takes `(ptr, i64, i64, i64)`; the operands are `ptr, i64, i64`; the result is an `i32`.
//! - `call`: arguments and result are those of the declaration.
//! - `fail_if`: a `bool`; the code is that of a site, or [`Module::RUNTIME_ERROR`]. `check`: an `i32`.
//! - `alloca` stands directly in the entry block.
//!
//! Operations (`verify/types.rs`; "integer" leaves `bool` out):
//! - Every type has at least one lane. Lanes of operands and result agree.
//! - `f16` and `bf16` are only stored and moved: load, store, cast, select, lanes, constants.
//! - Arithmetic is on integers, `f32` and `f64`; `bool` knows `and`, `or`, `xor`, `not`, and comparison by `eq`,
//!   `ne`, `ult`, `ule`; a pointer only these comparisons.
//! - An integer constant has an integer, `bool` or pointer type and is sign-extended from it; a float one a float
//!   type.
//! - Widening casts widen, narrowing ones narrow; a bitcast keeps the number of bits (one for a `bool`).
//! - Addresses are `ptr`; scales are above zero; alignments are powers of two.
//! - Masks are `bool` vectors with the lanes of the data, which are vectors; a gather's index is `i32` or `i64`.
//! - Atomics work on scalar integers, `xchg` and `cmpxchg` also on pointers.

mod types;

use super::inst::*;
use super::print::Printer;
use super::ty::Ty;
use std::collections::HashSet;

/// The first rule that a module breaks, with the function and instruction.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{func}: {message}")]
pub struct VerifyError {
    /// Function.
    pub func: String,
    /// Rule and place.
    pub message: String,
}

/// A rule that is broken, in words.
type Rule = Result<(), String>;

/// `Ok` if the rule holds.
fn require(holds: bool, rule: impl FnOnce() -> String) -> Rule {
    if holds { Ok(()) } else { Err(rule()) }
}

/// Checks a module.
pub fn verify(module: &Module) -> Result<(), VerifyError> {
    let in_module = |message| VerifyError { func: "module".into(), message };
    externs(module).map_err(in_module)?;
    unique("function", module.funcs.iter().map(|f| f.name.as_str())).map_err(in_module)?;
    for func in &module.funcs {
        let in_func = |message| VerifyError { func: func.name.clone(), message };
        shape(func).map_err(in_func)?;
        Verifier::new(module, func).run().map_err(in_func)?;
    }
    Ok(())
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Rule {
    let mut seen = HashSet::new();
    for name in names {
        require(seen.insert(name), || format!("there are two of {what} {name}"))?;
    }
    Ok(())
}

fn externs(module: &Module) -> Rule {
    unique("extern", module.externs.iter().map(|e| e.name.as_str()))?;
    for e in &module.externs {
        let word = |ty: &Ty| ty.lanes == 1 && ty.bytes() <= 8;
        require(e.params.iter().chain(&e.ret).all(word), || {
            format!("`{e}`: an extern takes and gives scalars of at most 64 bits")
        })?;
    }
    Ok(())
}

/// Checks that ids can be followed, so that the other rules can be checked (and instructions printed) safely.
fn shape(func: &Func) -> Rule {
    let known = |v: &Value| v.index() < func.values.len();
    let origin = |values: &[Value], def: &dyn Fn(u32) -> ValueDef| match (0..)
        .zip(values)
        .find(|&(i, v)| !known(v) || func.values[v.index()].def != def(i))
    {
        Some((_, v)) => Err(format!("{v} is not where its origin says")),
        None => Ok(()),
    };
    require(func.entry.index() < func.blocks.len(), || "there is no entry block".into())?;
    origin(&func.params, &ValueDef::Param)?;
    for (block, data) in (0..).map(Block).zip(&func.blocks) {
        origin(&data.params, &|i| ValueDef::BlockParam(block, i))?;
        require(data.yields.iter().all(known), || format!("{block} yields a value that does not exist"))?;
        let exists = data.insts.iter().all(|i| i.index() < func.insts.len());
        require(exists, || format!("{block} has an instruction that does not exist"))?;
    }
    for (inst, data) in (0..).map(Inst).zip(&func.insts) {
        origin(&data.results, &|i| ValueDef::Result(inst, i))?;
        require(data.op.operands().iter().all(known), || format!("{inst} uses a value that does not exist"))?;
        let exists = data.op.blocks().iter().all(|b| b.index() < func.blocks.len());
        require(exists, || format!("{inst} has a block that does not exist"))?;
    }
    let lanes = func.values.iter().all(|v| v.ty.lanes > 0);
    require(lanes, || "a type has at least one lane".into())
}

struct Verifier<'a> {
    module: &'a Module,
    func: &'a Func,
    /// Values that may be used here.
    visible: Vec<bool>,
    /// Instructions met so far.
    placed: Vec<bool>,
    /// Blocks met so far.
    owned: Vec<bool>,
}

impl<'a> Verifier<'a> {
    fn new(module: &'a Module, func: &'a Func) -> Verifier<'a> {
        Verifier {
            module,
            func,
            visible: vec![false; func.values.len()],
            placed: vec![false; func.insts.len()],
            owned: vec![false; func.blocks.len()],
        }
    }

    fn run(&mut self) -> Rule {
        let entry = self.func.block(self.func.entry);
        require(entry.params.is_empty(), || "the entry block has no parameters".into())?;
        self.define(&self.func.params);
        self.block(self.func.entry)?;
        require(self.tys(&entry.yields) == [Ty::I32], || "the function yields one i32, its status".into())
    }

    fn define(&mut self, values: &[Value]) {
        for v in values {
            self.visible[v.index()] = true;
        }
    }

    fn tys(&self, values: &[Value]) -> Vec<Ty> {
        values.iter().map(|&v| self.func.ty(v)).collect()
    }

    fn printer(&self) -> Printer<'a> {
        Printer::new(Some(self.module), self.func)
    }

    fn block(&mut self, block: Block) -> Rule {
        let func = self.func;
        let data = func.block(block);
        require(!std::mem::replace(&mut self.owned[block.index()], true), || format!("{block} has two owners"))?;
        self.define(&data.params);
        for &inst in &data.insts {
            self.inst(block, inst)?;
        }
        for &v in &data.yields {
            require(self.visible[v.index()], || self.not_visible(v, "yield"))?;
        }
        // Outside of the block its values cannot be used.
        for v in data.params.iter().chain(data.insts.iter().flat_map(|&i| &func.inst(i).results)) {
            self.visible[v.index()] = false;
        }
        Ok(())
    }

    fn not_visible(&self, value: Value, at: &str) -> String {
        format!("`{at}`: {} is used where it is not defined", self.printer().value(value))
    }

    fn inst(&mut self, block: Block, inst: Inst) -> Rule {
        let data = self.func.inst(inst);
        let text = || self.printer().inst(inst);
        require(!self.placed[inst.index()], || format!("`{}`: an instruction is in one block only", text()))?;
        for v in data.op.operands() {
            require(self.visible[v.index()], || self.not_visible(v, &text()))?;
        }
        self.op(block, data).map_err(|rule| format!("`{}`: {rule}", text()))?;
        self.placed[inst.index()] = true;
        for below in data.op.blocks() {
            self.block(below)?;
        }
        self.define(&data.results);
        Ok(())
    }

    fn op(&self, block: Block, data: &InstData) -> Rule {
        let results = self.tys(&data.results);
        match &data.op {
            Op::If { cond, then, els } => self.if_(*cond, *then, *els, &results),
            Op::For { lo, hi, step, init, body } => self.for_([*lo, *hi], *step, &self.tys(init), *body, &results),
            Op::While { init, cond, body } => self.while_(&self.tys(init), *cond, *body, &results),
            Op::ParFor { func, frame, n, grain } => self.par_for(*func, [*frame, *n, *grain], &results),
            Op::Call { callee, args } => self.call(*callee, &self.tys(args), &results),
            Op::FailIf { cond, code } => self.fail_if(*cond, *code, &results),
            Op::Check { status } => {
                require(self.func.ty(*status) == Ty::I32, || "the status is an i32".into())?;
                result_types(&results, &[])
            }
            op => {
                let in_entry = block == self.func.entry || !matches!(op, Op::Alloca { .. });
                require(in_entry, || "an alloca stands in the entry block".into())?;
                types::check(self.func, op, &results)
            }
        }
    }

    /// What a block takes and gives.
    fn signature(&self, what: &str, block: Block, params: &[Ty], yields: &[Ty]) -> Rule {
        let data = self.func.block(block);
        require(self.tys(&data.params) == params, || format!("{what} takes ({})", list(params)))?;
        require(self.tys(&data.yields) == yields, || format!("{what} yields ({})", list(yields)))
    }

    fn if_(&self, cond: Value, then: Block, els: Block, results: &[Ty]) -> Rule {
        require(self.func.ty(cond) == Ty::BOOL, || "the condition is a bool".into())?;
        self.signature("the first block", then, &[], results)?;
        self.signature("the second block", els, &[], results)
    }

    fn for_(&self, bounds: [Value; 2], step: i64, carried: &[Ty], body: Block, results: &[Ty]) -> Rule {
        require(self.tys(&bounds) == [Ty::I64; 2], || "the bounds are i64".into())?;
        require(step > 0, || "the step is above zero".into())?;
        let params: Vec<Ty> = [Ty::I64].iter().chain(carried).copied().collect();
        self.signature("the body", body, &params, carried)?;
        result_types(results, carried)
    }

    fn while_(&self, carried: &[Ty], cond: Block, body: Block, results: &[Ty]) -> Rule {
        self.signature("the test", cond, carried, &[Ty::BOOL])?;
        self.signature("the body", body, carried, carried)?;
        result_types(results, carried)
    }

    fn par_for(&self, callee: FuncId, operands: [Value; 3], results: &[Ty]) -> Rule {
        let callee = self.module.funcs.get(callee.index()).ok_or("the function does not exist")?;
        // The callee's own tables may not have been checked yet.
        let params: Vec<Option<Ty>> = callee.params.iter().map(|v| Some(callee.values.get(v.index())?.ty)).collect();
        let fits = params == [Ty::PTR, Ty::I64, Ty::I64, Ty::I64].map(Some);
        require(fits, || "the function takes (ptr, i64, i64, i64)".into())?;
        require(self.tys(&operands) == [Ty::PTR, Ty::I64, Ty::I64], || "the operands are ptr, i64, i64".into())?;
        result_types(results, &[Ty::I32])
    }

    fn call(&self, callee: ExternId, args: &[Ty], results: &[Ty]) -> Rule {
        let callee = self.module.externs.get(callee.index()).ok_or("the extern does not exist")?;
        require(args == callee.params, || format!("the arguments are those of `{callee}`"))?;
        result_types(results, callee.ret.as_slice())
    }

    fn fail_if(&self, cond: Value, code: i32, results: &[Ty]) -> Rule {
        require(self.func.ty(cond) == Ty::BOOL, || "the condition is a bool".into())?;
        let site = usize::try_from(code).is_ok_and(|c| (1..=self.module.sites.len()).contains(&c));
        require(site || code == Module::RUNTIME_ERROR, || {
            format!("the code is {} or that of a site", Module::RUNTIME_ERROR)
        })?;
        result_types(results, &[])
    }
}

/// The results are exactly those.
fn result_types(results: &[Ty], expected: &[Ty]) -> Rule {
    require(results == expected, || format!("the results are ({})", list(expected)))
}

fn list(tys: &[Ty]) -> String {
    tys.iter().map(Ty::to_string).collect::<Vec<_>>().join(", ")
}
