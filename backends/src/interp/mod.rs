//! The interpreter: the oracle against which other backends are tested, and the backend of a build without LLVM.
//!
//! | file | what it holds |
//! |---|---|
//! | [`lanes`] | what the lane-wise operations compute |
//! | [`steps`] | the form in which a function is walked: operands are places, operations are functions |
//! | [`resolve`] | from the low-level program to that form |
//! | [`machine`] | walking it |
//! | [`memory`] | access to memory outside of the interpreter |
//!
//! It is strict where the program's meaning is undefined: a shift beyond the width, a division by zero, a null or
//! misaligned address, a `Bool` in memory that is neither 0 nor 1 stop the run with an internal error.

mod lanes;
mod machine;
mod memory;
mod resolve;
mod steps;

use crate::runtime::Run;
use crate::{Backend, BackendError, Code, CompileOptions, ObjectCode};
use quearn_stage::low::{self, FuncId, Module};
use std::time::Instant;

/// Runs programs by walking them, on one thread. Parallel loops rotate the worker number, so that state which is
/// kept per worker is split and merged as in a parallel run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interp;

const NAME: &str = "interp";

impl Backend for Interp {
    fn name(&self) -> &'static str {
        NAME
    }

    fn compile(&self, module: &Module, _options: &CompileOptions) -> Result<Box<dyn Code>, BackendError> {
        low::verify(module)?;
        let start = Instant::now();
        let program = resolve::resolve(module).map_err(|message| BackendError::Failed { backend: NAME, message })?;
        Ok(Box::new(Resolved { program, ms: start.elapsed().as_secs_f64() * 1e3 }))
    }

    fn load(&self, _code: &ObjectCode) -> Result<Box<dyn Code>, BackendError> {
        Err(BackendError::NoObjectCode { backend: NAME })
    }

    fn listing(&self, _: &Module, _: &CompileOptions, _level: &str) -> Result<Option<String>, BackendError> {
        Ok(None)
    }
}

struct Resolved {
    program: steps::Program,
    ms: f64,
}

impl Code for Resolved {
    unsafe fn call(&self, func: FuncId, frame: *mut u8, run: &Run) -> i32 {
        machine::call(&self.program, func, frame, run)
    }

    fn profile_key(&self, func: FuncId) -> usize {
        func.index()
    }

    fn object_code(&self) -> Result<ObjectCode, BackendError> {
        Err(BackendError::NoObjectCode { backend: NAME })
    }

    fn compile_ms(&self) -> Vec<(&'static str, f64)> {
        vec![("resolve", self.ms)]
    }
}
