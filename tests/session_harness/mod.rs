//! What tests of sessions share: the backends, tables.

#![allow(dead_code, reason = "each test file uses a part of the harness")]

use arrow::array::{ArrayRef, RecordBatch};
use quearn::prelude::*;

/// The backends of this build.
pub fn backends() -> Vec<BackendKind> {
    match cfg!(any(feature = "llvm", feature = "llvm19")) {
        true => vec![BackendKind::Interp, BackendKind::Llvm],
        false => vec![BackendKind::Interp],
    }
}

/// A table of columns without NULL.
pub fn table(name: &str, columns: Vec<(&str, ArrayRef)>) -> StoredTable {
    StoredTable::from_batches(name, &[RecordBatch::try_from_iter(columns).unwrap()]).unwrap()
}
