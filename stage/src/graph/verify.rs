//! What a well-formed graph is.
