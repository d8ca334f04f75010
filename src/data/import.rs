//! Arrow arrays to columns: shared where the layout allows, narrowed or dictionary-coded where asked.

use super::build::{self, ColumnBuilder};
use super::{Column, Error, LoadOptions, Phys, PlainText, Result, Validity, Values};
use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::*;
use quearn_stage::graph::Scalar;
use std::sync::Arc;

/// A column of all rows of `arrays`, whose type is that of `field`; the memory of a single array is shared if it can
/// stay as it is.
pub(super) fn column(field: &Field, arrays: &[ArrayRef], options: &LoadOptions) -> Result<Column> {
    if let [array] = arrays
        && let Some(column) = shared(field, array, options)?
    {
        return Ok(column);
    }
    let rows = arrays.iter().map(|a| a.len()).sum();
    let text_bytes = arrays.iter().map(|a| a.get_buffer_memory_size()).sum();
    let mut builder = ColumnBuilder::new(field, rows, text_bytes, options)?;
    for array in arrays {
        builder.append(array)?;
        builder.pack();
    }
    Ok(builder.finish())
}

fn shared(field: &Field, array: &ArrayRef, options: &LoadOptions) -> Result<Option<Column>> {
    let layout = Layout::of(field.name(), field.data_type())?;
    if !layout.keeps(options) {
        return Ok(None);
    }
    let Some(values) = layout.shared(&layout.leaf(field.name(), array)?) else { return Ok(None) };
    let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
    let validity = nulls.map(|nulls| Validity { bits: nulls.buffer().clone(), offset: nulls.offset() });
    Ok(Some(build::column(field.name().clone(), field.is_nullable(), layout, array.len(), values, validity, None)))
}

/// How an Arrow type is read.
pub(super) struct Layout {
    pub(super) scalar: Scalar,
    /// Extents of nested fixed-size lists.
    pub(super) shape: Vec<u64>,
    /// The Arrow type that leaves are cast to first; equal to their own type where no work is needed.
    pub(super) leaf: DataType,
}

impl Layout {
    pub(super) fn of(column: &str, ty: &DataType) -> Result<Layout> {
        let (scalar, leaf) = match ty {
            DataType::FixedSizeList(item, len) => return Layout::of_list(column, ty, item, *len),
            DataType::Dictionary(_, value) => match Layout::of(column, value)? {
                Layout { scalar: Scalar::String, .. } => (Scalar::String, coded_strings()),
                other if other.shape.is_empty() => return Ok(other),
                _ => return Err(unsupported(column, ty)),
            },
            _ => scalar_of(ty).ok_or_else(|| unsupported(column, ty))?,
        };
        Ok(Layout { scalar, shape: vec![], leaf })
    }

    fn of_list(column: &str, ty: &DataType, item: &Field, len: i32) -> Result<Layout> {
        let inner = Layout::of(column, item.data_type())?;
        if inner.scalar == Scalar::String {
            return Err(unsupported(column, ty));
        }
        let len = u64::try_from(len).map_err(|_| unsupported(column, ty))?;
        Ok(Layout { shape: [vec![len], inner.shape].concat(), ..inner })
    }

    /// The elements below nested lists, as the leaf type; strings may keep a dictionary.
    pub(super) fn leaf(&self, column: &str, array: &ArrayRef) -> Result<ArrayRef> {
        let mut leaf = Arc::clone(array);
        let mut per_row = 1;
        while let Some(list) = leaf.as_fixed_size_list_opt() {
            per_row *= list.value_length() as usize;
            let items = list.values().slice(0, list.len() * list.value_length() as usize);
            if let Some(nulls) = items.logical_nulls() {
                check_inner_nulls(column, &nulls, array, per_row)?;
            }
            leaf = items;
        }
        if leaf.data_type() == &self.leaf || (self.phys().is_none() && leaf.data_type() == &coded_strings()) {
            return Ok(leaf);
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&leaf, &self.leaf, &options)
            .map_err(|e| Error::Value { column: column.into(), message: format!("expected {}: {e}", self.scalar) })
    }

    /// Elements in a row.
    pub(super) fn inner_len(&self) -> usize {
        self.shape.iter().product::<u64>() as usize
    }

