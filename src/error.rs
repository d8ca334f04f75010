//! The one error type of the crate, sorted by who must act.

use crate::data;
use crate::lower::LowerError;
use quearn_backends::BackendError;
use quearn_backends::runtime::RunError;
use quearn_stage::graph::GraphError;
use quearn_stage::low::FailKind;
use quearn_stage::rep::StageError;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a program could not be built, compiled or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The program is not well-formed: an operator got operands of the wrong type.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The program is not well-formed, with the line of the user's code.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// A rewrite broke the program: a bug in Quearn.
    #[error(transparent)]
    Rewrite(#[from] crate::rewrite::RewriteError),
    /// A table, column, file or tensor is not what it should be.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The program does not fit the data, or uses what cannot be compiled yet.
    #[error(transparent)]
    Lower(#[from] LowerError),
    /// A tensor that the program reads was not given, or has another type or shape.
    #[error("input tensor \"{name}\": {message}")]
    Input {
        /// Name of the input.
        name: String,
        /// Expected and found.
        message: String,
    },
    /// A named dimension has two sizes.
    #[error("dimension \"{dimension}\" is {one} in \"{first}\" and {other} in \"{second}\"")]
    Dimension {
        /// The dimension.
        dimension: String,
        /// An input that it occurs in, and its size there.
        first: String,
        /// Size in `first`.
        one: u64,
        /// Another input that it occurs in.
        second: String,
        /// Size in `second`.
        other: u64,
    },
    /// The data made the program fail.
    #[error("{}: {message}", describe(*kind))]
    Failed {
        /// What went wrong.
        kind: FailKind,
        /// The expression or operator.
        message: String,
    },
    /// The run was stopped: out of its memory budget, cancelled.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A saved program is not one for this process.
    #[error(transparent)]
    Saved(#[from] crate::saved::SavedError),
    /// The backend could not compile the program.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A result that was asked for does not exist or is of another kind.
    #[error("no {kind} result \"{name}\"; the results are {known}")]
    NoResult {
        /// Table or tensor.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// The results there are.
        known: String,
    },
    /// A function of another library is not there, or is another one.
    #[error("function \"{name}\": {message}")]
    Function {
        /// The name.
        name: String,
        /// Expected and found.
        message: String,
    },
    /// The loss of a step of training is NaN or infinite; the weights are as before the step.
    #[error("the loss of step {step} is {loss}; the first value that is not finite is made by {origin}")]
    Diverged {
        /// Number of the step, from 1.
        step: u64,
        /// The loss.
        loss: f64,
        /// The first operator that made a value that is not finite, or the input that has one.
        origin: String,
    },
    /// A checkpoint cannot be written or read, or is not one of this training.
    #[error("checkpoint {path}: {message}")]
    Checkpoint {
        /// File.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// A setting of the session cannot be had.
    #[error("{0}")]
    Setting(String),
}

fn describe(kind: FailKind) -> &'static str {
    match kind {
        FailKind::Overflow => "overflow",
        FailKind::DivisionByZero => "division by zero",
        FailKind::BadCast => "value out of range of its type",
        FailKind::OutOfRange => "out of range",
        FailKind::BrokenFact => "the data changed",
    }
}
