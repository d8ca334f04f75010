//! The text form of a module, function or instruction. [`super::parse`](mod@super::parse) reads it back.
//!
//! Values are numbered in the order in which the text defines them, whatever their ids are, so that a dropped
//! instruction leaves no gap and printing what was parsed gives the same text.
//!
//! ```text
//! extern qn_alloc(ptr, i64) -> ptr
//! site 1 overflow "l_extendedprice * (1 - l_discount)"
//! func @main(v0: ptr, v1: i64) {
//!   v2: i64 = const 0
//!   v3: i64 = for v4: i64 in v2..v1 step 1 (v5: i64 = v2) {
//!     v6: i64 = load v0 + 16 align 8 invariant
//!     v7: bool = ovf add v5, v6
//!     fail_if v7, 1
//!     v8: i64 = add v5, v6
//!     yield v8
//!   }
//!   store v0 + 24 align 8, v3
//!   v9: i32 = const 0
//!   yield v9
//! }
//! ```

use super::inst::*;
use super::ty::Ty;
use std::fmt::{self, Display, Formatter, Write};

impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for e in &self.externs {
            writeln!(f, "{e}")?;
        }
        for (code, site) in (1..).zip(&self.sites) {
            writeln!(f, "site {code} {} {:?}", site.kind.name(), site.message)?;
        }
        for func in &self.funcs {
            Printer::new(Some(self), func).func(f)?;
        }
        Ok(())
    }
}

impl Display for Extern {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "extern {}({})", name(&self.name), list(&self.params))?;
        match self.ret {
            Some(ret) => write!(f, " -> {ret}"),
            None => Ok(()),
        }
    }
}

/// Without its module a function shows the ids of functions and externs in place of their names.
impl Display for Func {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Printer::new(None, self).func(f)
    }
}

impl Display for Const {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Const::Int(i) => i.fmt(f),
            Const::Float(bits) => match f64::from_bits(bits) {
                x if x.is_nan() => write!(f, "nan {bits:#x}"),
                x => write!(f, "{x:?}"),
            },
        }
    }
}

/// Prints one function; `module` knows the names of what it calls.
pub(super) struct Printer<'a> {
    module: Option<&'a Module>,
    func: &'a Func,
    /// The number of each value in the text; `None` where the text does not define it.
    numbers: Vec<Option<u32>>,
}

