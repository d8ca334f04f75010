//! Signatures of foreign functions: how the operands of a function that the graph knows by name only are split into
//! tiles, and how what it gives for each is brought together (Palkar and Zaharia, "Optimizing data-intensive
//! computations in existing libraries with split annotations", SOSP 2019).

use super::{Dim, Scalar};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An operand or the result of a foreign function.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Part {
    /// Type of the elements: a float or an integer of 32 or 64 bits.
    pub scalar: Scalar,
    /// Is there one for each row, so that a tile has those of its rows? Else an operand is whole in every call, and results
    /// are merged.
    pub by_row: bool,
    /// Extents; those of one row, if there is one for each.
    pub shape: Vec<u64>,
}

impl Part {
    /// Number of elements, of a row or of the whole.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// The shape of a tensor with these rows.
    pub fn dims(&self, rows: &Dim) -> Vec<Dim> {
        let leading = self.by_row.then(|| rows.clone());
        leading.into_iter().chain(self.shape.iter().copied().map(Dim::Const)).collect()
    }
}

/// What a foreign function takes and gives. It is pure: the same operands give the same result, and what it gives for a row
/// depends on no other row.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature {
    /// Operands; those by row have the same rows.
    pub operands: Vec<Part>,
    /// The result: one for each row, one after the other, or whole, merged from those of the tiles.
    pub result: Part,
}

impl Signature {
    /// A function of nothing that gives a value of this shape for each row. See [`Signature::rows`] for operands.
    pub fn giving_rows(scalar: Scalar, shape: impl Into<Vec<u64>>) -> Signature {
        Signature { operands: vec![], result: Part { scalar, by_row: true, shape: shape.into() } }
    }

    /// A function of nothing that gives a value of this shape for each tile, of which two can be merged.
    pub fn merging(scalar: Scalar, shape: impl Into<Vec<u64>>) -> Signature {
        Signature { operands: vec![], result: Part { scalar, by_row: false, shape: shape.into() } }
    }

    /// With one more operand that has a value of this shape for each row.
    #[must_use]
    pub fn rows(mut self, scalar: Scalar, shape: impl Into<Vec<u64>>) -> Signature {
        self.operands.push(Part { scalar, by_row: true, shape: shape.into() });
        self
    }

    /// With one more operand that each tile sees whole.
    #[must_use]
    pub fn whole(mut self, scalar: Scalar, shape: impl Into<Vec<u64>>) -> Signature {
        self.operands.push(Part { scalar, by_row: false, shape: shape.into() });
        self
    }

    /// What no function can have, if there is something.
    pub fn fault(&self) -> Option<String> {
        let parts = || self.operands.iter().chain([&self.result]);
        let plain = |part: &&Part| !matches!(part.scalar, Scalar::I32 | Scalar::I64 | Scalar::F32 | Scalar::F64);
        let small =
            |part: &Part| part.shape.iter().try_fold(1u64, |n, d| n.checked_mul(*d)).is_some_and(|n| n < 1 << 40);
        if let Some(part) = parts().find(plain) {
            return Some(format!("elements of a foreign function are i32, i64, f32 or f64, not {}", part.scalar));
        }
        if !parts().all(small) {
            return Some("an operand or result that is too large for memory".to_owned());
        }
        let has_rows = self.operands.iter().any(|part| part.by_row);
        (!has_rows).then(|| "no operand has a value for each row".to_owned())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", if self.by_row { "rows" } else { "whole" }, self.scalar)?;
        if self.shape.is_empty() { Ok(()) } else { write!(f, " {:?}", self.shape) }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operands: Vec<String> = self.operands.iter().map(Part::to_string).collect();
        write!(f, "[{}] to {}", operands.join(", "), self.result)
    }
}
