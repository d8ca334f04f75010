//! The directory of a join's build side: passes over its rows that generated code has written to lists.
//!
//! The passes look at a row's key and move whole rows, whatever the rows hold: there is nothing in them that compiling
//! for a program would make faster by more than compiling takes.

use super::memory::size;
use super::rows::{cut, lists, pieces};
use super::run::{Run, RunError};
use crate::abi::{ENTRY_HASH, Entry, HEAD_ADDRESS, HEAD_TAGS, JoinDirectory, JoinForm, RankWord, RowSpan};
use rayon::prelude::*;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Rows of a span that one thread works on, in bytes.
const SPAN: usize = 1 << 16;

/// Body of `qn_join_directory`.
///
/// # Safety
/// `directory` is a [`JoinDirectory`] whose inputs are filled in: well-formed lists of rows with a key at the place it
/// names, inside the range it names, and for forms by rank a bitmap in which all keys are marked.
pub(super) unsafe fn qn_join_directory(run: &Run, directory: *mut u8, operator: i64) -> Result<(), RunError> {
    // SAFETY: the caller's promise.
    let directory = unsafe { &mut *directory.cast::<JoinDirectory>() };
    let width = size(directory.width)?.max(1);
    let pass = |list| {
        // SAFETY: the caller's promise.
        unsafe { pieces(list) }.flat_map(move |piece| cut(list, piece, SPAN / width + 1))
    };
    // SAFETY: as above.
    let spans = unsafe { lists(directory.lists, directory.workers, directory.stride) }.flat_map(pass);
    let spans: Vec<Span> = spans.map(Span).collect();
    let rows = spans.iter().map(|s| s.0.count as usize).sum();
    let build = Build { run, spans: &spans, rows, width, operator, in_order: directory.in_order != 0 };
    let form = JoinForm::of(directory.form).ok_or_else(|| RunError::Internal("an unknown form of directory".into()))?;
    if form == JoinForm::Hashed {
        return build.hashed(directory);
    }
    // SAFETY: every row has its key there.
    unsafe {
        let at = size(directory.key)?;
        match directory.key_bytes {
            4 => build.keyed(directory, form, |row| i64::from(row.add(at).cast::<i32>().read())),
            8 => build.keyed(directory, form, |row| row.add(at).cast::<i64>().read()),
            _ => build.keyed(directory, form, |row| row.add(at).cast::<i128>().read() as i64),
        }
    }
}

/// Rows that lie side by side.
struct Span(RowSpan);

// SAFETY: an address and a number; whoever follows the address says why that is sound.
unsafe impl Sync for Span {}

struct Build<'a> {
    run: &'a Run,
    spans: &'a [Span],
    rows: usize,
    width: usize,
    operator: i64,
    in_order: bool,
}

/// An address that threads may share.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: as for `Span`.
unsafe impl<T> Sync for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    fn at(self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}

