//! Sorting rows by normalised keys, and ranking strings so that they can be part of such keys.
//!
//! Rows are wide, so what is sorted are pairs of a key word and a row number: by the most significant word first, and
//! within each run of equal words by the next one. The rows are moved once, at the end.

use super::memory::{Scratch, size};
use super::rows::Piece;
use super::run::{Run, RunError};
use rayon::prelude::*;
use std::cmp::Ordering;

/// Below this many pairs a comparison sort is faster than counting digits.
const RADIX_FROM: usize = 256;
/// Keys that differ in at most this many digits are sorted by the last digit first, others split by the first one.
const FEW_DIGITS: usize = 3;

/// A word of a row's key, and the row.
#[derive(Clone, Copy, Default)]
struct Pair {
    key: u64,
    row: u64,
}

/// Rows with their key words in front.
#[derive(Clone, Copy)]
struct Keys {
    rows: Piece,
    width: usize,
    words: usize,
}

impl Keys {
    fn word(&self, row: u64, word: usize) -> u64 {
        debug_assert!(word < self.words);
        // SAFETY: whoever made the keys promised rows of that width, with that many words in each.
        unsafe { self.row(row).add(word * 8).cast::<u64>().read_unaligned() }
    }

    fn row(&self, row: u64) -> *mut u8 {
        self.rows.at(row as usize * self.width)
    }

    /// The order of two rows whose words before `word` are equal.
    fn compare(&self, word: usize, a: u64, b: u64) -> Ordering {
        let differing = (word..self.words).map(|w| self.word(a, w).cmp(&self.word(b, w)));
        differing.into_iter().find(|order| order.is_ne()).unwrap_or_else(|| a.cmp(&b))
    }
}

/// Body of `qn_sort`.
///
/// # Safety
/// There are `n` rows of `width` bytes, each with `words` words, that nobody else uses.
pub(super) unsafe fn qn_sort(
    run: &Run,
    rows: *mut u8,
    n: i64,
    width: i64,
    words: i64,
    limit: i64,
) -> Result<(), RunError> {
    let (n, width, words) = (size(n)?, size(width)?, size(words)?);
    if words * 8 > width {
        return Err(RunError::Internal(format!("{words} key words in rows of {width} bytes")));
    }
    let wanted = usize::try_from(limit).map_or(n, |limit| limit.min(n));
    if wanted == 0 || n < 2 || words == 0 {
        return Ok(());
    }
    let keys = Keys { rows: Piece { rows, bytes: n * width }, width, words };
    if wanted < n / 8 {
        let first = first_rows(&keys, n, wanted);
        return move_rows(run, &keys, &first);
    }
    // SAFETY: a pair is two integers.
    let new_pairs = || unsafe { Scratch::<Pair>::zeroed(run, n, "a sort") };
    let (mut pairs, mut spare) = (new_pairs()?, new_pairs()?);
    for (row, pair) in (0..).zip(&mut *pairs) {
        *pair = Pair { key: keys.word(row, 0), row };
    }
    let (sorted, room) = (&mut *pairs, &mut *spare);
    match run.threads_for(n) {
        Some(pool) => pool.install(|| sort_split(&keys, 0, sorted, room, true)),
        None => sort_from(&keys, 0, sorted, room),
    }
    drop(spare);
    move_rows(run, &keys, &pairs[..wanted])
}

/// The first `wanted` rows in order, found in one pass that keeps few candidates.
fn first_rows(keys: &Keys, n: usize, wanted: usize) -> Vec<Pair> {
    let order = |a: &Pair, b: &Pair| a.key.cmp(&b.key).then_with(|| keys.compare(1.min(keys.words), a.row, b.row));
    let room = (4 * wanted).max(1024);
    let mut candidates: Vec<Pair> = Vec::with_capacity(room);
    let mut bound = u64::MAX;
    for row in 0..n as u64 {
        let key = keys.word(row, 0);
        if key > bound {
            continue;
        }
        candidates.push(Pair { key, row });
        if candidates.len() == room {
            let (_, last, _) = candidates.select_nth_unstable_by(wanted - 1, order);
            bound = last.key;
            candidates.truncate(wanted);
        }
    }
    candidates.sort_unstable_by(order);
    candidates.truncate(wanted);
    candidates
}

