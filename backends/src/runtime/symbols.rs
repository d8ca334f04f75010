//! The functions that programs call by name, one row each.
//!
//! A row of [`runtime_fns`] makes the function with C calling convention, the wrapper by which the interpreter calls
//! it, and its entry in [`symbols`]. All take the [`Run`] first. The bodies return a `Result`; what generated code sees
//! of an error is the failure value of the [`Outcome`].

use super::run::{Run, RunError};
use super::schedule::Status;
use super::{directory, foreign, groups, memory, rows, schedule, sort, top};
use quearn_stage::low::{Module, Ty};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

/// A runtime function.
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// Name by which programs call it.
    pub name: &'static str,
    /// Address of the function with C calling convention.
    pub address: usize,
    /// Parameters.
    pub params: &'static [Ty],
    /// Result.
    pub ret: Option<Ty>,
    /// Calls it with zero-extended bits; gives the zero-extended bits of the result. The caller keeps the promises
    /// of the function.
    pub call: unsafe fn(&[u64]) -> u64,
}

/// How the success of a body looks to generated code, and its failure.
trait Outcome {
    type C;
    const FAILED: Self::C;
    fn success(self) -> Self::C;
}

macro_rules! outcomes {
    ($($ty:ty => $c:ty, $failed:expr, |$value:ident| $success:expr;)*) => {
        $(impl Outcome for $ty {
            type C = $c;
            const FAILED: $c = $failed;
            fn success(self) -> $c {
                let $value = self;
                $success
            }
        })*
    };
}

outcomes! {
    *mut u8 => *mut u8, std::ptr::null_mut(), |ptr| ptr;
    i64 => i64, -1, |count| count;
    () => i32, Module::RUNTIME_ERROR, |_ok| 0;
    Status => i32, Module::RUNTIME_ERROR, |status| status.0;
}

/// Runs a body; no panic passes.
fn enter<T: Outcome>(run: &Run, body: impl FnOnce(&Run) -> Result<T, RunError>) -> T::C {
    let panicked = |payload: Box<dyn std::any::Any + Send>| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or(payload.downcast_ref::<String>().map(String::as_str));
        Err(RunError::Internal(format!("the runtime panicked: {}", text.unwrap_or("no message"))))
    };
    match catch_unwind(AssertUnwindSafe(|| body(run))).unwrap_or_else(panicked) {
        Ok(value) => value.success(),
        Err(error) => {
            run.fail(error);
            T::FAILED
        }
    }
}

/// A C value as the interpreter holds it.
trait Word {
    fn of(bits: u64) -> Self;
    fn bits(self) -> u64;
}

macro_rules! words {
    ($($ty:ty: |$bits:ident| $of:expr, |$value:ident| $to:expr;)*) => {
        $(impl Word for $ty {
            fn of($bits: u64) -> Self {
                $of
            }
            fn bits(self) -> u64 {
                let $value = self;
                $to
            }
        })*
    };
}

words! {
    i32: |bits| bits as i32, |value| value as u32 as u64;
    i64: |bits| bits as i64, |value| value as u64;
    *mut u8: |bits| std::ptr::with_exposed_provenance_mut(bits as usize), |ptr| ptr.expose_provenance() as u64;
}

macro_rules! c_type {
    (I32) => { i32 };
    (I64) => { i64 };
    (PTR) => { *mut u8 };
}

macro_rules! runtime_fns {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ident),*) -> $ret:ident = $body:path;)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Safety
            /// `run` is a live [`Run`]; pointers are what the description says they are, and nobody else uses what
            /// they point to while the call lasts.
            pub unsafe extern "C" fn $name(run: *const Run, $($arg: c_type!($ty)),*) -> c_type!($ret) {
                // SAFETY: the caller's promises, which are those of the body.
                enter(unsafe { &*run }, |run| unsafe {
                    let _timed = run.call(stringify!($name));
                    $body(run, $($arg),*)
                })
            }
        )*

        static SYMBOLS: LazyLock<Vec<Symbol>> = LazyLock::new(|| {
            vec![$(Symbol {
                name: stringify!($name),
                address: ($name as *const ()).expose_provenance(),
                params: &[Ty::PTR, $(Ty::$ty),*],
                ret: Some(Ty::$ret),
                call: |args| {
                    let &[run, $($arg),*] = args else { panic!("wrong number of arguments") };
                    let run = std::ptr::with_exposed_provenance(run as usize);
                    // SAFETY: the caller's promises.
                    unsafe { $name(run, $(<c_type!($ty)>::of($arg)),*) }.bits()
                },
            }),*]
        });
    };
}

