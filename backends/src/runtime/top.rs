//! The first rows of an order, while rows are still being produced: a list that holds many more than are wanted is cut down to
//! the best so far, and a bound tells the producer which rows need not be written at all (a bounded heap in batches; Graefe,
//! "Implementing sorting in database systems", ACM Computing Surveys 2006, section 6.2).

use super::memory::size;
use super::rows::{pieces, qn_rows_grow};
use super::run::{Run, RunError};
use crate::abi::RowList;
use std::cmp::Ordering;

/// Rows below which a list is not worth cutting down.
const FEW: usize = 256;

/// Body of `qn_rows_top`.
///
/// # Safety
/// `list` is a well-formed [`RowList`] of rows of `width` bytes that nobody else uses, each with `words` key words in front;
/// `bound` is a word.
pub(super) unsafe fn qn_rows_top(
    run: &Run,
    list: *mut u8,
    width: i64,
    words: i64,
    wanted: i64,
    bound: *mut u8,
    operator: i64,
) -> Result<(), RunError> {
    let (row, words, wanted) = (size(width)?, size(words)?, size(wanted)?.max(1));
    if words == 0 || words * 8 > row {
        return Err(RunError::Internal(format!("{words} key words in rows of {row} bytes")));
    }
    // SAFETY: the caller's promise.
    unsafe {
        let rows = &mut *list.cast::<RowList>();
        if let Some(last) = cut(run, rows, row, words, wanted)? {
            bound.cast::<u64>().write(!last);
        }
        if rows.cur == rows.end { qn_rows_grow(run, list, width, operator) } else { Ok(()) }
    }
}

/// Cuts a list down; the first key word of the last row that is left, if there were enough rows to do so.
///
/// # Safety
/// As for [`qn_rows_top`].
unsafe fn cut(
    run: &Run,
    list: &mut RowList,
    width: usize,
    words: usize,
    wanted: usize,
) -> Result<Option<u64>, RunError> {
    // SAFETY: the caller's promise.
    let rows = unsafe { pieces(list) }.flat_map(|piece| (0..piece.bytes / width).map(move |i| piece.at(i * width)));
    let rows: Vec<*mut u8> = rows.collect();
    if rows.len() < 2 * wanted || rows.len() < FEW {
        return Ok(None);
    }
    // SAFETY: every row has that many words.
    let word = |row: usize, word: usize| unsafe { rows[row].add(8 * word).cast::<u64>().read() };
    let order = |a: &usize, b: &usize| {
        let differing = (0..words).map(|w| word(*a, w).cmp(&word(*b, w))).find(|order| order.is_ne());
        differing.unwrap_or(Ordering::Equal).then(a.cmp(b))
    };
    let mut numbers: Vec<usize> = (0..rows.len()).collect();
    let (_, &mut last, _) = numbers.select_nth_unstable_by(wanted - 1, order);
    let bound = word(last, 0);
    numbers.truncate(wanted);
    numbers.sort_unstable();
    // Rows move to the front, none behind one that has yet to move.
    for (to, &from) in numbers.iter().enumerate() {
        // SAFETY: two rows of the list, the same or not overlapping.
        unsafe { rows[to].copy_from(rows[from], width) };
    }
    // SAFETY: the caller's promise; the rows left fit the chunks that stay.
    unsafe { truncate(run, list, rows[wanted - 1].add(width))? };
    Ok(Some(bound))
}

/// Ends a list at an address inside it and frees the chunks behind.
///
/// # Safety
/// The list is well-formed, and a row ends at the address.
unsafe fn truncate(run: &Run, list: &mut RowList, end: *mut u8) -> Result<(), RunError> {
    let mut chunk = list.first;
    // SAFETY: chunks of a well-formed list; all but the last one are full, so that their ends are those of their memory.
    unsafe {
        loop {
            let limit = if chunk == list.last { list.end } else { (*chunk).end };
            if (chunk.cast::<u8>()..=limit).contains(&end) {
                let mut behind = if chunk == list.last { std::ptr::null_mut() } else { (*chunk).next };
                (list.last, list.cur, list.end) = (chunk, end, limit);
                (*chunk).next = std::ptr::null_mut();
                while !behind.is_null() {
                    let next = (*behind).next;
                    run.free(behind.cast())?;
                    behind = next;
                }
                return Ok(());
            }
            chunk = (*chunk).next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::RunConfig;
    use super::super::symbols::qn_rows_top;
    use super::*;

    const WIDTH: usize = 32;

    #[test]
    fn the_best_rows_stay() {
        for wanted in [1usize, 10, 300, 5000] {
            let run = Run::new(RunConfig::default());
            // SAFETY: all zero is the empty list.
            let mut list: RowList = unsafe { std::mem::zeroed() };
            let (mut not_bound, mut skipped) = (0u64, 0);
            let all: Vec<(u64, u64)> = (0..50_000u64).map(|i| (i * 7919 % 104_729 / 3, i * 31 % 1000)).collect();
            for (i, &(first, second)) in all.iter().enumerate() {
                if first > !not_bound {
                    skipped += 1;
                    continue;
                }
                // SAFETY: a well-formed list with room for a row after growing.
                unsafe {
                    if list.cur == list.end {
                        let (list, bound) = ((&raw mut list).cast(), (&raw mut not_bound).cast());
                        assert_eq!(qn_rows_top(&run, list, WIDTH as i64, 2, wanted as i64, bound, 0), 0);
                    }
                    list.cur.cast::<[u64; 4]>().write([first, second, i as u64, 0]);
                    list.cur = list.cur.add(WIDTH);
                }
            }
            // SAFETY: a well-formed list.
            let rows = unsafe { pieces(&list) }.flat_map(|p| (0..p.bytes / WIDTH).map(move |i| p.at(i * WIDTH)));
            // SAFETY: rows of the test.
            let mut left: Vec<[u64; 3]> = rows.map(|row| unsafe { row.cast::<[u64; 3]>().read() }).collect();
            left.sort_unstable();
            let mut expected: Vec<[u64; 3]> = (0..).zip(&all).map(|(i, &(a, b))| [a, b, i]).collect();
            expected.sort_unstable();
            assert_eq!(left[..wanted], expected[..wanted], "{wanted}");
            assert!(wanted > 1000 || skipped > 40_000, "{skipped} of {} rows for {wanted}", all.len());
        }
    }
}
