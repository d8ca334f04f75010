//! Runs lowered tensor programs without a session: binds memory by hand, prepares, runs.

#![allow(dead_code, reason = "each test file uses a part of the harness")]

pub mod maker;

use quearn::lower::frame::Bind;
use quearn::lower::relational::tensors::Operands;
use quearn::lower::{Cx, Lowered, tensor};
use quearn_backends::runtime::{Run, RunConfig, thread_pool};
use quearn_backends::{Backend, Code, CompileOptions, abi};
use quearn_stage::graph::{Dim, Elem, Graph, Node, Op, Scalar, Ty};
use std::collections::HashMap;
use std::sync::Arc;

/// A deterministic stream of numbers (SplitMix64).
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `lo..=hi`.
    pub fn int(&mut self, lo: u64, hi: u64) -> u64 {
        lo + self.bits() % (hi - lo + 1)
    }

    /// Uniform in -1..1.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, n: u64) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// The bytes of a plain vector.
pub fn bytes<T: Copy>(values: &[T]) -> Vec<u8> {
    // SAFETY: plain numbers without padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) }.to_vec()
}

/// The numbers in a memory of bytes.
pub fn numbers<T: Copy>(bytes: &[u8]) -> Vec<T> {
    let n = bytes.len() / size_of::<T>();
    // SAFETY: any bytes are a number; reads are unaligned.
    (0..n).map(|i| unsafe { bytes.as_ptr().cast::<T>().add(i).read_unaligned() }).collect()
}

/// An input of a graph.
pub fn input(g: &mut Graph, name: &str, scalar: Scalar, shape: &[Dim], weight: bool) -> Node {
    let ty = Ty::Tensor { elem: Elem { scalar, nullable: false }, shape: shape.to_vec() };
    g.add(Op::Input { name: name.into(), ty, weight }, &[]).unwrap()
}

/// Constant dimensions.
pub fn dims(shape: &[u64]) -> Vec<Dim> {
    shape.iter().map(|&n| Dim::Const(n)).collect()
}

/// 64-byte aligned memory.
pub struct Memory {
    lines: Vec<[u64; 8]>,
}

impl Memory {
    pub fn new(bytes: usize) -> Memory {
        Memory { lines: vec![[0; 8]; bytes.div_ceil(64).max(1)] }
    }

    pub fn ptr(&mut self) -> *mut u8 {
        self.lines.as_mut_ptr().cast()
    }
}

/// A compiled program with its weights bound.
pub struct Program {
    pub lowered: Lowered,
    pub code: Box<dyn Code>,
    tensors: HashMap<String, Vec<u8>>,
    dims: HashMap<String, i64>,
    output_bytes: Vec<usize>,
    prepared: Option<(Memory, Run)>,
}

fn size_of_dim(dim: &Dim, named: &HashMap<String, i64>) -> i64 {
    match dim {
        Dim::Const(n) => *n as i64,
        Dim::Named(name) => named[name],
        Dim::Rows(_) => panic!("rows outside a query"),
    }
}

fn scalar_bytes(scalar: Scalar) -> usize {
    tensor::spec::storage(scalar).unwrap().bytes()
}

impl Program {
    /// Lowers and compiles a graph, and prepares its weights.
    pub fn new(g: &Graph, backend: &dyn Backend, tensors: &[(&str, Vec<u8>)], named: &[(&str, i64)]) -> Program {
        let catalog = quearn::data::Catalog::default();
        let cx = Cx::new(g, &[], &catalog);
        let outputs: Vec<(usize, String, Node)> =
            g.outputs().iter().enumerate().map(|(i, (name, node))| (i, name.clone(), *node)).collect();
        tensor::lower_program(&cx, &outputs, Operands::default()).unwrap();
        let dims: HashMap<String, i64> = named.iter().map(|(n, v)| (n.to_string(), *v)).collect();
        let output_bytes = g.outputs().iter().map(|(_, node)| {
            let (elem, shape) = g.ty(*node).as_tensor().unwrap();
            shape.iter().map(|d| size_of_dim(d, &dims) as usize).product::<usize>() * scalar_bytes(elem.scalar)
        });
        Program::of(cx.finish(vec![]), backend, tensors, named, output_bytes.collect())
    }

    /// Compiles a lowered program with outputs of these sizes, and prepares its weights. Columns are bound by their
    /// names like tensors, row counts like dimensions.
    pub fn of(
        lowered: Lowered,
        backend: &dyn Backend,
        tensors: &[(&str, Vec<u8>)],
        named: &[(&str, i64)],
        output_bytes: Vec<usize>,
    ) -> Program {
        let code = backend.compile(&lowered.module, &CompileOptions::default()).unwrap();
        let dims = named.iter().map(|(n, v)| (n.to_string(), *v)).collect();
        let tensors = tensors.iter().map(|(n, b)| (n.to_string(), b.clone())).collect();
        let mut program = Program { lowered, code, tensors, dims, output_bytes, prepared: None };
        program.prepare();
        program
    }

