//! Dictionaries: the distinct strings of a column in byte order, so that codes compare as the strings do.

use super::build::{Ints, PART_ROWS};
use super::{Phys, Values};
use arrow::array::*;
use arrow::datatypes::{DataType, Int32Type};
use foldhash::fast::FixedState;
use std::collections::HashMap;
use std::sync::Arc;

/// Distinct strings in ascending byte order; a code is a position.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dictionary {
    /// `len + 1` positions in `bytes`.
    offsets: Vec<i32>,
    bytes: Vec<u8>,
}

impl Dictionary {
    /// A dictionary of strings that ascend strictly; `None` if they do not, or have more than 2 GiB together.
    pub fn from_sorted<'a>(strings: impl IntoIterator<Item = &'a str>) -> Option<Dictionary> {
        let (mut offsets, mut bytes) = (vec![0], Vec::new());
        let mut last: Option<&str> = None;
        for s in strings {
            if last.is_some_and(|last| last >= s) {
                return None;
            }
            bytes.extend_from_slice(s.as_bytes());
            offsets.push(i32::try_from(bytes.len()).ok()?);
            last = Some(s);
        }
        Some(Dictionary { offsets, bytes })
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Are there no strings?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The string of a code.
    ///
    /// # Panics
    /// If `code` is not below [`Dictionary::len`].
    pub fn get(&self, code: usize) -> &str {
        let bytes = &self.bytes[self.offsets[code] as usize..self.offsets[code + 1] as usize];
        // SAFETY: `from_sorted`, the only constructor, copies whole `&str`s and records their ends.
        unsafe { std::str::from_utf8_unchecked(bytes) }
    }

    /// The code of a string; if it is absent, the code of the first greater string (`len` if there is none).
    pub fn find(&self, text: &str) -> Result<usize, usize> {
        let (mut lo, mut hi) = (0, self.len());
        while lo < hi {
            let middle = lo + (hi - lo) / 2;
            match self.get(middle).cmp(text) {
                std::cmp::Ordering::Less => lo = middle + 1,
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Greater => hi = middle,
            }
        }
        Err(lo)
    }

    /// All strings, by code.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|code| self.get(code))
    }

    /// Where each string begins in [`Dictionary::bytes`], and the end of the last one.
    pub fn offsets(&self) -> &[i32] {
        &self.offsets
    }

    /// The strings, one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Strings as codes in order of appearance, up to a limit of distinct ones; sorted once all rows are known.
pub(super) struct Encoder {
    /// The code of every string; NULL has one of its own, which `null` tells.
    seen: HashMap<Box<str>, u32, FixedState>,
    null: Option<u32>,
    codes: Ints,
    limit: usize,
    /// The dictionary of the last array, which the next one often shares, and the codes of its strings so far.
    known: Option<(ArrayData, Vec<Option<u32>>)>,
}

impl Encoder {
    /// An encoder of `rows` rows with at most `limit` distinct strings, fewer than `u32::MAX`.
    pub(super) fn new(rows: usize, limit: usize) -> Encoder {
        Encoder { seen: HashMap::default(), null: None, codes: Ints::new(Phys::I8, rows), limit, known: None }
    }

    /// Adds the rows of an array of strings, plain or with a dictionary; adds none, and gives `None`, if the limit is
    /// passed.
    pub(super) fn append(&mut self, array: &dyn Array) -> Option<()> {
        let codes: Vec<u32> = match array.data_type() {
            DataType::Utf8 => self.of_plain::<i32>(array.as_string()),
            DataType::LargeUtf8 => self.of_plain::<i64>(array.as_string()),
            _ => self.of_coded(array.as_dictionary()),
        }?;
        self.codes.append(&codes, None, (0, self.count() as i128 - 1));
        Some(())
    }

    fn of_plain<O: OffsetSizeTrait>(&mut self, array: &GenericStringArray<O>) -> Option<Vec<u32>> {
        array.iter().map(|text| self.code(text)).collect()
    }

    /// Looks every string of the array's dictionary up once, if it occurs.
    fn of_coded(&mut self, array: &DictionaryArray<Int32Type>) -> Option<Vec<u32>> {
        let strings = array.values().as_string::<i32>();
        let mut known = match self.known.take() {
            Some((last, known)) if last.ptr_eq(&array.values().to_data()) => known,
            _ => vec![None; strings.len()],
        };
        let code = |key: Option<i32>| match key {
            None => self.code(None),
            Some(key) => {
                let key = key as usize;
                if known[key].is_none() {
                    known[key] = Some(self.code(strings.is_valid(key).then(|| strings.value(key)))?);
                }
                known[key]
            }
        };
        let codes = array.keys().iter().map(code).collect();
        self.known = Some((array.values().to_data(), known));
        codes
    }