impl<'a> Printer<'a> {
    /// Numbers the values of `func`.
    pub(super) fn new(module: Option<&'a Module>, func: &'a Func) -> Printer<'a> {
        let mut numbering =
            Numbering { func, numbers: vec![None; func.values.len()], next: 0, seen: vec![false; func.blocks.len()] };
        numbering.define(&func.params);
        numbering.block(func.entry);
        Printer { module, func, numbers: numbering.numbers }
    }

    /// One instruction without the blocks below it.
    pub(super) fn inst(&self, inst: Inst) -> String {
        let mut text = String::new();
        // Writing to a string never fails.
        let _ = self.header(&mut text, inst);
        text
    }

    /// A value, `v?` if nothing defines it.
    pub(super) fn value(&self, value: Value) -> String {
        match self.numbers.get(value.index()) {
            Some(Some(number)) => format!("v{number}"),
            _ => "v?".into(),
        }
    }

    fn values(&self, values: &[Value]) -> String {
        join(values.iter().map(|&v| self.value(v)))
    }

    fn definitions(&self, values: &[Value]) -> String {
        join(values.iter().map(|&v| format!("{}: {}", self.value(v), self.ty(v))))
    }

    fn ty(&self, value: Value) -> Ty {
        self.func.ty(value)
    }

    fn func(&self, f: &mut impl Write) -> fmt::Result {
        let cold = if self.func.cold { "cold " } else { "" };
        writeln!(f, "{cold}func @{}({}) {{", name(&self.func.name), self.definitions(&self.func.params))?;
        self.block(f, self.func.entry, 1)?;
        writeln!(f, "}}")
    }

    fn block(&self, f: &mut impl Write, block: Block, depth: usize) -> fmt::Result {
        let data = self.func.block(block);
        for &inst in &data.insts {
            indent(f, depth)?;
            self.header(f, inst)?;
            self.blocks(f, &self.func.inst(inst).op, depth)?;
            writeln!(f)?;
        }
        indent(f, depth)?;
        match data.yields.as_slice() {
            [] => writeln!(f, "yield"),
            yields => writeln!(f, "yield {}", self.values(yields)),
        }
    }

    fn blocks(&self, f: &mut impl Write, op: &Op, depth: usize) -> fmt::Result {
        match *op {
            Op::If { then, els, .. } => {
                self.braces(f, then, depth)?;
                f.write_str(" else")?;
                self.braces(f, els, depth)
            }
            Op::For { body, .. } => self.braces(f, body, depth),
            Op::While { cond, body, .. } => {
                self.braces(f, cond, depth)?;
                write!(f, " do ({})", self.definitions(&self.func.block(body).params))?;
                self.braces(f, body, depth)
            }
            _ => Ok(()),
        }
    }

    fn braces(&self, f: &mut impl Write, block: Block, depth: usize) -> fmt::Result {
        writeln!(f, " {{")?;
        self.block(f, block, depth + 1)?;
        indent(f, depth)?;
        f.write_char('}')
    }

    fn header(&self, f: &mut impl Write, inst: Inst) -> fmt::Result {
        let data = self.func.inst(inst);
        if !data.results.is_empty() {
            write!(f, "{} = ", self.definitions(&data.results))?;
        }
        self.op(f, &data.op)
    }

    fn op(&self, f: &mut impl Write, op: &Op) -> fmt::Result {
        let operands = self.values(&op.operands());
        match op {
            Op::Const(c) => write!(f, "const {c}"),
            Op::Un(op, _) => write!(f, "{} {operands}", op.name()),
            Op::Bin(op, ..) => write!(f, "{} {operands}", op.name()),
            Op::Cmp(op, ..) => write!(f, "cmp {} {operands}", op.name()),
            Op::Ovf(op, ..) => write!(f, "ovf {} {operands}", op.name()),
            Op::Cast(op, _) => write!(f, "{} {operands}", op.name()),
            Op::Select(..) => write!(f, "select {operands}"),
            Op::Fma(..) => write!(f, "fma {operands}"),
            Op::Dot4(..) => write!(f, "dot4 {operands}"),
            Op::Splat(_) => write!(f, "splat {operands}"),
            Op::Extract(_, lane) => write!(f, "extract {operands}, {lane}"),
            Op::Insert(_, _, lane) => write!(f, "insert {operands}, {lane}"),
            Op::Iota => f.write_str("iota"),
            Op::Reduce(op, _) => write!(f, "reduce {} {operands}", op.name()),
            Op::Alloca { bytes, align } => write!(f, "alloca {bytes} align {align}"),
            Op::FailIf { code, .. } => write!(f, "fail_if {operands}, {code}"),
            Op::Check { .. } => write!(f, "check {operands}"),
            Op::Call { callee, .. } => write!(f, "call {}({operands})", self.callee(*callee)),
            _ if op.blocks().is_empty() => self.memory(f, op),
            _ => self.control(f, op),
        }
    }

    fn memory(&self, f: &mut impl Write, op: &Op) -> fmt::Result {
        let operands = self.values(&op.operands());
        match *op {
            Op::PtrAdd { base, index, scale, offset } => {
                write!(f, "ptr_add {}", self.value(base))?;
                if let Some(index) = index {
                    write!(f, " + {} * {scale}", self.value(index))?;
                }
                plus(f, offset)
            }
            Op::Load { ptr, offset, align, invariant } => {
                f.write_str("load ")?;
                self.place(f, ptr, offset, align)?;
                f.write_str(mark(invariant))
            }
            Op::Store { ptr, offset, align, value } => {
                f.write_str("store ")?;
                self.place(f, ptr, offset, align)?;
                write!(f, ", {}", self.value(value))
            }
            Op::MaskedLoad { invariant, .. } => write!(f, "masked_load {operands}{}", mark(invariant)),
            Op::Gather { scale, invariant, .. } => write!(f, "gather {operands} scale {scale}{}", mark(invariant)),
            Op::MaskedStore { .. } => write!(f, "masked_store {operands}"),
            Op::CompressStore { .. } => write!(f, "compress_store {operands}"),
            Op::AtomicRmw { op, .. } => write!(f, "atomic {} {operands}", op.name()),
            Op::CmpXchg { .. } => write!(f, "cmpxchg {operands}"),
            Op::Prefetch { far, .. } => write!(f, "{} {operands}", if far { "prefetch_far" } else { "prefetch" }),
            Op::ParFor { func, .. } => write!(f, "par_for @{}({operands})", self.function(func)),
            _ => Ok(()),
        }
    }

    fn place(&self, f: &mut impl Write, ptr: Value, offset: i64, align: u16) -> fmt::Result {
        f.write_str(&self.value(ptr))?;
        plus(f, offset)?;
        write!(f, " align {align}")
    }

    fn control(&self, f: &mut impl Write, op: &Op) -> fmt::Result {
        match op {
            Op::If { cond, .. } => write!(f, "if {}", self.value(*cond)),
            Op::For { lo, hi, step, init, body } => {
                let params = &self.func.block(*body).params;
                let (counter, carried) = params.split_at(params.len().min(1));
                write!(f, "for {} in {}..{}", self.definitions(counter), self.value(*lo), self.value(*hi))?;
                write!(f, " step {step} ({})", self.carried(carried, init))
            }
            Op::While { init, cond, .. } => {
                write!(f, "while ({})", self.carried(&self.func.block(*cond).params, init))
            }
            _ => Ok(()),
        }
    }

    fn carried(&self, params: &[Value], init: &[Value]) -> String {
        join(params.iter().zip(init).map(|(&p, &i)| format!("{}: {} = {}", self.value(p), self.ty(p), self.value(i))))
    }

    fn callee(&self, callee: ExternId) -> String {
        let found = self.module.and_then(|m| m.externs.get(callee.index()));
        found.map_or_else(|| callee.to_string(), |e| name(&e.name))
    }

    fn function(&self, func: FuncId) -> String {
        let found = self.module.and_then(|m| m.funcs.get(func.index()));
        found.map_or_else(|| func.to_string(), |f| name(&f.name))
    }
}