/// Moves the pairs to `spare`, ordered by the highest bits in which their keys differ; gives the buckets, each with
/// the part of `pairs` at the same place.
fn split<'a>(pairs: &'a mut [Pair], spare: &'a mut [Pair]) -> Vec<(&'a mut [Pair], &'a mut [Pair])> {
    let shift = (64 - differing_bits(pairs).leading_zeros()).saturating_sub(8);
    let counts = scatter(pairs, spare, shift);
    let (mut pairs, mut spare) = (pairs, spare);
    let mut buckets = vec![];
    for count in counts {
        let (sorted, rest) = spare.split_at_mut(count);
        let (room, others) = pairs.split_at_mut(count);
        (spare, pairs) = (rest, others);
        buckets.push((sorted, room));
    }
    buckets
}

/// Bits in which some keys differ.
fn differing_bits(pairs: &[Pair]) -> u64 {
    let first = pairs.first().map_or(0, |pair| pair.key);
    pairs.iter().fold(0, |bits, pair| bits | (pair.key ^ first))
}

/// Copies the pairs to `to`, ordered by one digit of their keys and otherwise as they were; gives the digits' counts.
fn scatter(from: &[Pair], to: &mut [Pair], shift: u32) -> [usize; 256] {
    let digit = |pair: &Pair| (pair.key >> shift) as usize & 255;
    let mut counts = [0; 256];
    from.iter().for_each(|pair| counts[digit(pair)] += 1);
    let mut ends = [0; 256];
    let mut end = 0;
    for (start, count) in ends.iter_mut().zip(&counts) {
        *start = end;
        end += count;
    }
    for pair in from {
        let at = &mut ends[digit(pair)];
        to[*at] = *pair;
        *at += 1;
    }
    counts
}

/// Sorts pairs that hold word `word` and agree on the words before it.
fn sort_from(keys: &Keys, word: usize, pairs: &mut [Pair], spare: &mut [Pair]) {
    if pairs.len() < RADIX_FROM {
        let order = |a: &Pair, b: &Pair| a.key.cmp(&b.key).then_with(|| keys.compare(word + 1, a.row, b.row));
        return pairs.sort_unstable_by(order);
    }
    let differing = differing_bits(pairs);
    if digits(differing).count() > FEW_DIGITS {
        return sort_split(keys, word, pairs, spare, false);
    }
    sort_by_digits(differing, pairs, spare);
    if word + 1 < keys.words {
        sort_runs(keys, word + 1, pairs, spare);
    }
}

/// Like [`sort_from`], bucket by bucket; `parallel` in a pool.
fn sort_split(keys: &Keys, word: usize, pairs: &mut [Pair], spare: &mut [Pair], parallel: bool) {
    let sort = |(sorted, room): &mut (&mut [Pair], &mut [Pair])| {
        sort_from(keys, word, sorted, room);
        room.copy_from_slice(sorted);
    };
    let mut buckets = split(pairs, spare);
    if parallel { buckets.par_iter_mut().for_each(sort) } else { buckets.iter_mut().for_each(sort) }
}

/// Sorts runs of equal keys by their word `word`.
fn sort_runs(keys: &Keys, word: usize, pairs: &mut [Pair], spare: &mut [Pair]) {
    for run in pairs.chunk_by_mut(|a, b| a.key == b.key) {
        if run.len() > 1 {
            run.iter_mut().for_each(|pair| pair.key = keys.word(pair.row, word));
            let spare = &mut spare[..run.len()];
            sort_from(keys, word, run, spare);
        }
    }
}

/// Positions of the digits in which keys differ, the least significant first.
fn digits(differing: u64) -> impl Iterator<Item = u32> {
    (0..64).step_by(8).filter(move |shift| differing >> shift & 255 != 0)
}

/// Sorts by the whole keys, the least significant digit first, without the digits that are the same everywhere.
fn sort_by_digits(differing: u64, pairs: &mut [Pair], spare: &mut [Pair]) {
    let mut in_spare = false;
    for shift in digits(differing) {
        if in_spare {
            scatter(spare, pairs, shift)
        } else {
            scatter(pairs, spare, shift)
        };
        in_spare = !in_spare;
    }
    if in_spare {
        pairs.copy_from_slice(spare);
    }
}

