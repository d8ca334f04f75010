//! Growing lists of rows; see [`RowList`] for the part that generated code does itself.

use super::memory::size;
use super::run::{Run, RunError};
use crate::abi::{CHUNK_ROWS, RowChunk, RowList, RowSpan};
use rayon::prelude::*;

/// Bytes of rows in the first chunk of a list.
const FIRST_CHUNK: usize = 4 << 10;
/// Chunks double up to this many bytes, unless a single row is larger: with its header a chunk fills a huge page.
const MAX_CHUNK: usize = (2 << 20) - 64;

/// Rows of a chunk: the address of the first, and the number of bytes.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub rows: *mut u8,
    pub bytes: usize,
}

impl Piece {
    /// The address `offset` bytes on.
    pub fn at(&self, offset: usize) -> *mut u8 {
        self.rows.wrapping_add(offset)
    }
}

// SAFETY: a piece is an address; whoever follows it says why that is sound.
unsafe impl Send for Piece {}
// SAFETY: as above.
unsafe impl Sync for Piece {}

/// The chunks of a list in order.
///
/// # Safety
/// `list` and its chunks are well-formed and do not change meanwhile.
pub(super) unsafe fn pieces(list: &RowList) -> impl Iterator<Item = Piece> {
    let mut chunk = list.first;
    std::iter::from_fn(move || {
        if chunk.is_null() {
            return None;
        }
        // SAFETY: a chunk of a well-formed list; its end is up to date unless it is the last one.
        unsafe {
            let end = if chunk == list.last { list.cur } else { (*chunk).end };
            let rows = chunk.byte_add(CHUNK_ROWS as usize).cast::<u8>();
            chunk = (*chunk).next;
            Some(Piece { rows, bytes: end.offset_from_unsigned(rows) })
        }
    })
}

/// The lists that lie `stride` bytes apart.
///
/// # Safety
/// There are `n` well-formed lists, which do not change meanwhile.
pub(super) unsafe fn lists<'a>(first: *mut u8, n: i64, stride: i64) -> impl Iterator<Item = &'a RowList> {
    // SAFETY: the caller's promise.
    (0..n).map(move |i| unsafe { &*first.offset((i * stride) as isize).cast::<RowList>() })
}

/// Body of `qn_rows_grow`.
///
/// # Safety
/// `list` is a well-formed [`RowList`] of rows of `width` bytes that nobody else uses.
pub(super) unsafe fn qn_rows_grow(run: &Run, list: *mut u8, width: i64, operator: i64) -> Result<(), RunError> {
    let row = size(width)?.max(1);
    // SAFETY: the caller's promise.
    let list = unsafe { &mut *list.cast::<RowList>() };
    let bytes = chunk_bytes(list, row);
    let chunk = run.allocate_room(CHUNK_ROWS as usize + bytes, operator)?.cast::<RowChunk>();
    // SAFETY: the new chunk is that long; the last one belongs to the list.
    unsafe {
        chunk.write(RowChunk { next: std::ptr::null_mut(), end: std::ptr::null_mut() });
        if list.last.is_null() {
            run.ledger.watch(list, operator);
            list.first = chunk;
        } else {
            (*list.last).end = list.cur;
            (*list.last).next = chunk;
        }
        list.last = chunk;
        list.cur = chunk.byte_add(CHUNK_ROWS as usize).cast();
        list.end = list.cur.add(bytes);
        list.width = width;
    }
    Ok(())
}

/// Size of the next chunk's rows: twice the last one, in whole rows.
fn chunk_bytes(list: &RowList, row: usize) -> usize {
    let last = if list.last.is_null() { 0 } else { list.end.addr() - list.last.addr() - CHUNK_ROWS as usize };
    (last * 2).clamp(FIRST_CHUNK, MAX_CHUNK).max(row) / row * row
}

fn rows_of(list: &RowList, bytes: usize) -> usize {
    bytes / (list.width.max(1) as usize)
}

/// Body of `qn_rows_count`.
///
/// # Safety
/// `first` is the first of `n` well-formed lists.
pub(super) unsafe fn qn_rows_count(_run: &Run, first: *mut u8, n: i64, stride: i64) -> Result<i64, RunError> {
    // SAFETY: the caller's promise.
    let counts = unsafe { lists(first, n, stride) }.map(|list| {
        // SAFETY: as above.
        let bytes = unsafe { pieces(list) }.map(|piece| piece.bytes).sum();
        rows_of(list, bytes)
    });
    Ok(counts.sum::<usize>() as i64)
}

