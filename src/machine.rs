//! The machine that programs run on, as far as generated code depends on it.

use crate::error::Result;
use crate::lower::tensor::target::Target;
use quearn_backends::ceiling::FmaMeter;
use quearn_backends::default_backend;
use quearn_stage::low::Prim;

/// Measures how many floating-point operations a second a thread does at best: multiply-adds of whole vectors of `f32`
/// from registers. Clocks change; measure beside what is held against it.
///
/// # Errors
/// The default backend cannot compile the measuring loop.
pub fn fma_meter() -> Result<FmaMeter> {
    Ok(FmaMeter::new(&*default_backend(), Prim::F32, Target::host().vector_bytes)?)
}