/// Puts the rows of the pairs, in their order, at the start.
fn move_rows(run: &Run, keys: &Keys, order: &[Pair]) -> Result<(), RunError> {
    /// Rows that a thread moves at a time.
    const BLOCK: usize = 4096;
    let bytes = order.len() * keys.width;
    // SAFETY: bytes.
    let mut room = unsafe { Scratch::<u8>::zeroed(run, bytes, "a sort") }?;
    let sorted = Piece { rows: room.as_mut_ptr(), bytes };
    let gather = |(block, pairs): (usize, &[Pair])| {
        let to = sorted.at(block * BLOCK * keys.width);
        for (i, pair) in pairs.iter().enumerate() {
            // SAFETY: row numbers are below n, and the target has room for all rows of the order.
            unsafe { to.add(i * keys.width).copy_from_nonoverlapping(keys.row(pair.row), keys.width) };
        }
    };
    let put_back = |(block, pairs): (usize, &[Pair])| {
        let at = block * BLOCK * keys.width;
        // SAFETY: the block was filled by `gather`, and there are at least as many rows in place.
        unsafe { keys.rows.at(at).copy_from_nonoverlapping(sorted.at(at), pairs.len() * keys.width) };
    };
    match run.threads_for(order.len()) {
        Some(pool) => pool.install(|| {
            order.par_chunks(BLOCK).enumerate().for_each(gather);
            order.par_chunks(BLOCK).enumerate().for_each(put_back);
        }),
        None => {
            order.chunks(BLOCK).enumerate().for_each(gather);
            order.chunks(BLOCK).enumerate().for_each(put_back);
        }
    }
    Ok(())
}

/// A string of a row, with its first bytes as a number that orders the same way.
#[derive(Clone, Copy)]
struct Text<'a> {
    prefix: u64,
    text: &'a [u8],
    row: usize,
}

