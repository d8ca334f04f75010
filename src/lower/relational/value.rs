//! Staged SQL values: how a scalar of the graph looks in generated code.
//!
//! Integers, decimals, dates and timestamps carry the range of values that they can have, known while the program is
//! generated. The range picks the machine type (`i32`, `i64` or `i128`), shows which overflow tests are needless and
//! decides comparisons early. NULL is a separate truth value that is absent where a value cannot be NULL.

use super::dictionary::DictRef;
use quearn_stage::graph::Scalar;
use quearn_stage::low::{Builder, CastOp, Prim, Ty, V};

/// Smallest and largest value, inclusive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct Range {
    /// Smallest.
    pub min: i128,
    /// Largest.
    pub max: i128,
}

impl Range {
    /// All values of a machine integer.
    pub const I32: Range = Range { min: i32::MIN as i128, max: i32::MAX as i128 };
    /// All values of a machine integer.
    pub const I64: Range = Range { min: i64::MIN as i128, max: i64::MAX as i128 };
    /// All values of a machine integer.
    pub const I128: Range = Range { min: i128::MIN, max: i128::MAX };

    /// From `min` to `max`.
    pub const fn new(min: i128, max: i128) -> Range {
        Range { min, max }
    }

    /// One value.
    pub const fn point(value: i128) -> Range {
        Range { min: value, max: value }
    }

    /// Does it hold all of `other`?
    pub fn contains(self, other: Range) -> bool {
        self.min <= other.min && other.max <= self.max
    }

    /// The smallest range that holds both.
    pub fn union(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    /// The values in both; `self` if there are none, as the code that uses them does not run then.
    pub fn intersect(self, other: Range) -> Range {
        let both = Range { min: self.min.max(other.min), max: self.max.min(other.max) };
        if both.min <= both.max { both } else { self }
    }

    /// Number of values, if it fits.
    pub fn count(self) -> Option<u64> {
        let span = self.max.checked_sub(self.min)?.checked_add(1)?;
        u64::try_from(span).ok()
    }

    /// The narrowest machine integer that generated code computes such values in.
    pub fn prim(self) -> Prim {
        if Range::I32.contains(self) {
            Prim::I32
        } else if Range::I64.contains(self) {
            Prim::I64
        } else {
            Prim::I128
        }
    }

    /// The values of an integer-like logical type; `None` for others.
    pub fn of(scalar: Scalar) -> Option<Range> {
        if let Some((min, max)) = quearn_stage::graph::literal::int_range(scalar) {
            return Some(Range { min, max });
        }
        match scalar {
            Scalar::Decimal { precision, .. } => {
                let max = 10i128.pow(precision.into()) - 1;
                Some(Range { min: -max, max })
            }
            Scalar::Date => Some(Range::I32),
            Scalar::Timestamp => Some(Range::I64),
            _ => None,
        }
    }
}

/// The machine values behind a staged SQL value.
#[derive(Clone, Copy)]
pub enum Repr<'b> {
    /// A bool, float or (by its range) integer; an interval is an `i128` of months, days and microseconds.
    Prim(V<'b>),
    /// Bytes of text.
    Text {
        /// First byte.
        ptr: V<'b>,
        /// Number of bytes, `i64`.
        len: V<'b>,
    },
    /// A position in a sorted dictionary, `i32`: codes compare as their strings do.
    Code {
        /// The position.
        code: V<'b>,
        /// The dictionary.
        dict: DictRef,
    },
}

/// A staged SQL value.
#[derive(Clone, Copy)]
pub struct Value<'b> {
    /// Machine values; arbitrary where the value is NULL.
    pub repr: Repr<'b>,
    /// Is it not NULL? Absent if it never is.
    pub valid: Option<V<'b>>,
    /// Values that an integer, decimal, date, timestamp or code can have.
    pub range: Option<Range>,
}

