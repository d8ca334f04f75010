//! From low functions to objects: the functions of a module are shared out in parts, and each part goes through the
//! whole of LLVM on a thread of its own.

use super::error::{Error, Result};
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

/// Instructions of cold functions that take as long to compile as one of a hot one.
const COLD_FACTOR: usize = 5;

/// Functions that are compiled together, with the same effort.
pub(super) struct Part {
    /// The functions.
    funcs: Vec<FuncId>,
    /// Effort.
    level: OptLevel,
}

/// A module on its way through LLVM.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    /// The program.
    pub(super) low: &'a Module,
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

/// Shares the functions out to at most `threads` threads with about the same work, largest functions first. What one
/// thread compiles is one part for the hot functions, at `level`, and one for the cold ones, without optimisation.
pub(super) fn partition(low: &Module, level: OptLevel, threads: usize) -> Vec<Vec<Part>> {
    let mut sizes: Vec<(usize, FuncId)> = (0..low.funcs.len()).map(|i| (work(low, i), FuncId(i as u32))).collect();
    let total: usize = sizes.iter().map(|s| s.0).sum();
    let count = threads.min(total / INSTS_PER_THREAD).min(low.funcs.len()).max(1);
    sizes.sort_by_key(|&(size, func)| (Reverse(size), func));
    let mut shares: Vec<(usize, Vec<FuncId>)> = vec![(0, vec![]); count];
    for (size, func) in sizes {
        if let Some(smallest) = shares.iter_mut().min_by_key(|p| p.0) {
            smallest.0 += size;
            smallest.1.push(func);
        }
    }
    let is_cold = |func: &FuncId| low.funcs[func.index()].cold;
    let parts = |funcs: Vec<FuncId>| {
        let (cold, hot): (Vec<_>, Vec<_>) = funcs.into_iter().partition(is_cold);
        let parts = [Part { funcs: hot, level }, Part { funcs: cold, level: OptLevel::None }];
        parts.into_iter().filter(|part| !part.funcs.is_empty()).collect()
    };
    shares.into_iter().map(|(_, funcs)| parts(funcs)).collect()
}

fn work(low: &Module, func: usize) -> usize {
    let size = size(low, func);
    if low.funcs[func].cold { size / COLD_FACTOR } else { size }
}

fn size(low: &Module, func: usize) -> usize {
    low.funcs[func].blocks.iter().map(|b| b.insts.len()).sum()
}

impl Job<'_> {
    /// Compiles the parts, those of one thread after one another; the phases are those of the thread that took longest.
    pub(super) fn compile(self, parts: &[Vec<Part>]) -> Result<(Vec<Vec<u8>>, Phases)> {
        let Some((first, rest)) = parts.split_first() else { return Ok(Default::default()) };
        let results: Vec<Result<_>> = std::thread::scope(|scope| {
            let spawned: Vec<_> = rest.iter().map(|parts| scope.spawn(|| self.compile_parts(parts))).collect();
            let mut results = vec![self.compile_parts(first)];
            results.extend(spawned.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(panicked()))));
            results
        });
        let done: Vec<(Vec<Vec<u8>>, Phases)> = results.into_iter().collect::<Result<_>>()?;
        let slowest = done.iter().map(|d| d.1).max_by_key(Phases::total).unwrap_or_default();
        Ok((done.into_iter().flat_map(|d| d.0).collect(), slowest))
    }

    fn compile_parts(self, parts: &[Part]) -> Result<(Vec<Vec<u8>>, Phases)> {
        let mut phases = Phases::default();
        let objects = parts.iter().map(|part| self.compile_part(part, &mut phases)).collect::<Result<_>>()?;
        Ok((objects, phases))
    }

    fn compile_part(self, part: &Part, phases: &mut Phases) -> Result<Vec<u8>> {
        let cx = Context::create();
        let machine = target::machine(part.level)?;
        let start = Instant::now();
        let module = self.translate(&cx, part, &machine)?;
        let translated = Instant::now();
        optimise(&module, part.level, &machine)?;
        let optimised = Instant::now();
        let object = machine.write_to_memory_buffer(&module, FileType::Object)?;
        phases.translate += translated - start;
        phases.passes += optimised - translated;
        phases.codegen += optimised.elapsed();
        Ok(object.as_slice().to_vec())
    }

    /// The text of a part in some form.
    pub(super) fn listing(self, part: &Part, form: Form) -> Result<String> {
        let cx = Context::create();
        let machine = target::machine(part.level)?;
        let module = self.translate(&cx, part, &machine)?;
        if form != Form::Raw {
            optimise(&module, part.level, &machine)?;
        }
        if form != Form::Assembly {
            return Ok(module.print_to_string().to_string());
        }
        let assembly = machine.write_to_memory_buffer(&module, FileType::Assembly)?;
        let text = String::from_utf8_lossy(assembly.as_slice()).into_owned();
        Ok(text.trim_end_matches('\0').to_string())
    }

    fn translate<'ctx>(self, cx: &'ctx Context, part: &Part, machine: &TargetMachine) -> Result<LlvmModule<'ctx>> {
        let module = ModuleTranslator::translate(cx, self.low, &part.funcs, part.level == OptLevel::None)?;
        module.set_triple(&machine.get_triple());
        module.set_data_layout(&machine.get_target_data().get_data_layout());
        if cfg!(debug_assertions) {
            module.verify()?;
        }
        Ok(module)
    }
}

fn optimise(module: &LlvmModule<'_>, level: OptLevel, machine: &TargetMachine) -> Result<()> {
    let Some(passes) = target::passes(level) else { return Ok(()) };
    let options = PassBuilderOptions::create();
    if level == OptLevel::Aggressive {
        options.set_loop_vectorization(true);
        options.set_loop_slp_vectorization(true);
    }
    Ok(module.run_passes(passes, machine, options)?)
}

fn panicked() -> Error {
    Error::new("a compiling thread panicked")
}
