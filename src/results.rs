//! Results of a run: tables as Arrow record batches, tensors.

use crate::data::{Catalog, Phys, Tensor, Values};
use crate::error::{Error, Result};
use crate::lower::Input;
use crate::lower::relational::layout::TEXT_LEN;
use crate::lower::relational::{RowField, RowLayout, Stored};
use crate::moved::Moved;
use arrow::array::*;
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{Field, IntervalMonthDayNano, Schema};
use arrow::util::pretty::pretty_format_batches;
use half::{bf16, f16};
use quearn_backends::abi::{CHUNK_ROWS, ROWS_BYTES, RowList};
use quearn_backends::runtime::MemoryUse;
use quearn_stage::graph::{Dim, Scalar};
use quearn_stage::low::Prim;
use std::fmt;
use std::sync::Arc;

/// One result.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A table (a scalar over tables is a table of one row and column).
    Table(RecordBatch),
    /// A tensor.
    Tensor(Tensor),
}

/// The results of a run, by name.
#[derive(Clone, Debug)]
pub struct Outputs {
    values: Vec<(String, Outcome)>,
    /// Milliseconds that the compiled program ran.
    pub run_ms: f64,
    /// Memory that the run held beside inputs and results.
    pub memory: MemoryUse,
    moved: Moved,
}

impl Outputs {
    pub(crate) fn new(values: Vec<(String, Outcome)>, run_ms: f64, memory: MemoryUse, moved: Moved) -> Outputs {
        Outputs { values, run_ms, memory, moved }
    }

    /// The bytes that the run read, wrote and copied, and where.
    pub fn moved(&self) -> &Moved {
        &self.moved
    }

    /// All results in the order of the program.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Outcome)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The table of that name.
    pub fn table(&self, name: &str) -> Result<&RecordBatch> {
        match self.get(name) {
            Some(Outcome::Table(batch)) => Ok(batch),
            _ => Err(self.missing("table", name)),
        }
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        match self.get(name) {
            Some(Outcome::Tensor(tensor)) => Ok(tensor),
            _ => Err(self.missing("tensor", name)),
        }
    }

    fn get(&self, name: &str) -> Option<&Outcome> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    fn missing(&self, kind: &'static str, name: &str) -> Error {
        let known: Vec<&str> = self.values.iter().map(|(n, _)| n.as_str()).collect();
        Error::NoResult { kind, name: name.to_owned(), known: known.join(", ") }
    }
}

impl fmt::Display for Outputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.iter() {
            match value {
                Outcome::Table(batch) => {
                    let text = pretty_format_batches(std::slice::from_ref(batch)).map_err(|_| fmt::Error)?;
                    writeln!(f, "{name}:\n{text}")?;
                }
                Outcome::Tensor(tensor) => writeln!(f, "{name}: {tensor}")?,
            }
        }
        Ok(())
    }
}

/// Memory for a result tensor while the program runs.
pub(crate) struct TensorMemory {
    scalar: Scalar,
    shape: Vec<u64>,
    bytes: arrow::buffer::MutableBuffer,
}

impl TensorMemory {
    pub(crate) fn new(scalar: Scalar, shape: Vec<u64>) -> Result<TensorMemory> {
        let too_large = || Error::Setting(format!("a result tensor of shape {shape:?} does not fit in memory"));
        let width = Phys::of(scalar).map_or(1, Phys::bytes) as u64;
        let bytes = shape.iter().try_fold(width, |all, n| all.checked_mul(*n)).ok_or_else(too_large)?;
        let bytes = usize::try_from(bytes).ok().filter(|b| *b < isize::MAX as usize / 2).ok_or_else(too_large)?;
        Ok(TensorMemory { scalar, bytes: arrow::buffer::MutableBuffer::from_len_zeroed(bytes), shape })
    }

    /// Memory with the elements of a tensor.
    pub(crate) fn from_tensor(tensor: &Tensor) -> Result<TensorMemory> {
        let mut memory = TensorMemory::new(tensor.scalar(), tensor.shape().to_vec())?;
        memory.bytes.as_slice_mut().copy_from_slice(tensor.data());
        Ok(memory)
    }

    /// Other memory for such a tensor.
    pub(crate) fn like(&self) -> Result<TensorMemory> {
        TensorMemory::new(self.scalar, self.shape.clone())
    }

