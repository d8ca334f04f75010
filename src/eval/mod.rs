//! The naive evaluator of the graph: no rewriting, no fusion, one operation after the other over whole values. It is
//! the oracle for everything above the graph, so it is written to be obviously right, not fast.
//!
//! | file | what it holds |
//! |---|---|
//! | `machine` | evaluation by demand, environments of regions and residuals |
//! | `value` | data, tensors, tables, inputs |
//! | `scalar`, `cast`, `calendar`, `text` | operations on single data |
//! | `elementwise` | broadcasting |
//! | `relational`, `aggregate` | tables |
//! | `tensor` | tensors |
//! | `convert` | from and to real data and Arrow |

mod aggregate;

mod calendar;
mod cast;
mod convert;
mod elementwise;
mod machine;
mod relational;
mod scalar;
mod tensor;
mod text;
mod value;

pub use value::{Datum, EvalTable, EvalTensor, EvalValue, Inputs, Interval, Mark};

use machine::Machine;
use quearn_stage::graph::{Graph, Node};
use quearn_stage::low::FailKind;

/// Why a graph has no value.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EvalError {
    /// An operation failed on the data.
    #[error("{op} ({node}): {}", kind.name())]
    Failed {
        /// What went wrong.
        kind: FailKind,
        /// Name of the operation.
        op: String,
        /// Its node.
        node: Node,
    },
    /// A table or tensor is missing or not what the graph declares.
    #[error("{0}")]
    Input(String),
}

impl EvalError {
    /// What went wrong, if it was an operation.
    pub fn kind(&self) -> Option<FailKind> {
        match self {
            EvalError::Failed { kind, .. } => Some(*kind),
            EvalError::Input(_) => None,
        }
    }
}

/// Which failures make the whole run fail. A rewritten program may drop columns that nobody reads and filter before it
/// computes; so it must fail where `Needed` does, and must not fail where `All` does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Errors {
    /// Every failure in a value that is asked for; the arm of an `If` that is not chosen does not count.
    All,
    /// Only failures that a result, a predicate, a key or an aggregate depends on.
    Needed,
}

/// The outputs of a graph, by name; every failure counts.
///
/// # Errors
/// A missing or mistyped input, or an operation that fails.
pub fn evaluate(graph: &Graph, inputs: &Inputs) -> Result<Vec<(String, EvalValue)>, EvalError> {
    evaluate_with(graph, inputs, Errors::All)
}

/// The outputs of a graph, by name.
///
/// # Errors
/// A missing or mistyped input, or an operation that fails and counts.
pub fn evaluate_with(graph: &Graph, inputs: &Inputs, errors: Errors) -> Result<Vec<(String, EvalValue)>, EvalError> {
    let mut machine = Machine::new(graph, inputs, errors)?;
    graph.outputs().iter().map(|(name, node)| Ok((name.clone(), machine.output(*node)?))).collect()
}
