//! Why a saved program is refused.

use std::path::{Path, PathBuf};

/// A file that is no program, or not one for this process.
#[derive(Debug, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct SavedError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub kind: Kind,
}

/// What is wrong with the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Kind {
    /// Something else.
    #[error("is no saved program of Quearn")]
    NoProgram,
    /// Written by a Quearn whose files look different.
    #[error("has format {found}, expected {expected}")]
    OtherFormat {
        /// Format of the file.
        found: u64,
        /// Format of this Quearn.
        expected: u64,
    },
    /// The end is missing.
    #[error("is truncated: expected {expected} bytes, found {found}")]
    Truncated {
        /// Bytes that were written.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// Not the bytes that were written.
    #[error("is damaged: the checksum of the {part} is wrong")]
    Damaged {
        /// Where.
        part: String,
    },
    /// The checksums are right, the contents are not.
    #[error("is no program that Quearn has written: {message}")]
    IllFormed {
        /// What is wrong.
        message: String,
    },
    /// Saved by another build.
    #[error("was saved by Quearn {made}, this is {here}; compile the program again")]
    OtherVersion {
        /// The build that saved it.
        made: String,
        /// This build.
        here: String,
    },
    /// The tables are not those that the program was compiled for.
    #[error("was compiled for other tables: expected that {fact}")]
    OtherTables {
        /// What the program relies on.
        fact: String,
    },
    /// Compiled from another graph than the one that was asked for.
    #[error("holds another program")]
    OtherProgram,
}

impl Kind {
    pub(super) fn at(self, path: &Path) -> SavedError {
        SavedError { path: path.to_path_buf(), kind: self }
    }
}
