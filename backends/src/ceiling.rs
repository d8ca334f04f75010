//! What the processor could do at best: the rate of fused multiply-adds from registers, which kernels are held against.

use crate::abi;
use crate::runtime::{Run, RunConfig};
use crate::{Backend, BackendError, Code, CompileOptions};
use quearn_stage::low::{FuncId, ModuleBuilder, Prim, Ty};
use std::time::Instant;

/// Chains of dependent multiply-adds: enough to hide their latency on two units, few enough to stay in registers.
const CHAINS: usize = 12;
/// Turns of the timed loop.
const TURNS: i64 = 40_000;

#[repr(C, align(64))]
struct Frame([u8; 1024]);

/// A loop of multiply-adds, compiled once and timed again and again: clocks change while something is measured.
pub struct FmaMeter {
    code: Box<dyn Code>,
    func: FuncId,
    run: Run,
    lanes: u16,
}

impl FmaMeter {
    /// Multiply-adds of vectors of `vector_bytes`.
    ///
    /// # Errors
    /// What the backend says if it cannot compile the loop.
    pub fn new(backend: &dyn Backend, prim: Prim, vector_bytes: u16) -> Result<FmaMeter, BackendError> {
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
        Ok(FmaMeter { code, func, run: Run::new(RunConfig::default()), lanes })
    }

    /// Floating-point operations a second of one thread, two for each lane, now; takes a tenth of a millisecond.
    pub fn flops(&self) -> f64 {
        let mut frame = Frame([0; 1024]);
        let header = self.run.header();
        frame.0[..8].copy_from_slice(&header.run.expose_provenance().to_ne_bytes());
        frame.0[8..16].copy_from_slice(&header.workers.to_ne_bytes());
        let start = Instant::now();
        // SAFETY: the function touches the first 320 bytes of the frame, whose header is the run's.
        unsafe { self.code.call(self.func, frame.0.as_mut_ptr(), &self.run) };
        2.0 * f64::from(self.lanes) * (CHAINS as f64) * TURNS as f64 / start.elapsed().as_secs_f64()
    }
}
