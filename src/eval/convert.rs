//! Values of the evaluator from and to the data of real runs, so that answers can be compared.

use super::value::{Datum, EvalTable, EvalTensor, Interval};
use crate::data::{Column, Error, Phys, Table, Tensor, Values};
use arrow::array::{Array, ArrayRef, BooleanArray, FixedSizeListArray, PrimitiveArray, RecordBatch};
use arrow::array::{Decimal128Array, RecordBatchOptions, StringArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use arrow::error::ArrowError;
use quearn_stage::graph::{Field as GraphField, Scalar};
use std::sync::Arc;

impl From<&Table> for EvalTable {
    fn from(table: &Table) -> EvalTable {
        let columns = table.columns().iter().map(EvalTensor::from).collect();
        EvalTable::new(table.fields(), columns, table.rows())
    }
}

impl From<&Column> for EvalTensor {
    fn from(column: &Column) -> EvalTensor {
        let inner = column.inner_len();
        let shape: Vec<usize> = std::iter::once(column.rows).chain(column.shape.iter().map(|&e| e as usize)).collect();
        let data = (0..column.rows * inner).map(|i| match column.literal(i / inner) {
            Some(literal) => Datum::of(&literal),
            None if !column.is_valid(i / inner) => Datum::Null,
            None => inner_element(column, i),
        });
        EvalTensor::new(column.elem, &shape, data)
    }
}

/// An element of a column with an inner shape, which holds values of one width.
fn inner_element(column: &Column, i: usize) -> Datum {
    let Values::Fixed { phys, data } = &column.values else { unreachable!("strings have no inner shape") };
    match phys {
        Phys::Bool => Datum::Bool(data[i] != 0),
        Phys::U8 => Datum::Int(data[i].into()),
        Phys::I8 => Datum::Int(data.typed_data::<i8>()[i].into()),
        Phys::I16 => Datum::Int(data.typed_data::<i16>()[i].into()),
        Phys::I32 => Datum::Int(data.typed_data::<i32>()[i].into()),
        Phys::I64 => Datum::Int(data.typed_data::<i64>()[i].into()),
        Phys::I128 if column.elem.scalar == Scalar::Interval => {
            let bits = data.typed_data::<i128>()[i];
            Datum::Interval(Interval { months: bits as i32, days: (bits >> 32) as i32, micros: (bits >> 64) as i64 })
        }
        Phys::I128 => Datum::Int(data.typed_data::<i128>()[i]),
        Phys::F16 => Datum::Float(data.typed_data::<half::f16>()[i].to_f64()),
        Phys::BF16 => Datum::Float(half::bf16::from_bits(data.typed_data::<u16>()[i]).to_f64()),
        Phys::F32 => Datum::Float(data.typed_data::<f32>()[i].into()),
        Phys::F64 => Datum::Float(data.typed_data::<f64>()[i]),
    }
}

/// Expands to the elements of a tensor as numbers of the Rust type that belongs to `$scalar`.
macro_rules! by_element {
    ($scalar:expr, $apply:ident, $other:expr) => {
        match $scalar {
            Scalar::I8 => $apply!(i8),
            Scalar::U8 => $apply!(u8),
            Scalar::I16 => $apply!(i16),
            Scalar::I32 => $apply!(i32),
            Scalar::I64 => $apply!(i64),
            Scalar::F16 => $apply!(half::f16),
            Scalar::BF16 => $apply!(half::bf16),
            Scalar::F32 => $apply!(f32),
            Scalar::F64 => $apply!(f64),
            other => $other(other),
        }
    };
}

/// A number as a datum and back; the evaluator knows integers and floats only.
trait Number: Copy {
    fn datum(self) -> Datum;
    fn of(datum: Datum) -> Self;
}

macro_rules! numbers {
    ($($ty:ty: $variant:ident, $to:expr, $from:expr;)*) => { $(
        impl Number for $ty {
            fn datum(self) -> Datum {
                Datum::$variant($to(self))
            }
            fn of(datum: Datum) -> Self {
                if let Datum::$variant(x) = datum { $from(x) } else { <$ty>::default() }
            }
        }
    )* };
}

numbers! {
    i8: Int, i128::from, |x| x as i8;
    u8: Int, i128::from, |x| x as u8;
    i16: Int, i128::from, |x| x as i16;
    i32: Int, i128::from, |x| x as i32;
    i64: Int, i128::from, |x| x as i64;
    half::f16: Float, half::f16::to_f64, half::f16::from_f64;
    half::bf16: Float, half::bf16::to_f64, half::bf16::from_f64;
    f32: Float, f64::from, |x| x as f32;
    f64: Float, |x| x, |x| x;
}

impl From<&Tensor> for EvalTensor {
    fn from(tensor: &Tensor) -> EvalTensor {
        let shape: Vec<usize> = tensor.shape().iter().map(|&e| e as usize).collect();
        let elem = tensor.scalar().required();
        macro_rules! read {
            ($ty:ty) => {{
                let data = tensor.as_slice::<$ty>().expect("elements of the tensor's own type");
                EvalTensor::new(elem, &shape, data.iter().map(|x| x.datum()))
            }};
        }
        by_element!(tensor.scalar(), read, |other| unreachable!("a tensor of {other}"))
    }
}

impl TryFrom<&EvalTensor> for Tensor {
    type Error = Error;

    /// A tensor of numbers without NULLs.
    fn try_from(tensor: &EvalTensor) -> Result<Tensor, Error> {
        let shape: Vec<u64> = tensor.shape().iter().map(|&e| e as u64).collect();
        macro_rules! write {
            ($ty:ty) => {
                Tensor::from_vec::<$ty>(tensor.iter().map(<$ty as Number>::of).collect(), &shape)
            };
        }
        by_element!(tensor.elem().scalar, write, |other: Scalar| Err(Error::UnsupportedType {
            column: "tensor".into(),
            found: other.to_string()
        }))
    }
}

impl EvalTable {
    /// The rows as one batch: decimals as `Decimal128`, intervals as months, days and nanoseconds, tensors in rows as
    /// nested fixed-size lists.
    ///
    /// # Errors
    /// A type that Arrow does not have (bf16).
    pub fn to_batch(&self) -> Result<RecordBatch, ArrowError> {
        let columns = self.fields().iter().zip(self.columns());
        let arrays = columns.map(|(f, c)| column_array(f, c)).collect::<Result<Vec<_>, _>>()?;
        let fields = self.fields().iter().zip(&arrays);
        let fields: Vec<_> = fields.map(|(f, a)| Field::new(&f.name, a.data_type().clone(), f.elem.nullable)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows()));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
    }
}

