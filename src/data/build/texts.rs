//! Columns of strings while they are built: codes as long as there are few distinct strings, then the strings, which are
//! packed if that pays.

use super::packing::Packing;
use crate::data::dictionary::Encoder;
use crate::data::growing::Growing;
use crate::data::stats::TextFacts;
use crate::data::text::{PackedBlock, TextBlock};
use crate::data::{PlainText, Values};
use arrow::array::*;
use arrow::datatypes::{DataType, Int32Type};
use std::mem::replace;
use std::sync::Arc;

/// Rows whose strings are decoded at once.
pub(in crate::data) const PART_ROWS: usize = 1 << 14;

/// Strings so far.
pub(super) struct Texts {
    form: Form,
    /// Rows and bytes that are expected.
    expected: (usize, usize),
    /// Bytes from which on strings are packed.
    pack_from: usize,
}

enum Form {
    Coded(Box<Encoder>),
    Packed(Box<Packing>),
    Plain(Plain),
}

impl Texts {
    /// No strings yet, of which at most `limit` distinct ones are stored as codes, and otherwise `pack_from` bytes packed.
    pub(super) fn new(limit: usize, rows: usize, bytes: usize, pack_from: usize) -> Texts {
        let form = match limit {
            0 => uncoded((rows, bytes), pack_from),
            _ => Form::Coded(Box::new(Encoder::new(rows, limit))),
        };
        Texts { form, expected: (rows, bytes), pack_from }
    }

    /// Appends an array of plain strings or one with a dictionary.
    pub(super) fn append(&mut self, array: &ArrayRef) {
        if let Form::Coded(encoder) = &mut self.form {
            if encoder.append(array).is_some() {
                return;
            }
            self.give_up_codes();
        }
        match array.data_type() {
            DataType::Utf8 | DataType::LargeUtf8 => self.append_plain(array),
            _ => decoded(array.as_dictionary()).for_each(|array| self.append_plain(&array)),
        }
    }

    fn give_up_codes(&mut self) {
        let before = replace(&mut self.form, uncoded(self.expected, self.pack_from));
        let Form::Coded(encoder) = before else { return };
        for array in encoder.plain_arrays() {
            self.append_plain(&array);
            // Not left for later, lest the strings of all rows so far be in memory.
            while let Some(block) = self.next_block() {
                self.put_block(block.pack());
            }
        }
    }

    fn append_plain(&mut self, array: &ArrayRef) {
        match &mut self.form {
            Form::Packed(packing) => packing.append(array),
            Form::Plain(plain) => plain.append(array),
            Form::Coded(_) => unreachable!("codes were given up"),
        }
        self.decide(false);
    }

    /// Keeps strings plain if it is known now that packing does not pay.
    fn decide(&mut self, at_end: bool) {
        if let Form::Packed(packing) = &mut self.form
            && let Some(arrays) = packing.give_up(at_end)
        {
            let mut plain = Plain::new(self.expected);
            arrays.iter().for_each(|array| plain.append(array));
            self.form = Form::Plain(plain);
        }
    }

    /// A block to pack, which comes back by [`Texts::put_block`].
    pub(super) fn next_block(&mut self) -> Option<TextBlock> {
        if let Form::Packed(packing) = &mut self.form { packing.next_block() } else { None }
    }

    /// Takes a packed block.
    pub(super) fn put_block(&mut self, block: PackedBlock) {
        if let Form::Packed(packing) = &mut self.form {
            packing.put(block);
        }
    }

    /// As values of a column; with their facts if they are packed.
    pub(super) fn into_values(mut self) -> (Values, Option<TextFacts>) {
        if let Form::Coded(encoder) = &self.form {
            if let Some(values) = encoder.values() {
                return (values, None);
            }
            self.give_up_codes();
        }
        self.decide(true);
        match self.form {
            Form::Packed(packing) => {
                let (packed, facts) = packing.finish();
                (Values::Text(packed.into()), Some(facts))
            }
            Form::Plain(plain) => (plain.into_values(), None),
            Form::Coded(_) => unreachable!("codes were given up"),
        }
    }
}
/// What takes strings that have no codes.
fn uncoded(expected: (usize, usize), pack_from: usize) -> Form {
    match pack_from {
        usize::MAX => Form::Plain(Plain::new(expected)),
        sample => Form::Packed(Box::new(Packing::new(expected.1, sample))),
    }
}

