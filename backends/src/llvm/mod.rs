//! Compiles low-level programs for the host with LLVM.
//!
//! | file | what it holds |
//! |---|---|
//! | `types` | low types and constants as LLVM's |
//! | `module`, `func` | the walk over modules, functions and blocks |
//! | `inst`, `memory`, `control` | the translation of instructions |
//! | `target` | the host, the optimisation levels, and what differs between LLVM's versions |
//! | `compile` | parts of a module through LLVM, in parallel |
//! | `jit`, `builtins` | loading of object code and what it may call |
//!
//! Our stage has simplified the program already, so that few passes are enough; code is emitted as relocatable
//! objects, and no function refers to another except by its address in a `par_for`.

mod builtins;
mod compile;
mod control;
mod error;
mod func;
mod inst;
mod jit;
mod memory;
mod module;
mod target;
mod types;

use crate::runtime::Run;
use crate::{Backend, BackendError, Code, CompileOptions};
use compile::{Form, Job, Part, Phases};
use error::{Error, Result};
use jit::Loaded;
use quearn_stage::low::{self, Func, FuncId, Module, Ty};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
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
        match LlvmCode::new(module, options) {
            Ok(code) => Ok(Box::new(code)),
            Err(Error(message)) => Err(BackendError::Failed { backend: NAME, message }),
        }
    }
}

/// A module as machine code, with what it takes to list it.
struct LlvmCode {
    loaded: Loaded,
    low: Module,
    parts: Vec<Vec<Part>>,
    prefix: String,
    phases: Phases,
    link: Duration,
}

impl LlvmCode {
    fn new(module: &Module, options: &CompileOptions) -> Result<LlvmCode> {
        let threads = if options.threads == 0 { *PROCESSORS } else { options.threads };
        let prefix = unique_prefix();
        let parts = compile::partition(module, options.level, threads);
        let job = Job { low: module, prefix: &prefix };
        let (objects, phases) = job.compile(&parts)?;
        let start = Instant::now();
        let symbols: Vec<String> =
            (0..module.funcs.len()).map(|i| module::symbol(&prefix, module, FuncId(i as u32))).collect();
        let loaded = Loaded::new(objects, &symbols)?;
        let link = start.elapsed();
        Ok(LlvmCode { loaded, low: module.clone(), parts, prefix, phases, link })
    }

    fn list(&self, form: Form) -> Result<String> {
        let job = Job { low: &self.low, prefix: &self.prefix };
        let texts = self.parts.iter().flatten().map(|part| job.listing(part, form));
        let texts: Vec<String> = texts.collect::<Result<_>>()?;
        Ok(texts.join("\n"))
    }
}

/// All code of the process shares one name space.
fn unique_prefix() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("q{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Code for LlvmCode {
    unsafe fn call(&self, func: FuncId, frame: *mut u8, _run: &Run) -> i32 {
        assert!(runs_on_frame(&self.low.funcs[func.index()]), "{func} does not have the signature of a frame function");
        // SAFETY: the address is that of a compiled function of this very signature, which `self` keeps loaded.
        let function = unsafe { std::mem::transmute::<usize, FrameFunction>(self.loaded.address(func.index())) };
        // SAFETY: the caller vouches for the frame.
        unsafe { function(frame, 0, 0, 0) }
    }

    fn profile_key(&self, func: FuncId) -> usize {
        self.loaded.address(func.index())
    }

    fn listing(&self, level: &str) -> Option<String> {
        let form = match level {
            "llvm" => Form::Optimised,
            "llvm-raw" => Form::Raw,
            "asm" => Form::Assembly,
            _ => return None,
        };
        Some(self.list(form).unwrap_or_else(|Error(message)| format!("; no listing: {message}")))
    }

    fn compile_ms(&self) -> Vec<(&'static str, f64)> {
        let ms = |d: Duration| d.as_secs_f64() * 1e3;
        vec![
            ("translate", ms(self.phases.translate)),
            ("passes", ms(self.phases.passes)),
            ("codegen", ms(self.phases.codegen)),
            ("link", ms(self.link)),
        ]
    }
}

fn runs_on_frame(func: &Func) -> bool {
    func.params.iter().map(|&p| func.ty(p)).eq(FRAME_FUNCTION)
}
