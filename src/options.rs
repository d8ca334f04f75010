//! What a session can be told.

use crate::rewrite::RewriteOptions;
use quearn_backends::OptLevel;

/// Which machine runs programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BackendKind {
    /// LLVM if it was built in, else the interpreter.
    #[default]
    Auto,
    /// Compiled by LLVM; an error if it was not built in.
    Llvm,
    /// The interpreter: slow, for checking.
    Interp,
}

/// Settings of a [`crate::Session`]; every field has a setter on [`crate::SessionBuilder`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Workers; 0 means one for each processor.
    pub threads: usize,
    /// Bytes that one run may hold beside its inputs.
    pub memory_limit: u64,
    /// Which machine runs programs.
    pub backend: BackendKind,
    /// Effort of the backend.
    pub level: OptLevel,
    /// Which rewrites are on.
    pub rewrites: RewriteOptions,
    /// Is no model run for rows that could only match again, on the right side of a semi-, anti- or mark join?
    pub stop_at_match: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            threads: 0,
            memory_limit: u64::MAX,
            backend: BackendKind::Auto,
            level: OptLevel::Default,
            rewrites: RewriteOptions::default(),
            stop_at_match: true,
        }
    }
}
