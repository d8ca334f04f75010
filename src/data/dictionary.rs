//! Dictionaries: the distinct strings of a column in byte order, so that codes compare as the strings do.

use foldhash::fast::FixedState;
use std::collections::HashMap;

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

/// Numbers distinct strings in order of appearance, up to a limit; sorted once all rows are known.
pub(super) struct Encoder<'a> {
    seen: HashMap<&'a str, u32, FixedState>,
    strings: Vec<&'a str>,
    codes: Vec<u32>,
    limit: usize,
}

impl<'a> Encoder<'a> {
    /// An encoder of `rows` rows with at most `limit` distinct strings.
    pub(super) fn new(rows: usize, limit: usize) -> Encoder<'a> {
        Encoder { seen: HashMap::default(), strings: Vec::new(), codes: Vec::with_capacity(rows), limit }
    }

    /// Adds a row; `None` if the limit is passed.
    pub(super) fn push(&mut self, text: &'a str) -> Option<()> {
        let code = self.intern(text)?;
        self.codes.push(code);
        Some(())
    }

    /// Adds a row that is NULL.
    pub(super) fn push_null(&mut self) {
        self.codes.push(NULL_CODE);
    }

    fn intern(&mut self, text: &'a str) -> Option<u32> {
        let next = self.strings.len() as u32;
        let code = *self.seen.entry(text).or_insert(next);
        if code == next {
            if self.strings.len() == self.limit {
                return None;
            }
            self.strings.push(text);
        }
        Some(code)
    }

    /// The sorted dictionary and the code of every row (0 for NULL); `None` if the strings are too long together.
    pub(super) fn finish(self) -> Option<(Dictionary, Vec<u32>)> {
        let mut order: Vec<u32> = (0..self.strings.len() as u32).collect();
        order.sort_unstable_by_key(|&i| self.strings[i as usize]);
        let dictionary = Dictionary::from_sorted(order.iter().map(|&i| self.strings[i as usize]))?;
        let mut rank = vec![0; order.len()];
        for (to, &from) in order.iter().enumerate() {
            rank[from as usize] = to as u32;
        }
        let mut codes = self.codes;
        for code in &mut codes {
            *code = rank.get(*code as usize).copied().unwrap_or(0);
        }
        Some((dictionary, codes))
    }
}

/// Stands for NULL until the codes are final; no string has it because a limit is below it.
const NULL_CODE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_byte_order() {
        let mut encoder = Encoder::new(5, 10);
        for s in ["b", "é", "a"] {
            encoder.push(s).unwrap();
        }
        encoder.push_null();
        encoder.push("b").unwrap();
        let (dictionary, codes) = encoder.finish().unwrap();
        assert_eq!(dictionary.iter().collect::<Vec<_>>(), ["a", "b", "é"]);
        assert_eq!(codes, [1, 2, 0, 0, 1]);
        assert_eq!(dictionary.find("b"), Ok(1));
        assert_eq!(dictionary.find("c"), Err(2));
    }

    #[test]
    fn gives_up_past_the_limit_and_refuses_disorder() {
        let mut encoder = Encoder::new(3, 1);
        assert!(encoder.push("a").is_some() && encoder.push("a").is_some() && encoder.push("b").is_none());
        assert!(Dictionary::from_sorted(["b", "a"]).is_none());
    }
}