/// Body of `qn_rows_spans`.
///
/// # Safety
/// `first` is the first of `n` well-formed lists; `out` can be written.
pub(super) unsafe fn qn_rows_spans(
    run: &Run,
    first: *mut u8,
    n: i64,
    stride: i64,
    max_rows: i64,
    operator: i64,
    out: *mut u8,
) -> Result<i64, RunError> {
    let max_rows = size(max_rows.max(1))?;
    // SAFETY: the caller's promise.
    let lists = unsafe { lists(first, n, stride) };
    // SAFETY: as above.
    let spans = lists.flat_map(|list| unsafe { pieces(list) }.flat_map(move |piece| cut(list, piece, max_rows)));
    let spans: Vec<RowSpan> = spans.collect();
    let array = run.allocate_room(size_of_val(&spans[..]), operator)?.cast::<RowSpan>();
    // SAFETY: the new array has room for all spans; `out` is the caller's promise.
    unsafe {
        array.copy_from_nonoverlapping(spans.as_ptr(), spans.len());
        out.cast::<*mut RowSpan>().write(array);
    }
    Ok(spans.len() as i64)
}

/// Cuts a piece of a list into spans of at most `max` rows.
pub(super) fn cut(list: &RowList, piece: Piece, max: usize) -> impl Iterator<Item = RowSpan> {
    let (rows, width) = (rows_of(list, piece.bytes), list.width as usize);
    (0..rows).step_by(max).map(move |at| RowSpan { rows: piece.at(at * width), count: max.min(rows - at) as i64 })
}

/// Body of `qn_rows_concat`.
///
/// # Safety
/// `first` is the first of `n` well-formed lists of rows of `width` bytes; `out` can be written.
pub(super) unsafe fn qn_rows_concat(
    run: &Run,
    first: *mut u8,
    n: i64,
    stride: i64,
    width: i64,
    operator: i64,
    out: *mut u8,
) -> Result<i64, RunError> {
    // SAFETY: the caller's promise.
    let sources: Vec<Piece> = unsafe { lists(first, n, stride).flat_map(|list| pieces(list)) }.collect();
    let bytes: usize = sources.iter().map(|piece| piece.bytes).sum();
    let rows = run.allocate_uninit(bytes, operator)?;
    let mut end = 0;
    let place = |source: &Piece| {
        let at = rows.wrapping_add(end);
        end += source.bytes;
        (*source, Piece { rows: at, bytes: source.bytes })
    };
    let copies: Vec<(Piece, Piece)> = sources.iter().map(place).collect();
    // SAFETY: the targets lie side by side in the new block, the sources outside of it.
    let copy = |(from, to): &(Piece, Piece)| unsafe { to.rows.copy_from_nonoverlapping(from.rows, from.bytes) };
    match run.threads_for(bytes / 64) {
        Some(pool) => pool.install(|| copies.par_iter().for_each(copy)),
        None => copies.iter().for_each(copy),
    }
    // SAFETY: the caller's promise.
    unsafe { out.cast::<*mut u8>().write(rows) };
    Ok((bytes / size(width)?.max(1)) as i64)
}

#[cfg(test)]
mod tests {
    use super::super::run::{RunConfig, thread_pool};
    use super::super::symbols::{qn_rows_concat, qn_rows_count, qn_rows_grow, qn_rows_spans};
    use super::*;
    use crate::abi::ROWS_BYTES;
    use std::ptr::null_mut;

    fn empty() -> RowList {
        RowList { cur: null_mut(), end: null_mut(), first: null_mut(), last: null_mut(), width: 0 }
    }

    /// Appends as generated code does: `u64` numbers at the start of rows of `width` bytes.
    fn append(run: &Run, list: &mut RowList, width: i64, numbers: std::ops::Range<u64>) {
        for number in numbers {
            // SAFETY: a well-formed list with room for a row after growing.
            unsafe {
                if list.cur == list.end {
                    assert_eq!(qn_rows_grow(run, (&raw mut *list).cast(), width, 0), 0);
                }
                list.cur.cast::<u64>().write_unaligned(number);
                list.cur = list.cur.add(width as usize);
            }
        }
    }

