//! Reading: all threads decode chunks (a column of a row group each), which go straight into the columns.

use super::assembly::Assembly;
use super::{format_error, guarded};
use crate::data::{ColumnBuilder, Error, LoadOptions, Result, Table, coded_strings, hint};
use crate::io::file_error;
use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use ::parquet::basic::{ConvertedType, Encoding, Type as Physical};
use ::parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use arrow::datatypes::{DataType, FieldRef, Schema};
use quearn_backends::pages::trim_heap;
use std::cmp::Reverse;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    let table = file.read(&file.project(options.columns.as_deref())?, &options.load);
    // What decoders used lies idle in the heaps of all threads.
    trim_heap();
    table
}

/// A file whose footer has been read.
struct ParquetFile {
    path: PathBuf,
    /// With the types that chunks are decoded as.
    metadata: ArrowReaderMetadata,
    /// The types that columns are made from.
    fields: Vec<FieldRef>,
    /// The Parquet columns of every field.
    leaves: Vec<Vec<usize>>,
}

/// Rows decoded at once: what they take stays in caches, and little memory is left in the heap of each thread.
const BATCH_ROWS: usize = 1 << 14;

impl ParquetFile {
    fn open(path: &Path) -> Result<ParquetFile> {
        let file = File::open(path).map_err(file_error(path))?;
        guarded(path, || {
            let found = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
            let leaves = leaves(found.metadata(), found.schema().fields().len());
            let fields = found.schema().fields().iter().zip(&leaves);
            let fields: Vec<FieldRef> = fields.map(|(f, l)| with_type(f, plain(f, l, found.metadata()))).collect();
            let decoded = fields.iter().zip(&leaves).map(|(f, l)| with_type(f, coded(f, l, found.metadata())));
            let schema = Schema::new_with_metadata(decoded.collect::<Vec<_>>(), found.schema().metadata().clone());
            let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
            let metadata = ArrowReaderMetadata::try_new(found.metadata().clone(), options)?;
            Ok(ParquetFile { path: path.into(), metadata, fields, leaves })
        })
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
        let Some(names) = names else { return Ok((0..self.fields.len()).collect()) };
        let position = |name: &String| {
            self.fields.iter().position(|f| f.name() == name).ok_or_else(|| Error::NoColumn {
                table: self.path.display().to_string(),
                column: name.clone(),
                hint: hint(name, self.fields.iter().map(|f| f.name().as_str())),
            })
        };
        names.iter().map(position).collect()
    }

    /// The columns at these positions.
    fn read(&self, positions: &[usize], options: &LoadOptions) -> Result<Table> {
        let groups = self.metadata.metadata().num_row_groups();
        let assembly = |&index: &usize| {
            let builder = ColumnBuilder::new(&self.fields[index], self.rows()?, self.bytes(index), options);
            Ok(Assembly::new(builder.map_err(|e| self.inside(e))?, groups))
        };
        let columns = positions.iter().map(assembly).collect::<Result<Vec<Assembly>>>()?;
        // The largest column of a row group first, so that little is left to do when all others are finished.
        let mut order: Vec<usize> = (0..positions.len()).collect();
        order.sort_by_key(|&i| Reverse(self.bytes(positions[i])));
        in_parallel(groups * order.len(), |task| {
            let (group, i) = (task / order.len(), order[task % order.len()]);
            self.chunk(positions[i], group, &columns[i])
        })?;
        let mut finished = vec![];
        for (column, &index) in columns.into_iter().zip(positions) {
            let column = column.into_column().ok_or_else(|| self.corrupt(self.about(index, "it ends too soon")))?;
            if column.rows != self.rows()? {
                let message = format!("expected {} rows, found {}", self.rows()?, column.rows);
                return Err(self.corrupt(self.about(index, &message)));
            }
            finished.push(column);
        }
        Ok(Table::new(self.name(), finished)?.with_rows(self.rows()?))
    }

    /// Decodes one column of one row group.
    fn chunk(&self, index: usize, group: usize, column: &Assembly) -> Result<()> {
        // Readers seek, so that each needs a file of its own.
        let file = File::open(&self.path).map_err(file_error(&self.path))?;
        let mut reader = self.guarded(index, || {
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
            let mask = ProjectionMask::roots(builder.parquet_schema(), [index]);
            builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(BATCH_ROWS).build()
        })?;
        while let Some(batch) = self.guarded(index, || Ok(reader.next().transpose()?))? {
            self.guarded(index, || Ok(column.add(group, batch.column(0).clone())))?.map_err(|e| self.inside(e))?;
        }
        self.guarded(index, || Ok(column.close(group)))?.map_err(|e| self.inside(e))
    }

