//! Functions of others in a program: called on tiles of rows, on all threads where there are many.

use super::run::{Run, RunError};
use crate::abi::Slice;
use rayon::ThreadPool;
use rayon::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Rows of a call: operands and result stay in the caches.
const TILE: usize = 4096;
/// Tiles for each thread whose results are held before they are merged.
const TILES_A_THREAD: usize = 4;

/// What is called: operands and the result.
pub type Call = dyn Fn(&[Slice], Slice) -> Result<(), String> + Send + Sync;
/// Folds the second result into the first.
pub type Merge = dyn Fn(Slice, Slice) + Send + Sync;

/// An operand or the result.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    /// Bytes of an element.
    pub bytes: usize,
    /// Is there a value for each row?
    pub by_row: bool,
}

/// A function that a program calls by a pointer to this.
pub struct Foreign {
    /// Its name, for messages.
    pub name: String,
    /// Operands, then the result.
    pub forms: Vec<Form>,
    /// The function.
    pub call: Box<Call>,
    /// How results are merged, if there is not one for each row.
    pub merge: Option<Box<Merge>>,
}

/// A part of a slice.
fn part(slice: Slice, form: Form, rows: usize, (lo, hi): (usize, usize)) -> Slice {
    if !form.by_row || rows == 0 {
        return slice;
    }
    let each = slice.len as usize / rows;
    Slice { first: slice.first.wrapping_add(lo * each * form.bytes), len: ((hi - lo) * each) as i64 }
}

/// Addresses that threads may share: every tile has parts of its own of what is written.
#[derive(Clone, Copy)]
struct Shared<'a>(&'a [Slice]);

// SAFETY: as the type says.
unsafe impl Sync for Shared<'_> {}
// SAFETY: as above.
unsafe impl Send for Shared<'_> {}

impl Foreign {
    /// Calls the function on all rows of the operands, the last of the slices being the result.
    ///
    /// # Errors
    /// What the function says, or that it panicked.
    ///
    /// # Safety
    /// The slices have the forms of this function, and what is by row has elements for so many rows.
    pub unsafe fn run(&self, pool: Option<&ThreadPool>, slices: &[Slice], rows: usize) -> Result<(), String> {
        let tile = |i: usize| (i * TILE, rows.min((i + 1) * TILE));
        let tiles = rows.div_ceil(TILE).max(1);
        let Some((&result, _)) = slices.split_last() else { return Err("a function without a result".into()) };
        let Some(merge) = &self.merge else {
            let all = Shared(slices);
            return each(pool, tiles, |i| self.tile(all, rows, tile(i), None));
        };
        let bytes = self.forms.last().map_or(8, |form| form.bytes) * result.len as usize;
        let all = Shared(slices);
        let partial = |i: usize| {
            let mut memory = vec![0u64; bytes.div_ceil(8)];
            self.tile(all, rows, tile(i), Some(&mut memory)).map(|()| memory)
        };
        self.tile(all, rows, tile(0), None)?;
        let pool = pool.filter(|_| tiles > 1);
        // So few at once that their results take little memory.
        let at_once = pool.map_or(1, |pool| TILES_A_THREAD * pool.current_num_threads());
        for first in (1..tiles).step_by(at_once) {
            let some = first..tiles.min(first + at_once);
            let partials: Result<Vec<Vec<u64>>, String> = match pool {
                Some(pool) => pool.install(|| some.into_par_iter().map(partial).collect()),
                None => some.map(partial).collect(),
            };
            // In order, so that the result does not depend on threads.
            for mut memory in partials? {
                let own = Slice { first: memory.as_mut_ptr().cast(), len: result.len };
                caught(|| {
                    merge(result, own);
                    Ok(())
                })?;
            }
        }
        Ok(())
    }

    /// Calls the function on a tile; the result goes to its place, or to other memory.
    fn tile(
        &self,
        Shared(slices): Shared<'_>,
        rows: usize,
        tile: (usize, usize),
        memory: Option<&mut Vec<u64>>,
    ) -> Result<(), String> {
        let parts = slices.iter().zip(&self.forms).map(|(slice, form)| part(*slice, *form, rows, tile));
        let mut parts: Vec<Slice> = parts.collect();
        let Some(mut result) = parts.pop() else { return Ok(()) };
        if let Some(memory) = memory {
            result.first = memory.as_mut_ptr().cast();
        }
        caught(|| (self.call)(&parts, result))
    }
}

/// Does something for each tile, until one fails.
fn each(
    pool: Option<&ThreadPool>,
    tiles: usize,
    f: impl Fn(usize) -> Result<(), String> + Sync + Send,
) -> Result<(), String> {
    match pool.filter(|_| tiles > 1) {
        Some(pool) => pool.install(|| (0..tiles).into_par_iter().try_for_each(f)),
        None => (0..tiles).try_for_each(f),
    }
}

fn caught(f: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or(payload.downcast_ref::<String>().map(String::as_str));
        Err(format!("panicked: {}", text.unwrap_or("no message")))
    })
}

/// Body of `qn_foreign`.
///
/// # Safety
/// `function` is a [`Foreign`], and `slices` are as many [`Slice`]s as it has forms, with elements for so many rows.
pub(super) unsafe fn qn_foreign(run: &Run, function: *mut u8, slices: *mut u8, rows: i64) -> Result<(), RunError> {
    // SAFETY: the caller's promise.
    let (function, rows) = (unsafe { &*function.cast::<Foreign>() }, rows.max(0) as usize);
    // SAFETY: the caller's promise.
    let slices = unsafe { std::slice::from_raw_parts(slices.cast::<Slice>(), function.forms.len()) };
    // SAFETY: the caller's promise.
    let done = unsafe { function.run(run.threads_for(rows), slices, rows) };
    done.map_err(|message| RunError::Foreign { name: function.name.clone(), message })
}
