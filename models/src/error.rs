//! What can go wrong here.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a workload cannot be had, or is wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Tables, tensors or their files.
    #[error(transparent)]
    Data(#[from] quearn::data::Error),
    /// A program cannot be compiled or run.
    #[error(transparent)]
    Program(#[from] quearn::Error),
    /// The TPC-H tables and queries, which are shown beside the models.
    #[error(transparent)]
    Tpch(#[from] quearn_tpch::Error),
    /// There is nothing to compare with.
    #[error("no expected result for {what}")]
    NoExpectation {
        /// Which result.
        what: String,
    },
    /// A result is not as expected.
    #[error("{what}: {message}")]
    Wrong {
        /// Which result.
        what: String,
        /// Expected and found.
        message: String,
    },
    /// Measurements cannot be written.
    #[error("{path}: {message}")]
    Write {
        /// File.
        path: String,
        /// The system's message.
        message: String,
    },
    /// Some programs failed; each has been reported.
    #[error("{failed} of {all} checks failed")]
    Failed {
        /// How many failed.
        failed: usize,
        /// How many there were.
        all: usize,
    },
}

impl Error {
    /// Something is not as expected.
    pub fn wrong(what: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Wrong { what: what.into(), message: message.into() }
    }
}
