//! Columns of strings while they are built: codes as long as there are few distinct strings, then the strings.

use super::growing::Growing;
use crate::data::Values;
use crate::data::dictionary::Encoder;
use arrow::array::*;
use arrow::datatypes::{DataType, Int32Type};

/// Strings so far.
pub(super) struct Texts {
    form: Form,
    /// Rows and bytes that are expected.
    expected: (usize, usize),
}

enum Form {
    Coded(Box<Encoder>),
    Plain(Plain),
}

impl Texts {
    /// No strings yet, of which at most `limit` distinct ones are stored as codes.
    pub(super) fn new(limit: usize, rows: usize, bytes: usize) -> Texts {
        let expected = (rows, bytes);
        let form = match limit {
            0 => Form::Plain(Plain::new(expected)),
            _ => Form::Coded(Box::new(Encoder::new(rows, limit))),
        };
        Texts { form, expected }
    }

    /// Appends an array of plain strings or one with a dictionary.
    pub(super) fn append(&mut self, array: &dyn Array) {
        if let Form::Coded(encoder) = &mut self.form {
            match encoder.append(array) {
                Some(()) => return,
                None => self.form = Form::Plain(Plain::of_codes(encoder, self.expected)),
            }
        }
        if let Form::Plain(plain) = &mut self.form {
            match array.data_type() {
                DataType::Utf8 => plain.append::<i32>(array.as_string()),
                DataType::LargeUtf8 => plain.append::<i64>(array.as_string()),
                _ => plain.append_coded(array.as_dictionary()),
            }
        }
    }

    /// As values of a column.
    pub(super) fn into_values(self) -> Values {
        match self.form {
            Form::Plain(plain) => plain.into_values(),
            Form::Coded(encoder) => {
                encoder.values().unwrap_or_else(|| Plain::of_codes(&encoder, self.expected).into_values())
            }
        }
    }
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

    /// The strings that codes stand for.
    fn of_codes(encoder: &Encoder, expected: (usize, usize)) -> Plain {
        let mut plain = Plain::new(expected);
        let strings = encoder.strings();
        encoder.codes().for_each(|code| plain.push(strings[code]));
        plain
    }

    fn append<O: OffsetSizeTrait>(&mut self, array: &GenericStringArray<O>) {
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

    fn append_coded(&mut self, array: &DictionaryArray<Int32Type>) {
        let strings = array.values().as_string::<i32>();
        let text = |key: i32| Some(key as usize).filter(|&key| strings.is_valid(key)).map(|key| strings.value(key));
        array.keys().iter().for_each(|key| self.push(key.and_then(text).unwrap_or_default()));
    }

    fn push(&mut self, text: &str) {
        let end = self.reach(text.len()) + text.len();
        self.bytes.extend_from_slice(text.as_bytes());
        match self.wide {
            false => self.offsets.extend([end as i32].into_iter()),
            true => self.offsets.extend([end as i64].into_iter()),
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
        Values::Text { offsets: self.offsets.finish(), wide: self.wide, bytes: self.bytes.finish() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_strings_are_codes_and_many_are_not() {
        let array = StringArray::from(vec![Some("b"), None, Some("a"), Some("b")]);
        let coded: DictionaryArray<Int32Type> = array.iter().collect();
        for limit in 0..4 {
            for parts in [[&array as &dyn Array, &coded], [&coded, &array]] {
                let mut texts = Texts::new(limit, 8, 4);
                parts.into_iter().for_each(|part| texts.append(part));
                match texts.into_values() {
                    Values::Coded { codes, dict, .. } => {
                        assert!(limit >= 2);
                        assert_eq!(dict.iter().collect::<Vec<_>>(), ["a", "b"]);
                        assert_eq!(codes.as_slice(), [1, 0, 0, 1, 1, 0, 0, 1]);
                    }
                    Values::Text { offsets, wide, bytes } => {
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
