//! The machine that programs run on, as far as generated code depends on it.

use crate::error::Result;
use crate::lower::tensor::target::Target;
use quearn_backends::{ceiling, default_backend};
use quearn_stage::low::Prim;

/// Floating-point operations a second of one thread at best: multiply-adds of whole vectors of `f32` from registers,
/// measured now for some milliseconds. Clocks change; measure before and after what is held against it.
///
/// # Errors
/// The default backend cannot compile the measuring loop.
pub fn peak_flops() -> Result<f64> {
    let backend = default_backend();
    Ok(ceiling::fma_flops(&*backend, Prim::F32, Target::host().vector_bytes)?)
}
