//! What has no derivative.

use quearn_stage::graph::{Graph, GraphError, Node};

/// Why a loss has no gradient.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// An operator without a rule, or one whose rule does not cover these operands.
    #[error("no derivative of {op} ({node}): {reason}")]
    NoRule {
        /// Name of the operator.
        op: String,
        /// Its node.
        node: Node,
        /// What is missing.
        reason: String,
    },
    /// The loss is no single float.
    #[error("a loss must be a float scalar, found {found}")]
    Loss {
        /// Its type.
        found: String,
    },
    /// A gradient was asked for by something that has none.
    #[error("gradients are taken by tensors of floats, found {node} of type {found}")]
    Wrt {
        /// The node.
        node: Node,
        /// Its type.
        found: String,
    },
    /// A rule made a node that breaks a type rule: shapes whose derivative cannot be written in operators of the graph.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl Error {
    /// The derivative of a node is missing.
    pub(super) fn no_rule(graph: &Graph, node: Node, reason: impl Into<String>) -> Error {
        Error::NoRule { op: graph.op(node).name(), node, reason: reason.into() }
    }
}

impl From<Error> for GraphError {
    fn from(error: Error) -> GraphError {
        match error {
            Error::Graph(error) => error,
            other => GraphError { op: "autodiff".to_owned(), message: other.to_string() },
        }
    }
}
