//! Walking a resolved program.

use super::lanes::Cell;
use super::memory;
use super::steps::*;
use crate::runtime::{Run, RunError};
use quearn_stage::low::{FuncId, Module, Prim};

/// Why a function is left early: a status that is not zero.
struct Stop(i32);

/// Calls a function as worker 0 on no range; gives its status.
pub fn call(program: &Program, func: FuncId, frame: *mut u8, run: &Run) -> i32 {
    let machine = Machine { program, run, worker: None };
    machine.call(func.index(), [frame.expose_provenance() as u64, 0, 0, 0])
}

struct Machine<'a> {
    program: &'a Program,
    run: &'a Run,
    /// The worker, inside a parallel loop: nested loops keep it.
    worker: Option<u64>,
}

impl Machine<'_> {
    fn call(&self, func: usize, args: [u64; 4]) -> i32 {
        let function = &self.program.funcs[func];
        let mut activation = Activation::new(self, function);
        function.params.iter().zip(args).for_each(|(&place, arg)| activation.cells[place] = arg.into());
        match activation.block(function.entry) {
            Ok(()) => activation.cells[function.status] as i32,
            Err(Stop(status)) => status,
        }
    }

    /// Calls the function for one range after another, each as another worker.
    fn par_for(&self, func: usize, frame: u64, n: i64, grain: i64) -> i32 {
        let grain = grain.max(1);
        let (mut lo, mut turn) = (0, 0);
        // One thread does the work of all workers.
        let watch = self.run.watch(func, self.worker.is_some(), n.max(0), grain);
        let _timed = watch.as_ref().map(|watch| watch.work(0));
        while lo < n {
            if self.run.cancelled() {
                self.run.fail(RunError::Cancelled);
                return Module::RUNTIME_ERROR;
            }
            let hi = lo.saturating_add(grain).min(n);
            let worker = self.worker.unwrap_or(turn % self.run.workers() as u64);
            let inner = Machine { worker: Some(worker), ..*self };
            let status = inner.call(func, [frame, worker, lo as u64, hi as u64]);
            if status != 0 {
                return status;
            }
            (lo, turn) = (hi, turn + 1);
        }
        0
    }
}

/// A running function.
struct Activation<'a> {
    machine: &'a Machine<'a>,
    function: &'a Function,
    cells: Vec<Cell>,
    /// Values on their way, so that copies that happen at once do not meet.
    moving: Vec<Cell>,
    /// Memory of the allocas, with room to align it.
    stack: Vec<u8>,
    args: Vec<u64>,
}

/// Largest alignment of an alloca.
const STACK_ALIGN: usize = 128;

