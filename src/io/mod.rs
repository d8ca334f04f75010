//! Files: Parquet tables and safetensors weights. (Arrow needs no file: [`crate::data::Table::from_batches`] shares
//! the memory of `RecordBatch`es.)
//!
//! Every error names the file; what a corrupt file makes a decoder do, panics included, comes back as an error. A file
//! is written under a temporary name and renamed when it is whole, so that no reader sees half of it.

mod atomic;
mod parquet;
mod safetensors;

pub(crate) use atomic::AtomicFile;
pub use parquet::{ParquetWriter, ReadOptions, RowGroup, RowGroupEncoder, read_parquet, write_parquet};
pub use safetensors::{Tensors, read_safetensors, write_safetensors};

use crate::data::{Error, Result};
use std::io::Write;
use std::path::Path;

/// Writes a text as a file that replaces one of that name.
pub fn write_text(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    let mut file = AtomicFile::create(path)?;
    file.write_all(text.as_bytes()).map_err(file_error(path))?;
    file.commit()
}

fn file_error(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::File { path: path.to_path_buf(), source }
}