    /// A tensor with the elements.
    pub(crate) fn copy(&self) -> Result<Tensor> {
        Ok(Tensor::from_bytes(self.scalar, &self.shape, self.bytes.as_slice())?)
    }

    /// Is it memory for such an input, of known extents?
    pub(crate) fn is(&self, input: &Input) -> bool {
        self.scalar == input.scalar && input.shape.iter().map(Dim::as_const).eq(self.shape.iter().map(|n| Some(*n)))
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    pub(crate) fn finish(self) -> Result<Tensor> {
        Ok(Tensor::from_buffer(self.scalar, self.shape, self.bytes.into())?)
    }
}

/// Columns that were written as a whole, as a record batch.
pub(crate) fn columns<'a>(
    names: impl Iterator<Item = &'a str>,
    memory: impl IntoIterator<Item = TensorMemory>,
) -> Result<RecordBatch> {
    let column = |memory: TensorMemory| -> Result<ArrayRef> {
        let buffer: arrow::buffer::Buffer = memory.bytes.into();
        Ok(match memory.scalar {
            Scalar::I32 => Arc::new(Int32Array::new(ScalarBuffer::from(buffer), None)),
            Scalar::I64 => Arc::new(Int64Array::new(ScalarBuffer::from(buffer), None)),
            Scalar::F32 => Arc::new(Float32Array::new(ScalarBuffer::from(buffer), None)),
            Scalar::F64 => Arc::new(Float64Array::new(ScalarBuffer::from(buffer), None)),
            Scalar::Date => Arc::new(Date32Array::new(ScalarBuffer::from(buffer), None)),
            Scalar::Timestamp => Arc::new(TimestampMicrosecondArray::new(ScalarBuffer::from(buffer), None)),
            other => return Err(Error::Setting(format!("internal error: a result column of {other} as a whole"))),
        })
    };
    let (mut fields, mut arrays) = (vec![], vec![]);
    for (name, memory) in names.zip(memory) {
        let array = column(memory)?;
        fields.push(Field::new(name, array.data_type().clone(), false));
        arrays.push(array);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
        .map_err(|e| Error::Setting(format!("internal error: results do not form a batch: {e}")))
}

/// Addresses of all rows of the workers' lists, worker by worker.
///
/// # Safety
/// `lists` is null or points to `workers` lists, `ROWS_BYTES` apart, of rows of `width` bytes that are alive.
pub(crate) unsafe fn rows(lists: *const u8, workers: usize, width: i64) -> Vec<*const u8> {
    let mut rows = vec![];
    if lists.is_null() {
        return rows;
    }
    for worker in 0..workers {
        // SAFETY: the caller vouches for the list and, through it, for its chunks.
        unsafe {
            let list = &*lists.add(worker * ROWS_BYTES as usize).cast::<RowList>();
            let mut chunk = list.first;
            while !chunk.is_null() {
                let end = if chunk == list.last { list.cur } else { (*chunk).end };
                let mut row = chunk.cast::<u8>().add(CHUNK_ROWS as usize);
                while row < end {
                    rows.push(row.cast_const());
                    row = row.add(width as usize);
                }
                chunk = (*chunk).next;
            }
        }
    }
    rows
}

/// Where the texts of codes are.
pub(crate) struct Source<'a> {
    pub catalog: &'a Catalog,
    pub dictionaries: &'a [(String, String)],
}

