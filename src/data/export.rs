//! Columns back to Arrow; memory is shared where storage and logical type agree.

use super::{Column, Error, Phys, PlainText, Result, Table, Values};
use arrow::array::{Array, BooleanArray, StringArray};
use arrow::array::{
    ArrayData, ArrayDataBuilder, ArrayRef, DictionaryArray, RecordBatch, RecordBatchOptions, make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::datatypes::*;
use arrow::error::ArrowError;
use quearn_stage::graph::Scalar;
use std::sync::Arc;

impl Table {
    /// All rows as one batch. Coded strings become dictionary arrays.
    pub fn to_batch(&self) -> Result<RecordBatch> {
        let arrays = self.columns().iter().map(Column::to_array).collect::<Result<Vec<_>>>()?;
        let fields = self.columns().iter().zip(&arrays);
        let fields: Vec<_> = fields.map(|(c, a)| Field::new(&c.name, a.data_type().clone(), c.elem.nullable)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .map_err(|e| Error::Table { table: self.name().into(), message: e.to_string() })
    }
}

impl Column {
    /// The column as an Arrow array of its logical type (nested fixed-size lists for an inner shape).
    pub fn to_array(&self) -> Result<ArrayRef> {
        let array = match &self.values {
            Values::Fixed { phys, data } => self.fixed_array(*phys, data),
            Values::Text(_) => {
                let PlainText { offsets, wide, bytes } = self.plain_text()?.clone();
                let ty = if wide { DataType::LargeUtf8 } else { DataType::Utf8 };
                self.build(ty, self.rows, vec![offsets, bytes]).map(make_array)
            }
            Values::Coded { phys, codes, dict } => {
                let strings = StringArray::from_iter_values(dict.iter());
                self.coded_array(*phys, codes, strings)
            }
        };
        array.map_err(|e| Error::Value { column: self.name.clone(), message: e.to_string() })
    }

    fn fixed_array(&self, phys: Phys, data: &Buffer) -> Result<ArrayRef, ArrowError> {
        let len = self.rows * self.inner_len();
        let ty = arrow_type(self.elem.scalar)
            .ok_or_else(|| ArrowError::NotYetImplemented(format!("Arrow has no type {}", self.elem.scalar)))?;
        let natural = Phys::of(self.elem.scalar).unwrap_or(phys);
        let leaf = match self.elem.scalar {
            Scalar::Bool => {
                let bits: BooleanBuffer = data[..len].iter().map(|b| *b != 0).collect();
                let nulls = self.validity.as_ref().filter(|_| self.shape.is_empty()).map(|v| v.to_nulls(self.rows));
                Arc::new(BooleanArray::new(bits, nulls)) as ArrayRef
            }
            Scalar::Interval => make_array(self.build(ty, len, vec![nanos(data, len)])?),
            Scalar::Decimal { .. } => make_array(self.build(ty, len, vec![widened(phys, Phys::I128, data, len)])?),
            _ => make_array(self.build(ty, len, vec![widened(phys, natural, data, len)])?),
        };
        self.nested(leaf)
    }

    /// Array data with the column's validity (which belongs to the outermost list, if there is one).
    fn build(&self, ty: DataType, len: usize, buffers: Vec<Buffer>) -> Result<ArrayData, ArrowError> {
        let nulls = self.validity.as_ref().filter(|_| self.shape.is_empty()).map(|v| v.to_nulls(self.rows));
        ArrayDataBuilder::new(ty).len(len).buffers(buffers).nulls(nulls).align_buffers(true).build()
    }

    fn coded_array(&self, phys: Phys, codes: &Buffer, strings: StringArray) -> Result<ArrayRef, ArrowError> {
        let key = match phys {
            Phys::I8 => DataType::Int8,
            Phys::I16 => DataType::Int16,
            _ => DataType::Int32,
        };
        let keys = self.build(key, self.rows, vec![codes.clone()])?;
        let strings: ArrayRef = Arc::new(strings);
        Ok(match phys {
            Phys::I8 => Arc::new(DictionaryArray::<Int8Type>::try_new(keys.into(), strings)?) as ArrayRef,
            Phys::I16 => Arc::new(DictionaryArray::<Int16Type>::try_new(keys.into(), strings)?),
            _ => Arc::new(DictionaryArray::<Int32Type>::try_new(keys.into(), strings)?),
        })
    }

    fn nested(&self, leaf: ArrayRef) -> Result<ArrayRef, ArrowError> {
        let mut array = leaf;
        for (axis, extent) in self.shape.iter().enumerate().rev() {
            let item = Arc::new(Field::new_list_field(array.data_type().clone(), false));
            let len = self.shape[..axis].iter().product::<u64>() as usize * self.rows;
            let extent = i32::try_from(*extent).map_err(|e| ArrowError::InvalidArgumentError(e.to_string()))?;
            let nulls = self.validity.as_ref().filter(|_| axis == 0).map(|v| v.to_nulls(self.rows));
            let data = ArrayDataBuilder::new(DataType::FixedSizeList(item, extent)).len(len).nulls(nulls);
            array = make_array(data.add_child_data(array.to_data()).build()?);
        }
        Ok(array)
    }
}

fn arrow_type(scalar: Scalar) -> Option<DataType> {
    Some(match scalar {
        Scalar::Bool => DataType::Boolean,
        Scalar::I8 => DataType::Int8,
        Scalar::U8 => DataType::UInt8,
        Scalar::I16 => DataType::Int16,
        Scalar::I32 => DataType::Int32,
        Scalar::I64 => DataType::Int64,
        Scalar::F16 => DataType::Float16,
        Scalar::F32 => DataType::Float32,
        Scalar::F64 => DataType::Float64,
        Scalar::Decimal { precision, scale } => DataType::Decimal128(precision, scale as i8),
        Scalar::Date => DataType::Date32,
        Scalar::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
        Scalar::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
        Scalar::String => DataType::Utf8,
        Scalar::BF16 => return None,
    })
}

/// Integers of storage `from` in the wider storage `to`; shared if they are the same.
fn widened(from: Phys, to: Phys, data: &Buffer, len: usize) -> Buffer {
    if from == to {
        return data.slice_with_length(0, len * from.bytes());
    }
    match from {
        Phys::I8 => widen(&data.typed_data::<i8>()[..len], to),
        Phys::I16 => widen(&data.typed_data::<i16>()[..len], to),
        Phys::I32 => widen(&data.typed_data::<i32>()[..len], to),
        Phys::I64 => widen(&data.typed_data::<i64>()[..len], to),
        _ => data.clone(),
    }
}

fn widen<T: Copy + Into<i128>>(values: &[T], to: Phys) -> Buffer {
    let values = values.iter().map(|v| -> i128 { (*v).into() });
    match to {
        Phys::I16 => values.map(|v| v as i16).collect(),
        Phys::I32 => values.map(|v| v as i32).collect(),
        Phys::I64 => values.map(|v| v as i64).collect(),
        _ => values.collect(),
    }
}

/// Intervals with nanoseconds, as Arrow has them.
fn nanos(data: &Buffer, len: usize) -> Buffer {
    let cells = data.typed_data::<i128>()[..len].iter();
    cells
        .map(|bits| IntervalMonthDayNano {
            months: *bits as i32,
            days: (bits >> 32) as i32,
            nanoseconds: ((bits >> 64) as i64).saturating_mul(1_000),
        })
        .collect()
}