impl<'a> Text<'a> {
    fn new(text: &'a [u8], row: usize) -> Text<'a> {
        let mut prefix = [0; 8];
        let n = text.len().min(8);
        prefix[..n].copy_from_slice(&text[..n]);
        Text { prefix: u64::from_be_bytes(prefix), text, row }
    }

    fn order(&self, other: &Text<'_>) -> Ordering {
        self.prefix.cmp(&other.prefix).then_with(|| self.text.cmp(other.text))
    }
}

/// Body of `qn_rank_strings`.
///
/// # Safety
/// There are `n` rows of `width` bytes that nobody else uses, each with a string at `str_offset` and room for a word
/// at `word_offset`.
pub(super) unsafe fn qn_rank_strings(
    run: &Run,
    rows: *mut u8,
    n: i64,
    width: i64,
    str_offset: i64,
    word_offset: i64,
) -> Result<(), RunError> {
    let (n, width) = (size(n)?, size(width)?);
    let (str_offset, word_offset) = (size(str_offset)?, size(word_offset)?);
    let _held = run.reserve(n * size_of::<Text<'_>>(), "a sort of strings")?;
    // SAFETY: the caller's promise about the rows.
    let put = |row: usize, rank: u64| unsafe {
        rows.add(row * width + word_offset).cast::<u64>().write_unaligned(rank);
    };
    let mut texts = Vec::with_capacity(n);
    for row in 0..n {
        // SAFETY: the caller's promise about the rows, and about the string that a row holds.
        match unsafe { text_at(rows.add(row * width + str_offset)) } {
            Some(text) => texts.push(Text::new(text, row)),
            None => put(row, 0),
        }
    }
    match run.threads_for(texts.len()) {
        Some(pool) => pool.install(|| texts.par_sort_unstable_by(Text::order)),
        None => texts.sort_unstable_by(Text::order),
    }
    let ranked = texts.chunk_by(|a, b| a.order(b).is_eq()).zip(1..);
    ranked.for_each(|(equal, rank)| equal.iter().for_each(|text| put(text.row, rank)));
    Ok(())
}

/// The string that a row holds.
///
/// # Safety
/// `at` holds an address and a length, of a string that lives as long as the result is used.
unsafe fn text_at<'a>(at: *const u8) -> Option<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe {
        let text = at.cast::<*const u8>().read_unaligned();
        let len = at.add(8).cast::<i32>().read_unaligned();
        (!text.is_null()).then(|| std::slice::from_raw_parts(text, len.max(0) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::{RunConfig, thread_pool};
    use super::super::symbols::{qn_rank_strings, qn_sort};
    use super::*;

    fn runs() -> [Run; 2] {
        let pool = Some(thread_pool(2).unwrap());
        [Run::new(RunConfig::default()), Run::new(RunConfig { workers: 2, pool, ..RunConfig::default() })]
    }

    /// A small generator of numbers: enough to shuffle keys.
    fn random(seed: &mut u64) -> u64 {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        *seed
    }

    /// Rows of `W` words: random keys below `range`, and the row's number as the last word.
    fn rows<const W: usize>(n: usize, ranges: [u64; W]) -> Vec<[u64; W]> {
        let mut seed = 88_172_645_463_325_252 + n as u64;
        let mut rows: Vec<[u64; W]> = (0..n).map(|_| ranges.map(|range| random(&mut seed) % range)).collect();
        rows.iter_mut().enumerate().for_each(|(i, row)| row[W - 1] = i as u64);
        rows
    }

    fn check<const W: usize>(n: usize, words: usize, limit: i64, ranges: [u64; W]) {
        for run in runs() {
            let mut rows = rows(n, ranges);
            let mut expected = rows.clone();
            expected.sort_by_key(|row| row[..words].to_vec());
            // SAFETY: rows of W words.
            let status =
                unsafe { qn_sort(&run, rows.as_mut_ptr().cast(), n as i64, W as i64 * 8, words as i64, limit) };
            assert_eq!(status, 0);
            let wanted = usize::try_from(limit).map_or(n, |limit| limit.min(n));
            assert!(rows[..wanted] == expected[..wanted], "n {n} words {words} limit {limit} {ranges:?}");
            assert_eq!(run.memory_use().used, 0);
        }
    }

    #[test]
    fn rows_are_sorted_and_stable() {
        const ALL: u64 = u64::MAX;
        for n in [0, 1, 2, 100, 511, 513, 5000, 100_000] {
            check(n, 1, -1, [ALL, ALL]);
            check(n, 1, -1, [7, ALL]);
            check(n, 1, -1, [1, ALL]);
            check(n, 2, -1, [3, 1 << 40, ALL, ALL]);
            check(n, 3, -1, [5, 2, 100, ALL]);
            check(n, 4, -1, [1, 1, 1, ALL]);
        }
    }

    #[test]
    fn the_first_rows_are_enough() {
        for n in [1, 9, 1000, 50_000] {
            for limit in [0, 1, 10, 100, 2000, 100_000] {
                check(n, 1, limit, [u64::MAX, 1 << 30]);
                check(n, 2, limit, [4, 3, 1 << 30]);
                check(n, 2, limit, [1, 1, 1 << 30]);
            }
        }
    }

    #[test]
    fn a_sort_keeps_the_budget() {
        let run = Run::new(RunConfig { budget: 1000, ..RunConfig::default() });
        let mut rows = rows(100, [10, 10]);
        // SAFETY: rows of two words.
        assert_eq!(unsafe { qn_sort(&run, rows.as_mut_ptr().cast(), 100, 16, 1, -1) }, -1);
        assert!(matches!(run.take_error(), Some(RunError::OutOfMemory { .. })));
        // SAFETY: as above; the words do not fit the rows.
        assert_eq!(unsafe { qn_sort(&run, rows.as_mut_ptr().cast(), 100, 16, 3, -1) }, -1);
        assert!(matches!(run.take_error(), Some(RunError::Internal(_))));
    }

    #[repr(C)]
    struct Named {
        rank: u64,
        text: *const u8,
        len: i32,
    }

    fn check_ranks(texts: &[Option<Vec<u8>>]) {
        let mut distinct: Vec<&Vec<u8>> = texts.iter().flatten().collect();
        distinct.sort();
        distinct.dedup();
        for run in runs() {
            let named = |text: &Option<Vec<u8>>| match text {
                Some(text) => Named { rank: 77, text: text.as_ptr(), len: text.len() as i32 },
                None => Named { rank: 77, text: std::ptr::null(), len: 0 },
            };
            let mut rows: Vec<Named> = texts.iter().map(named).collect();
            let (n, width) = (rows.len() as i64, size_of::<Named>() as i64);
            // SAFETY: the offsets are those of `Named`.
            assert_eq!(unsafe { qn_rank_strings(&run, rows.as_mut_ptr().cast(), n, width, 8, 0) }, 0);
            for (row, text) in rows.iter().zip(texts) {
                let rank = text.as_ref().map_or(0, |text| distinct.binary_search(&text).unwrap() as u64 + 1);
                assert_eq!(row.rank, rank);
            }
        }
    }

    #[test]
    fn strings_are_ranked_in_byte_order() {
        check_ranks(&[]);
        check_ranks(&[None, None]);
        let words = ["", "a", "a\0", "ab", "abcdefgh", "abcdefgh\0", "abcdefghi", "\u{fe}z", "zz", "a"];
        let texts: Vec<_> = words.iter().map(|word| Some(word.as_bytes().to_vec())).chain([None]).collect();
        check_ranks(&texts);
        let mut seed = 99;
        let word = |_| {
            let number = random(&mut seed);
            (!number.is_multiple_of(10)).then(|| format!("{:x}", number % 5000 * 1_000_003).into_bytes())
        };
        check_ranks(&(0..60_000).map(word).collect::<Vec<_>>());
    }
}
