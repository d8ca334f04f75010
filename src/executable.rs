//! Running a compiled program: binding data to the frame, calling the code, taking the results.

use crate::data::{Catalog, Column, Stamp, Tensor, Values};
use crate::error::{Error, Result};
use crate::foreign::{self, Functions};
use crate::lower::frame::{Bind, Part, Slot};
use crate::lower::moves::{Count, Stride};
use crate::lower::{Input, Interface, Output, Update};
use crate::moved::{Moved, Place, part_bytes};
use crate::results::{self, Outcome, Outputs};
use crate::state::State;
use quearn_backends::Code;
use quearn_backends::abi::FrameHeader;
use quearn_backends::runtime::{CallProfile, LoopProfile, Run, RunConfig, RunError};
use quearn_stage::graph::{Dim, Elem};
use quearn_stage::low::{FuncId, Module};
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::Arc;

/// Named tensors: weights and inputs.
pub type Tensors = BTreeMap<String, Tensor>;

/// A program that can run: its code and what the session has to know of it.
pub struct Executable {
    /// How to run it.
    pub interface: Interface,
    /// What runs.
    pub code: Box<dyn Code>,
    /// Milliseconds of each phase of its making.
    pub phases: Vec<(&'static str, f64)>,
    /// Names of the operators that runtime calls refer to.
    pub(crate) operators: Arc<[String]>,
    places: Arc<[Place]>,
    /// The bindings that differ from run to run: inputs, parameters, results.
    each_run: Vec<usize>,
}

impl Executable {
    /// A program that can run.
    pub fn new(interface: Interface, code: Box<dyn Code>, phases: Vec<(&'static str, f64)>) -> Executable {
        let place = |m: &crate::lower::moves::Move| Place { name: m.place.clone(), kind: m.kind };
        let is_weight = |name: &str| interface.inputs.iter().any(|input| input.weight && input.name == name);
        let lasts = |bind: &Bind| match bind {
            Bind::Column { .. } | Bind::Rows { .. } | Bind::Function { .. } => true,
            Bind::Tensor { name } | Bind::Scalar { name, .. } => is_weight(name),
            _ => false,
        };
        let each_run = interface.bindings.iter().enumerate().filter(|(_, (bind, _))| !lasts(bind)).map(|(at, _)| at);
        Executable {
            each_run: each_run.collect(),
            places: interface.moves.iter().map(place).collect(),
            operators: interface.operators.clone().into(),
            interface,
            code,
            phases,
        }
    }

    /// Milliseconds of each phase, the backend's own phases among them.
    pub fn phases(&self) -> Vec<(&'static str, f64)> {
        self.phases.iter().copied().chain(self.code.compile_ms()).collect()
    }
}

/// The block of memory through which generated code sees a run.
pub(crate) struct Frame {
    memory: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the frame owns its memory; what its slots point to is kept alive, unchanged, by whoever runs the program.
unsafe impl Send for Frame {}
// SAFETY: as above; a shared frame is only copied from.
unsafe impl Sync for Frame {}

impl Frame {
    fn new(bytes: i64) -> Frame {
        let size = (bytes as usize).max(size_of::<FrameHeader>());
        let layout = Layout::from_size_align(size, 64).expect("a frame is small");
        // SAFETY: the size is not zero.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Frame { memory, layout }
    }

    fn copy_from(&mut self, other: &Frame) {
        let bytes = self.layout.size().min(other.layout.size());
        // SAFETY: both own at least `bytes` bytes, in different allocations.
        unsafe { self.memory.copy_from_nonoverlapping(other.memory, bytes) };
    }

    fn write<T: Copy>(&mut self, offset: i64, value: T) {
        assert!(offset >= 0 && offset as usize + size_of::<T>() <= self.layout.size(), "a slot lies in its frame");
        // SAFETY: checked to be inside the allocation.
        unsafe { self.memory.as_ptr().add(offset as usize).cast::<T>().write_unaligned(value) };
    }

    /// The value of a slot after a run.
    pub(crate) fn read<T: Copy>(&self, slot: Slot) -> T {
        assert!(slot.offset as usize + size_of::<T>() <= self.layout.size(), "a slot lies in its frame");
        // SAFETY: checked to be inside the allocation, which was zeroed.
        unsafe { self.memory.as_ptr().add(slot.offset as usize).cast::<T>().read_unaligned() }
    }