runtime_fns! {
    /// `bytes` of zeroed memory, 64-byte aligned, for the rest of the run; null on failure.
    fn qn_alloc(bytes: I64, operator: I64) -> PTR = memory::qn_alloc;
    /// Frees memory of [`qn_alloc`] early; null is nothing. Gives a status.
    fn qn_free(ptr: PTR) -> I32 = memory::qn_free;
    /// Makes room for at least one row of `width` bytes in a [`crate::abi::RowList`]. Gives a status.
    fn qn_rows_grow(list: PTR, width: I64, operator: I64) -> I32 = rows::qn_rows_grow;
    /// As [`qn_rows_grow`], for rows that start with `words` unsigned 64-bit key words and of which only the `wanted` smallest
    /// are needed: the others may be dropped. The complement of `bound`, 0 at first, is then the largest first word that a
    /// further row that is needed can have. Gives a status.
    fn qn_rows_top(list: PTR, width: I64, words: I64, wanted: I64, bound: PTR, operator: I64) -> I32 = top::qn_rows_top;
    /// Rows of `n` [`crate::abi::RowList`]s, `stride` bytes apart.
    fn qn_rows_count(lists: PTR, n: I64, stride: I64) -> I64 = rows::qn_rows_count;
    /// Cuts the rows of `n` lists into [`crate::abi::RowSpan`]s of at most `max_rows`; gives their number, or -1, and
    /// their address at `out`.
    fn qn_rows_spans(lists: PTR, n: I64, stride: I64, max_rows: I64, operator: I64, out: PTR) -> I64 = rows::qn_rows_spans;
    /// Copies the rows of `n` lists one after another; gives their number, or -1, and their address at `out`.
    fn qn_rows_concat(lists: PTR, n: I64, stride: I64, width: I64, operator: I64, out: PTR) -> I64 = rows::qn_rows_concat;
    /// Arranges the rows of a join's build side as a [`crate::abi::JoinDirectory`] asks. Gives a status.
    fn qn_join_directory(directory: PTR, operator: I64) -> I32 = directory::qn_join_directory;
    /// Enlarges the directory of a [`crate::abi::GroupTable`], so that it holds `entries` at least, and links what it has anew.
    /// Gives a status.
    fn qn_groups_grow(table: PTR, entries: I64, operator: I64) -> I32 = groups::qn_groups_grow;
    /// Sorts `n` rows of `width` bytes by their first `words` unsigned 64-bit words, the first the most significant;
    /// equal rows keep their order. With `limit >= 0` only the first `limit` rows are defined afterwards. Gives a
    /// status.
    fn qn_sort(rows: PTR, n: I64, width: I64, words: I64, limit: I64) -> I32 = sort::qn_sort;
    /// Each row holds a string: its address at `str_offset` and its `i32` length 8 bytes on. Writes its rank in byte
    /// order among all rows, from 1 on without gaps and 0 for a null address, as 64-bit word at `word_offset`. Gives a
    /// status.
    fn qn_rank_strings(rows: PTR, n: I64, width: I64, str_offset: I64, word_offset: I64) -> I32 = sort::qn_rank_strings;
    /// Calls a function of another library, a [`foreign::Foreign`], on [`crate::abi::Slice`]s: its operands and its result,
    /// for so many rows. Gives a status.
    fn qn_foreign(function: PTR, slices: PTR, rows: I64) -> I32 = foreign::qn_foreign;
    /// Calls `func(frame, worker, lo, hi)` for ranges of at most `grain` that cover `0..n`, in parallel; 0, or the
    /// status of a call that failed.
    fn qn_par_for(func: PTR, frame: PTR, n: I64, grain: I64) -> I32 = schedule::qn_par_for;
}

/// All runtime functions.
pub fn symbols() -> &'static [Symbol] {
    &SYMBOLS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::RunConfig;

    #[test]
    fn the_interpreter_can_call_them() {
        let run = Run::new(RunConfig::default());
        let find = |name| symbols().iter().find(|s| s.name == name).unwrap();
        let handle = (&raw const run).expose_provenance() as u64;
        // SAFETY: a live run, and memory that was just allocated.
        unsafe {
            let ptr = (find("qn_alloc").call)(&[handle, 100, 0]);
            assert_ne!(ptr, 0);
            assert_eq!((find("qn_free").call)(&[handle, ptr]), 0);
            assert_eq!((find("qn_free").call)(&[handle, ptr]) as i32, Module::RUNTIME_ERROR);
        }
        assert!(matches!(run.take_error(), Some(RunError::Internal(_))));
    }

    #[test]
    fn failures_have_values() {
        let run = Run::new(RunConfig { budget: 10, ..RunConfig::default() });
        // SAFETY: a live run.
        assert!(unsafe { qn_alloc(&run, 100, 0) }.is_null());
        assert!(matches!(run.take_error(), Some(RunError::OutOfMemory { .. })));
        assert_eq!(enter(&run, |_| -> Result<i64, RunError> { panic!("oh {}", 1) }), -1);
        assert_eq!(run.take_error(), Some(RunError::Internal("the runtime panicked: oh 1".into())));
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = symbols().iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), symbols().len());
    }
}
