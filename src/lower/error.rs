//! Why a graph cannot be lowered.

/// Why a graph cannot be lowered to a program.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LowerError {
    /// A table that the graph scans is not in the catalog.
    #[error("there is no table \"{table}\"; the catalog has {known}")]
    MissingTable {
        /// The table.
        table: String,
        /// What there is.
        known: String,
    },
    /// A column that the graph scans is not in the table, or of another type.
    #[error("column \"{column}\" of table \"{table}\": {message}")]
    Column {
        /// Table.
        table: String,
        /// Column.
        column: String,
        /// Expected and found.
        message: String,
    },
    /// A combination of operation and types that this version cannot compile.
    #[error("{node}: {what} cannot be compiled yet")]
    Unsupported {
        /// The node.
        node: String,
        /// What is not supported.
        what: String,
    },
    /// A broken invariant: a bug in Quearn.
    #[error("internal error while lowering {node}: {what}")]
    Internal {
        /// The node.
        node: String,
        /// What went wrong.
        what: String,
    },
}

/// Result of a staged implementation.
pub type Result<T> = std::result::Result<T, LowerError>;