    fn header(&mut self, run: &Run) {
        let header = run.header();
        self.write(quearn_backends::abi::FRAME_RUN, header.run);
        self.write(quearn_backends::abi::FRAME_WORKERS, header.workers);
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `new`.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// The state that depends on weights and stored tables only: packed weights, addresses of columns and the like, made once.
pub(crate) struct Prepared {
    frame: Frame,
    weights: Tensors,
    /// Stands for the tables that the frame points to.
    tables: Arc<Stamp>,
    /// Bytes behind each binding.
    bound: Vec<u64>,
    /// Owns the memory that the frame points to.
    _run: Run,
}

impl Prepared {
    /// Was it made for these tables?
    pub(crate) fn is_for(&self, catalog: &Catalog) -> bool {
        Arc::ptr_eq(&self.tables, catalog.stamp())
    }
}

/// The tensors of a run: those that are given for it come before the session's.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// Given for the run.
    pub inputs: &'a Tensors,
    /// Bound in the session.
    pub session: &'a Tensors,
}

impl<'a> Given<'a> {
    fn get(self, name: &str) -> Option<&'a Tensor> {
        self.inputs.get(name).or_else(|| self.session.get(name))
    }
}

/// What a run recorded of itself.
pub(crate) struct Times {
    pub loops: Vec<LoopProfile>,
    pub calls: BTreeMap<&'static str, CallProfile>,
}

/// Memory that a run writes to.
struct Memory<'a> {
    /// One block for a tensor, one for each column that is written as a whole.
    outputs: Vec<Vec<results::TensorMemory>>,
    state: Option<&'a mut State>,
}

/// What a run needs beside the program.
pub(crate) struct Job<'a> {
    pub executable: &'a Executable,
    pub catalog: &'a Catalog,
    pub tensors: Given<'a>,
    pub functions: &'a Functions,
    /// Values of the program's parameters.
    pub parameters: &'a [Option<i128>],
    pub config: &'a dyn Fn() -> RunConfig,
}

impl Job<'_> {
    fn interface(&self) -> &Interface {
        &self.executable.interface
    }

    /// Is a result the next value of an input?
    fn update(&self, output: usize) -> Option<&Update> {
        self.interface().updates.iter().find(|update| update.output == output)
    }

    /// Runs the part that depends on weights only.
    pub(crate) fn prepare(&self) -> Result<Prepared> {
        foreign::check(&self.interface().functions_called, self.functions)?;
        let weights: Tensors = self
            .interface()
            .inputs
            .iter()
            .filter(|input| input.weight)
            .map(|input| Ok((input.name.clone(), given(self.tensors, input)?.clone())))
            .collect::<Result<_>>()?;
        let run = Run::new((self.config)());
        let mut frame = Frame::new(self.interface().frame_bytes);
        frame.header(&run);
        let mut bound = vec![0; self.interface().bindings.len()];
        for ((bind, slot), bytes) in self.interface().bindings.iter().zip(&mut bound) {
            match bind {
                Bind::Rows { table } => frame.write(slot.offset, self.table(table)?.rows() as i64),
                Bind::Column { table, column, part } => {
                    let table = self.table(table)?;
                    let column = table.column(column)?;
                    bind_column(&mut frame, *slot, column, *part)?;
                    *bytes = part_bytes(column, *part, table.rows()).unwrap_or(0);
                }
                Bind::Table { words } => frame.write(slot.offset, words.as_ptr()),
                Bind::Function { name } => {
                    let missing = || Error::Function { name: name.clone(), message: "not registered".into() };
                    frame.write(slot.offset, self.functions.get(name).ok_or_else(missing)?.address());
                }
                Bind::Scalar { name, .. } if weights.contains_key(name) => {
                    bind_scalar(&mut frame, *slot, &weights[name])?;
                }
                Bind::Tensor { name } if weights.contains_key(name) => {
                    *bytes = bind_tensor(&mut frame, *slot, &weights[name]);
                }
                _ => {}
            }
        }
        if let Some(func) = self.interface().prepare {
            self.call(func, &frame, &run)?;
        }
        Ok(Prepared { frame, weights, tables: Arc::clone(self.catalog.stamp()), bound, _run: run })
    }

    /// Are these the weights that the state was prepared from?
    pub(crate) fn is_current(&self, prepared: &Prepared) -> bool {
        prepared.weights.iter().all(|(name, old)| {
            self.tensors
                .get(name)
                .is_some_and(|new| new.data().as_ptr() == old.data().as_ptr() && new.shape() == old.shape())
        })
    }

