//! The graph that a program was compiled from.

use super::error::Kind;
use quearn_stage::graph::{self, Graph};
use std::borrow::Cow;

/// The graph that a program was compiled from; its text, if the program was loaded and reads no tables, so that it is never
/// compiled again. Reading a long text takes longer than all else that is done to load a program.
pub(crate) enum Origin {
    /// The graph.
    Graph(Graph),
    /// The graph as it is printed.
    Text(String),
}

impl Origin {
    /// The text.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self {
            Origin::Graph(graph) => Cow::Owned(graph.to_string()),
            Origin::Text(text) => Cow::Borrowed(text),
        }
    }
}

/// Reads the text of a graph.
pub(super) fn read(text: &str) -> Result<Graph, Kind> {
    graph::parse(text).map_err(|e| Kind::IllFormed { message: e.to_string() })
}
