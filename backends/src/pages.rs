//! Memory in pages of the system, from 2 MB boundaries on, so that it can lie in huge pages: scans and hash tables
//! are faster on them.
//!
//! The system zeroes a page when it is first touched. Pages that are never touched cost nothing, so that room may be
//! asked for generously.

use std::ptr::NonNull;

/// Size of a huge page.
pub const HUGE: usize = 2 << 20;

/// Zeroed pages that belong to their owner alone.
pub struct Pages {
    start: NonNull<u8>,
    /// A multiple of the system's page size, not 0.
    len: usize,
}

// SAFETY: the memory belongs to the value, and a shared value gives only its address.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Room for `bytes`; `None` if the system has none. Whole units of 2 MB get huge pages, the rest small ones.
    pub fn new(bytes: usize) -> Option<Pages> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        let len = bytes.max(1).checked_next_multiple_of(page_size())?;
        let padded = len.checked_add(HUGE)?;
        // SAFETY: a fresh anonymous mapping touches no other memory.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), padded, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let head = base.addr().next_multiple_of(HUGE) - base.addr();
        // SAFETY: head <= HUGE, so both trimmed ranges and the rest lie within the mapping made above.
        unsafe {
            let start = base.byte_add(head);
            unmap(base, head);
            unmap(start.byte_add(len), HUGE - head);
            #[cfg(target_os = "linux")]
            libc::madvise(start, len - len % HUGE, libc::MADV_HUGEPAGE);
            Some(Pages { start: NonNull::new(start.cast())?, len })
        }
    }

    /// The first byte, on a 2 MB boundary.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Bytes that there is room for.
    pub fn size(&self) -> usize {
        self.len
    }

    /// Makes room for `bytes` at another place, to which what has been written moves; false if the system has none.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let Some(larger) = Pages::new(bytes.max(self.len)) else { return false };
        if move_pages(self, &larger) {
            // The moved pages are a part of the larger room now, and their old place is gone.
            std::mem::forget(std::mem::replace(self, larger));
        } else {
            // SAFETY: different mappings, each at least as long as the smaller.
            unsafe { larger.start.copy_from_nonoverlapping(self.start, self.len) };
            *self = larger;
        }
        true
    }

    /// Gives back the pages past the first `bytes`.
    pub fn truncate(&mut self, bytes: usize) {
        let Some(kept) = bytes.max(1).checked_next_multiple_of(page_size()) else { return };
        if kept < self.len {
            // SAFETY: the range is the end of this mapping, which nobody else uses.
            unsafe { unmap(self.start.as_ptr().byte_add(kept).cast(), self.len - kept) };
            self.len = kept;
        }
    }

    /// Address and size, for an owner who keeps them apart; [`Pages::from_raw`] takes them back.
    pub fn into_raw(self) -> (NonNull<u8>, usize) {
        let raw = (self.start, self.len);
        std::mem::forget(self);
        raw
    }

    /// What [`Pages::into_raw`] gave.
    ///
    /// # Safety
    /// The address and size come from one call of [`Pages::into_raw`] and are taken back once.
    pub unsafe fn from_raw(start: NonNull<u8>, len: usize) -> Pages {
        Pages { start, len }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nobody uses it after its owner.
        unsafe { unmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// # Safety
/// The range, if it is not empty, is whole pages of a mapping that nobody uses any more.
unsafe fn unmap(start: *mut libc::c_void, len: usize) {
    if len > 0 {
        // SAFETY: the caller's promise.
        unsafe { libc::munmap(start, len) };
    }
}

/// Puts the pages of `from` at the beginning of `to` without copying them; false where that cannot be done.
fn move_pages(from: &Pages, to: &Pages) -> bool {
    #[cfg(target_os = "linux")]
    {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: both are mappings of their owners, apart from each other, and `to` is at least as long.
        let moved = unsafe {
            libc::mremap(
                from.start.as_ptr().cast(),
                from.len,
                from.len,
                flags,
                to.start.as_ptr().cast::<libc::c_void>(),
            )
        };
        moved != libc::MAP_FAILED
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (from, to);
        false
    }
}

/// Bytes that the system maps at least.
pub fn page_size() -> usize {
    // SAFETY: only reads a constant of the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Gives memory that has been freed, but that the allocator keeps for every thread that used some, back to the
/// system; worth its time after much has been freed. Does nothing where the C library has no such function.
pub fn trim_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(pages: &mut Pages) -> &mut [u8] {
        // SAFETY: the pages are borrowed as long as the slice, and zeroed.
        unsafe { std::slice::from_raw_parts_mut(pages.start.as_ptr(), pages.len) }
    }

    #[test]
    fn pages_are_zeroed_and_aligned() {
        for size in [0, 1, 4096, HUGE - 1, HUGE, 3 * HUGE + 17] {
            let mut pages = Pages::new(size).unwrap();
            assert_eq!(pages.start().as_ptr().addr() % HUGE, 0);
            assert!(pages.size() >= size && pages.size() < size + HUGE);
            assert!(bytes(&mut pages).iter().all(|b| *b == 0));
        }
        assert!(Pages::new(usize::MAX - 10).is_none());
    }

    #[test]
    fn what_is_written_stays_when_they_grow_and_shrink() {
        let mut pages = Pages::new(HUGE + 5000).unwrap();
        bytes(&mut pages).fill(7);
        let before = pages.size();
        assert!(pages.grow(10 * HUGE));
        assert_eq!((pages.start().as_ptr().addr() % HUGE, pages.size()), (0, 10 * HUGE));
        let all = bytes(&mut pages);
        assert!(all[..before].iter().all(|b| *b == 7) && all[before..].iter().all(|b| *b == 0));
        pages.truncate(5000);
        assert!(pages.size() < HUGE && bytes(&mut pages).iter().all(|b| *b == 7));
        assert!(!pages.grow(usize::MAX - 10));
        // SAFETY: taken back once.
        let (start, len) = pages.into_raw();
        drop(unsafe { Pages::from_raw(start, len) });
    }
}