impl<'a> Activation<'a> {
    fn new(machine: &'a Machine<'a>, function: &'a Function) -> Activation<'a> {
        let stack = if function.stack == 0 { vec![] } else { vec![0; function.stack + STACK_ALIGN] };
        Activation { machine, function, cells: function.cells.clone(), moving: vec![], stack, args: vec![] }
    }

    fn block(&mut self, block: usize) -> Result<(), Stop> {
        let function = self.function;
        function.blocks[block].iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Result<(), Stop> {
        match *step {
            Step::Map1 { f, to, a, n } => (0..n).for_each(|k| self.cells[to + k] = f(self.cells[a + k])),
            Step::Map2 { f, to, a, b, n } => {
                (0..n).for_each(|k| self.cells[to + k] = f(self.cells[a + k], self.cells[b + k]));
            }
            Step::Partial { f, what, to, a, b, n } => {
                for k in 0..n {
                    let result = f(self.cells[a + k], self.cells[b + k]);
                    self.cells[to + k] = result.ok_or_else(|| self.undefined(what))?;
                }
            }
            Step::Map3 { f, to, a, b, c, n } => {
                (0..n).for_each(|k| self.cells[to + k] = f(self.cells[a + k], self.cells[b + k], self.cells[c + k]));
            }
            Step::Select { to, cond, stride, a, b, n } => (0..n).for_each(|k| {
                let chosen = if self.cells[cond + k * stride] != 0 { a } else { b };
                self.cells[to + k] = self.cells[chosen + k];
            }),
            Step::Splat { to, a, n } => {
                let cell = self.cells[a];
                self.cells[to..to + n].fill(cell);
            }
            Step::Copy(copy) => self.copy(copy),
            Step::Insert { to, a, scalar, lane, n } => {
                self.copy(Move { from: a, to, n });
                self.cells[to + lane] = self.cells[scalar];
            }
            Step::Reduce { f, to, a, n } => {
                let lanes = self.cells[a..a + n].iter().copied();
                self.cells[to] = lanes.reduce(f).unwrap_or_default();
            }
            Step::Bitcast { to, to_bits, to_n, a, bits, n } => self.bitcast((a, bits, n), (to, to_bits, to_n)),
            Step::PtrAdd { to, base, index, scale, offset } => {
                let index = index.map_or(0, |index| self.cells[index] as i64);
                let by = index.wrapping_mul(scale).wrapping_add(offset);
                self.cells[to] = (self.cells[base] as u64).wrapping_add_signed(by).into();
            }
            Step::Load { to, ref from } => self.load(to, from)?,
            Step::Store { a, to: ref access } => self.store(a, access)?,
            Step::MaskedLoad { to, ref from } => self.masked_load(to, from)?,
            Step::MaskedStore { a, to: ref masked } => self.masked_store(a, masked, false)?,
            Step::CompressStore { a, to: ref masked } => self.masked_store(a, masked, true)?,
            Step::Gather { to, ref from, index, index_prim, scale } => {
                self.gather(to, from, index, index_prim, scale)?;
            }
            Step::Rmw { op, to, prim, ptr, value } => {
                let addr = self.address(ptr, 0, prim.bytes() as u64)?;
                // SAFETY: see `memory`; the address is aligned.
                self.cells[to] = unsafe { memory::rmw(op, prim, addr, self.cells[value]) };
            }
            Step::CmpXchg { to, prim, ptr, expected, new } => {
                let addr = self.address(ptr, 0, prim.bytes() as u64)?;
                // SAFETY: see `memory`; the address is aligned.
                self.cells[to] = unsafe { memory::cmpxchg(prim, addr, self.cells[expected], self.cells[new]) };
            }
            Step::Alloca { to, offset } => {
                let base = self.stack.as_mut_ptr().expose_provenance().next_multiple_of(STACK_ALIGN);
                self.cells[to] = (base + offset) as Cell;
            }
            Step::Call { function, ref args, to } => {
                self.args.clear();
                self.args.extend(args.iter().map(|&arg| self.cells[arg] as u64));
                // SAFETY: see `memory`.
                let result = unsafe { memory::call(function, &self.args) };
                if let Some((to, mask)) = to {
                    self.cells[to] = Cell::from(result) & mask;
                }
            }
            Step::FailIf { cond, code } => return if self.cells[cond] == 0 { Ok(()) } else { Err(Stop(code)) },
            Step::Check { status } => match self.cells[status] as i32 {
                0 => {}
                status => return Err(Stop(status)),
            },
            Step::If { cond, ref then, ref els } => {
                let (block, results) = if self.cells[cond] != 0 { then } else { els };
                self.block(*block)?;
                self.transfer(results);
            }
            Step::For(ref counted) => self.count(counted)?,
            Step::While(ref tested) => self.repeat(tested)?,
            Step::ParFor { to, func, frame, n, grain } => {
                let [frame, n, grain] = [frame, n, grain].map(|place| self.cells[place] as u64);
                let status = self.machine.par_for(func, frame, n as i64, grain as i64);
                self.cells[to] = Cell::from(status as u32);
            }
        }
        Ok(())
    }

    fn copy(&mut self, Move { from, to, n }: Move) {
        self.cells.copy_within(from..from + n, to);
    }

    /// Copies that happen at once.
    fn transfer(&mut self, moves: &[Move]) {
        if let &[copy] = moves {
            return self.copy(copy);
        }
        self.moving.clear();
        moves.iter().for_each(|m| self.moving.extend_from_slice(&self.cells[m.from..m.from + m.n]));
        let mut at = 0;
        for m in moves {
            self.cells[m.to..m.to + m.n].copy_from_slice(&self.moving[at..at + m.n]);
            at += m.n;
        }
    }

    fn count(&mut self, counted: &ForLoop) -> Result<(), Stop> {
        let hi = self.cells[counted.hi] as i64;
        let mut next = Some(self.cells[counted.lo] as i64);
        self.transfer(&counted.enter);
        while let Some(counter) = next.filter(|&counter| counter < hi) {
            self.cells[counted.counter] = Cell::from(counter as u64);
            self.block(counted.body)?;
            self.transfer(&counted.next);
            next = counter.checked_add(counted.step);
        }
        self.transfer(&counted.leave);
        Ok(())
    }

    fn repeat(&mut self, tested: &WhileLoop) -> Result<(), Stop> {
        self.transfer(&tested.enter);
        loop {
            self.block(tested.cond)?;
            if self.cells[tested.test] == 0 {
                break;
            }
            self.transfer(&tested.pass);
            self.block(tested.body)?;
            self.transfer(&tested.next);
        }
        self.transfer(&tested.leave);
        Ok(())
    }

    /// Lane 0 has the lowest bits.
    fn bitcast(&mut self, (a, bits, n): (Place, usize, usize), (to, to_bits, to_n): (Place, usize, usize)) {
        let bit = |cells: &[Cell], i: usize| cells[a + i / bits] >> (i % bits) & 1;
        debug_assert_eq!(bits * n, to_bits * to_n);
        if bits == to_bits {
            return self.copy(Move { from: a, to, n });
        }
        for lane in 0..to_n {
            let lane_bits = (0..to_bits).map(|i| bit(&self.cells, lane * to_bits + i) << i);
            self.cells[to + lane] = lane_bits.fold(0, |cell, bit| cell | bit);
        }
    }

    /// An address that was checked.
    fn address(&self, ptr: Place, offset: i64, align: u64) -> Result<u64, Stop> {
        let addr = (self.cells[ptr] as u64).wrapping_add_signed(offset);
        if memory::is_bad(addr, align) { Err(self.bad_address(addr, align)) } else { Ok(addr) }
    }

    fn read(&self, prim: Prim, addr: u64) -> Result<Cell, Stop> {
        // SAFETY: see `memory`.
        let cell = unsafe { memory::read(prim, addr) };
        if prim == Prim::Bool && cell > 1 {
            return Err(self.internal(format!("a bool that is {cell} in {}", self.function.name)));
        }
        Ok(cell)
    }

    fn load(&mut self, to: Place, from: &Access) -> Result<(), Stop> {
        let addr = self.address(from.ptr, from.offset, from.align)?;
        for k in 0..from.n {
            self.cells[to + k] = self.read(from.prim, element(addr, k, from.prim))?;
        }
        Ok(())
    }

    fn store(&mut self, a: Place, to: &Access) -> Result<(), Stop> {
        let addr = self.address(to.ptr, to.offset, to.align)?;
        for k in 0..to.n {
            // SAFETY: see `memory`.
            unsafe { memory::write(to.prim, element(addr, k, to.prim), self.cells[a + k]) };
        }
        Ok(())
    }

    /// The lanes where the mask is true.
    fn active(&self, masked: &Masked) -> Vec<usize> {
        (0..masked.n).filter(|k| self.cells[masked.mask + k] != 0).collect()
    }

    fn masked_load(&mut self, to: Place, from: &Masked) -> Result<(), Stop> {
        self.cells[to..to + from.n].fill(0);
        for k in self.active(from) {
            let addr = self.address(from.ptr, (k * from.prim.bytes()) as i64, from.prim.bytes() as u64)?;
            self.cells[to + k] = self.read(from.prim, addr)?;
        }
        Ok(())
    }

    fn masked_store(&mut self, a: Place, to: &Masked, compress: bool) -> Result<(), Stop> {
        for (i, k) in self.active(to).into_iter().enumerate() {
            let at = if compress { i } else { k };
            let addr = self.address(to.ptr, (at * to.prim.bytes()) as i64, to.prim.bytes() as u64)?;
            // SAFETY: see `memory`.
            unsafe { memory::write(to.prim, addr, self.cells[a + k]) };
        }
        Ok(())
    }

    fn gather(&mut self, to: Place, from: &Masked, index: Place, prim: Prim, scale: u64) -> Result<(), Stop> {
        let mut lanes = vec![0; from.n];
        for k in self.active(from) {
            let cell = self.cells[index + k];
            let index = if prim == Prim::I32 { i64::from(cell as i32) } else { cell as i64 };
            let addr = self.address(from.ptr, index.wrapping_mul(scale as i64), 1)?;
            lanes[k] = self.read(from.prim, addr)?;
        }
        self.cells[to..to + from.n].copy_from_slice(&lanes);
        Ok(())
    }

    #[cold]
    fn undefined(&self, what: &str) -> Stop {
        self.internal(format!("undefined result of {what} in {}", self.function.name))
    }

    #[cold]
    fn bad_address(&self, addr: u64, align: u64) -> Stop {
        self.internal(format!("access to {addr:#x}, aligned to {align}, in {}", self.function.name))
    }

    #[cold]
    fn internal(&self, message: String) -> Stop {
        self.machine.run.fail(RunError::Internal(message));
        Stop(Module::RUNTIME_ERROR)
    }
}

fn element(addr: u64, lane: usize, prim: Prim) -> u64 {
    addr + (lane * prim.bytes()) as u64
}