    /// Bytes of a column when decoded, about; more than a decoder makes of it unless it has a dictionary.
    fn bytes(&self, index: usize) -> usize {
        let chunks = chunks(&self.leaves[index], self.metadata.metadata());
        chunks.map(|chunk| usize::try_from(chunk.uncompressed_size()).unwrap_or(0)).fold(0, usize::saturating_add)
    }

    fn guarded<T>(
        &self,
        index: usize,
        decode: impl FnOnce() -> Result<T, ::parquet::errors::ParquetError>,
    ) -> Result<T> {
        guarded(&self.path, decode).map_err(|error| match error {
            Error::Format { message, .. } => self.corrupt(self.about(index, &message)),
            other => other,
        })
    }

    fn about(&self, index: usize, message: &str) -> String {
        format!("column `{}`: {message}", self.fields[index].name())
    }

    fn corrupt(&self, message: String) -> Error {
        format_error(&self.path, message)
    }

    fn inside(&self, source: Error) -> Error {
        Error::InFile { path: self.path.clone(), source: Box::new(source) }
    }
}

/// Does tasks, which are taken in order, on all threads; gives an error of one if there is any.
fn in_parallel(tasks: usize, work: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let error = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    rayon::broadcast(|_| {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            if let Err(found) = work(task) {
                error().get_or_insert(found);
                // Nobody takes another task.
                next.store(tasks, Ordering::Relaxed);
            }
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// The Parquet columns below each of so many fields.
fn leaves(metadata: &ParquetMetaData, fields: usize) -> Vec<Vec<usize>> {
    let schema = metadata.file_metadata().schema_descr();
    let mut leaves = vec![vec![]; fields];
    for leaf in 0..schema.num_columns() {
        if let Some(of_field) = leaves.get_mut(schema.get_column_root_idx(leaf)) {
            of_field.push(leaf);
        }
    }
    leaves
}

/// The chunks of some Parquet columns.
fn chunks<'a>(leaves: &'a [usize], metadata: &'a ParquetMetaData) -> impl Iterator<Item = &'a ColumnChunkMetaData> {
    metadata.row_groups().iter().flat_map(|group| leaves.iter().map(|&leaf| group.column(leaf)))
}

fn with_type(field: &FieldRef, ty: DataType) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(ty))
}

/// The type that a column is made from: views as plain strings, which is what columns hold, and decimals no wider than
/// they are in the file.
fn plain(field: &FieldRef, leaves: &[usize], metadata: &ParquetMetaData) -> DataType {
    let schema = metadata.file_metadata().schema_descr();
    let physical = leaves.first().map(|&leaf| schema.column(leaf).physical_type());
    match (field.data_type(), physical) {
        (DataType::Utf8View, _) => DataType::Utf8,
        (DataType::BinaryView, _) => DataType::Binary,
        (&DataType::Decimal128(precision @ ..=9, scale), Some(Physical::INT32)) => {
            DataType::Decimal32(precision, scale)
        }
        (&DataType::Decimal128(precision @ ..=18, scale), Some(Physical::INT64)) => {
            DataType::Decimal64(precision, scale)
        }
        (ty, _) => ty.clone(),
    }
}

/// The type that chunks are decoded as: strings keep a dictionary that all pages use, so that every string is looked at
/// once only.
fn coded(field: &FieldRef, leaves: &[usize], metadata: &ParquetMetaData) -> DataType {
    let schema = metadata.file_metadata().schema_descr();
    let is_text = leaves.iter().all(|&leaf| schema.column(leaf).converted_type() == ConvertedType::UTF8);
    let has_dictionary = |chunk: &ColumnChunkMetaData| {
        let encodings = [Encoding::RLE_DICTIONARY, Encoding::PLAIN_DICTIONARY];
        let mask = chunk.page_encoding_stats_mask();
        chunk.dictionary_page_offset().is_some() && mask.is_some_and(|m| encodings.iter().any(|e| m.is_only(*e)))
    };
    match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 if is_text && chunks(leaves, metadata).all(has_dictionary) => {
            coded_strings()
        }
        DataType::Dictionary(_, value) if is_text && matches!(**value, DataType::Utf8 | DataType::LargeUtf8) => {
            coded_strings()
        }
        ty => ty.clone(),
    }
}
