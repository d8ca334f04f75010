//! What the processor could do at best: the rate of fused multiply-adds from registers, which kernels are held against.

use crate::abi;
use crate::runtime::{Run, RunConfig};
use crate::{Backend, BackendError, CompileOptions};
use quearn_stage::low::{ModuleBuilder, Prim, Ty};
use std::time::Instant;

/// Chains of dependent multiply-adds: enough to hide their latency on two units, few enough to stay in registers.
const CHAINS: usize = 12;
/// Turns of the timed loop.
const TURNS: i64 = 2_000_000;
/// Times that the loop is timed; the best counts.
const TRIES: usize = 7;

#[repr(C, align(64))]
struct Frame([u8; 1024]);

/// Floating-point operations a second of one thread in multiply-adds of vectors of `vector_bytes`, two for each lane.
///
/// # Errors
/// What the backend says if it cannot compile the loop.
pub fn fma_flops(backend: &dyn Backend, prim: Prim, vector_bytes: u16) -> Result<f64, BackendError> {
    let lanes = vector_bytes / prim.bytes() as u16;
    let ty = Ty::vector(prim, lanes);
    let builder = ModuleBuilder::new();
    let func = builder.func("multiply_adds", &[Ty::PTR, Ty::I64, Ty::I64, Ty::I64], |b, p| {
        // From memory, so that nothing is folded.
        let [x, y] = [0, 1].map(|i| b.load(ty, p[0], abi::FRAME_SLOTS + i * 64));
        let sums = b.for_carry(b.i64(0), b.i64(TURNS), 1, &[y; CHAINS], |_, sums| {
            sums.iter().map(|sum| x.fma(y, *sum)).collect()
        });
        let sum = sums.into_iter().reduce(|a, b| a + b).unwrap_or(x);
        b.store(p[0], abi::FRAME_SLOTS + 128, sum);
    });
    let code = backend.compile(&builder.build(), &CompileOptions::default())?;
    let run = Run::new(RunConfig::default());
    let mut frame = Frame([0; 1024]);
    let header = run.header();
    frame.0[..8].copy_from_slice(&header.run.expose_provenance().to_ne_bytes());
    frame.0[8..16].copy_from_slice(&header.workers.to_ne_bytes());
    let seconds = (0..TRIES).map(|_| {
        let start = Instant::now();
        // SAFETY: the function touches the first 320 bytes of the frame, whose header is the run's.
        unsafe { code.call(func, frame.0.as_mut_ptr(), &run) };
        start.elapsed().as_secs_f64()
    });
    let best = seconds.fold(f64::INFINITY, f64::min);
    Ok(2.0 * f64::from(lanes) * (CHAINS as f64) * TURNS as f64 / best)
}
