//! The machines of Quearn: what runs a low-level program.
//!
//! A [`Backend`] turns a verified [`low::Module`] into [`Code`]; `Code` runs a function on a frame. `interp` is the
//! oracle, obviously right and slow; `llvm` compiles for the host. Both call the same [`runtime`], and
//! [`abi`] holds the only memory layouts that generated code and Rust share; [`pages`] is where large memory comes from,
//! that of columns too; [`ceiling`] measures what the processor could do.
//!
//! Invariants: no backend sees a graph; generated code is relocatable (every data pointer, size and runtime handle
//! comes through the frame), so that one `Code` serves many runs and threads at once.

pub mod abi;
pub mod ceiling;
pub mod interp;
#[cfg(any(feature = "llvm", feature = "llvm19"))]
pub mod llvm;
pub mod pages;
pub mod runtime;

use quearn_stage::low::{FuncId, Module, VerifyError};
use runtime::Run;

/// How hard a backend tries, and for which machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileOptions {
    /// Effort.
    pub level: OptLevel,
    /// Threads that compile; 0 means as many as there are processors.
    pub threads: usize,
}

impl Default for CompileOptions {
    fn default() -> Self {
        CompileOptions { level: OptLevel::Default, threads: 0 }
    }
}

/// Effort of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OptLevel {
    /// As little as possible: the fastest compile.
    None,
    /// A light pass pipeline over code that our own stage has simplified already.
    #[default]
    Default,
    /// Everything the backend has.
    Aggressive,
}

/// Turns low-level programs into something that runs.
pub trait Backend: Send + Sync {
    /// Name on the command line and in reports.
    fn name(&self) -> &'static str;

    /// Verifies and compiles a module.
    fn compile(&self, module: &Module, options: &CompileOptions) -> Result<Box<dyn Code>, BackendError>;

    /// Loads what another process has compiled. Nothing becomes executable before the code has been found to be for this
    /// backend and this machine; that its bytes are what was compiled is the caller's business.
    fn load(&self, code: &ObjectCode) -> Result<Box<dyn Code>, BackendError>;

    /// A module in the backend's own languages, for `explain`: `"llvm"`, `"asm"`. `None` if it has no such form.
    fn listing(&self, module: &Module, options: &CompileOptions, level: &str) -> Result<Option<String>, BackendError>;
}

/// Machine code that refers to nothing by address: calls of the runtime and of the C library are resolved by name when it
/// is loaded, constants lie in the objects themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectCode {
    /// What it was compiled by and for.
    pub target: Target,
    /// The functions of the module, in order.
    pub functions: Vec<Function>,
    /// Relocatable objects.
    pub objects: Vec<Vec<u8>>,
}

/// What object code was compiled by, and which machine it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name and version of the compiler.
    pub compiler: String,
    /// Architecture and system.
    pub triple: String,
    /// Name of the processor.
    pub cpu: String,
    /// What the code takes for granted of the processor.
    pub features: Vec<String>,
}

/// A function of object code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its symbol.
    pub symbol: String,
    /// May it be called on a frame, see [`Code::call`]?
    pub on_frame: bool,
}

/// A compiled module.
pub trait Code: Send + Sync {
    /// Runs a function of signature `(ptr frame, i64 worker, i64 lo, i64 hi)` as worker 0 with `lo = hi = 0` and
    /// gives its status (see `low::Module::sites`).
    ///
    /// # Safety
    /// `frame` points to a frame as the module's generator laid it out: header filled by [`Run`], every input
    /// bound to memory that lives and stays as declared while the call lasts.
    unsafe fn call(&self, func: FuncId, frame: *mut u8, run: &Run) -> i32;

    /// What the profile of a run calls the loops of a function, see [`runtime::LoopProfile::func`].
    fn profile_key(&self, func: FuncId) -> usize;

    /// The code in a form that another process can load; an error if the backend has none.
    fn object_code(&self) -> Result<ObjectCode, BackendError>;

    /// Where compile time went, in milliseconds, by phase.
    fn compile_ms(&self) -> Vec<(&'static str, f64)>;
}

/// Why a module could not be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The generator wrote an ill-formed program: a bug in Quearn.
    #[error("internal error: ill-formed low-level program: {0}")]
    Verify(#[from] VerifyError),
    /// LLVM refused the module or the target: a bug in Quearn or an unsupported machine.
    #[error("the {backend} backend failed: {message}")]
    Failed {
        /// Which backend.
        backend: &'static str,
        /// What it said.
        message: String,
    },
    /// The backend has no code that could be kept or loaded.
    #[error("the {backend} backend has no object code, so that programs cannot be saved and loaded with it")]
    NoObjectCode {
        /// Which backend.
        backend: &'static str,
    },
    /// Code of another compiler.
    #[error("the code was compiled by {made}, this is {here}")]
    OtherCompiler {
        /// Who compiled it.
        made: String,
        /// The compiler of this process.
        here: String,
    },
    /// Code for another kind of machine.
    #[error("the code was compiled for {made}, this is {here}")]
    OtherMachine {
        /// What it was compiled for.
        made: String,
        /// This machine.
        here: String,
    },
    /// Code that needs what this processor does not have.
    #[error("the code was compiled for the processor {made} and needs {}, which {here} does not have", missing.join(", "))]
    MissingFeatures {
        /// The processor that it was compiled for.
        made: String,
        /// This processor.
        here: String,
        /// What is missing.
        missing: Vec<String>,
    },
}

/// The backend that runs programs by default: LLVM if it was built in, else the interpreter.
pub fn default_backend() -> Box<dyn Backend> {
    #[cfg(any(feature = "llvm", feature = "llvm19"))]
    return Box::new(llvm::Llvm::new());
    #[cfg(not(any(feature = "llvm", feature = "llvm19")))]
    Box::new(interp::Interp)
}
