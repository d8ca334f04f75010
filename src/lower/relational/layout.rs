//! Layouts of materialised rows: hash-table entries, sort rows, tiles and results.

use super::dictionary::DictRef;
use super::value::{Range, Repr, Value};
use crate::lower::frame::round_up;
use quearn_stage::graph::Elem;
use quearn_stage::low::{Builder, Prim, Ty, V};
use serde::{Deserialize, Serialize};

/// How a value is stored in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stored {
    /// A machine scalar.
    Prim(Prim),
    /// Address (8 bytes) and length (`i32`) of text that lives elsewhere, and room for its first four bytes.
    Text,
    /// An `i32` position in a dictionary.
    Code(DictRef),
}

impl Stored {
    /// Bytes of a value.
    pub fn bytes(self) -> i64 {
        match self {
            Stored::Prim(prim) => prim.bytes() as i64,
            Stored::Text => 16,
            Stored::Code(_) => 4,
        }
    }

    fn align(self) -> i64 {
        self.bytes().min(if self == Stored::Text { 8 } else { 16 })
    }
}

/// Bytes of a [`Stored::Text`] before the length.
pub const TEXT_LEN: i64 = 8;

/// Bytes of a [`Stored::Text`] before the room for its first four bytes, which whoever compares it often fills.
pub const TEXT_PREFIX: i64 = 12;

/// A value in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowField {
    /// Column name.
    pub name: String,
    /// Logical type.
    pub elem: Elem,
    /// Form.
    pub stored: Stored,
    /// Bytes from the start of the row.
    pub offset: i64,
    /// Offset of the validity byte (1 is not NULL); absent if the value is never NULL.
    pub valid: Option<i64>,
    /// Values that an integer can have.
    pub range: Option<Range>,
}

/// Layout of a row of fixed width.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowLayout {
    /// Values, in the order they were added.
    pub fields: Vec<RowField>,
    /// Bytes used so far; [`RowLayout::width`] rounds it up.
    end: i64,
}

impl RowLayout {
    /// A layout whose first `header` bytes are taken.
    pub fn with_header(header: i64) -> RowLayout {
        RowLayout { fields: vec![], end: header }
    }

    /// Reserves bytes; their offset.
    pub fn reserve(&mut self, bytes: i64, align: i64) -> i64 {
        let offset = round_up(self.end, align);
        self.end = offset + bytes;
        offset
    }

    /// Adds a field that can hold `value`; its position.
    pub fn add(&mut self, name: &str, elem: Elem, value: &Value<'_>) -> usize {
        let stored = match value.repr {
            Repr::Prim(v) => Stored::Prim(v.ty().prim),
            Repr::Text { .. } => Stored::Text,
            Repr::Code { dict, .. } => Stored::Code(dict),
        };
        let offset = self.reserve(stored.bytes(), stored.align());
        let valid = value.valid.map(|_| self.reserve(1, 1));
        self.fields.push(RowField { name: name.to_owned(), elem, stored, offset, valid, range: value.range });
        self.fields.len() - 1
    }

    /// The field of that name.
    pub fn field(&self, name: &str) -> Option<&RowField> {
        self.fields.iter().find(|f| f.name == name)
    }

    /// Does every field lie inside the row?
    pub fn is_sound(&self) -> bool {
        let inside = |at: i64, bytes: i64| at >= 0 && at.checked_add(bytes).is_some_and(|end| end <= self.end);
        let field = |f: &RowField| inside(f.offset, f.stored.bytes()) && f.valid.is_none_or(|at| inside(at, 1));
        (0..1 << 40).contains(&self.end) && self.fields.iter().all(field)
    }

    /// Bytes a row: a multiple of 16, so that every row is aligned like the first and few lie in two cache lines; or a word.
    pub fn width(&self) -> i64 {
        if self.end <= 8 { 8 } else { round_up(self.end, 16) }
    }
}

impl RowField {
    /// Writes a value of the form that the field was made for.
    pub fn store<'b>(&self, b: &'b Builder, row: V<'b>, value: &Value<'b>) {
        match value.repr {
            Repr::Prim(v) | Repr::Code { code: v, .. } => b.store(row, self.offset, v),
            Repr::Text { ptr, len } => {
                b.store(row, self.offset, ptr);
                b.store(row, self.offset + TEXT_LEN, len.sext(Prim::I32));
            }
        }
        if let Some(at) = self.valid {
            b.store(row, at, value.is_valid(b));
        }
    }

    /// Reads the value. `row_valid`, if given, tells whether there is a row at all; the memory is readable either way.
    pub fn load<'b>(&self, b: &'b Builder, row: V<'b>, row_valid: Option<V<'b>>) -> Value<'b> {
        let repr = match self.stored {
            Stored::Prim(prim) => Repr::Prim(b.load(Ty::scalar(prim), row, self.offset)),
            Stored::Text => Repr::Text {
                ptr: b.load(Ty::PTR, row, self.offset),
                len: b.load(Ty::I32, row, self.offset + TEXT_LEN).sext(Prim::I64),
            },
            Stored::Code(dict) => Repr::Code { code: b.load(Ty::I32, row, self.offset), dict },
        };
        let own = self.valid.map(|at| b.load(Ty::BOOL, row, at));
        Value { repr, valid: super::value::both_valid(row_valid, own), range: self.range }
    }
}
