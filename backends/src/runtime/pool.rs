//! Memory that no run uses, kept for the next one: a page that is touched for the first time costs several times what it takes
//! to clear it here, and threads that touch fresh pages wait for one another in the system.
//!
//! Memory is mapped by huge pages, which scans, hash tables and scattered writes are faster on. The smallest free range that is
//! large enough is split, and neighbours grow together again, so that what one program leaves serves the next, whatever its
//! sizes. Little pieces come from the heap.

use crate::pages::{HUGE, Pages, page_size};
use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every piece starts on a cache line.
pub const ALIGN: usize = 64;
/// Pieces from this size on are ranges of the pool.
const RANGE_FROM: usize = 16 << 10;
/// Bytes that are kept, at most.
const KEPT: usize = 256 * HUGE;

/// Sets memory to zero.
pub type Clear<'a> = &'a dyn Fn(&mut [u8]);

/// Free ranges.
struct Ranges {
    /// Length by address.
    by_start: BTreeMap<usize, usize>,
    /// Lengths and addresses.
    by_len: BTreeSet<(usize, usize)>,
    /// Sum of the lengths.
    bytes: usize,
}

impl Ranges {
    const fn new() -> Ranges {
        Ranges { by_start: BTreeMap::new(), by_len: BTreeSet::new(), bytes: 0 }
    }

    fn insert(&mut self, start: usize, len: usize) {
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
        self.bytes += len;
    }

    fn remove(&mut self, start: usize, len: usize) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
        self.bytes -= len;
    }

    /// The start of a range of that length, taken out of the smallest that has it.
    fn take(&mut self, len: usize) -> Option<usize> {
        let &(found, start) = self.by_len.range((len, 0)..).next()?;
        self.remove(start, found);
        if found > len {
            self.insert(start + len, found - len);
        }
        Some(start)
    }

    /// Keeps a range, if there is room for it.
    fn keep(&mut self, mut start: usize, mut len: usize) -> bool {
        if self.bytes + len > KEPT {
            return false;
        }
        let before = self.by_start.range(..start).next_back().map(|(&s, &l)| (s, l));
        if let Some((s, l)) = before.filter(|(s, l)| s + l == start) {
            self.remove(s, l);
            (start, len) = (s, l + len);
        }
        if let Some(&l) = self.by_start.get(&(start + len)) {
            self.remove(start + len, l);
            len += l;
        }
        self.insert(start, len);
        true
    }
}

static RANGES: Mutex<Ranges> = Mutex::new(Ranges::new());

fn ranges() -> MutexGuard<'static, Ranges> {
    RANGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of that size; if it is to be zero and is not yet, `clear` makes it so. `None` if the system has none.
pub fn take(bytes: usize, clear: Option<Clear<'_>>) -> Option<*mut u8> {
    if bytes < RANGE_FROM {
        return heap(bytes, clear.is_some());
    }
    let len = bytes.checked_next_multiple_of(page_size())?;
    let found = ranges().take(len);
    let Some(start) = found else { return fresh(len) };
    let ptr = std::ptr::with_exposed_provenance_mut(start);
    if let Some(clear) = clear {
        // SAFETY: the range is at least that long, and nobody else has it.
        clear(unsafe { std::slice::from_raw_parts_mut(ptr, bytes) });
    }
    Some(ptr)
}

/// Gives memory back.
///
/// # Safety
/// `ptr` comes from [`take`] with that size, and nobody uses the memory any more.
pub unsafe fn give(ptr: *mut u8, bytes: usize) {
    if bytes < RANGE_FROM {
        // SAFETY: the same size gives the same layout as at allocation.
        unsafe { dealloc(ptr, Layout::from_size_align_unchecked(bytes, ALIGN)) };
    } else {
        give_range(ptr, bytes.next_multiple_of(page_size()));
    }
}

