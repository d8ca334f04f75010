//! Strings of a column: as generated code reads them, or packed until somebody does.
//!
//! Most plain text that is loaded is read by no program. So it is kept in blocks of about 256 KB that are compressed one by
//! one (`pack`), and is unpacked once, by all threads, when a program that needs the column is bound; from then on it stays
//! as it is, since whoever reads a column once does so again.

mod pack;

pub(super) use pack::{Packed, Packs};
pub(crate) use pack::{PackedBlock, TextBlock};

use super::growing::Growing;
use super::{Error, Result};
use arrow::array::OffsetSizeTrait;
use arrow::buffer::Buffer;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// UTF-8 strings one after the other; that of row `r` is `bytes[offsets[r] .. offsets[r + 1]]`. The first offset need not
/// be 0.
#[derive(Clone, Debug)]
pub struct PlainText {
    /// `rows + 1` positions, `i32`, or `i64` if `wide`.
    pub offsets: Buffer,
    /// Are the positions 64-bit?
    pub wide: bool,
    /// The strings.
    pub bytes: Buffer,
}

impl PlainText {
    /// The bytes of the string of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> &[u8] {
        let at = |i: usize| match self.wide {
            true => self.offsets.typed_data::<i64>()[i] as usize,
            false => self.offsets.typed_data::<i32>()[i] as usize,
        };
        &self.bytes[at(row)..at(row + 1)]
    }

    fn held(&self) -> usize {
        self.offsets.len() + self.bytes.len()
    }
}

/// Strings of a column. Clones share them: what one unpacks, all have.
#[derive(Clone, Debug)]
pub struct Text {
    wide: bool,
    state: Arc<State>,
}

/// At least one of the two is there.
#[derive(Debug)]
struct State {
    plain: OnceLock<PlainText>,
    packed: Mutex<Option<Packed>>,
}

impl From<PlainText> for Text {
    fn from(plain: PlainText) -> Text {
        Text { wide: plain.wide, state: Arc::new(State { plain: plain.into(), packed: Mutex::new(None) }) }
    }
}

impl From<Packed> for Text {
    fn from(packed: Packed) -> Text {
        let wide = packed.is_wide();
        Text { wide, state: Arc::new(State { plain: OnceLock::new(), packed: Mutex::new(Some(packed)) }) }
    }
}

impl Text {
    /// Are the positions of the strings 64-bit, once they are plain?
    pub fn is_wide(&self) -> bool {
        self.wide
    }

    /// The strings, unless they are packed still.
    pub fn unpacked(&self) -> Option<&PlainText> {
        self.state.plain.get()
    }

    /// Memory held now.
    pub fn held(&self) -> usize {
        let packed = self.packed();
        packed.as_ref().map_or_else(|| self.unpacked().map_or(0, PlainText::held), Packed::held)
    }

    /// The strings, unpacked if they are not. An error that names `column` if there is no memory for that.
    pub(super) fn plain(&self, column: &str) -> Result<&PlainText> {
        loop {
            if let Some(plain) = self.unpacked() {
                return Ok(plain);
            }
            let mut packed = self.packed();
            // Whoever had the lock before may have unpacked it.
            let Some(blocks) = packed.as_ref() else { continue };
            let unpacked = if self.wide { unpack::<i64>(blocks) } else { unpack::<i32>(blocks) };
            let unpacked = unpacked.map_err(|message| Error::Value { column: column.into(), message })?;
            let plain = self.state.plain.get_or_init(|| unpacked);
            *packed = None;
            return Ok(plain);
        }
    }

    fn packed(&self) -> MutexGuard<'_, Option<Packed>> {
        self.state.packed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unpack<O: OffsetSizeTrait>(packed: &Packed) -> Result<PlainText, String> {
    let no_memory = || format!("no memory to unpack {} bytes of text", packed.bytes());
    let mut offsets = Growing::zeroed((packed.rows() + 1) * size_of::<O>()).ok_or_else(no_memory)?;
    let mut bytes = Growing::zeroed(packed.bytes()).ok_or_else(no_memory)?;
    packed.unpack(&mut offsets.as_mut_slice::<O>()[1..], bytes.as_mut_slice())?;
    Ok(PlainText { offsets: offsets.finish(), wide: O::IS_LARGE, bytes: bytes.finish() })
}
