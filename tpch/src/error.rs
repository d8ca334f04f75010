//! What can go wrong with the benchmark's data.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The tables cannot be made or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, table or column is not what it should be.
    #[error(transparent)]
    Data(#[from] quearn::data::Error),
    /// There is no place for generated tables.
    #[error("no folder for generated tables: set QUEARN_CACHE or HOME")]
    NoCache,
    /// The scale factor is not a positive number.
    #[error("expected a positive scale factor, found {0}")]
    Scale(f64),
    /// The generator failed.
    #[error("generating table `{table}`: {message}")]
    Generate {
        /// Table.
        table: String,
        /// The generator's message.
        message: String,
    },
}