impl<'b> Value<'b> {
    /// A bool or float that is not NULL.
    pub fn prim(v: V<'b>) -> Value<'b> {
        Value { repr: Repr::Prim(v), valid: None, range: None }
    }

    /// An integer that is not NULL, converted to the machine type of its range.
    pub fn int(v: V<'b>, range: Range) -> Value<'b> {
        Value { repr: Repr::Prim(v.sext(range.prim())), valid: None, range: Some(range) }
    }

    /// Text that is not NULL.
    pub fn text(ptr: V<'b>, len: V<'b>) -> Value<'b> {
        Value { repr: Repr::Text { ptr, len }, valid: None, range: None }
    }

    /// The same value with another validity.
    pub fn with_valid(self, valid: Option<V<'b>>) -> Value<'b> {
        Value { valid, ..self }
    }

    /// The machine value of a bool, number, date or code.
    pub fn scalar(self) -> V<'b> {
        match self.repr {
            Repr::Prim(v) | Repr::Code { code: v, .. } => v,
            Repr::Text { ptr, .. } => ptr,
        }
    }

    /// Is the value not NULL, as a staged bool?
    pub fn is_valid(self, b: &'b Builder) -> V<'b> {
        self.valid.unwrap_or_else(|| b.bool(true))
    }

    /// Is the bool true (and not NULL)?
    pub fn is_true(self) -> V<'b> {
        match self.valid {
            Some(valid) => valid & self.scalar(),
            None => self.scalar(),
        }
    }

    /// NULL, with zero machine values of the same form as `self`.
    pub fn to_null(self, b: &'b Builder) -> Value<'b> {
        let repr = match self.repr {
            Repr::Prim(v) => Repr::Prim(b.zero(v.ty())),
            Repr::Text { .. } => Repr::Text { ptr: b.null(), len: b.i64(0) },
            Repr::Code { dict, .. } => Repr::Code { code: b.i32(0), dict },
        };
        Value { repr, valid: Some(b.bool(false)), range: self.range }
    }

    /// The machine values as a list, for blocks that yield a value; see [`Value::unpack`].
    pub fn pack(self) -> Vec<V<'b>> {
        let mut all = match self.repr {
            Repr::Prim(v) | Repr::Code { code: v, .. } => vec![v],
            Repr::Text { ptr, len } => vec![ptr, len],
        };
        all.extend(self.valid);
        all
    }

    /// A value of the same form as `self` from what [`Value::pack`] gave.
    pub fn unpack(self, parts: &[V<'b>]) -> Value<'b> {
        let (repr, rest) = match self.repr {
            Repr::Prim(_) => (Repr::Prim(parts[0]), 1),
            Repr::Code { dict, .. } => (Repr::Code { code: parts[0], dict }, 1),
            Repr::Text { .. } => (Repr::Text { ptr: parts[0], len: parts[1] }, 2),
        };
        Value { repr, valid: self.valid.map(|_| parts[rest]), range: self.range }
    }
}

/// A machine integer widened (or kept) to `prim`.
pub fn widen(v: V<'_>, prim: Prim) -> V<'_> {
    if v.ty().prim.bytes() < prim.bytes() { v.sext(prim) } else { v }
}

/// Both machine integers in the wider of their types.
pub fn common<'b>(x: V<'b>, y: V<'b>) -> (V<'b>, V<'b>) {
    let prim = if x.ty().prim.bytes() >= y.ty().prim.bytes() { x.ty().prim } else { y.ty().prim };
    (widen(x, prim), widen(y, prim))
}

/// Both validities together.
pub fn both_valid<'b>(x: Option<V<'b>>, y: Option<V<'b>>) -> Option<V<'b>> {
    match (x, y) {
        (Some(x), Some(y)) => Some(x & y),
        (x, y) => x.or(y),
    }
}

/// A signed machine integer as a float.
pub fn to_float<'b>(v: V<'b>, prim: Prim) -> V<'b> {
    v.cast(CastOp::SiToFp, prim)
}

/// A float constant of `v`'s type.
pub fn float_like<'b>(b: &'b Builder, v: V<'b>, value: f64) -> V<'b> {
    b.float(Ty::scalar(v.ty().prim), value)
}
