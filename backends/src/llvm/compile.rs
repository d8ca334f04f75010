//! From low functions to objects: the functions of a module are shared out in parts, and each part goes through the
//! whole of LLVM on a thread of its own.

use super::error::{Error, Result};
use super::jit::Object;
use super::module::ModuleTranslator;
use super::target;
use crate::OptLevel;
use inkwell::context::Context;
use inkwell::module::Module as LlvmModule;
use inkwell::passes::PassBuilderOptions;
use inkwell::targets::{FileType, TargetMachine};
use quearn_stage::low::{FuncId, Module};
use std::cmp::Reverse;
use std::time::{Duration, Instant};

/// Fewer instructions than this are not worth a thread.
const INSTS_PER_THREAD: usize = 64;

/// Functions that are compiled together.
pub(super) type Part = Vec<FuncId>;

/// A module on its way through LLVM.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    /// The program.
    pub(super) low: &'a Module,
    /// Start of the symbols of its functions.
    pub(super) prefix: &'a str,
    /// Effort.
    pub(super) level: OptLevel,
}

/// Time in each phase.
#[derive(Clone, Copy, Default)]
pub(super) struct Phases {
    pub(super) translate: Duration,
    pub(super) passes: Duration,
    pub(super) codegen: Duration,
}

impl Phases {
    fn total(&self) -> Duration {
        self.translate + self.passes + self.codegen
    }
}

/// The form of a listing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// LLVM IR as translated.
    Raw,
    /// LLVM IR after the passes.
    Optimised,
    /// Assembly.
    Assembly,
}

/// Shares the functions out to at most `threads` parts of about the same size, largest functions first.
pub(super) fn partition(low: &Module, threads: usize) -> Vec<Part> {
    let mut sizes: Vec<(usize, FuncId)> = (0..low.funcs.len()).map(|i| (size(low, i), FuncId(i as u32))).collect();
    let total: usize = sizes.iter().map(|s| s.0).sum();
    let count = threads.min(total / INSTS_PER_THREAD).min(low.funcs.len()).max(1);
    sizes.sort_by_key(|&(size, func)| (Reverse(size), func));
    let mut parts: Vec<(usize, Part)> = vec![(0, vec![]); count];
    for (size, func) in sizes {
        if let Some(smallest) = parts.iter_mut().min_by_key(|p| p.0) {
            smallest.0 += size;
            smallest.1.push(func);
        }
    }
    parts.into_iter().map(|p| p.1).collect()
}

fn size(low: &Module, func: usize) -> usize {
    low.funcs[func].blocks.iter().map(|b| b.insts.len()).sum()
}

impl Job<'_> {
    /// Compiles all parts in parallel; the phases are those of the part that took longest.
    pub(super) fn compile(self, parts: &[Part]) -> Result<(Vec<Object>, Phases)> {
        let Some((first, rest)) = parts.split_first() else { return Ok(Default::default()) };
        let results: Vec<Result<_>> = std::thread::scope(|scope| {
            let spawned: Vec<_> = rest.iter().map(|part| scope.spawn(|| self.compile_part(part))).collect();
            let mut results = vec![self.compile_part(first)];
            results.extend(spawned.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(panicked()))));
            results
        });
        let done: Vec<(Object, Phases)> = results.into_iter().collect::<Result<_>>()?;
        let slowest = done.iter().map(|d| d.1).max_by_key(Phases::total).unwrap_or_default();
        Ok((done.into_iter().map(|d| d.0).collect(), slowest))
    }

    fn compile_part(self, part: &[FuncId]) -> Result<(Object, Phases)> {
        let cx = Context::create();
        let machine = target::machine(self.level)?;
        let start = Instant::now();
        let module = self.translate(&cx, part, &machine)?;
        let translated = Instant::now();
        self.optimise(&module, &machine)?;
        let optimised = Instant::now();
        let object = machine.write_to_memory_buffer(&module, FileType::Object)?;
        let phases =
            Phases { translate: translated - start, passes: optimised - translated, codegen: optimised.elapsed() };
        Ok((Object(object), phases))
    }

    /// The text of a part in some form.
    pub(super) fn listing(self, part: &[FuncId], form: Form) -> Result<String> {
        let cx = Context::create();
        let machine = target::machine(self.level)?;
        let module = self.translate(&cx, part, &machine)?;
        if form != Form::Raw {
            self.optimise(&module, &machine)?;
        }
        if form != Form::Assembly {
            return Ok(module.print_to_string().to_string());
        }
        let assembly = machine.write_to_memory_buffer(&module, FileType::Assembly)?;
        let text = String::from_utf8_lossy(assembly.as_slice()).into_owned();
        Ok(text.trim_end_matches('\0').to_string())
    }

    fn translate<'ctx>(self, cx: &'ctx Context, part: &[FuncId], machine: &TargetMachine) -> Result<LlvmModule<'ctx>> {
        let module = ModuleTranslator::translate(cx, self.low, part, self.prefix)?;
        module.set_triple(&machine.get_triple());
        module.set_data_layout(&machine.get_target_data().get_data_layout());
        if cfg!(debug_assertions) {
            module.verify()?;
        }
        Ok(module)
    }

    fn optimise(self, module: &LlvmModule<'_>, machine: &TargetMachine) -> Result<()> {
        let Some(passes) = target::passes(self.level) else { return Ok(()) };
        let options = PassBuilderOptions::create();
        if self.level == OptLevel::Aggressive {
            options.set_loop_vectorization(true);
            options.set_loop_slp_vectorization(true);
        }
        Ok(module.run_passes(passes, machine, options)?)
    }
}

fn panicked() -> Error {
    Error::new("a compiling thread panicked")
}