    /// Runs the program; gives its results, and where the time went if the configuration asks for that. Next values of a
    /// state that is given go there and are no results.
    pub(crate) fn run(&self, prepared: &Prepared, state: Option<&mut State>) -> Result<(Outputs, Times)> {
        let Some(state) = state else { return self.run_on(prepared, &mut Memory { outputs: vec![], state: None }) };
        state.check(self.interface())?;
        let done = self.run_on(prepared, &mut Memory { outputs: vec![], state: Some(state) })?;
        state.end(self.interface());
        Ok(done)
    }

    fn run_on(&self, prepared: &Prepared, memory: &mut Memory<'_>) -> Result<(Outputs, Times)> {
        let dims = self.dims(memory.state.as_deref())?;
        for (index, output) in self.interface().outputs.iter().enumerate() {
            let kept = memory.state.is_some() && self.update(index).is_some();
            memory.outputs.push(if kept { vec![] } else { self.allocate(output, &dims)? });
        }
        let run = Run::new((self.config)());
        let mut frame = Frame::new(self.interface().frame_bytes);
        frame.copy_from(&prepared.frame);
        frame.header(&run);
        let mut bound = prepared.bound.clone();
        for &at in &self.executable.each_run {
            let (bind, slot) = &self.interface().bindings[at];
            bound[at] = self.bind(&mut frame, bind, *slot, &dims, memory)?;
        }
        if let Some(state) = &mut memory.state {
            state.lend();
        }
        let start = std::time::Instant::now();
        self.call(self.interface().main, &frame, &run)?;
        let run_ms = start.elapsed().as_secs_f64() * 1e3;
        let outputs = std::mem::take(&mut memory.outputs);
        let moved = self.moved(&frame, &run, &bound, &outputs);
        let mut values = vec![];
        for (index, (output, memory_of)) in self.interface().outputs.iter().zip(outputs).enumerate() {
            if memory.state.is_some() && self.update(index).is_some() {
                continue;
            }
            values.push(match (output, memory_of) {
                (Output::Table { name, lists, layout }, _) => {
                    let source =
                        results::Source { catalog: self.catalog, dictionaries: &self.interface().dictionaries };
                    let lists = frame.read::<*const u8>(*lists);
                    // SAFETY: the run is over and alive; the program made one list a worker at this address, with rows
                    // of this layout whose texts lie in the catalog, the frame or the run.
                    let rows = unsafe { results::rows(lists, run.workers(), layout.width()) };
                    (name.clone(), Outcome::Table(source.batch(layout, &rows)?))
                }
                (Output::Columns { name, columns, .. }, memory) => {
                    let columns = columns.iter().map(|(name, _)| name.as_str());
                    (name.clone(), Outcome::Table(results::columns(columns, memory)?))
                }
                (Output::Tensor { name, .. }, mut memory) => {
                    let memory = memory.pop().expect("tensor outputs were allocated");
                    (name.clone(), Outcome::Tensor(memory.finish()?))
                }
            });
        }
        let times = Times { loops: run.loops(), calls: run.calls() };
        Ok((Outputs::new(values, run_ms, run.memory_use(), moved), times))
    }

    /// The bytes that a run which has ended has moved.
    fn moved(&self, frame: &Frame, run: &Run, bound: &[u64], outputs: &[Vec<results::TensorMemory>]) -> Moved {
        // SAFETY: the program has ended, and generated code gives no memory back that has lists in it.
        let written = unsafe { run.written() };
        let bytes = |count: &Count| match count {
            Count::Bound(all) => all.iter().map(|&at| bound[at]).sum(),
            Count::Operator(at) => written.get(*at).copied().unwrap_or(0),
            Count::Output(at) => outputs[*at].iter().map(results::TensorMemory::bytes).sum(),
            Count::Slot(slot) => frame.read::<i64>(*slot).max(0) as u64,
            Count::Workers { memory, stride, offset, bytes } => {
                let stride = match stride {
                    Stride::Known(bytes) => *bytes,
                    Stride::Slot(slot) => frame.read(*slot),
                };
                let first = frame.read::<*const u8>(*memory);
                // SAFETY: the program made memory of that stride for each worker at this address, which the run still holds.
                let rows = |worker: usize| unsafe {
                    first.offset(worker as isize * stride as isize + *offset as isize).cast::<i64>().read_unaligned()
                };
                let workers = if first.is_null() { 0 } else { run.workers() };
                (0..workers).map(rows).sum::<i64>().max(0) as u64 * bytes
            }
        };
        let bytes = self.interface().moves.iter().map(|m| bytes(&m.count)).collect();
        Moved::new(Arc::clone(&self.executable.places), bytes)
    }

