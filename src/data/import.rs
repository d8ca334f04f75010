//! Arrow arrays to columns: shared where the layout allows, narrowed or dictionary-coded where asked.

use super::dictionary::Encoder;
use super::{Column, Dictionary, Error, LoadOptions, Phys, Result, Validity, Values, stats};
use arrow::array::*;
use arrow::buffer::{Buffer, MutableBuffer, NullBuffer};
use arrow::compute::{CastOptions, cast_with_options, max, min};
use arrow::datatypes::*;
use quearn_stage::graph::{Elem, Scalar};
use std::sync::Arc;

/// A column of all rows of `arrays`, whose type is that of `field`.
pub(crate) fn column(field: &Field, arrays: &[ArrayRef], options: &LoadOptions) -> Result<Column> {
    let name = field.name();
    let layout = Layout::of(name, field.data_type())?;
    let leaves = arrays.iter().map(|a| layout.leaf(name, a)).collect::<Result<Vec<ArrayRef>>>()?;
    let parts: Vec<_> = arrays.iter().map(|a| (a.len(), a.logical_nulls())).collect();
    let parts: Vec<_> = parts.iter().map(|(len, nulls)| (*len, nulls.as_ref())).collect();
    let validity = Validity::join(&parts);
    let rows = arrays.iter().map(|a| a.len()).sum();
    let values = layout.values(&leaves, rows, options);
    let stats = stats::gather(&values, validity.as_ref(), rows, !layout.shape.is_empty());
    let elem = Elem { scalar: layout.scalar, nullable: field.is_nullable() || validity.is_some() };
    Ok(Column { name: name.clone(), elem, shape: layout.shape, rows, values, validity, stats })
}

/// How an Arrow type is read.
struct Layout {
    scalar: Scalar,
    /// Extents of nested fixed-size lists.
    shape: Vec<u64>,
    /// The Arrow type that leaves are cast to first; equal to their own type where no work is needed.
    leaf: DataType,
}