impl Build<'_> {
    /// Calls `f` for every row, on all threads unless `serial`.
    fn each(&self, serial: bool, f: impl Fn(*mut u8) + Sync) {
        let span = |s: &Span| {
            for i in 0..s.0.count as usize {
                f(s.0.rows.wrapping_add(i * self.width));
            }
        };
        match self.run.threads_for(self.rows).filter(|_| !serial) {
            Some(pool) => pool.install(|| self.spans.par_iter().for_each(span)),
            None => self.spans.iter().for_each(span),
        }
    }

    fn zeros<T>(&self, n: usize) -> Result<Shared<T>, RunError> {
        Ok(Shared(self.run.allocate(n * size_of::<T>(), self.operator)?.cast()))
    }

    /// Puts every row at the head of the chain at its position.
    fn link(&self, heads: Shared<*mut Entry>, position: impl Fn(*mut u8) -> usize + Sync) {
        self.each(self.in_order, |row| {
            // SAFETY: the position is inside the array; a row starts with an entry's header, and only this thread has it.
            unsafe {
                let head = AtomicPtr::from_ptr(heads.at(position(row)));
                (*row.cast::<Entry>()).next = head.swap(row.cast(), Ordering::Relaxed);
            }
        });
    }

    /// At least twice as many heads as rows. The high bits of a head are a Bloom filter of its chain's hashes.
    fn hashed(&self, out: &mut JoinDirectory) -> Result<(), RunError> {
        let heads = (self.rows * 2).next_power_of_two().max(16);
        let (array, mask): (Shared<u64>, _) = (self.zeros(heads)?, heads - 1);
        self.each(self.in_order, |row| {
            // SAFETY: a row starts with an entry's header, and only this thread has it; the head is inside the array.
            unsafe {
                let entry = row.cast::<Entry>();
                let hash = (*entry).hash;
                let head = AtomicU64::from_ptr(array.at(hash as usize & mask));
                let tag = 1 << (HEAD_TAGS as u64 + (hash >> 60));
                let mut old = head.load(Ordering::Relaxed);
                loop {
                    (*entry).next = std::ptr::with_exposed_provenance_mut((old & HEAD_ADDRESS as u64) as usize);
                    let new = entry.expose_provenance() as u64 | old & !(HEAD_ADDRESS as u64) | tag;
                    match head.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                        Ok(_) => break,
                        Err(now) => old = now,
                    }
                }
            }
        });
        (out.heads, out.mask) = (array.0.cast(), mask as i64);
        Ok(())
    }

    fn keyed(
        &self,
        out: &mut JoinDirectory,
        form: JoinForm,
        key: impl Fn(*mut u8) -> i64 + Sync,
    ) -> Result<(), RunError> {
        let (min, values) = (out.min, size(out.values)?);
        let offset = |row| key(row).wrapping_sub(min) as usize;
        let ranks = Shared(out.ranks);
        // SAFETY: a key lies inside the range, and the bitmap covers that.
        let rank = |row| unsafe { rank(ranks, offset(row)) };
        match form {
            JoinForm::Hashed => unreachable!("hashed rows have no position"),
            JoinForm::Chains => {
                let heads = self.zeros(values)?;
                self.link(heads, offset);
                out.heads = heads.0.cast();
                Ok(())
            }
            JoinForm::Grouped => self.group(out, values, offset),
            JoinForm::GroupedByRank => {
                // SAFETY: the bitmap has a word for every 64 keys.
                let keys = unsafe { sum_up(self.run, ranks, values / 64 + 1) };
                self.group(out, keys, rank)
            }
            JoinForm::PlacedByRank => {
                // SAFETY: as above.
                let keys = unsafe { sum_up(self.run, ranks, values / 64 + 1) };
                let rows = self.room(keys.max(self.rows))?;
                // SAFETY: ranks are below the number of keys.
                self.each(false, |row| unsafe { self.copy(row, rows.at(rank(row) * self.width)) });
                out.rows = rows.0;
                Ok(())
            }
        }
    }

    /// Memory for rows, not cleared.
    fn room(&self, rows: usize) -> Result<Shared<u8>, RunError> {
        Ok(Shared(self.run.allocate_uninit(rows * self.width + 1, self.operator)?))
    }

    /// Brings the rows of each position together: counts them, sums the counts up, copies the rows. The count of position
    /// `k` stands at `k + 1`, so that sums are positions; a row remembers how many of its position came before it.
    fn group(
        &self,
        out: &mut JoinDirectory,
        positions: usize,
        position: impl Fn(*mut u8) -> usize + Sync,
    ) -> Result<(), RunError> {
        if u32::try_from(self.rows).is_err() {
            return Err(RunError::Internal(format!(
                "{} rows on the build side of a join, which 32 bits do not count",
                self.rows
            )));
        }
        let counts: Shared<u32> = self.zeros(positions + 1)?;
        self.each(self.in_order, |row| {
            // SAFETY: the position is inside the array; nobody else has the row.
            unsafe {
                let before = AtomicU32::from_ptr(counts.at(position(row) + 1)).fetch_add(1, Ordering::Relaxed);
                (*row.cast::<Entry>()).next = std::ptr::without_provenance_mut(before as usize);
            }
        });
        // SAFETY: the array has one more element than positions.
        let all = unsafe { std::slice::from_raw_parts_mut(counts.0, positions + 1) };
        let mut sum = 0;
        for count in all {
            sum += *count;
            *count = sum;
        }
        let rows = self.room(self.rows)?;
        self.each(false, |row| {
            // SAFETY: a row's place is below the number of rows.
            unsafe {
                let at = counts.at(position(row)).read() as usize + (*row.cast::<Entry>()).next.addr();
                self.copy(row, rows.at(at * self.width));
            }
        });
        (out.heads, out.rows) = (counts.0.cast(), rows.0);
        Ok(())
    }

    /// Copies a row, but for the link to the next one. Rows are multiples of 16 bytes wide.
    ///
    /// # Safety
    /// Both places hold a row.
    unsafe fn copy(&self, row: *mut u8, to: *mut u8) {
        for at in (ENTRY_HASH as usize..self.width).step_by(8) {
            // SAFETY: the caller's promise.
            unsafe { to.add(at).cast::<u64>().write(row.add(at).cast::<u64>().read()) };
        }
    }
}

