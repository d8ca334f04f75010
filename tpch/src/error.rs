//! What can go wrong with the benchmark's data, queries and answers.

use crate::answers::Mismatch;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The tables cannot be made or read, or a query cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, table or column is not what it should be.
    #[error(transparent)]
    Data(#[from] quearn::data::Error),
    /// A query cannot be compiled or run.
    #[error(transparent)]
    Program(#[from] quearn::Error),
    /// A query's result is not the expected one.
    #[error(transparent)]
    Answer(#[from] Mismatch),
    /// There is no place for generated tables.
    #[error("no folder for generated tables: set QUEARN_CACHE or HOME")]
    NoCache,
    /// The scale factor is no number, or so small that tables would be empty.
    #[error("expected a scale factor of at least 0.0001, found {0}")]
    Scale(f64),
    /// The generator failed.
    #[error("generating table `{table}`: {message}")]
    Generate {
        /// Table.
        table: String,
        /// The generator's message.
        message: String,
    },
    /// The query does not exist, or is not written yet.
    #[error("no query {query}; there are {}", list(known))]
    UnknownQuery {
        /// The number asked for.
        query: u32,
        /// The numbers there are.
        known: Vec<u32>,
    },
    /// A result cannot be shown.
    #[error("showing the result: {0}")]
    Show(#[from] arrow::error::ArrowError),
    /// Measurements cannot be written.
    #[error("cannot write {path}: {message}")]
    Write {
        /// File.
        path: String,
        /// The system's message.
        message: String,
    },
    /// Some queries failed; each has been reported.
    #[error("{failed} of {all} checks failed")]
    Failed {
        /// How many failed.
        failed: usize,
        /// How many there were.
        all: usize,
    },
}

fn list(numbers: &[u32]) -> String {
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}
