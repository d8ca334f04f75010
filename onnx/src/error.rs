//! What can go wrong with a model, sorted by who must act.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bytes are no ONNX model.
    #[error("not an ONNX model: {0}")]
    Format(String),
    /// A tensor of the file is malformed, or of a kind that is not supported.
    #[error("tensor {name:?}: {message}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// An input or output of the model is malformed, or of a kind that is not supported.
    #[error("{what} {name:?}: {message}")]
    Port {
        /// "input" or "output".
        what: &'static str,
        /// Its name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A node cannot be imported.
    #[error("node {node} ({op}): {message}")]
    Node {
        /// Its name, or that of its first output.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong.
        message: String,
    },
    /// The program cannot be compiled or run.
    #[error(transparent)]
    Program(#[from] quearn::Error),
}

/// A result of this crate.
pub type Result<T> = std::result::Result<T, Error>;