/// Number of marked keys below an offset.
///
/// # Safety
/// The bitmap covers the offset.
unsafe fn rank(ranks: Shared<RankWord>, offset: usize) -> usize {
    // SAFETY: the caller's promise.
    let word = unsafe { ranks.at(offset / 64).read() };
    word.before as usize + (word.bits & ((1 << (offset % 64)) - 1)).count_ones() as usize
}

/// Words of a bitmap that one thread sums up at a time.
const WORDS: usize = 1 << 13;

/// Fills in how many keys come before each word; the number of all keys.
///
/// # Safety
/// The bitmap has that many words, and nobody else uses it.
unsafe fn sum_up(run: &Run, ranks: Shared<RankWord>, words: usize) -> usize {
    // SAFETY: the caller's promise.
    let words = unsafe { std::slice::from_raw_parts_mut(ranks.0, words) };
    let Some(pool) = run.threads_for(words.len()) else { return fill(words, 0) as usize };
    let mut before: Vec<u64> = pool.install(|| words.par_chunks(WORDS).map(count).collect());
    let mut sum = 0;
    for count in &mut before {
        sum += std::mem::replace(count, sum);
    }
    pool.install(|| {
        words.par_chunks_mut(WORDS).zip(before).for_each(|(part, before)| {
            fill(part, before);
        })
    });
    sum as usize
}

/// Number of marked keys.
fn count(words: &[RankWord]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("popcnt") {
        #[target_feature(enable = "popcnt")]
        fn with_popcnt(words: &[RankWord]) -> u64 {
            words.iter().map(|word| u64::from(word.bits.count_ones())).sum()
        }
        // SAFETY: the processor has the instruction.
        return unsafe { with_popcnt(words) };
    }
    words.iter().map(|word| u64::from(word.bits.count_ones())).sum()
}