    fn filled(run: &Run, width: i64) -> Vec<RowList> {
        let mut lists: Vec<RowList> = (0..4).map(|_| empty()).collect();
        append(run, &mut lists[0], width, 0..10);
        append(run, &mut lists[2], width, 10..20_000);
        append(run, &mut lists[3], width, 20_000..90_001);
        lists
    }

    fn span_rows(run: &Run, lists: &mut [RowList], max: i64) -> Vec<(i64, u64)> {
        let mut out: *mut RowSpan = null_mut();
        let (first, n) = (lists.as_mut_ptr().cast(), lists.len() as i64);
        // SAFETY: well-formed lists.
        unsafe {
            let count = qn_rows_spans(run, first, n, ROWS_BYTES, max, 0, (&raw mut out).cast());
            let spans = std::slice::from_raw_parts(out, count as usize);
            spans.iter().map(|span| (span.count, span.rows.cast::<u64>().read_unaligned())).collect()
        }
    }

    #[test]
    fn lists_grow_without_moving_rows() {
        let run = Run::new(RunConfig::default());
        let mut lists = filled(&run, 24);
        // SAFETY: well-formed lists.
        unsafe {
            assert_eq!(qn_rows_count(&run, lists.as_mut_ptr().cast(), 4, ROWS_BYTES), 90_001);
            let sizes: Vec<usize> = pieces(&lists[3]).map(|piece| piece.bytes).collect();
            assert_eq!(&sizes[..3], &[4080, 8160, 16320]);
            assert!(sizes.iter().all(|bytes| *bytes <= MAX_CHUNK && bytes % 24 == 0));
        }
    }

    #[test]
    fn a_row_may_be_larger_than_a_chunk() {
        let run = Run::new(RunConfig::default());
        let mut list = empty();
        append(&run, &mut list, 300_000, 0..3);
        // SAFETY: a well-formed list.
        assert_eq!(unsafe { qn_rows_count(&run, (&raw mut list).cast(), 1, 0) }, 3);
    }

    #[test]
    fn spans_cover_all_rows_in_order() {
        let run = Run::new(RunConfig::default());
        let mut lists = filled(&run, 16);
        for max in [1, 100, 1 << 40] {
            let mut next = 0;
            for (count, first) in span_rows(&run, &mut lists, max) {
                assert!(count > 0 && count <= max);
                assert_eq!(first, next);
                next += count as u64;
            }
            assert_eq!(next, 90_001);
        }
    }

    #[test]
    fn rows_are_concatenated() {
        let pool = Some(thread_pool(2).unwrap());
        for config in [RunConfig::default(), RunConfig { workers: 2, pool, ..RunConfig::default() }] {
            let run = Run::new(config);
            let mut lists = filled(&run, 40);
            let mut out: *mut u8 = null_mut();
            // SAFETY: well-formed lists; the rows are in the new block.
            unsafe {
                let first = lists.as_mut_ptr().cast();
                let count = qn_rows_concat(&run, first, 4, ROWS_BYTES, 40, 0, (&raw mut out).cast());
                assert_eq!(count, 90_001);
                assert!((0..90_001).all(|i| out.add(i * 40).cast::<u64>().read() == i as u64));
            }
        }
    }

    #[test]
    fn empty_lists_are_fine() {
        let run = Run::new(RunConfig::default());
        let mut lists = [empty(), empty()];
        let mut out: *mut u8 = null_mut();
        let first = lists.as_mut_ptr().cast();
        // SAFETY: well-formed lists.
        unsafe {
            assert_eq!(qn_rows_count(&run, first, 2, ROWS_BYTES), 0);
            assert_eq!(qn_rows_count(&run, first, 0, ROWS_BYTES), 0);
            assert_eq!(qn_rows_concat(&run, first, 2, ROWS_BYTES, 8, 0, (&raw mut out).cast()), 0);
        }
        assert!(span_rows(&run, &mut lists, 10).is_empty());
    }

    #[test]
    fn growth_keeps_the_budget() {
        let operators = vec!["scan t".to_string()].into();
        let run = Run::new(RunConfig { budget: 5000, operators, ..RunConfig::default() });
        let mut list = empty();
        append(&run, &mut list, 8, 0..512);
        // SAFETY: a well-formed list.
        assert_eq!(unsafe { qn_rows_grow(&run, (&raw mut list).cast(), 8, 0) }, -1);
        let error = run.take_error().unwrap().to_string();
        assert!(error.contains("scan t") && error.contains("5000"), "{error}");
    }
}