impl Source<'_> {
    /// Rows as a record batch.
    pub(crate) fn batch(&self, layout: &RowLayout, rows: &[*const u8]) -> Result<RecordBatch> {
        let mut fields = vec![];
        let mut arrays = vec![];
        for field in &layout.fields {
            let array = self.array(field, rows)?;
            fields.push(Field::new(&field.name, array.data_type().clone(), field.elem.nullable));
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|e| Error::Setting(format!("internal error: results do not form a batch: {e}")))
    }

    fn array(&self, field: &RowField, rows: &[*const u8]) -> Result<ArrayRef> {
        let ints = || rows.iter().map(|row| int(field, *row));
        macro_rules! numbers {
            ($array:ty, $from:ident) => {
                Arc::new(<$array>::from_iter($from().map(|x| x.map(|x| x as _)))) as ArrayRef
            };
        }
        let floats = || rows.iter().map(|row| float(field, *row));
        Ok(match field.elem.scalar {
            Scalar::Bool => Arc::new(BooleanArray::from_iter(ints().map(|x| x.map(|x| x != 0)))),
            Scalar::I8 => numbers!(Int8Array, ints),
            Scalar::U8 => numbers!(UInt8Array, ints),
            Scalar::I16 => numbers!(Int16Array, ints),
            Scalar::I32 => numbers!(Int32Array, ints),
            Scalar::I64 => numbers!(Int64Array, ints),
            Scalar::Date => numbers!(Date32Array, ints),
            Scalar::Timestamp => numbers!(TimestampMicrosecondArray, ints),
            Scalar::F32 => numbers!(Float32Array, floats),
            // Arrow has no bfloat16.
            Scalar::BF16 => Arc::new(Float32Array::from_iter(floats().map(|x| x.map(|x| bf16::from_f64(x).to_f32())))),
            Scalar::F16 => Arc::new(Float16Array::from_iter(floats().map(|x| x.map(f16::from_f64)))),
            Scalar::F64 => numbers!(Float64Array, floats),
            Scalar::Decimal { precision, scale } => {
                let array = Decimal128Array::from_iter(ints());
                let typed = array.with_precision_and_scale(precision, scale as i8);
                Arc::new(typed.map_err(|e| Error::Setting(format!("internal error: {e}")))?)
            }
            Scalar::Interval => {
                let interval = |bits: i128| {
                    IntervalMonthDayNano::new(
                        bits as i32,
                        (bits >> 32) as i32,
                        ((bits >> 64) as i64).saturating_mul(1000),
                    )
                };
                Arc::new(IntervalMonthDayNanoArray::from_iter(ints().map(|x| x.map(interval))))
            }
            Scalar::String => self.strings(field, rows),
        })
    }

    fn strings(&self, field: &RowField, rows: &[*const u8]) -> ArrayRef {
        let dict = match field.stored {
            Stored::Code(dict) => self.dictionaries.get(dict.0 as usize).and_then(|(table, column)| {
                match &self.catalog.table(table)?.column(column).ok()?.values {
                    Values::Coded { dict, .. } => Some(Arc::clone(dict)),
                    _ => None,
                }
            }),
            _ => None,
        };
        let texts = rows.iter().map(|row| {
            is_valid(field, *row).then(|| match &dict {
                Some(dict) => dict.get(read::<i32>(*row, field.offset) as usize).to_owned(),
                None => text(field, *row),
            })
        });
        Arc::new(StringArray::from_iter(texts))
    }
}

fn read<T: Copy>(row: *const u8, offset: i64) -> T {
    // SAFETY: rows come from `rows`, whose caller vouched for them; fields lie inside the row's width, and every bit
    // pattern of the integers and floats read here is a value.
    unsafe { row.add(offset as usize).cast::<T>().read_unaligned() }
}

fn is_valid(field: &RowField, row: *const u8) -> bool {
    field.valid.is_none_or(|at| read::<u8>(row, at) != 0)
}

fn int(field: &RowField, row: *const u8) -> Option<i128> {
    let Stored::Prim(prim) = field.stored else { return None };
    is_valid(field, row).then(|| match prim {
        Prim::Bool | Prim::I8 => read::<i8>(row, field.offset).into(),
        Prim::I16 => read::<i16>(row, field.offset).into(),
        Prim::I32 => read::<i32>(row, field.offset).into(),
        Prim::I128 => read::<i128>(row, field.offset),
        _ => read::<i64>(row, field.offset).into(),
    })
}

fn float(field: &RowField, row: *const u8) -> Option<f64> {
    is_valid(field, row).then(|| match field.stored {
        Stored::Prim(Prim::F32) => read::<f32>(row, field.offset).into(),
        _ => read::<f64>(row, field.offset),
    })
}

fn text(field: &RowField, row: *const u8) -> String {
    let ptr = read::<*const u8>(row, field.offset);
    let len = read::<i32>(row, field.offset + TEXT_LEN).max(0) as usize;
    if ptr.is_null() || len == 0 {
        return String::new();
    }
    // SAFETY: the program stored the place of text in the catalog, the frame or the run, all alive.
    let bytes = unsafe { std::slice::from_raw_parts(ptr, len) };
    String::from_utf8_lossy(bytes).into_owned()
}
