//! Lowering: every operator of the graph is expanded by a staged implementation, ordinary Rust that writes the
//! low-level program.
//!
//! | file | what it holds |
//! |---|---|
//! | [`frame`] | the memory through which generated code sees data and state |
//! | [`context`] | what all operators share: module, frame, steps of the main function, facts |
//! | [`error`] | why a graph cannot be lowered |
//! | [`parameter`] | literals that a program gets when it runs |
//! | [`outputs`] | the results of a program; the entry point |
//! | [`relational`] | table operators: pipelines of tiles, data-centric |
//! | [`tensor`] | tensor operators: staged kernels |
//!
//! Invariant: operators compose by closures (a scan calls its consumer once, at generation time); nothing here looks at
//! names of tables, queries or models.

pub mod context;
pub mod error;
pub mod frame;
pub mod outputs;
pub mod parameter;
pub mod relational;
pub mod tensor;

pub use context::{Cx, Fact, PipelineNote};
pub use error::{LowerError, Result};
pub use outputs::lower;

use frame::{Bind, Slot};
use quearn_stage::graph::Elem;
use quearn_stage::low::{FuncId, Module};

/// A lowered program and what the session has to know to run it.
#[derive(Debug)]
pub struct Lowered {
    /// The program.
    pub module: Module,
    /// Runs once when weights are bound.
    pub prepare: Option<FuncId>,
    /// Runs the program.
    pub main: FuncId,
    /// Size of the frame.
    pub frame_bytes: i64,
    /// What to write into the frame before a run.
    pub bindings: Vec<(Bind, Slot)>,
    /// Where results are.
    pub outputs: Vec<Output>,
    /// Names of the operators that runtime calls refer to.
    pub operators: Vec<String>,
    /// Table and column of each dictionary that results refer to.
    pub dictionaries: Vec<(String, String)>,
    /// Does the program sum floats over rows? Ranges of rows are then dealt out to workers in a fixed way.
    pub sums_floats: bool,
    /// What the program relies on.
    pub facts: Vec<Fact>,
    /// What was fused and what is materialised.
    pub pipelines: Vec<PipelineNote>,
}

impl Lowered {
    /// Do the facts that the program relies on hold for these tables?
    pub fn hold(&self, catalog: &crate::data::Catalog) -> bool {
        self.facts.iter().all(|fact| fact.holds(catalog))
    }
}

/// Where a result is after a run.
#[derive(Clone, Debug)]
pub enum Output {
    /// Rows in per-worker lists.
    Table {
        /// Name of the result.
        name: String,
        /// Slot with the address of the first `abi::RowList`; one a worker, `abi::ROWS_BYTES` apart.
        lists: Slot,
        /// Layout of a row.
        layout: relational::RowLayout,
    },
    /// Memory that the session has bound as `Bind::Output`.
    Tensor {
        /// Name of the result.
        name: String,
        /// Type of the elements.
        elem: Elem,
        /// Extents; named dimensions take the sizes of the run's inputs.
        shape: Vec<quearn_stage::graph::Dim>,
    },
}
