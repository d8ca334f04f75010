//! What programs may call while they run, under every backend.
//!
//! | file | what it holds |
//! |---|---|
//! | [`run`] | one run of a program: workers, budget, cancellation, the first error |
//! | [`memory`] | budgeted allocation |
//! | `pool` | memory that is kept from one run for the next |
//! | `ledger` | the bytes that each operator wrote |
//! | [`schedule`] | the parallel loop |
//! | [`profile`], `counters` | where the time goes, if a run asks for it |
//! | [`rows`] | growing lists of rows |
//! | [`directory`] | the rows of a join's build side, arranged |
//! | [`groups`] | hash tables of groups |
//! | [`sort`] | sorting rows, ranking strings |
//! | [`top`] | the first rows of an order, while rows are produced |
//! | [`foreign`] | functions of other libraries |
//! | [`symbols`] | the table of functions with C calling convention, one row each |
//!
//! Invariants: a runtime function never unwinds into generated code; one that fails records why in the [`Run`] and
//! gives its failure value (null, -1 or a status), and the program hands that up.

mod counters;
pub mod directory;
pub mod foreign;
pub mod groups;
mod ledger;
pub mod memory;
mod pool;
pub mod profile;
pub mod rows;
pub mod run;
pub mod schedule;
pub mod sort;
pub mod symbols;
pub mod top;

pub use foreign::{Foreign, Form};
pub use profile::{CallProfile, Counted, LoopProfile, Share};
pub use run::{MemoryUse, Run, RunConfig, RunError, thread_pool};
pub use symbols::{Symbol, symbols};
