//! Parquet: read by columns and row groups in parallel, written row group by row group.

use super::atomic::AtomicFile;
use super::file_error;
use crate::data::{Column, Error, LoadOptions, Result, Table, hint, import_column};
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use ::parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, ArrowWriter, compute_leaves};
use ::parquet::arrow::{ArrowSchemaConverter, ProjectionMask};
use ::parquet::basic::Compression;
use ::parquet::errors::ParquetError;
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rayon::prelude::*;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What to read of a Parquet file, and how to store it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReadOptions {
    /// Columns, in this order; `None` for all in the file's order.
    pub columns: Option<Vec<String>>,
    /// How columns are stored; compactly by default.
    pub load: LoadOptions,
}

/// The table in a Parquet file, named after the file.
pub fn read_parquet(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Table> {
    let file = ParquetFile::open(path.as_ref())?;
    let columns = file.project(options.columns.as_deref())?;
    let columns: Result<Vec<Column>> = columns.into_par_iter().map(|i| file.column(i, &options.load)).collect();
    Ok(Table::new(file.name(), columns?)?.with_rows(file.rows()?))
}

/// A file whose footer has been read.
struct ParquetFile {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

/// Rows decoded at once: few enough that the strings of a batch stay below 2 GiB unless they are huge.
const BATCH_ROWS: usize = 1 << 18;

impl ParquetFile {
    fn open(path: &Path) -> Result<ParquetFile> {
        let file = File::open(path).map_err(file_error(path))?;
        let metadata = guarded(path, || {
            let options = ArrowReaderOptions::new();
            let metadata = ArrowReaderMetadata::load(&file, options.clone())?;
            let options = options.with_schema(Arc::new(without_views(metadata.schema())));
            ArrowReaderMetadata::try_new(metadata.metadata().clone(), options)
        })?;
        Ok(ParquetFile { path: path.into(), metadata })
    }

    fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn rows(&self) -> Result<usize> {
        let rows = self.metadata.metadata().file_metadata().num_rows();
        usize::try_from(rows).map_err(|_| self.corrupt(format!("its footer states {rows} rows")))
    }

    /// Positions of the named columns.
    fn project(&self, names: Option<&[String]>) -> Result<Vec<usize>> {
        let fields = self.metadata.schema().fields();
        let Some(names) = names else { return Ok((0..fields.len()).collect()) };
        let position = |name: &String| {
            fields.iter().position(|f| f.name() == name).ok_or_else(|| Error::NoColumn {
                table: self.path.display().to_string(),
                column: name.clone(),
                hint: hint(name, fields.iter().map(|f| f.name().as_str())),
            })
        };
        names.iter().map(position).collect()
    }

    fn column(&self, index: usize, options: &LoadOptions) -> Result<Column> {
        let groups = self.metadata.metadata().num_row_groups();
        let arrays = (0..groups).into_par_iter().map(|group| self.chunk(index, group));
        let arrays: Vec<ArrayRef> = arrays.collect::<Result<Vec<Vec<ArrayRef>>>>()?.into_iter().flatten().collect();
        let found: usize = arrays.iter().map(|a| a.len()).sum();
        let field = self.metadata.schema().field(index);
        if found != self.rows()? {
            let message = format!("column `{}`: expected {} rows, found {found}", field.name(), self.rows()?);
            return Err(self.corrupt(message));
        }
        import_column(field, &arrays, options)
    }

    /// One column of one row group.
    fn chunk(&self, index: usize, group: usize) -> Result<Vec<ArrayRef>> {
        // Readers seek, so that each needs a file of its own.
        let file = File::open(&self.path).map_err(file_error(&self.path))?;
        guarded(&self.path, || {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
            let mask = ProjectionMask::roots(builder.parquet_schema(), [index]);
            let reader = builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(BATCH_ROWS);
            let batches = reader.build()?.map(|batch| Ok(batch?.column(0).clone()));
            batches.collect::<Result<Vec<ArrayRef>, ParquetError>>()
        })
    }

    fn corrupt(&self, message: String) -> Error {
        format_error(&self.path, message)
    }
}

/// The schema with views read as plain strings, which is what columns hold.
fn without_views(schema: &Schema) -> Schema {
    let plain = |field: &Arc<Field>| match field.data_type() {
        DataType::Utf8View => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
        DataType::BinaryView => Arc::new(field.as_ref().clone().with_data_type(DataType::Binary)),
        _ => field.clone(),
    };
    Schema::new_with_metadata(schema.fields().iter().map(plain).collect::<Vec<_>>(), schema.metadata().clone())
}

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
