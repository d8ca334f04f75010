//! How many bytes a run moved, and where.

use crate::data::{Column, Values};
use crate::lower::frame::Part;
use std::fmt;
use std::sync::Arc;

pub use crate::lower::moves::MoveKind;

/// A place of a program where bytes move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The operator and what it handles.
    pub name: String,
    /// What happens to the bytes.
    pub kind: MoveKind,
}

/// The bytes that a run moved.
///
/// They are known from sizes of columns, from the memory that operators took and the rows that they wrote, not from
/// counting row by row, so that every run has them.
#[derive(Clone, Debug)]
pub struct Moved {
    places: Arc<[Place]>,
    bytes: Vec<u64>,
}

impl Moved {
    pub(crate) fn new(places: Arc<[Place]>, bytes: Vec<u64>) -> Moved {
        Moved { places, bytes }
    }

    /// The places at which bytes moved, and how many.
    pub fn sites(&self) -> impl Iterator<Item = (&Place, u64)> {
        self.places.iter().zip(self.bytes.iter().copied()).filter(|(_, bytes)| *bytes > 0)
    }

    /// All bytes of a kind.
    pub fn bytes(&self, kind: MoveKind) -> u64 {
        self.sites().filter(|(place, _)| place.kind == kind).map(|(_, bytes)| bytes).sum()
    }

    /// Bytes copied between a query and a model.
    pub fn border(&self) -> u64 {
        self.bytes(MoveKind::Border)
    }
}

impl fmt::Display for Moved {
    /// A line for each place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in MoveKind::ALL {
            for (place, bytes) in self.sites().filter(|(place, _)| place.kind == kind) {
                writeln!(f, "{kind:9} {bytes:>14} bytes  {}", place.name)?;
            }
        }
        Ok(())
    }
}

/// Bytes of a part of a stored column, of so many rows.
pub(crate) fn part_bytes(column: &Column, part: Part, rows: usize) -> Option<u64> {
    match (part, &column.values) {
        (Part::Values, Values::Fixed { data, .. }) => Some(data.len() as u64),
        (Part::Values, Values::Coded { codes, .. }) => Some(codes.len() as u64),
        (Part::Offsets, Values::Text(text)) => text.unpacked().map(|text| text.offsets.len() as u64),
        (Part::Bytes, Values::Text(text)) => text.unpacked().map(|text| text.bytes.len() as u64),
        (Part::Validity, _) => column.validity.as_ref().map(|_| rows.div_ceil(8) as u64),
        _ => None,
    }
}
