//! What can be wrong with data: every message names the thing, what was expected and what was found.

use std::path::PathBuf;

/// Result of this module and of [`crate::io`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bad data: a column, file or tensor that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such column; `hint` names similar ones.
    #[error("table `{table}` has no column `{column}`{hint}")]
    NoColumn {
        /// Table or file.
        table: String,
        /// The name asked for.
        column: String,
        /// `; did you mean ...?`, or the names there are.
        hint: String,
    },
    /// A column has a type Quearn has no word for.
    #[error("column `{column}`: type {found} is not supported")]
    UnsupportedType {
        /// Column.
        column: String,
        /// Its Arrow type.
        found: String,
    },
    /// A column has another type than the program expects.
    #[error("column `{column}`: expected {expected}, found {found}")]
    ColumnType {
        /// Column.
        column: String,
        /// Expected type.
        expected: String,
        /// Type found.
        found: String,
    },
    /// A value cannot be represented in the column's type.
    #[error("column `{column}`: {message}")]
    Value {
        /// Column.
        column: String,
        /// Which value, and why not.
        message: String,
    },
    /// Columns or batches do not fit together.
    #[error("table `{table}`: {message}")]
    Table {
        /// Table.
        table: String,
        /// What does not fit.
        message: String,
    },
    /// The operating system could not read or write a file.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// File.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file's content is not what its format demands: truncated, corrupt, or another format.
    #[error("{path}: expected a {format} file: {message}", path = path.display())]
    Format {
        /// File.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
        /// What was found.
        message: String,
    },
    /// Bad data in a file.
    #[error("{path}: {source}", path = path.display())]
    InFile {
        /// File.
        path: PathBuf,
        /// What is wrong in it.
        source: Box<Error>,
    },
    /// No such tensor; `hint` names similar ones.
    #[error("no tensor `{tensor}`{hint}")]
    NoTensor {
        /// The name asked for.
        tensor: String,
        /// `; did you mean ...?`, or the names there are.
        hint: String,
    },
    /// A tensor has another shape than expected.
    #[error("tensor `{tensor}`: expected shape {expected:?}, found {found:?}")]
    TensorShape {
        /// Tensor.
        tensor: String,
        /// Expected extents.
        expected: Vec<u64>,
        /// Extents found.
        found: Vec<u64>,
    },
    /// A tensor has another element type than expected.
    #[error("tensor: expected elements of type {expected}, found {found}")]
    TensorType {
        /// Expected type.
        expected: String,
        /// Type found.
        found: String,
    },
    /// A tensor's data do not fill its shape.
    #[error("tensor of type {scalar} and shape {shape:?}: {message}")]
    TensorData {
        /// Element type.
        scalar: String,
        /// Extents.
        shape: Vec<u64>,
        /// What was expected and found.
        message: String,
    },
}
