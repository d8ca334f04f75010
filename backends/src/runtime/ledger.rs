//! How many bytes a run wrote to memory of its own, operator by operator.
//!
//! Memory that is taken counts as written, as it is cleared or filled. Lists of rows take more than they fill: of these
//! the rows count that are in them when the run is over. So nothing is counted row by row.

use super::rows::pieces;
use crate::abi::RowList;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// The bytes of each operator.
pub(super) struct Ledger {
    bytes: Vec<AtomicU64>,
    /// Addresses of lists that have rows, and their operators.
    lists: Mutex<Vec<(usize, i64)>>,
}

impl Ledger {
    /// Nothing written, by so many operators.
    pub(super) fn new(operators: usize) -> Ledger {
        let bytes = (0..operators).map(|_| AtomicU64::new(0)).collect();
        Ledger { bytes, lists: Mutex::default() }
    }

    /// Counts bytes; those of an unnamed operator go uncounted.
    pub(super) fn add(&self, operator: i64, bytes: usize) {
        if let Some(count) = usize::try_from(operator).ok().and_then(|at| self.bytes.get(at)) {
            count.fetch_add(bytes as u64, Relaxed);
        }
    }

    /// Counts the rows that a list will have.
    pub(super) fn watch(&self, list: &mut RowList, operator: i64) {
        let address = std::ptr::from_mut(list).expose_provenance();
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).push((address, operator));
    }

    /// The bytes of each operator.
    ///
    /// # Safety
    /// All lists that were grown are still there, and nobody grows one meanwhile.
    pub(super) unsafe fn written(&self) -> Vec<u64> {
        let mut written: Vec<u64> = self.bytes.iter().map(|count| count.load(Relaxed)).collect();
        for &(address, operator) in self.lists.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // SAFETY: the caller's promise.
            let rows = unsafe { pieces(&*std::ptr::with_exposed_provenance::<RowList>(address)) };
            if let Some(bytes) = usize::try_from(operator).ok().and_then(|at| written.get_mut(at)) {
                *bytes += rows.map(|piece| piece.bytes as u64).sum::<u64>();
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::{Run, RunConfig};
    use super::super::symbols::{qn_alloc, qn_rows_concat, qn_rows_grow};
    use super::*;
    use std::ptr::null_mut;

    #[test]
    fn rows_count_and_room_for_more_does_not() {
        let operators = vec!["build".to_owned(), "sort".to_owned()].into();
        let run = Run::new(RunConfig { operators, ..RunConfig::default() });
        let mut list = RowList { cur: null_mut(), end: null_mut(), first: null_mut(), last: null_mut(), width: 0 };
        let (at, mut rows) = ((&raw mut list).cast(), null_mut::<u8>());
        // SAFETY: a live run and list.
        let written = unsafe {
            for _ in 0..3 {
                if list.cur == list.end {
                    assert_eq!(qn_rows_grow(&run, at, 32, 0), 0);
                }
                list.cur = list.cur.add(32);
            }
            assert!(!qn_alloc(&run, 1000, 1).is_null() && !qn_alloc(&run, 1000, 7).is_null());
            assert_eq!(qn_rows_concat(&run, at, 1, 64, 32, 1, (&raw mut rows).cast()), 3);
            run.written()
        };
        assert_eq!(written, [96, 1000 + 96]);
    }
}