    fn call(&self, func: FuncId, frame: &Frame, run: &Run) -> Result<()> {
        // SAFETY: the frame was laid out by this program, its header and all bindings are filled, and what they point to
        // (catalog, tensors, outputs) outlives the call.
        let status = unsafe { self.executable.code.call(func, frame.memory.as_ptr(), run) };
        match status {
            0 => Ok(()),
            Module::RUNTIME_ERROR => {
                let unknown = || RunError::Internal("the program stopped without a reason".into());
                Err(run.take_error().unwrap_or_else(unknown).into())
            }
            code => match self.interface().sites.get(code as usize - 1) {
                Some(site) => Err(Error::Failed { kind: site.kind, message: site.message.clone() }),
                None => Err(run.take_error().unwrap_or_else(|| RunError::Internal(format!("status {code}"))).into()),
            },
        }
    }

    /// Sizes of the named dimensions, from the inputs.
    fn dims(&self, state: Option<&State>) -> Result<BTreeMap<String, u64>> {
        let mut dims: BTreeMap<String, (u64, &str)> = BTreeMap::new();
        for input in &self.interface().inputs {
            if state.is_some_and(|state| state.now(&input.name).is_some()) {
                continue;
            }
            let tensor = given(self.tensors, input)?;
            for (dim, &size) in input.shape.iter().zip(tensor.shape()) {
                let Dim::Named(dimension) = dim else { continue };
                let (one, first) = *dims.entry(dimension.clone()).or_insert((size, input.name.as_str()));
                if one != size {
                    let (first, second, dimension) = (first.to_owned(), input.name.clone(), dimension.clone());
                    return Err(Error::Dimension { dimension, first, one, second, other: size });
                }
            }
        }
        Ok(dims.into_iter().map(|(name, (size, _))| (name, size)).collect())
    }

    /// Fills a slot that differs from run to run; the bytes of a tensor.
    fn bind(
        &self,
        frame: &mut Frame,
        bind: &Bind,
        slot: Slot,
        dims: &BTreeMap<String, u64>,
        memory: &mut Memory<'_>,
    ) -> Result<u64> {
        match bind {
            Bind::Rows { .. } | Bind::Column { .. } | Bind::Function { .. } => {}
            Bind::Dim { name } => {
                let missing = || Error::Setting(format!("no input has the dimension \"{name}\""));
                frame.write(slot.offset, *dims.get(name).ok_or_else(missing)? as i64);
            }
            Bind::Tensor { name } => {
                if let Some(now) = memory.state.as_ref().and_then(|state| state.now(name)) {
                    frame.write(slot.offset, now);
                    return Ok(0);
                }
                let missing = || Error::Input { name: name.clone(), message: "not given".into() };
                return Ok(bind_tensor(frame, slot, self.tensors.get(name).ok_or_else(missing)?));
            }
            Bind::Scalar { name, .. } => {
                if let Some(now) = memory.state.as_ref().and_then(|state| state.scalar(name)) {
                    return bind_bytes(frame, slot, now).map(|()| 0);
                }
                let missing = || Error::Input { name: name.clone(), message: "not given".into() };
                bind_scalar(frame, slot, self.tensors.get(name).ok_or_else(missing)?)?;
            }
            Bind::Table { words } => frame.write(slot.offset, words.as_ptr()),
            Bind::Parameter { index, digits, min, max } => {
                let value = self.parameters.get(*index).copied().flatten();
                let missing = || Error::Setting(format!("parameter {index} is not given"));
                let scaled = value.ok_or_else(missing)?.saturating_mul(10i128.pow((*digits).into()));
                frame.write(slot.offset, scaled.clamp((*min).into(), (*max).into()) as i64);
            }
            Bind::Output { index } => match (&mut memory.state, self.update(*index)) {
                (Some(state), Some(update)) => frame.write(slot.offset, state.next(update)?),
                _ => self.bind_output(frame, slot, memory.outputs[*index].first_mut()),
            },
            Bind::OutputColumn { index, column } => {
                self.bind_output(frame, slot, memory.outputs[*index].get_mut(*column));
            }
        }
        Ok(0)
    }

    fn bind_output(&self, frame: &mut Frame, slot: Slot, memory: Option<&mut results::TensorMemory>) {
        if let Some(memory) = memory {
            frame.write(slot.offset, memory.as_mut_ptr());
        }
    }

