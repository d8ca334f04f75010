//! Compiles low-level programs for the host with LLVM.
//!
//! | file | what it holds |
//! |---|---|
//! | `types` | low types and constants as LLVM's |
//! | `module`, `func` | the walk over modules, functions and blocks |
//! | `inst`, `dot`, `memory`, `control` | the translation of instructions |
//! | `fast` | what differs for LLVM's fast instruction selector |
//! | `target` | the host, the optimisation levels, and what differs between LLVM's versions |
//! | `compile` | parts of a module through LLVM, in parallel |
//! | `jit`, `builtins` | loading of object code and what it may call |
//!
//! Our stage has simplified the program already, so that few passes are enough; code is emitted as relocatable
//! objects, and no function refers to another except by its address in a `par_for`.

mod builtins;
mod compile;
mod control;
mod dot;
mod error;
mod fast;
mod func;
mod inst;
mod jit;
mod memory;
mod module;
mod target;
mod types;

use crate::runtime::Run;
use crate::{Backend, BackendError, Code, CompileOptions, Function, ObjectCode};
use compile::{Form, Job, Part};
use error::{Error, Result};
use jit::Loaded;
use quearn_stage::low::{self, Func, FuncId, Module, Ty};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const NAME: &str = "llvm";

/// The signature of functions that run on a frame.
const FRAME_FUNCTION: [Ty; 4] = [Ty::PTR, Ty::I64, Ty::I64, Ty::I64];
type FrameFunction = unsafe extern "C" fn(*mut u8, i64, i64, i64) -> i32;

static PROCESSORS: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, |n| n.get()));

/// Machine code for the host through LLVM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Llvm;

impl Llvm {
    /// The backend. LLVM itself is set up by the first compilation.
    pub fn new() -> Llvm {
        Llvm
    }
}

impl Backend for Llvm {
    fn name(&self) -> &'static str {
        NAME
    }

    fn compile(&self, module: &Module, options: &CompileOptions) -> std::result::Result<Box<dyn Code>, BackendError> {
        low::verify(module)?;
        Ok(Box::new(LlvmCode::compile(module, options).map_err(failed)?))
    }

    fn load(&self, code: &ObjectCode) -> std::result::Result<Box<dyn Code>, BackendError> {
        target::check(&code.target, &target::target().map_err(failed)?)?;
        Ok(Box::new(LlvmCode::link(code.clone(), vec![]).map_err(failed)?))
    }

    fn listing(
        &self,
        module: &Module,
        options: &CompileOptions,
        level: &str,
    ) -> std::result::Result<Option<String>, BackendError> {
        let form = match level {
            "llvm" => Form::Optimised,
            "llvm-raw" => Form::Raw,
            "asm" => Form::Assembly,
            _ => return Ok(None),
        };
        low::verify(module)?;
        let (job, parts) = (Job { low: module }, parts(module, options));
        let texts: Result<Vec<String>> = parts.iter().flatten().map(|part| job.listing(part, form)).collect();
        Ok(Some(texts.map_err(failed)?.join("\n")))
    }
}

fn failed(Error(message): Error) -> BackendError {
    BackendError::Failed { backend: NAME, message }
}

/// A module as machine code.
struct LlvmCode {
    loaded: Loaded,
    code: ObjectCode,
    phases: Vec<(&'static str, f64)>,
}

impl LlvmCode {
    fn compile(module: &Module, options: &CompileOptions) -> Result<LlvmCode> {
        let (objects, phases) = Job { low: module }.compile(&parts(module, options))?;
        let function = |func: &Func| Function { symbol: module::symbol(func), on_frame: runs_on_frame(func) };
        let functions = module.funcs.iter().map(function).collect();
        let phases =
            vec![("translate", ms(phases.translate)), ("passes", ms(phases.passes)), ("codegen", ms(phases.codegen))];
        LlvmCode::link(ObjectCode { target: target::target()?, functions, objects }, phases)
    }

    fn link(code: ObjectCode, mut phases: Vec<(&'static str, f64)>) -> Result<LlvmCode> {
        let start = Instant::now();
        let loaded = Loaded::new(&code.objects, code.functions.iter().map(|f| f.symbol.as_str()))?;
        phases.push(("link", ms(start.elapsed())));
        Ok(LlvmCode { loaded, code, phases })
    }
}

/// The parts in which a module is compiled.
fn parts(module: &Module, options: &CompileOptions) -> Vec<Vec<Part>> {
    let threads = if options.threads == 0 { *PROCESSORS } else { options.threads };
    compile::partition(module, options.level, threads)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Code for LlvmCode {
    unsafe fn call(&self, func: FuncId, frame: *mut u8, _run: &Run) -> i32 {
        assert!(self.code.functions[func.index()].on_frame, "{func} does not have the signature of a frame function");
        // SAFETY: the address is that of a compiled function of this very signature, which `self` keeps loaded.
        let function = unsafe { std::mem::transmute::<usize, FrameFunction>(self.loaded.address(func.index())) };
        // SAFETY: the caller vouches for the frame.
        unsafe { function(frame, 0, 0, 0) }
    }

    fn profile_key(&self, func: FuncId) -> usize {
        self.loaded.address(func.index())
    }

    fn object_code(&self) -> std::result::Result<ObjectCode, BackendError> {
        Ok(self.code.clone())
    }

    fn compile_ms(&self) -> Vec<(&'static str, f64)> {
        self.phases.clone()
    }
}

fn runs_on_frame(func: &Func) -> bool {
    func.params.iter().map(|&p| func.ty(p)).eq(FRAME_FUNCTION)
}