/// Walks a function in the order of the text.
struct Numbering<'a> {
    func: &'a Func,
    numbers: Vec<Option<u32>>,
    next: u32,
    /// Blocks met so far: an ill-formed function may have a block below itself, and the verifier prints from it.
    seen: Vec<bool>,
}

impl Numbering<'_> {
    fn define(&mut self, values: &[Value]) {
        for value in values {
            self.numbers[value.index()] = Some(self.next);
            self.next += 1;
        }
    }

    fn block(&mut self, block: Block) {
        if std::mem::replace(&mut self.seen[block.index()], true) {
            return;
        }
        let func = self.func;
        for &inst in &func.block(block).insts {
            let data = func.inst(inst);
            self.define(&data.results);
            for below in data.op.blocks() {
                self.define(&func.block(below).params);
                self.block(below);
            }
        }
    }
}

/// A name as it stands in the text: quoted unless it is an identifier.
fn name(text: &str) -> String {
    let head = |c: char| c.is_ascii_alphabetic() || c == '_';
    let plain = text.starts_with(head) && text.chars().all(|c| head(c) || c.is_ascii_digit());
    if plain { text.into() } else { format!("{text:?}") }
}

fn mark(invariant: bool) -> &'static str {
    if invariant { " invariant" } else { "" }
}

fn plus(f: &mut impl Write, offset: i64) -> fmt::Result {
    if offset == 0 { Ok(()) } else { write!(f, " + {offset}") }
}

fn indent(f: &mut impl Write, depth: usize) -> fmt::Result {
    write!(f, "{:1$}", "", depth * 2)
}

fn list(items: &[impl Display]) -> String {
    join(items.iter().map(ToString::to_string))
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}