fn give_range(ptr: *mut u8, len: usize) {
    if let Some(first) = NonNull::new(ptr)
        && !ranges().keep(ptr.expose_provenance(), len)
    {
        // SAFETY: whole pages of mappings that this pool made, which nobody else has.
        drop(unsafe { Pages::from_raw(first, len) });
    }
}

/// Memory that was mapped just now; what is left of its last huge page is kept.
fn fresh(len: usize) -> Option<*mut u8> {
    let whole = len.checked_next_multiple_of(HUGE)?;
    let ptr = exposed(Pages::new(whole)?.into_raw().0.as_ptr())?;
    if whole > len {
        // SAFETY: the mapping is longer than that.
        let rest = unsafe { ptr.add(len) };
        give_range(rest, whole - len);
    }
    Some(ptr)
}

fn heap(bytes: usize, zeroed: bool) -> Option<*mut u8> {
    let layout = Layout::from_size_align(bytes, ALIGN).ok()?;
    // SAFETY: the size is not 0.
    let ptr = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
    exposed(ptr)
}

/// Only the address is kept while the memory is in use, hence the provenance is exposed here.
fn exposed(ptr: *mut u8) -> Option<*mut u8> {
    ptr.expose_provenance();
    Some(ptr).filter(|ptr| !ptr.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4 << 10;

    #[test]
    fn ranges_are_split_and_grow_together_again() {
        let mut ranges = Ranges::new();
        assert!(ranges.keep(10 * HUGE, 4 * HUGE) && ranges.keep(20 * HUGE, 2 * HUGE));
        assert_eq!(ranges.take(PAGE), Some(20 * HUGE), "the smallest that fits");
        assert_eq!(ranges.take(3 * HUGE), Some(10 * HUGE));
        assert_eq!(ranges.take(2 * HUGE), None);
        assert_eq!(ranges.bytes, 3 * HUGE - PAGE);
        assert!(ranges.keep(10 * HUGE, 3 * HUGE) && ranges.keep(20 * HUGE, PAGE));
        assert_eq!(ranges.take(4 * HUGE), Some(10 * HUGE));
        assert_eq!(ranges.by_start, BTreeMap::from([(20 * HUGE, 2 * HUGE)]));
        assert_eq!(ranges.by_len, BTreeSet::from([(2 * HUGE, 20 * HUGE)]));
    }

    #[test]
    fn neighbours_on_both_sides_become_one() {
        let mut ranges = Ranges::new();
        assert!([1, 3, 2].iter().all(|&at| ranges.keep(at * PAGE, PAGE)));
        assert_eq!(ranges.by_start, BTreeMap::from([(PAGE, 3 * PAGE)]));
        assert_eq!((ranges.bytes, ranges.by_len.len()), (3 * PAGE, 1));
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        let mut ranges = Ranges::new();
        assert!(ranges.keep(HUGE, KEPT - HUGE) && !ranges.keep(KEPT, 2 * HUGE));
        assert!(ranges.keep(KEPT, HUGE));
        assert_eq!(ranges.by_start, BTreeMap::from([(HUGE, KEPT)]));
    }

    #[test]
    fn kept_memory_is_zero_again() {
        let zero = |memory: &mut [u8]| memory.fill(0);
        for bytes in [1, RANGE_FROM - 1, RANGE_FROM, 100_000, HUGE - 1, HUGE, 5 * HUGE + 1, KEPT + 1] {
            for _ in 0..2 {
                let ptr = take(bytes, Some(&zero)).unwrap();
                assert_eq!(ptr.addr() % ALIGN, 0);
                // SAFETY: memory of that size, initialised with zeros, which ends here.
                unsafe {
                    let memory = std::slice::from_raw_parts_mut(ptr, bytes);
                    assert!(memory.iter().all(|&byte| byte == 0), "{bytes}");
                    memory.fill(7);
                    give(ptr, bytes);
                }
            }
        }
        assert!(ranges().bytes <= KEPT);
        assert!(take(usize::MAX - 10, None).is_none() && take(1 << 60, None).is_none());
    }
}
