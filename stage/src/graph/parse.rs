//! The text form of a graph, read back.
