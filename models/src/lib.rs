//! Networks, and pipelines of queries and networks, written with Quearn.
//!
//! ```text
//!  random ---> weights, images, tables      made here, kept in the cache, no download
//!                 |
//!  squeezenet, pipelines                    programs: a function from staged inputs to a staged result
//!                 |
//!  check, expected/, reference/             what PyTorch, DuckDB and others answer
//! ```

pub mod cache;
pub mod check;
mod error;
pub mod pipelines;
pub mod random;
pub mod squeezenet;
pub mod weights;

pub use error::{Error, Result};

/// How far a generator is.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// What it does.
    pub what: &'static str,
    /// Parts that are done.
    pub done: usize,
    /// Parts in all.
    pub total: usize,
}

/// Is told how far a generator is, from any thread; `&|_| ()` does not care.
pub type Progress<'a> = &'a (dyn Fn(Step) + Sync);