    /// Storage of a leaf's elements; `None` for strings.
    pub(super) fn phys(&self) -> Option<Phys> {
        Some(match &self.leaf {
            DataType::Boolean => Phys::Bool,
            DataType::UInt8 => Phys::U8,
            DataType::Int8 => Phys::I8,
            DataType::Int16 => Phys::I16,
            DataType::Int32 | DataType::Decimal32(..) | DataType::Date32 => Phys::I32,
            DataType::Int64 | DataType::Decimal64(..) | DataType::Timestamp(..) => Phys::I64,
            DataType::Decimal128(..) | DataType::Interval(_) => Phys::I128,
            DataType::Float16 => Phys::F16,
            DataType::Float32 => Phys::F32,
            DataType::Float64 => Phys::F64,
            _ => return None,
        })
    }

    /// Are the elements integers that may be stored in less?
    pub(super) fn narrows(&self, options: &LoadOptions) -> bool {
        let wide = matches!(self.phys(), Some(Phys::I16 | Phys::I32 | Phys::I64 | Phys::I128));
        options.narrow && wide && self.scalar != Scalar::Interval && self.shape.is_empty()
    }

    /// Does a column have the layout of the leaf? (Arrow has bits for booleans, and more in an interval.)
    fn keeps(&self, options: &LoadOptions) -> bool {
        match &self.leaf {
            DataType::Utf8 | DataType::LargeUtf8 => options.dictionary_limit == 0,
            DataType::Boolean | DataType::Interval(_) | DataType::Dictionary(..) => false,
            _ => !self.narrows(options),
        }
    }

    /// A leaf that [`Layout::keeps`], in its own memory.
    fn shared(&self, leaf: &ArrayRef) -> Option<Values> {
        match (&self.leaf, self.phys()) {
            (DataType::Utf8, _) => Some(shared_text::<i32>(leaf)),
            (DataType::LargeUtf8, _) => Some(shared_text::<i64>(leaf)),
            (_, phys) => Some(Values::Fixed { phys: phys?, data: leaf.to_data().buffers().first()?.clone() }),
        }
    }
}

fn shared_text<O: OffsetSizeTrait>(array: &ArrayRef) -> Values {
    let array = array.as_string::<O>();
    let offsets = array.offsets().inner().inner().clone();
    Values::Text(PlainText { offsets, wide: O::IS_LARGE, bytes: array.values().clone() }.into())
}

/// Strings with a dictionary, as they are read.
pub(crate) fn coded_strings() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// Meaning of an Arrow type, and the type to cast it to before it is read.
fn scalar_of(ty: &DataType) -> Option<(Scalar, DataType)> {
    let decimal = |precision: u8, scale: i8| {
        let scale = u8::try_from(scale).ok().filter(|s| *s <= precision)?;
        Some((Scalar::decimal(precision, scale), ty.clone()))
    };
    Some(match ty {
        DataType::Boolean => (Scalar::Bool, DataType::Boolean),
        DataType::Int8 => (Scalar::I8, DataType::Int8),
        DataType::UInt8 => (Scalar::U8, DataType::UInt8),
        DataType::Int16 => (Scalar::I16, DataType::Int16),
        DataType::Int32 | DataType::UInt16 => (Scalar::I32, DataType::Int32),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => (Scalar::I64, DataType::Int64),
        DataType::Float16 => (Scalar::F16, DataType::Float16),
        DataType::Float32 => (Scalar::F32, DataType::Float32),
        DataType::Float64 => (Scalar::F64, DataType::Float64),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => return decimal(*p, *s),
        DataType::Date32 | DataType::Date64 => (Scalar::Date, DataType::Date32),
        DataType::Timestamp(..) => (Scalar::Timestamp, DataType::Timestamp(TimeUnit::Microsecond, None)),
        DataType::Interval(_) => (Scalar::Interval, DataType::Interval(IntervalUnit::MonthDayNano)),
        DataType::Utf8 | DataType::Utf8View | DataType::Binary | DataType::BinaryView => {
            (Scalar::String, DataType::Utf8)
        }
        DataType::LargeUtf8 | DataType::LargeBinary => (Scalar::String, DataType::LargeUtf8),
        _ => return None,
    })
}

fn unsupported(column: &str, ty: &DataType) -> Error {
    Error::UnsupportedType { column: column.into(), found: ty.to_string() }
}

/// Tensors have no NULL elements; what lies below a row that is NULL itself does not matter.
fn check_inner_nulls(column: &str, items: &NullBuffer, rows: &ArrayRef, per_row: usize) -> Result<()> {
    match (0..items.len()).find(|&i| items.is_null(i) && rows.is_valid(i / per_row)) {
        None => Ok(()),
        Some(i) => {
            let message = format!("row {}: expected {per_row} elements, found NULL in place of one", i / per_row);
            Err(Error::Value { column: column.into(), message })
        }
    }
}