fn column_array(field: &GraphField, column: &EvalTensor) -> Result<ArrayRef, ArrowError> {
    if field.shape.is_empty() {
        return leaf_array(column, None);
    }
    // NULL belongs to whole rows; inside the lists every element has some value.
    let inner = column.shape()[1..].iter().product::<usize>();
    let valid = NullBuffer::from_iter((0..column.shape()[0]).map(|row| column.get(row * inner) != Datum::Null));
    let mut array = leaf_array(column, Some(zero(field.elem.scalar)))?;
    for (axis, &extent) in field.shape.iter().enumerate().rev() {
        let item = Arc::new(Field::new_list_field(array.data_type().clone(), false));
        let nulls = (axis == 0 && valid.null_count() > 0).then(|| valid.clone());
        let extent = i32::try_from(extent).map_err(|e| ArrowError::InvalidArgumentError(e.to_string()))?;
        array = Arc::new(FixedSizeListArray::try_new(item, extent, array, nulls)?);
    }
    Ok(array)
}

fn zero(scalar: Scalar) -> Datum {
    match scalar {
        Scalar::Bool => Datum::Bool(false),
        Scalar::String => Datum::str(""),
        Scalar::Interval => Datum::Interval(Interval::default()),
        other if other.is_float() => Datum::Float(0.0),
        _ => Datum::Int(0),
    }
}

/// All elements; NULLs become `null`, if it is given.
fn leaf_array(column: &EvalTensor, null: Option<Datum>) -> Result<ArrayRef, ArrowError> {
    let data = || column.iter().map(|d| if d == Datum::Null { null.clone().unwrap_or(d) } else { d });
    let int = |d| if let Datum::Int(i) = d { Some(i) } else { None };
    let float = |d| if let Datum::Float(x) = d { Some(x) } else { None };
    macro_rules! primitive {
        ($ty:ty, $get:ident, $to:expr) => {
            Arc::new(data().map(|d| $get(d).map($to)).collect::<PrimitiveArray<$ty>>())
        };
    }
    Ok(match column.elem().scalar {
        Scalar::Bool => {
            let bools = data().map(|d| if let Datum::Bool(b) = d { Some(b) } else { None });
            Arc::new(bools.collect::<BooleanArray>())
        }
        Scalar::I8 => primitive!(Int8Type, int, |i| i as i8),
        Scalar::U8 => primitive!(UInt8Type, int, |i| i as u8),
        Scalar::I16 => primitive!(Int16Type, int, |i| i as i16),
        Scalar::I32 => primitive!(Int32Type, int, |i| i as i32),
        Scalar::I64 => primitive!(Int64Type, int, |i| i as i64),
        Scalar::F16 => primitive!(Float16Type, float, half::f16::from_f64),
        Scalar::F32 => primitive!(Float32Type, float, |x| x as f32),
        Scalar::F64 => primitive!(Float64Type, float, |x| x),
        Scalar::Date => primitive!(Date32Type, int, |i| i as i32),
        Scalar::Timestamp => primitive!(TimestampMicrosecondType, int, |i| i as i64),
        Scalar::Decimal { precision, scale } => {
            let array: Decimal128Array = data().map(int).collect();
            Arc::new(array.with_precision_and_scale(precision, scale as i8)?)
        }
        Scalar::Interval => {
            let intervals = data().map(|d| if let Datum::Interval(i) = d { Some(arrow_interval(i)) } else { None });
            Arc::new(intervals.collect::<PrimitiveArray<IntervalMonthDayNanoType>>())
        }
        Scalar::String => {
            let strings: Vec<_> = data().map(|d| if let Datum::Str(s) = d { Some(s) } else { None }).collect();
            Arc::new(strings.iter().map(Option::as_deref).collect::<StringArray>())
        }
        Scalar::BF16 => return Err(ArrowError::NotYetImplemented("Arrow has no type bf16".into())),
    })
}

fn arrow_interval(interval: Interval) -> IntervalMonthDayNano {
    let nanos = interval.micros.saturating_mul(1_000);
    IntervalMonthDayNano::new(interval.months, interval.days, nanos)
}