/// Fills in how many keys come before each of some words, the first of which has `sum` before it; the sum after them.
fn fill(words: &mut [RankWord], sum: u64) -> u64 {
    fn plain(words: &mut [RankWord], mut sum: u64) -> u64 {
        for word in words {
            word.before = sum;
            sum += u64::from(word.bits.count_ones());
        }
        sum
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("popcnt") {
        #[target_feature(enable = "popcnt")]
        fn with_popcnt(words: &mut [RankWord], mut sum: u64) -> u64 {
            for word in words {
                word.before = sum;
                sum += u64::from(word.bits.count_ones());
            }
            sum
        }
        // SAFETY: the processor has the instruction.
        return unsafe { with_popcnt(words, sum) };
    }
    plain(words, sum)
}

#[cfg(test)]
mod tests {
    use super::super::run::{RunConfig, thread_pool};
    use super::super::symbols::{qn_join_directory, qn_rows_grow};
    use super::*;
    use crate::abi::{ROWS_BYTES, RowList};

    const WIDTH: usize = 48;

    /// Lists of rows with an `i32` key at 16 and the row's number at 24.
    fn lists_of(run: &Run, keys: &[i32]) -> Vec<RowList> {
        let empty = || RowList {
            cur: std::ptr::null_mut(),
            end: std::ptr::null_mut(),
            first: std::ptr::null_mut(),
            last: std::ptr::null_mut(),
            width: 0,
        };
        let mut lists = vec![empty(), empty()];
        for (i, key) in keys.iter().enumerate() {
            let list = &mut lists[i % 2];
            // SAFETY: a well-formed list with room for a row after growing.
            unsafe {
                if list.cur == list.end {
                    assert_eq!(qn_rows_grow(run, (&raw mut *list).cast(), WIDTH as i64, 0), 0);
                }
                list.cur.add(8).cast::<u64>().write((*key as u64).wrapping_mul(77));
                list.cur.add(16).cast::<i32>().write(*key);
                list.cur.add(24).cast::<u64>().write(i as u64);
                list.cur = list.cur.add(WIDTH);
            }
        }
        lists
    }

    fn directory(run: &Run, lists: &mut [RowList], form: JoinForm, min: i32, max: i32, keys: &[i32]) -> JoinDirectory {
        let values = (max - min) as usize + 1;
        let ranks = run.allocate((values / 64 + 1) * size_of::<RankWord>(), 0).unwrap().cast::<RankWord>();
        for key in keys {
            let at = (key - min) as usize;
            // SAFETY: inside the bitmap.
            unsafe { (*ranks.add(at / 64)).bits |= 1 << (at % 64) };
        }
        let mut directory = JoinDirectory {
            lists: lists.as_mut_ptr().cast(),
            workers: lists.len() as i64,
            stride: ROWS_BYTES,
            width: WIDTH as i64,
            form: form as i64,
            key: 16,
            key_bytes: 4,
            min: min.into(),
            values: values as i64,
            in_order: 0,
            ranks,
            heads: std::ptr::null_mut(),
            mask: 0,
            rows: std::ptr::null_mut(),
        };
        // SAFETY: the inputs are filled in.
        assert_eq!(unsafe { qn_join_directory(run, (&raw mut directory).cast(), 0) }, 0);
        directory
    }

    fn numbers(keys: &[i32], key: i32) -> Vec<u64> {
        (0..).zip(keys).filter(|(_, k)| **k == key).map(|(i, _)| i).collect()
    }

    fn chain(mut row: *mut Entry) -> Vec<u64> {
        let mut all = vec![];
        while !row.is_null() {
            // SAFETY: rows of the test.
            unsafe {
                all.push(row.byte_add(24).cast::<u64>().read());
                row = (*row).next;
            }
        }
        all.sort();
        all
    }

    fn keys(n: i32, step: i32) -> Vec<i32> {
        (0..n).map(|i| 5 + (i * 7919 % n) / 3 * step).collect()
    }

    fn runs() -> [Run; 2] {
        let pool = Some(thread_pool(2).unwrap());
        [Run::new(RunConfig::default()), Run::new(RunConfig { workers: 2, pool, ..RunConfig::default() })]
    }

    #[test]
    fn rows_are_found_by_every_form() {
        for run in runs() {
            for (n, step) in [(0, 1), (1, 1), (50_000, 1), (50_000, 90)] {
                let keys = keys(n, step);
                let max = keys.iter().copied().max().unwrap_or(5);
                let mut lists = lists_of(&run, &keys);
                let some: Vec<i32> = keys.iter().copied().step_by(997).collect();
                let chains = directory(&run, &mut lists, JoinForm::Chains, 5, max, &keys);
                for &key in &some {
                    // SAFETY: an array of heads.
                    let head = unsafe { chains.heads.cast::<*mut Entry>().add((key - 5) as usize).read() };
                    assert_eq!(chain(head), numbers(&keys, key));
                }
                let hashed = directory(&run, &mut lists, JoinForm::Hashed, 5, max, &keys);
                for &key in &some {
                    let at = (key as u64).wrapping_mul(77) as usize & hashed.mask as usize;
                    // SAFETY: as above.
                    let head = unsafe { hashed.heads.cast::<u64>().add(at).read() };
                    let tag = 1 << (HEAD_TAGS as u64 + ((key as u64).wrapping_mul(77) >> 60));
                    assert_ne!(head & tag, 0);
                    let found = chain(std::ptr::with_exposed_provenance_mut((head & HEAD_ADDRESS as u64) as usize));
                    assert!(numbers(&keys, key).iter().all(|i| found.contains(i)));
                }
                for form in [JoinForm::Grouped, JoinForm::GroupedByRank] {
                    let grouped = directory(&run, &mut lists, form, 5, max, &keys);
                    for &key in &some {
                        assert_eq!(group(&grouped, form, (key - 5) as usize), numbers(&keys, key), "{form:?}");
                    }
                }
            }
        }
    }

    fn group(directory: &JoinDirectory, form: JoinForm, offset: usize) -> Vec<u64> {
        // SAFETY: positions and rows of the test.
        unsafe {
            let position = match form {
                JoinForm::Grouped => offset,
                _ => rank(Shared(directory.ranks), offset),
            };
            let positions = directory.heads.cast::<u32>().add(position);
            let rows = (positions.read()..positions.add(1).read()).map(|i| i as usize * WIDTH);
            let mut all: Vec<u64> = rows.map(|at| directory.rows.add(at + 24).cast::<u64>().read()).collect();
            all.sort();
            all
        }
    }

    #[test]
    fn unique_rows_lie_at_their_rank() {
        for run in runs() {
            let keys: Vec<i32> = (0..40_000).map(|i| i * 7919 % 40_000 * 13 - 1000).collect();
            let mut lists = lists_of(&run, &keys);
            let placed = directory(&run, &mut lists, JoinForm::PlacedByRank, -1000, 40_000 * 13, &keys);
            for (i, key) in keys.iter().enumerate().step_by(313) {
                // SAFETY: inside the bitmap and the rows.
                unsafe {
                    let rank = rank(Shared(placed.ranks), (key + 1000) as usize);
                    assert_eq!(placed.rows.add(rank * WIDTH + 24).cast::<u64>().read(), i as u64);
                }
            }
        }
    }
}