    /// Codes so far, NULL's included.
    fn count(&self) -> usize {
        self.seen.len() + usize::from(self.null.is_some())
    }

    fn code(&mut self, text: Option<&str>) -> Option<u32> {
        let next = self.count() as u32;
        let Some(text) = text else { return Some(*self.null.get_or_insert(next)) };
        if let Some(code) = self.seen.get(text) {
            return Some(*code);
        }
        if self.seen.len() == self.limit {
            return None;
        }
        self.seen.insert(text.into(), next);
        Some(next)
    }

    /// The string of every code, an empty one for NULL's.
    fn strings(&self) -> Vec<&str> {
        let mut strings = vec![""; self.count()];
        self.seen.iter().for_each(|(text, code)| strings[*code as usize] = text);
        strings
    }

    /// The rows as plain strings, some at a time.
    pub(super) fn plain_arrays(&self) -> impl Iterator<Item = ArrayRef> {
        let strings = self.strings();
        let mut codes = self.codes.positions().peekable();
        std::iter::from_fn(move || {
            codes.peek()?;
            let text = |code: usize| (Some(code as u32) != self.null).then(|| strings[code]);
            let part: LargeStringArray = codes.by_ref().take(PART_ROWS).map(text).collect();
            Some(Arc::new(part) as ArrayRef)
        })
    }

    /// Codes of the sorted dictionary (0 for NULL); `None` if the strings are too long together.
    pub(super) fn values(&self) -> Option<Values> {
        let strings = self.strings();
        let mut order: Vec<usize> = (0..strings.len()).filter(|&code| Some(code as u32) != self.null).collect();
        order.sort_unstable_by_key(|&code| strings[code]);
        let dictionary = Dictionary::from_sorted(order.iter().map(|&code| strings[code]))?;
        let mut ranks = vec![0u32; strings.len()];
        order.iter().enumerate().for_each(|(rank, &code)| ranks[code] = rank as u32);
        let phys = Phys::holding(0, dictionary.len().saturating_sub(1) as i128);
        let codes = self.codes.mapped(phys, &ranks);
        Some(Values::Coded { phys, codes, dict: Arc::new(dictionary) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_byte_order() {
        let mut encoder = Encoder::new(6, 10);
        encoder.append(&StringArray::from(vec![Some("b"), Some("é"), None])).unwrap();
        let coded: DictionaryArray<Int32Type> = vec![None, Some("a"), Some("b")].into_iter().collect();
        encoder.append(&coded).unwrap();
        let Some(Values::Coded { phys: Phys::I8, codes, dict }) = encoder.values() else { panic!() };
        assert_eq!(dict.iter().collect::<Vec<_>>(), ["a", "b", "é"]);
        assert_eq!(codes.as_slice(), [1, 2, 0, 0, 0, 1]);
        assert_eq!(dict.find("b"), Ok(1));
        assert_eq!(dict.find("c"), Err(2));
    }

    #[test]
    fn gives_up_past_the_limit_and_refuses_disorder() {
        let mut encoder = Encoder::new(3, 1);
        let array = |texts: &[&str]| StringArray::from(texts.to_vec());
        assert!(encoder.append(&array(&["a", "a"])).is_some() && encoder.append(&array(&["a", "b"])).is_none());
        assert_eq!(encoder.plain_arrays().map(|part| part.len()).sum::<usize>(), 2);
        assert!(Dictionary::from_sorted(["b", "a"]).is_none());
    }

    #[test]
    fn a_hundred_and_twenty_eight_strings_need_a_byte() {
        let mut encoder = Encoder::new(129, 200);
        let texts: Vec<String> = (0..128).map(|i| format!("{i:03}")).collect();
        let rows = std::iter::once(None).chain(texts.iter().map(Some));
        encoder.append(&StringArray::from_iter(rows)).unwrap();
        let Some(Values::Coded { phys: Phys::I8, codes, .. }) = encoder.values() else { panic!() };
        assert_eq!(codes.typed_data::<i8>()[127..], [126, 127]);
    }
}
