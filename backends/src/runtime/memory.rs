//! Budgeted memory of a run. It comes from a [pool](super::pool) that outlives runs.

use super::pool::{self, ALIGN, Clear};
use super::run::{MemoryUse, Run, RunError};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// The blocks of a run, by address, and their sum.
pub(super) struct Memory {
    budget: u64,
    used: AtomicU64,
    peak: AtomicU64,
    allocated: AtomicU64,
    /// Size of every block.
    blocks: Mutex<HashMap<usize, usize>>,
}

/// Bytes counted against the budget until this is dropped.
pub(super) struct Reservation<'a> {
    memory: &'a Memory,
    bytes: usize,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes as u64, Relaxed);
    }
}

/// Memory that the runtime itself needs for a while, zeroed, out of the run's budget.
pub(super) struct Scratch<'a, T> {
    run: &'a Run,
    ptr: *mut T,
    len: usize,
}

impl<'a, T: Copy> Scratch<'a, T> {
    /// Room for `len` items.
    ///
    /// # Safety
    /// Zero bytes are a `T`.
    pub(super) unsafe fn zeroed(run: &'a Run, len: usize, who: &str) -> Result<Scratch<'a, T>, RunError> {
        let ptr = run.allocate_for(len.saturating_mul(size_of::<T>()), who)?.cast();
        Ok(Scratch { run, ptr, len })
    }
}

impl<T> Deref for Scratch<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the block is that long, and zero bytes are values.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}

impl<T> DerefMut for Scratch<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and nobody else has the block.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.len) }
    }
}

impl<T> Drop for Scratch<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the block ends with its owner. That it is known to the run was seen to by `zeroed`.
        let _known = unsafe { self.run.free(self.ptr.cast()) };
    }
}

impl Memory {
    pub(super) fn new(budget: u64) -> Memory {
        Memory {
            budget,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            allocated: AtomicU64::new(0),
            blocks: Mutex::default(),
        }
    }

    pub(super) fn budget(&self) -> u64 {
        self.budget
    }

    pub(super) fn usage(&self) -> MemoryUse {
        let [used, peak, allocated] = [&self.used, &self.peak, &self.allocated].map(|count| count.load(Relaxed));
        MemoryUse { used, peak, allocated }
    }

    /// Counts `bytes`, unless that goes past the budget.
    pub(super) fn reserve(&self, bytes: usize) -> Option<Reservation<'_>> {
        let wanted = bytes as u64;
        let within = |used: u64| used.checked_add(wanted).filter(|&sum| sum <= self.budget);
        let before = self.used.fetch_update(Relaxed, Relaxed, within).ok()?;
        self.peak.fetch_max(before + wanted, Relaxed);
        self.allocated.fetch_add(wanted, Relaxed);
        Some(Reservation { memory: self, bytes })
    }

    /// A block; if it is to be zero and is not yet, `clear` makes it so.
    pub(super) fn allocate(&self, bytes: usize, clear: Option<Clear<'_>>) -> Option<*mut u8> {
        let bytes = bytes.max(1).checked_next_multiple_of(ALIGN)?;
        let reservation = self.reserve(bytes)?;
        let ptr = pool::take(bytes, clear)?;
        std::mem::forget(reservation);
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).insert(ptr.addr(), bytes);
        Some(ptr)
    }

    /// Frees a block; false if it is not one of this run.
    ///
    /// # Safety
    /// Nobody uses the memory any more.
    pub(super) unsafe fn free(&self, ptr: *mut u8) -> bool {
        let found = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).remove(&ptr.addr());
        let Some(bytes) = found else { return false };
        self.used.fetch_sub(bytes as u64, Relaxed);
        // SAFETY: the block was in the table, and it is not any more.
        unsafe { pool::give(ptr, bytes) };
        true
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let blocks = self.blocks.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (addr, bytes) in blocks.drain() {
            // SAFETY: the block was in the table; with the run goes the right to use its memory.
            unsafe { pool::give(std::ptr::with_exposed_provenance_mut(addr), bytes) };
        }
    }
}

/// A size that generated code computed.
pub(super) fn size(bytes: i64) -> Result<usize, RunError> {
    usize::try_from(bytes).map_err(|_| RunError::Internal(format!("a size of {bytes} bytes")))
}

/// Body of `qn_alloc`.
///
/// # Safety
/// None beyond the types; it is `unsafe` for the uniformity of the table.
pub(super) unsafe fn qn_alloc(run: &Run, bytes: i64, operator: i64) -> Result<*mut u8, RunError> {
    run.allocate(size(bytes)?, operator)
}

/// Body of `qn_free`.
///
/// # Safety
/// Nobody uses the memory any more.
pub(super) unsafe fn qn_free(run: &Run, ptr: *mut u8) -> Result<(), RunError> {
    // SAFETY: the caller's promise.
    if ptr.is_null() { Ok(()) } else { unsafe { run.free(ptr) } }
}

#[cfg(test)]
mod tests {
    use super::super::run::RunConfig;
    use super::*;
    use crate::pages::HUGE;

    fn run(budget: u64) -> Run {
        Run::new(RunConfig { budget, operators: vec!["join".to_string()].into(), ..RunConfig::default() })
    }

    #[test]
    fn blocks_are_zeroed_and_aligned() {
        let run = run(u64::MAX);
        for bytes in [0, 1, 100, 100_000, HUGE - 1, HUGE, HUGE + 1, 3 * HUGE + 17] {
            let ptr = run.allocate(bytes, 0).unwrap();
            assert_eq!(ptr.addr() % ALIGN, 0);
            // SAFETY: a block of that size, initialised with zeros.
            let block = unsafe { std::slice::from_raw_parts_mut(ptr, bytes) };
            assert!(block.iter().all(|&byte| byte == 0));
            block.fill(7);
        }
    }

    #[test]
    fn the_budget_is_kept() {
        let run = run(1000);
        let first = run.allocate(640, 0).unwrap();
        let error = run.allocate(640, 0).unwrap_err();
        assert_eq!(error, RunError::OutOfMemory { operator: "join".into(), budget: 1000, wanted: 640 });
        assert_eq!(run.memory_use(), MemoryUse { used: 640, peak: 640, allocated: 640 });
        // SAFETY: nobody uses the block.
        unsafe { run.free(first).unwrap() };
        run.allocate(896, 0).unwrap();
        assert_eq!(run.memory_use(), MemoryUse { used: 896, peak: 896, allocated: 1536 });
    }

    #[test]
    fn an_absurd_size_is_an_error() {
        let run = run(u64::MAX);
        assert!(matches!(run.allocate(usize::MAX - 100, 0), Err(RunError::OutOfMemory { .. })));
        assert!(matches!(run.allocate(1 << 60, 0), Err(RunError::OutOfMemory { .. })));
        assert_eq!(run.memory_use().used, 0);
        assert!(size(-1).is_err());
    }

    #[test]
    fn memory_is_freed_once() {
        let run = run(u64::MAX);
        let ptr = run.allocate(5 << 20, 0).unwrap();
        // SAFETY: nobody uses the block; the second call finds nothing.
        unsafe {
            run.free(ptr).unwrap();
            assert!(run.free(ptr).is_err());
            qn_free(&run, std::ptr::null_mut()).unwrap();
        }
        assert_eq!(run.memory_use().used, 0);
    }
}
