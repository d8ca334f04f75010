//! Columns: values, validity and statistics.

use super::{Dictionary, Error, PlainText, Result, Stats, Text, Zones};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use quearn_stage::graph::{Elem, Field, Literal, Scalar};
use std::fmt;
use std::sync::Arc;

/// How one value is stored. Little-endian, signed except `Bool` and `U8`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize)]
pub enum Phys {
    /// One byte, 0 or 1.
    Bool,
    /// 8-bit signed integer.
    I8,
    /// 8-bit unsigned integer.
    U8,
    /// 16-bit signed integer.
    I16,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// 128-bit signed integer. An interval is stored as months (bits 0-31), days (32-63), microseconds (64-127).
    I128,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl Phys {
    /// Size of a value in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Phys::Bool | Phys::I8 | Phys::U8 => 1,
            Phys::I16 | Phys::F16 | Phys::BF16 => 2,
            Phys::I32 | Phys::F32 => 4,
            Phys::I64 | Phys::F64 => 8,
            Phys::I128 => 16,
        }
    }

    /// The storage that holds every value of a type; `None` for strings, which have no fixed width.
    pub const fn of(scalar: Scalar) -> Option<Phys> {
        Some(match scalar {
            Scalar::Bool => Phys::Bool,
            Scalar::I8 => Phys::I8,
            Scalar::U8 => Phys::U8,
            Scalar::I16 => Phys::I16,
            Scalar::I32 | Scalar::Date => Phys::I32,
            Scalar::I64 | Scalar::Timestamp => Phys::I64,
            Scalar::F16 => Phys::F16,
            Scalar::BF16 => Phys::BF16,
            Scalar::F32 => Phys::F32,
            Scalar::F64 => Phys::F64,
            Scalar::Decimal { precision: ..=9, .. } => Phys::I32,
            Scalar::Decimal { precision: ..=18, .. } => Phys::I64,
            Scalar::Decimal { .. } | Scalar::Interval => Phys::I128,
            Scalar::String => return None,
        })
    }

    /// The narrowest signed integer that holds both bounds.
    pub fn holding(min: i128, max: i128) -> Phys {
        let fits = |bits: u32| min >= -(1i128 << (bits - 1)) && max < 1i128 << (bits - 1);
        match () {
            () if fits(8) => Phys::I8,
            () if fits(16) => Phys::I16,
            () if fits(32) => Phys::I32,
            () if fits(64) => Phys::I64,
            () => Phys::I128,
        }
    }
}

/// Values of a column; what lies in a row that is NULL means nothing.
#[derive(Clone, Debug)]
pub enum Values {
    /// Values of one width, row after row; a column with an inner shape has its elements in row-major order.
    Fixed {
        /// Storage of one element.
        phys: Phys,
        /// `rows * inner elements` values.
        data: Buffer,
    },
    /// UTF-8 strings, see [`Column::plain_text`].
    Text(Text),
    /// Strings as codes of a sorted dictionary; rows that are NULL have code 0.
    Coded {
        /// Storage of a code: `I8`, `I16` or `I32`.
        phys: Phys,
        /// `rows` codes.
        codes: Buffer,
        /// The strings.
        dict: Arc<Dictionary>,
    },
}

/// Which rows are not NULL: Arrow's bitmap, least significant bit first.
#[derive(Clone, Debug)]
pub struct Validity {
    /// The bits.
    pub bits: Buffer,
    /// Position of the first row's bit.
    pub offset: usize,
}

impl Validity {
    /// Is the row's value not NULL?
    ///
    /// # Panics
    /// If there is no such row.
    pub fn is_valid(&self, row: usize) -> bool {
        let bit = self.offset + row;
        self.bits[bit / 8] >> (bit % 8) & 1 == 1
    }

    /// As Arrow has it.
    pub fn to_nulls(&self, rows: usize) -> NullBuffer {
        NullBuffer::new(BooleanBuffer::new(self.bits.clone(), self.offset, rows))
    }
}

/// A named sequence of values of one type, a value (or a tensor of one shape) for every row.
#[derive(Clone, Debug)]
pub struct Column {
    /// Name, unique in its table.
    pub name: String,
    /// Logical type. `nullable` is what the schema promises; whether there are NULLs says [`Stats::nulls`].
    pub elem: Elem,
    /// Extents of the tensor in every row; empty for an ordinary column.
    pub shape: Vec<u64>,
    /// Number of rows.
    pub rows: usize,
    /// Values.
    pub values: Values,
    /// Which rows are not NULL; `None` if no row is.
    pub validity: Option<Validity>,
    /// Facts.
    pub stats: Stats,
    /// Bounds of the values in each block of rows, of an integer-like column without inner shape and of at most 64 bits.
    pub zones: Option<Zones>,
}

impl Column {
    /// Does every row have the value after that of the row before it, so that a value tells its row?
    pub fn counts_up(&self) -> bool {
        let Stats { min: Some(min), max: Some(max), sorted, unique, nulls: 0, rows, .. } = self.stats else {
            return false;
        };
        sorted && unique && matches!(self.values, Values::Fixed { .. }) && max - min + 1 == rows as i128
    }

    /// Is every number from the least value to the greatest one the value of one row?
    pub fn is_dense(&self) -> bool {
        let Stats { min: Some(min), max: Some(max), unique: true, nulls: 0, rows, .. } = self.stats else {
            return false;
        };
        matches!(self.values, Values::Fixed { .. }) && max - min + 1 == rows as i128
    }

    /// The dictionary of a coded column.
    pub fn dictionary(&self) -> Option<&Arc<Dictionary>> {
        match &self.values {
            Values::Coded { dict, .. } => Some(dict),
            _ => None,
        }
    }