    /// Memory for a result: one block for a tensor, one for each column that is written as a whole.
    fn allocate(&self, output: &Output, dims: &BTreeMap<String, u64>) -> Result<Vec<results::TensorMemory>> {
        let (elem, shape, name) = match output {
            Output::Table { .. } => return Ok(vec![]),
            Output::Columns { table, columns, .. } => {
                let rows = self.table(table)?.rows() as u64;
                let column = |(_, elem): &(String, Elem)| results::TensorMemory::new(elem.scalar, vec![rows]);
                return columns.iter().map(column).collect();
            }
            Output::Tensor { elem, shape, name } => (elem, shape, name),
        };
        let size = |dim: &Dim| match dim {
            Dim::Const(n) => Ok(*n),
            Dim::Named(d) => {
                dims.get(d).copied().ok_or_else(|| Error::Setting(format!("no input has the dimension \"{d}\"")))
            }
            Dim::Rows(_) => Err(Error::Setting(format!("result \"{name}\" has as many rows as a table"))),
        };
        let shape = shape.iter().map(size).collect::<Result<Vec<_>>>()?;
        Ok(vec![results::TensorMemory::new(elem.scalar, shape)?])
    }

    fn table(&self, name: &str) -> Result<&crate::data::Table> {
        let missing = || crate::lower::LowerError::MissingTable { table: name.into(), known: self.catalog.describe() };
        Ok(self.catalog.table(name).ok_or_else(missing)?)
    }
}

/// The tensor of an input, of the declared type and (up to named dimensions) shape.
pub(crate) fn given<'t>(tensors: Given<'t>, input: &Input) -> Result<&'t Tensor> {
    let wrong = |message: String| Error::Input { name: input.name.clone(), message };
    let tensor = tensors.get(&input.name).ok_or_else(|| wrong(format!("not given; expected {input}")))?;
    let fits = tensor.shape().len() == input.shape.len()
        && input.shape.iter().zip(tensor.shape()).all(|(d, n)| d.as_const().is_none_or(|d| d == *n));
    if tensor.scalar() != input.scalar || !fits {
        return Err(wrong(format!("expected {input}, found {} {:?}", tensor.scalar(), tensor.shape())));
    }
    Ok(tensor)
}

fn bind_tensor(frame: &mut Frame, slot: Slot, tensor: &Tensor) -> u64 {
    frame.write(slot.offset, tensor.data().as_ptr());
    tensor.data().len() as u64
}

fn bind_scalar(frame: &mut Frame, slot: Slot, tensor: &Tensor) -> Result<()> {
    bind_bytes(frame, slot, tensor.data().as_slice())
}

fn bind_bytes(frame: &mut Frame, slot: Slot, data: &[u8]) -> Result<()> {
    let bytes = slot.ty.bytes();
    if data.len() != bytes {
        return Err(Error::Setting(format!("a scalar of {} bytes where {bytes} were expected", data.len())));
    }
    data.iter().zip(slot.offset..).for_each(|(byte, at)| frame.write(at, *byte));
    Ok(())
}

/// Offsets of one empty string.
static NO_STRING: [i32; 2] = [0; 2];

fn bind_column(frame: &mut Frame, slot: Slot, column: &Column, part: Part) -> Result<()> {
    let null = std::ptr::null::<u8>();
    let dict = match &column.values {
        Values::Coded { dict, .. } => Some(dict),
        _ => None,
    };
    let pointer = match (part, &column.values) {
        (Part::Values, Values::Fixed { data, .. }) => data.as_ptr(),
        (Part::Values, Values::Coded { codes, .. }) => codes.as_ptr(),
        (Part::Offsets, Values::Text(_)) => column.plain_text()?.offsets.as_ptr(),
        (Part::Bytes, Values::Text(_)) => column.plain_text()?.bytes.as_ptr(),
        // Where a column is NULL, or an outer join has no row, code 0 is read even if there is no string.
        (Part::DictOffsets, _) if dict.is_some_and(|d| d.is_empty()) => NO_STRING.as_ptr().cast(),
        (Part::DictOffsets, _) => dict.map_or(null, |d| d.offsets().as_ptr().cast()),
        (Part::DictBytes, _) => dict.map_or(null, |d| d.bytes().as_ptr()),
        (Part::Validity, _) => column.validity.as_ref().map_or(null, |v| v.bits.as_ptr()),
        (Part::ValidityOffset, _) => {
            frame.write(slot.offset, column.validity.as_ref().map_or(0, |v| v.offset as i64));
            return Ok(());
        }
        (Part::DictLen, _) => {
            frame.write(slot.offset, dict.map_or(0, |d| d.len() as i64));
            return Ok(());
        }
        (Part::Zones, _) => column.zones.as_ref().map_or(null, |zones| zones.bounds().as_ptr().cast()),
        _ => null,
    };
    frame.write(slot.offset, pointer);
    Ok(())
}