/// The strings of an array with a dictionary as plain arrays, some rows at a time.
fn decoded(array: &DictionaryArray<Int32Type>) -> impl Iterator<Item = ArrayRef> {
    let strings = array.values().as_string::<i32>();
    let text = |key: Option<i32>| {
        let key = key? as usize;
        strings.is_valid(key).then(|| strings.value(key))
    };
    let parts =
        (0..array.len()).step_by(PART_ROWS).map(|row| array.keys().slice(row, PART_ROWS.min(array.len() - row)));
    parts.map(move |keys| Arc::new(LargeStringArray::from_iter(keys.iter().map(text))) as ArrayRef)
}

/// Strings one after the other, with positions of 32 bits until they need more.
struct Plain {
    offsets: Growing,
    wide: bool,
    bytes: Growing,
    rows: usize,
}

impl Plain {
    fn new((rows, bytes): (usize, usize)) -> Plain {
        let mut offsets = Growing::with_capacity(rows.saturating_add(1).saturating_mul(4));
        offsets.extend([0i32].into_iter());
        Plain { offsets, wide: false, bytes: Growing::with_capacity(bytes), rows }
    }

    fn append(&mut self, array: &ArrayRef) {
        match array.data_type() {
            DataType::LargeUtf8 => self.append_as::<i64>(array.as_string()),
            _ => self.append_as::<i32>(array.as_string()),
        }
    }

    fn append_as<O: OffsetSizeTrait>(&mut self, array: &GenericStringArray<O>) {
        let offsets = array.value_offsets();
        let (first, last) = (offsets[0].as_usize(), offsets[array.len()].as_usize());
        let base = self.reach(last - first);
        self.bytes.extend_from_slice(&array.value_data()[first..last]);
        let ends = offsets[1..].iter().map(|o| o.as_usize() - first + base);
        match self.wide {
            false => self.offsets.extend(ends.map(|end| end as i32)),
            true => self.offsets.extend(ends.map(|end| end as i64)),
        }
    }

    /// Sees to it that positions can tell the end of `more` bytes; gives that of the bytes before.
    fn reach(&mut self, more: usize) -> usize {
        let base = self.bytes.len();
        if !self.wide && i32::try_from(base + more).is_err() {
            let mut wide = Growing::with_capacity(self.rows.saturating_add(1).saturating_mul(8));
            wide.extend(self.offsets.as_slice::<i32>().iter().map(|end| i64::from(*end)));
            (self.offsets, self.wide) = (wide, true);
        }
        base
    }

    fn into_values(self) -> Values {
        let plain = PlainText { offsets: self.offsets.finish(), wide: self.wide, bytes: self.bytes.finish() };
        Values::Text(plain.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_strings_are_codes_and_many_are_not() {
        let array: ArrayRef = Arc::new(StringArray::from(vec![Some("b"), None, Some("a"), Some("b")]));
        let coded: DictionaryArray<Int32Type> = array.as_string::<i32>().iter().collect();
        let coded: ArrayRef = Arc::new(coded);
        for (limit, pack_from) in (0..4).flat_map(|limit| [(limit, usize::MAX), (limit, 100)]) {
            for parts in [[&array, &coded], [&coded, &array]] {
                let mut texts = Texts::new(limit, 8, 4, pack_from);
                parts.into_iter().for_each(|part| texts.append(part));
                match texts.into_values().0 {
                    Values::Coded { codes, dict, .. } => {
                        assert!(limit >= 2);
                        assert_eq!(dict.iter().collect::<Vec<_>>(), ["a", "b"]);
                        assert_eq!(codes.as_slice(), [1, 0, 0, 1, 1, 0, 0, 1]);
                    }
                    Values::Text(text) => {
                        let PlainText { offsets, wide, bytes } = text.unpacked().unwrap();
                        assert!(limit < 2 && !wide);
                        assert_eq!(bytes.as_slice(), b"babbab");
                        assert_eq!(offsets.typed_data::<i32>(), [0, 1, 1, 2, 3, 4, 4, 5, 6]);
                    }
                    Values::Fixed { .. } => panic!("strings have no width"),
                }
            }
        }
    }
}