    /// Name, type and inner shape.
    pub fn field(&self) -> Field {
        Field { name: self.name.clone(), elem: self.elem, shape: self.shape.clone() }
    }

    /// Elements in one row.
    pub fn inner_len(&self) -> usize {
        self.shape.iter().product::<u64>() as usize
    }

    /// Is the row's value not NULL?
    pub fn is_valid(&self, row: usize) -> bool {
        self.validity.as_ref().is_none_or(|v| v.is_valid(row))
    }

    /// The strings of a column that has them plain. If they are packed, they are unpacked first, once for the column and
    /// its clones.
    pub fn plain_text(&self) -> Result<&PlainText> {
        let found = match &self.values {
            Values::Text(text) => return text.plain(&self.name),
            Values::Fixed { phys, .. } => phys.to_string(),
            Values::Coded { phys, .. } => format!("codes {phys}"),
        };
        Err(Error::ColumnType { column: self.name.clone(), expected: "plain text".into(), found })
    }

    /// Memory held now by values, offsets, dictionary, validity and zones (a buffer shared with another column counts in
    /// both).
    pub fn bytes(&self) -> usize {
        let values = match &self.values {
            Values::Fixed { data, .. } => data.len(),
            Values::Text(text) => text.held(),
            Values::Coded { codes, dict, .. } => codes.len() + dict.bytes().len() + size_of_val(dict.offsets()),
        };
        let zones = self.zones.as_ref().map_or(0, |zones| size_of_val(zones.bounds()));
        values + self.validity.as_ref().map_or(0, |_| self.rows.div_ceil(8)) + zones
    }

    /// The integer in a row: integer, bool, unscaled decimal, date, timestamp, or code of a coded string; `None` if
    /// NULL or of another type. For one value at a time; programs read the buffers.
    pub fn int(&self, row: usize) -> Option<i128> {
        let (phys, data) = match &self.values {
            Values::Fixed { phys, data } => (*phys, data),
            Values::Coded { phys, codes, .. } => (*phys, codes),
            Values::Text(_) => return None,
        };
        if !self.is_valid(row) || !self.shape.is_empty() || self.elem.scalar == Scalar::Interval {
            return None;
        }
        Some(match phys {
            Phys::Bool | Phys::U8 => data[row].into(),
            Phys::I8 => data.typed_data::<i8>()[row].into(),
            Phys::I16 => data.typed_data::<i16>()[row].into(),
            Phys::I32 => data.typed_data::<i32>()[row].into(),
            Phys::I64 => data.typed_data::<i64>()[row].into(),
            Phys::I128 => data.typed_data::<i128>()[row],
            Phys::F16 | Phys::BF16 | Phys::F32 | Phys::F64 => return None,
        })
    }

    /// The float in a row; `None` if NULL or of another type.
    pub fn float(&self, row: usize) -> Option<f64> {
        let Values::Fixed { phys, data } = &self.values else { return None };
        if !self.is_valid(row) || !self.shape.is_empty() {
            return None;
        }
        Some(match phys {
            Phys::F16 => data.typed_data::<half::f16>()[row].to_f64(),
            Phys::BF16 => half::bf16::from_bits(data.typed_data::<u16>()[row]).to_f64(),
            Phys::F32 => data.typed_data::<f32>()[row].into(),
            Phys::F64 => data.typed_data::<f64>()[row],
            _ => return None,
        })
    }

    /// The string in a row; `None` if NULL, of another type, or packed where there is no memory to unpack it.
    pub fn text(&self, row: usize) -> Option<&str> {
        if !self.is_valid(row) {
            return None;
        }
        match &self.values {
            Values::Text(text) => std::str::from_utf8(text.plain(&self.name).ok()?.row(row)).ok(),
            Values::Coded { dict, .. } => Some(dict.get(self.int(row)? as usize)),
            Values::Fixed { .. } => None,
        }
    }

    /// The value in a row; `None` if the column has an inner shape.
    pub fn literal(&self, row: usize) -> Option<Literal> {
        let scalar = self.elem.scalar;
        if !self.shape.is_empty() {
            return None;
        }
        if !self.is_valid(row) {
            return Some(Literal::null(scalar));
        }
        match scalar {
            Scalar::Bool => Some(Literal::bool(self.int(row)? != 0)),
            Scalar::String => Some(Literal::string(self.text(row)?)),
            Scalar::Decimal { precision, scale } => Literal::decimal(self.int(row)?, precision, scale),
            Scalar::Date => Some(Literal::date(self.int(row)? as i32)),
            Scalar::Timestamp => Some(Literal::timestamp(self.int(row)? as i64)),
            Scalar::Interval => self.interval(row),
            Scalar::F16 | Scalar::BF16 | Scalar::F32 | Scalar::F64 => Literal::float(scalar, self.float(row)?),
            Scalar::I8 | Scalar::U8 | Scalar::I16 | Scalar::I32 | Scalar::I64 => Literal::int(scalar, self.int(row)?),
        }
    }

    fn interval(&self, row: usize) -> Option<Literal> {
        let Values::Fixed { phys: Phys::I128, data } = &self.values else { return None };
        let bits = data.typed_data::<i128>()[row];
        Some(Literal::interval(bits as i32, (bits >> 32) as i32, (bits >> 64) as i64))
    }
}

impl fmt::Display for Phys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrowest_storage() {
        assert_eq!(Phys::holding(-128, 127), Phys::I8);
        assert_eq!(Phys::holding(0, 128), Phys::I16);
        assert_eq!(Phys::holding(0, i32::MAX.into()), Phys::I32);
        assert_eq!(Phys::holding(i64::MIN.into(), 0), Phys::I64);
        assert_eq!(Phys::holding(0, i128::MAX), Phys::I128);
    }
}
