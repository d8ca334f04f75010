//! Parquet: read chunk by chunk on all threads, written row group by row group.

mod assembly;
mod read;
mod write;

pub use read::{ReadOptions, read_parquet};
pub use write::{ParquetWriter, RowGroup, RowGroupEncoder, write_parquet};

use crate::data::{Error, Result};
use ::parquet::errors::ParquetError;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Runs a decoder; errors and panics (on bytes no writer makes) become errors that name the file.
fn guarded<T>(path: &Path, decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(format_error(path, error.to_string())),
        Err(_) => Err(format_error(path, "its content is corrupt: the decoder gave up".into())),
    }
}

fn format_error(path: &Path, message: String) -> Error {
    Error::Format { path: path.into(), format: "Parquet", message }
}
