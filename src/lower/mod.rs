//! Lowering: every operator of the graph is expanded by a staged implementation, ordinary Rust that writes the
//! low-level program.
//!
//! | file | what it holds |
//! |---|---|
//! | [`frame`] | the memory through which generated code sees data and state |
//! | [`context`] | what all operators share: module, frame, steps of the main function, facts |
//! | [`error`] | why a graph cannot be lowered |
//! | [`parameter`] | literals that a program gets when it runs |
//! | [`moves`] | where data is read, written and copied |
//! | [`once`] | what is made once, not in every run |
//! | [`interface`], [`functions`] | what the session has to know of a program to run and to profile it |
//! | [`outputs`] | the results of a program; the entry point |
//! | [`relational`] | table operators: pipelines of tiles, data-centric |
//! | [`tensor`] | tensor operators: staged kernels |
//!
//! Invariant: operators compose by closures (a scan calls its consumer once, at generation time); nothing here looks at
//! names of tables, queries or models.

pub mod context;
pub mod error;
pub mod frame;
pub mod functions;
pub mod interface;
pub mod moves;
pub mod once;
pub mod outputs;
pub mod parameter;
pub mod relational;
pub mod tensor;

pub use context::{ArenaNote, Cx, Fact, PipelineNote};
pub use error::{LowerError, Result};
pub use interface::{Input, Interface, Output, Update};
pub use outputs::lower;

use quearn_stage::low::Module;

/// A lowered program and what the session has to know to run it.
#[derive(Debug)]
pub struct Lowered {
    /// The program.
    pub module: Module,
    /// How to run it.
    pub interface: Interface,
    /// The memory of its tensor programs.
    pub arenas: Vec<ArenaNote>,
}