    fn fill(&mut self, frame: &mut Memory, run: &Run, outputs: &mut [Memory]) {
        let at = frame.ptr();
        // SAFETY: the frame is as large as the program says; slots lie inside.
        unsafe {
            at.cast::<abi::FrameHeader>().write(run.header());
            for (bind, slot) in &self.lowered.interface.bindings {
                let place = at.add(slot.offset as usize);
                match bind {
                    Bind::Tensor { name } | Bind::Column { column: name, .. } => {
                        place.cast::<*const u8>().write(self.tensors[name].as_ptr())
                    }
                    Bind::Table { words } => place.cast::<*const u64>().write(words.as_ptr()),
                    Bind::Dim { name } | Bind::Rows { table: name } => place.cast::<i64>().write(self.dims[name]),
                    Bind::Output { index } => {
                        if let Some(memory) = outputs.get_mut(*index) {
                            place.cast::<*mut u8>().write(memory.ptr());
                        }
                    }
                    #[allow(unreachable_patterns, reason = "bindings that tensor programs have no use for")]
                    other => panic!("{other:?} in a tensor program"),
                }
            }
        }
    }

    fn prepare(&mut self) {
        let run = Run::new(RunConfig::default());
        let mut frame = Memory::new(self.lowered.interface.frame_bytes as usize);
        self.fill(&mut frame, &run, &mut []);
        if let Some(prepare) = self.lowered.interface.prepare {
            // SAFETY: the frame is filled, inputs live in `self`.
            let status = unsafe { self.code.call(prepare, frame.ptr(), &run) };
            assert_eq!(status, 0, "prepare: {:?}", run.take_error());
        }
        self.prepared = Some((frame, run));
    }

    /// Runs the program; gives the bytes of its outputs, or the message of the failure.
    pub fn try_run(&mut self, workers: usize) -> Result<Vec<Vec<u8>>, String> {
        let run = self.new_run(workers);
        self.run_on(&run)
    }

    /// A run with its threads.
    pub fn new_run(&self, workers: usize) -> Run {
        let pool = (workers > 1).then(|| thread_pool(workers).unwrap());
        Run::new(RunConfig {
            workers,
            pool,
            operators: Arc::from(self.lowered.interface.operators.clone()),
            ..RunConfig::default()
        })
    }

    /// The same on a run that is there.
    pub fn run_on(&mut self, run: &Run) -> Result<Vec<Vec<u8>>, String> {
        let mut frame = Memory::new(self.lowered.interface.frame_bytes as usize);
        let (mut prepared, prepare_run) = self.prepared.take().unwrap();
        // SAFETY: both frames have this size.
        unsafe { frame.ptr().copy_from_nonoverlapping(prepared.ptr(), self.lowered.interface.frame_bytes as usize) };
        self.prepared = Some((prepared, prepare_run));
        let mut outputs: Vec<Memory> = self.output_bytes.iter().map(|&n| Memory::new(n)).collect();
        self.fill(&mut frame, run, &mut outputs);
        // SAFETY: the frame is filled, inputs live in `self`, outputs in `outputs`.
        let status = unsafe { self.code.call(self.lowered.interface.main, frame.ptr(), run) };
        if status != 0 {
            let site = (status > 0).then(|| self.lowered.module.sites[status as usize - 1].message.clone());
            return Err(site.unwrap_or_else(|| format!("{:?}", run.take_error())));
        }
        let taken = outputs.iter_mut().zip(&self.output_bytes).map(|(memory, &n)| {
            // SAFETY: the memory is at least that large.
            unsafe { std::slice::from_raw_parts(memory.ptr(), n) }.to_vec()
        });
        Ok(taken.collect())
    }

    /// Runs the program as one worker.
    pub fn run(&mut self) -> Vec<Vec<u8>> {
        self.try_run(1).unwrap()
    }
}

/// The backends that this build has.
pub fn backends() -> Vec<Box<dyn Backend>> {
    vec![
        Box::new(quearn_backends::interp::Interp),
        #[cfg(feature = "llvm")]
        Box::new(quearn_backends::llvm::Llvm::new()),
    ]
}

/// Runs a graph on every backend and checks `check` on the bytes of its outputs.
pub fn on_all(g: &Graph, tensors: &[(&str, Vec<u8>)], named: &[(&str, i64)], check: impl Fn(&str, &[Vec<u8>])) {
    for backend in backends() {
        let mut program = Program::new(g, &*backend, tensors, named);
        check(backend.name(), &program.run());
    }
}

/// Fails where two results differ by more than `tolerance`, relative to the larger of 1 and the expected value.
pub fn close(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{what}: number of elements");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let same = f == e || (f.is_nan() && e.is_nan()) || (f - e).abs() <= tolerance * e.abs().max(1.0);
        assert!(same, "{what}: element {i} is {f}, expected {e}");
    }
}