impl Layout {
    fn of(column: &str, ty: &DataType) -> Result<Layout> {
        let (scalar, leaf) = match ty {
            DataType::FixedSizeList(item, len) => return Layout::of_list(column, ty, item, *len),
            DataType::Dictionary(_, value) => match Layout::of(column, value)? {
                Layout { scalar: Scalar::String, .. } => {
                    (Scalar::String, DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)))
                }
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

    /// The elements below nested lists, as the leaf type.
    fn leaf(&self, column: &str, array: &ArrayRef) -> Result<ArrayRef> {
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
        if leaf.data_type() == &self.leaf {
            return Ok(leaf);
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&leaf, &self.leaf, &options)
            .map_err(|e| Error::Value { column: column.into(), message: format!("expected {}: {e}", self.scalar) })
    }

    fn values(&self, leaves: &[ArrayRef], rows: usize, options: &LoadOptions) -> Values {
        let narrow = options.narrow && self.shape.is_empty();
        let fixed = |phys, data| Values::Fixed { phys, data };
        match &self.leaf {
            DataType::Boolean => fixed(Phys::Bool, bool_bytes(leaves)),
            DataType::UInt8 => fixed(Phys::U8, joined::<UInt8Type>(leaves)),
            DataType::Int8 => fixed(Phys::I8, joined::<Int8Type>(leaves)),
            DataType::Int16 => ints::<Int16Type>(leaves, Phys::I16, narrow),
            DataType::Int32 => ints::<Int32Type>(leaves, Phys::I32, narrow),
            DataType::Int64 => ints::<Int64Type>(leaves, Phys::I64, narrow),
            DataType::Decimal32(..) => ints::<Decimal32Type>(leaves, Phys::I32, narrow),
            DataType::Decimal64(..) => ints::<Decimal64Type>(leaves, Phys::I64, narrow),
            DataType::Decimal128(..) => ints::<Decimal128Type>(leaves, Phys::I128, narrow),
            DataType::Date32 => ints::<Date32Type>(leaves, Phys::I32, narrow),
            DataType::Timestamp(..) => ints::<TimestampMicrosecondType>(leaves, Phys::I64, narrow),
            DataType::Interval(_) => fixed(Phys::I128, intervals(leaves)),
            DataType::Float16 => fixed(Phys::F16, joined::<Float16Type>(leaves)),
            DataType::Float32 => fixed(Phys::F32, joined::<Float32Type>(leaves)),
            DataType::Float64 => fixed(Phys::F64, joined::<Float64Type>(leaves)),
            DataType::LargeUtf8 => text::<i64>(leaves, rows, options),
            DataType::Dictionary(..) => dictionary(leaves, rows),
            _ => text::<i32>(leaves, rows, options),
        }
    }
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

/// The values of all arrays; those of a single array are shared.
fn joined<T: ArrowPrimitiveType>(arrays: &[ArrayRef]) -> Buffer {
    if let [array] = arrays {
        return array.as_primitive::<T>().values().inner().clone();
    }
    let mut out = MutableBuffer::new(arrays.iter().map(|a| a.len()).sum::<usize>() * size_of::<T::Native>());
    arrays.iter().for_each(|a| out.extend_from_slice(a.as_primitive::<T>().values()));
    out.into()
}

fn bool_bytes(arrays: &[ArrayRef]) -> Buffer {
    let mut out = MutableBuffer::new(arrays.iter().map(|a| a.len()).sum());
    arrays.iter().for_each(|a| out.extend(a.as_boolean().values().iter().map(u8::from)));
    out.into()
}

fn intervals(arrays: &[ArrayRef]) -> Buffer {
    let mut out = MutableBuffer::new(arrays.iter().map(|a| a.len()).sum::<usize>() * 16);
    for array in arrays {
        let cell = |v: &IntervalMonthDayNano| {
            let micros = v.nanoseconds / 1_000;
            i128::from(micros) << 64 | i128::from(v.days as u32) << 32 | i128::from(v.months as u32)
        };
        out.extend(array.as_primitive::<IntervalMonthDayNanoType>().values().iter().map(cell));
    }
    out.into()
}

/// Integers, in the narrowest storage if asked and narrower than `natural`.
fn ints<T>(arrays: &[ArrayRef], natural: Phys, narrow: bool) -> Values
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    let phys = match narrow {
        true => range::<T>(arrays).map_or(Phys::I8, |(min, max)| Phys::holding(min, max)),
        false => natural,
    };
    let data = match phys {
        _ if phys.bytes() >= natural.bytes() => return Values::Fixed { phys: natural, data: joined::<T>(arrays) },
        Phys::I8 => converted::<T, i8>(arrays, |v| v.into() as i8),
        Phys::I16 => converted::<T, i16>(arrays, |v| v.into() as i16),
        Phys::I32 => converted::<T, i32>(arrays, |v| v.into() as i32),
        _ => converted::<T, i64>(arrays, |v| v.into() as i64),
    };
    Values::Fixed { phys, data }
}

fn range<T>(arrays: &[ArrayRef]) -> Option<(i128, i128)>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128>,
{
    let least = arrays.iter().filter_map(|a| min(a.as_primitive::<T>())).map(Into::into).min()?;
    let greatest = arrays.iter().filter_map(|a| max(a.as_primitive::<T>())).map(Into::into).max()?;
    Some((least, greatest))
}

/// All values through `f`; 0 in rows that are NULL, whose values may not fit.
fn converted<T: ArrowPrimitiveType, N: ArrowNativeType>(arrays: &[ArrayRef], f: impl Fn(T::Native) -> N) -> Buffer {
    let mut out = MutableBuffer::new(arrays.iter().map(|a| a.len()).sum::<usize>() * size_of::<N>());
    for array in arrays {
        let array = array.as_primitive::<T>();
        match array.nulls() {
            None => out.extend(array.values().iter().map(|v| f(*v))),
            Some(_) => out.extend(array.iter().map(|v| v.map_or(N::default(), &f))),
        }
    }
    out.into()
}

fn text<O: OffsetSizeTrait>(arrays: &[ArrayRef], rows: usize, options: &LoadOptions) -> Values {
    if let Some(coded) = coded::<O>(arrays, rows, options) {
        return coded;
    }
    if let [array] = arrays {
        let array = array.as_string::<O>();
        let offsets = array.offsets().inner().inner().clone();
        return Values::Text { offsets, wide: O::IS_LARGE, bytes: array.values().clone() };
    }
    let spans: Vec<(&[O], &[u8])> = arrays.iter().map(|a| a.as_string::<O>()).map(span).collect();
    let total = spans.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut bytes = MutableBuffer::new(total);
    spans.iter().for_each(|(_, part)| bytes.extend_from_slice(part));
    let wide = i32::try_from(total).is_err();
    let offsets = if wide { joined_offsets::<O, i64>(&spans, rows) } else { joined_offsets::<O, i32>(&spans, rows) };
    Values::Text { offsets, wide, bytes: bytes.into() }
}

/// Offsets of an array and the bytes between the first and the last of them.
fn span<O: OffsetSizeTrait>(array: &GenericStringArray<O>) -> (&[O], &[u8]) {
    let offsets = array.value_offsets();
    let (first, last) = (offsets[0].as_usize(), offsets[array.len()].as_usize());
    (offsets, &array.value_data()[first..last])
}

fn joined_offsets<O: OffsetSizeTrait, N: OffsetSizeTrait>(spans: &[(&[O], &[u8])], rows: usize) -> Buffer {
    let mut out = MutableBuffer::new((rows + 1) * size_of::<N>());
    let mut base = 0;
    out.push(N::usize_as(0));
    for (offsets, bytes) in spans {
        let first = offsets[0].as_usize();
        out.extend(offsets[1..].iter().map(|o| N::usize_as(o.as_usize() - first + base)));
        base += bytes.len();
    }
    out.into()
}

/// The strings as codes, if there are few enough distinct ones.
fn coded<O: OffsetSizeTrait>(arrays: &[ArrayRef], rows: usize, options: &LoadOptions) -> Option<Values> {
    // A small table gains more from codes than its dictionary costs, even if all of its strings are distinct.
    let limit = options.dictionary_limit.min((rows / 4).max(256));
    if options.dictionary_limit == 0 {
        return None;
    }
    let mut encoder = Encoder::new(rows, limit);
    for array in arrays {
        for text in array.as_string::<O>() {
            match text {
                Some(text) => encoder.push(text)?,
                None => encoder.push_null(),
            }
        }
    }
    let (dictionary, codes) = encoder.finish()?;
    Some(code_values(dictionary, &codes))
}

/// Codes of a sorted dictionary of the strings that occur, from arrays with dictionaries of any order.
fn dictionary(arrays: &[ArrayRef], rows: usize) -> Values {
    let mut encoder = Encoder::new(rows, u32::MAX as usize);
    for array in arrays {
        let array = array.as_dictionary::<Int32Type>();
        for text in array.downcast_dict::<StringArray>().into_iter().flatten() {
            match text {
                Some(text) => encoder.push(text).unwrap_or_default(),
                None => encoder.push_null(),
            }
        }
    }
    match encoder.finish() {
        Some((dictionary, codes)) => code_values(dictionary, &codes),
        None => plain(arrays, rows),
    }
}

/// The strings themselves, for a dictionary of more than 2 GiB.
fn plain(arrays: &[ArrayRef], rows: usize) -> Values {
    let mut offsets = MutableBuffer::new((rows + 1) * 8);
    let mut bytes = MutableBuffer::new(0);
    offsets.push(0i64);
    for array in arrays {
        for text in array.as_dictionary::<Int32Type>().downcast_dict::<StringArray>().into_iter().flatten() {
            bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
            offsets.push(bytes.len() as i64);
        }
    }
    Values::Text { offsets: offsets.into(), wide: true, bytes: bytes.into() }
}

fn code_values(dictionary: Dictionary, codes: &[u32]) -> Values {
    let phys = Phys::holding(0, dictionary.len().saturating_sub(1) as i128);
    let codes: Buffer = match phys {
        Phys::I8 => codes.iter().map(|c| *c as i8).collect(),
        Phys::I16 => codes.iter().map(|c| *c as i16).collect(),
        _ => codes.iter().map(|c| *c as i32).collect(),
    };
    Values::Coded { phys, codes, dict: Arc::new(dictionary) }
}
