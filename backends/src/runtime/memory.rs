//! Budgeted memory of a run.
//!
//! Small blocks come from the heap. Large ones are mapped on 2 MB boundaries for huge pages, which scans and hash
//! tables are faster on. The system zeroes their pages when they are first touched, so that memory that is never used
//! costs nothing; but a page that is touched costs several times what it takes to clear it here. So blocks of a few
//! pages are kept from one run for the next.

use super::run::{MemoryUse, Run, RunError};
use crate::pages::{HUGE, Pages};
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every block starts on a cache line.
const ALIGN: usize = 64;
/// Blocks from this size on are mapped: a chunk of rows that fills a huge page is one of them.
const MAPPED_FROM: usize = HUGE - (8 << 10);
/// Bytes that are kept for later runs, at most.
const KEPT: usize = 128 * HUGE;
/// Blocks up to this size are kept.
const KEPT_BLOCK: usize = 64 * HUGE;

/// Sets memory to zero.
pub(super) type Clear<'a> = &'a dyn Fn(&mut [u8]);

/// Mapped blocks that no run uses.
struct Pool {
    /// Addresses and lengths.
    blocks: Vec<(usize, usize)>,
    /// Sum of the lengths.
    bytes: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { blocks: vec![], bytes: 0 });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A block of that length. The last one first: it may still be in a cache.
    fn take(&mut self, len: usize) -> Option<*mut u8> {
        let at = self.blocks.iter().rposition(|block| block.1 == len)?;
        self.bytes -= len;
        Some(std::ptr::with_exposed_provenance_mut(self.blocks.remove(at).0))
    }

    /// Keeps a block, if there is room for it.
    fn keep(&mut self, ptr: *mut u8, len: usize) -> bool {
        let kept = len <= KEPT_BLOCK && self.bytes + len <= KEPT;
        if kept {
            self.blocks.push((ptr.expose_provenance(), len));
            self.bytes += len;
        }
        kept
    }
}

/// The blocks of a run, by address, and their sum.
pub(super) struct Memory {
    budget: u64,
    used: AtomicU64,
    peak: AtomicU64,
    allocated: AtomicU64,
    /// Size of every block; it tells also where the block comes from.
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
        let ptr = if bytes >= MAPPED_FROM { mapped(bytes, clear) } else { heap(bytes, clear.is_some()) }?;
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
        unsafe { release(ptr, bytes) };
        true
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let blocks = self.blocks.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (addr, bytes) in blocks.drain() {
            // SAFETY: the block was in the table; with the run goes the right to use its memory.
            unsafe { release(std::ptr::with_exposed_provenance_mut(addr), bytes) };
        }
    }
}

fn heap(bytes: usize, zeroed: bool) -> Option<*mut u8> {
    let layout = Layout::from_size_align(bytes, ALIGN).ok()?;
    // SAFETY: the size is not 0.
    let ptr = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
    exposed(ptr)
}

/// Only the address is kept in the table of blocks, hence the provenance is exposed here.
fn exposed(ptr: *mut u8) -> Option<*mut u8> {
    ptr.expose_provenance();
    Some(ptr).filter(|ptr| !ptr.is_null())
}

/// Mapped memory, from the pool if there is some.
fn mapped(bytes: usize, clear: Option<Clear<'_>>) -> Option<*mut u8> {
    let len = mapped_len(bytes)?;
    let found = pool().take(len);
    let Some(ptr) = found else { return exposed(Pages::new(len)?.into_raw().0.as_ptr()) };
    if let Some(clear) = clear {
        // SAFETY: the block is at least that long, and nobody else has it.
        clear(unsafe { std::slice::from_raw_parts_mut(ptr, bytes) });
    }
    Some(ptr)
}

fn mapped_len(bytes: usize) -> Option<usize> {
    bytes.checked_next_multiple_of(HUGE)
}

/// # Safety
/// `ptr` comes from [`mapped`] or [`heap`] with that size.
unsafe fn release(ptr: *mut u8, bytes: usize) {
    // SAFETY: the same size gives the same origin, length and layout as at allocation.
    unsafe {
        if bytes >= MAPPED_FROM {
            if let (Some(start), Some(len)) = (NonNull::new(ptr), mapped_len(bytes))
                && !pool().keep(ptr, len)
            {
                drop(Pages::from_raw(start, len));
            }
        } else {
            dealloc(ptr, Layout::from_size_align_unchecked(bytes, ALIGN));
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

    fn run(budget: u64) -> Run {
        Run::new(RunConfig { budget, operators: vec!["join".to_string()].into(), ..RunConfig::default() })
    }

    #[test]
    fn blocks_are_zeroed_and_aligned() {
        let run = run(u64::MAX);
        for bytes in [0, 1, 100, MAPPED_FROM - 1, MAPPED_FROM, MAPPED_FROM + 1, 3 * MAPPED_FROM + 17] {
            let ptr = run.allocate(bytes, 0).unwrap();
            assert_eq!(ptr.addr() % if bytes >= MAPPED_FROM { HUGE } else { ALIGN }, 0);
            // SAFETY: a block of that size, initialised with zeros.
            let block = unsafe { std::slice::from_raw_parts_mut(ptr, bytes) };
            assert!(block.iter().all(|&byte| byte == 0));
            block.fill(7);
        }
    }

    #[test]
    fn kept_blocks_are_zero_again() {
        for bytes in [HUGE, KEPT_BLOCK, KEPT_BLOCK + 1] {
            for _ in 0..2 {
                let run = run(u64::MAX);
                let ptr = run.allocate(bytes, 0).unwrap();
                // SAFETY: a block of that size, initialised with zeros.
                let block = unsafe { std::slice::from_raw_parts_mut(ptr, bytes) };
                assert!(block.iter().all(|&byte| byte == 0));
                block.fill(7);
            }
        }
        assert!(pool().bytes <= KEPT && pool().blocks.iter().all(|block| block.1 <= KEPT_BLOCK));
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
