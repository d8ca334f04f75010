//! Memory that a column is written into.

use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::ArrowNativeType;
use quearn_backends::pages::{HUGE, Pages};
use std::alloc::{Layout, handle_alloc_error};
use std::mem::MaybeUninit;
use std::sync::Arc;

/// What has been written of a column so far. From 2 MB on it lies in pages of its own: growing copies nothing then,
/// and scans find huge pages.
pub(super) struct Growing {
    memory: Memory,
    /// Bytes that are written.
    len: usize,
}

enum Memory {
    /// Its own length is its capacity; what lies behind the bytes written is zero.
    Heap(MutableBuffer),
    Pages(Pages),
}

impl Growing {
    /// Nothing yet, with room for about as many bytes; an estimate that no machine has memory for is ignored.
    pub(super) fn with_capacity(bytes: usize) -> Growing {
        let pages = (bytes >= HUGE).then(|| Pages::new(bytes)).flatten();
        let heap = || Memory::Heap(MutableBuffer::from_len_zeroed(if bytes < HUGE { bytes } else { 0 }));
        Growing { memory: pages.map_or_else(heap, Memory::Pages), len: 0 }
    }

    /// Zeros that are written over; `None` if the system has no memory for them.
    pub(super) fn zeroed(bytes: usize) -> Option<Growing> {
        let memory = match bytes {
            ..HUGE => Memory::Heap(MutableBuffer::from_len_zeroed(bytes)),
            _ => Memory::Pages(Pages::new(bytes)?),
        };
        Some(Growing { memory, len: bytes })
    }

    /// Bytes that are written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Appends bytes.
    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        let spare = self.spare(bytes.len());
        assert!(spare.len() >= bytes.len());
        // SAFETY: the room is large enough, and nobody else has it.
        unsafe { spare.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.len += bytes.len();
    }

    /// Appends values of one type, which is that of all others in this memory.
    pub(super) fn extend<T: ArrowNativeType>(&mut self, values: impl ExactSizeIterator<Item = T>) {
        let spare = self.spare(values.len() * size_of::<T>());
        // SAFETY: any bytes are uninitialised `T`s.
        let (before, slots, _) = unsafe { spare.align_to_mut::<MaybeUninit<T>>() };
        assert!(before.is_empty(), "values of one width");
        let mut written = 0;
        for (slot, value) in slots.iter_mut().zip(values) {
            slot.write(value);
            written += 1;
        }
        self.len += written * size_of::<T>();
    }

    /// What is written.
    pub(super) fn as_slice<T: ArrowNativeType>(&self) -> &[T] {
        // SAFETY: native types have no padding, every bit pattern is a value, and the first `len` bytes are written.
        unsafe { std::slice::from_raw_parts(self.start().cast::<T>(), self.len / size_of::<T>()) }
    }

    /// What is written, to be changed.
    pub(super) fn as_mut_slice<T: ArrowNativeType>(&mut self) -> &mut [T] {
        // SAFETY: as above; the memory is borrowed from its owner.
        unsafe { std::slice::from_raw_parts_mut(self.start_mut().cast::<T>(), self.len / size_of::<T>()) }
    }

    /// As a buffer without room to grow.
    pub(super) fn finish(self) -> Buffer {
        match self.memory {
            Memory::Heap(mut bytes) => {
                bytes.truncate(self.len);
                let mut bytes = Buffer::from(bytes);
                bytes.shrink_to_fit();
                bytes
            }
            Memory::Pages(mut pages) => {
                pages.truncate(self.len);
                // SAFETY: the first `len` bytes are written, and live as long as the pages, which the buffer owns.
                unsafe { Buffer::from_custom_allocation(pages.start(), self.len, Arc::new(Owner { _pages: pages })) }
            }
        }
    }

    fn start(&self) -> *const u8 {
        match &self.memory {
            Memory::Heap(bytes) => bytes.as_ptr(),
            Memory::Pages(pages) => pages.start().as_ptr(),
        }
    }

    fn start_mut(&mut self) -> *mut u8 {
        match &mut self.memory {
            Memory::Heap(bytes) => bytes.as_mut_ptr(),
            Memory::Pages(pages) => pages.start().as_ptr(),
        }
    }

    fn capacity(&self) -> usize {
        match &self.memory {
            Memory::Heap(bytes) => bytes.len(),
            Memory::Pages(pages) => pages.size(),
        }
    }

    /// The room behind what is written, for `more` bytes at least.
    fn spare(&mut self, more: usize) -> &mut [MaybeUninit<u8>] {
        let needed = self.len.saturating_add(more);
        if needed > self.capacity() {
            self.grow(needed.max(2 * self.capacity()));
        }
        // SAFETY: inside the memory, borrowed from its owner.
        unsafe { std::slice::from_raw_parts_mut(self.start_mut().add(self.len).cast(), self.capacity() - self.len) }
    }

    fn grow(&mut self, capacity: usize) {
        match &mut self.memory {
            Memory::Heap(bytes) if capacity < HUGE => bytes.resize(capacity, 0),
            Memory::Heap(bytes) => {
                let pages = Pages::new(capacity).unwrap_or_else(|| out_of_memory(capacity));
                // SAFETY: the pages are new, and longer than the bytes.
                unsafe { pages.start().as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), self.len) };
                self.memory = Memory::Pages(pages);
            }
            Memory::Pages(pages) => {
                if !pages.grow(capacity) {
                    out_of_memory(capacity)
                }
            }
        }
    }
}

/// Pages that a buffer owns.
struct Owner {
    _pages: Pages,
}

/// As the allocator does.
fn out_of_memory(bytes: usize) -> ! {
    handle_alloc_error(Layout::array::<u8>(bytes).unwrap_or(Layout::new::<u8>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stay_wherever_they_move() {
        for capacity in [0, 100, HUGE, usize::MAX / 2] {
            let mut bytes = Growing::with_capacity(capacity);
            let mut expected = vec![];
            for n in [1, 10, 1_000, 300_000, 3_000_000] {
                let values = (0..n).map(|i| i * 7 + 1);
                bytes.extend(values.clone());
                expected.extend(values);
                assert_eq!(bytes.as_slice::<i32>(), expected);
            }
            let buffer = bytes.finish();
            assert_eq!(buffer.typed_data::<i32>(), expected);
            assert_eq!(buffer.as_ptr().addr() % HUGE, 0);
        }
    }

    #[test]
    fn small_memory_is_as_large_as_it_must_be() {
        let mut bytes = Growing::with_capacity(1_000_000);
        bytes.extend_from_slice(b"abc");
        let buffer = bytes.finish();
        assert_eq!(buffer.as_slice(), b"abc");
        assert!(buffer.capacity() < 1_000, "{}", buffer.capacity());
        assert_eq!(Growing::with_capacity(0).finish().len(), 0);
    }
}
