//! Writing: row groups are encoded on any thread and appended in order.

use super::{format_error, guarded};
use crate::data::Result;
use crate::io::atomic::AtomicFile;
use ::parquet::arrow::ArrowSchemaConverter;
use ::parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, ArrowWriter, compute_leaves};
use ::parquet::basic::Compression;
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Writes the batches, all of one schema, as a Parquet file that replaces one of that name.
pub fn write_parquet(path: impl AsRef<Path>, batches: &[RecordBatch]) -> Result<()> {
    let path = path.as_ref();
    let Some(first) = batches.first() else {
        return Err(format_error(path, "expected at least one batch to write, found none".into()));
    };
    let mut writer = ParquetWriter::create(path, first.schema())?;
    let encoder = writer.encoder();
    let mut groups = 0;
    for batch in batches {
        for start in (0..batch.num_rows()).step_by(GROUP_ROWS) {
            let rows = batch.slice(start, GROUP_ROWS.min(batch.num_rows() - start));
            writer.append(encoder.encode(groups, &[rows])?)?;
            groups += 1;
        }
    }
    writer.finish()
}

/// Most rows of a row group that [`write_parquet`] writes.
const GROUP_ROWS: usize = 1 << 20;

/// A Parquet file being written; it appears under its name when it is finished.
pub struct ParquetWriter {
    path: PathBuf,
    writer: SerializedFileWriter<AtomicFile>,
    encoder: RowGroupEncoder,
}

/// Encodes row groups of a [`ParquetWriter`], on any thread.
#[derive(Clone)]
pub struct RowGroupEncoder {
    path: PathBuf,
    schema: SchemaRef,
    factory: Arc<ArrowRowGroupWriterFactory>,
}

/// An encoded row group.
pub struct RowGroup(Vec<ArrowColumnChunk>);

impl ParquetWriter {
    /// A file of the given schema.
    pub fn create(path: &Path, schema: SchemaRef) -> Result<ParquetWriter> {
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let file = AtomicFile::create(path)?;
        let (writer, factory) = guarded(path, || {
            ArrowSchemaConverter::new().convert(&schema)?;
            ArrowWriter::try_new(file, schema.clone(), Some(properties))?.into_serialized_writer()
        })?;
        let encoder = RowGroupEncoder { path: path.into(), schema, factory: Arc::new(factory) };
        Ok(ParquetWriter { path: path.into(), writer, encoder })
    }

    /// What encodes the file's row groups.
    pub fn encoder(&self) -> RowGroupEncoder {
        self.encoder.clone()
    }

    /// Adds the next row group.
    pub fn append(&mut self, group: RowGroup) -> Result<()> {
        guarded(&self.path, || {
            let mut writer = self.writer.next_row_group()?;
            group.0.into_iter().try_for_each(|chunk| chunk.append_to_row_group(&mut writer))?;
            writer.close().map(|_| ())
        })
    }

    /// Writes the footer and gives the file its name.
    pub fn finish(self) -> Result<()> {
        guarded(&self.path, || self.writer.into_inner())?.commit()
    }
}

impl RowGroupEncoder {
    /// Encodes the batches as row group `index` (it must be appended as such).
    pub fn encode(&self, index: usize, batches: &[RecordBatch]) -> Result<RowGroup> {
        guarded(&self.path, || {
            let mut writers = self.factory.create_column_writers(index)?;
            for batch in batches {
                let mut next = writers.iter_mut();
                for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
                    for leaf in compute_leaves(field, array)? {
                        let writer = next.next().ok_or_else(|| ParquetError::General("too many columns".into()))?;
                        writer.write(&leaf)?;
                    }
                }
            }
            Ok(RowGroup(writers.into_iter().map(|w| w.close()).collect::<Result<_, _>>()?))
        })
    }
}
