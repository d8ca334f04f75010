//! The bytes of a saved program: a header of fixed size, the manifest, and the parts that the manifest lists.
//!
//! The header has six 64-bit words, little-endian: the mark, the format, the bytes of the manifest, the bytes of the file,
//! the checksum of the manifest, the checksum of the five words before. Every byte of a file lies under a checksum.

use super::error::Kind;
use super::manifest::{Manifest, Part};
use crate::error::{Error, Result};
use std::io::Read;

/// How a file begins.
const MARK: [u8; 8] = *b"\x89QUEARN\n";
/// How the rest looks.
const FORMAT: u64 = 1;
/// Bytes of the header.
const HEADER: usize = 48;

/// A manifest and the parts behind it as the bytes of a file.
pub fn pack(mut manifest: Manifest, parts: Vec<(String, Vec<u8>)>) -> Result<Vec<u8>> {
    let part = |(name, bytes): &(String, Vec<u8>)| Part {
        name: name.clone(),
        bytes: bytes.len() as u64,
        checksum: checksum(bytes),
    };
    manifest.parts = parts.iter().map(part).collect();
    let text = serde_json::to_vec(&manifest)
        .map_err(|e| Error::Setting(format!("internal error: the manifest cannot be written: {e}")))?;
    let total = HEADER + text.len() + parts.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    let mut file = Vec::with_capacity(total);
    file.extend(MARK);
    for word in [FORMAT, text.len() as u64, total as u64, checksum(&text)] {
        file.extend(word.to_le_bytes());
    }
    file.extend(checksum(&file).to_le_bytes());
    file.extend(text);
    parts.iter().for_each(|(_, bytes)| file.extend(bytes));
    Ok(file)
}

/// The bytes of a file; only its beginning if it is no saved program.
pub fn read(mut file: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![];
    file.by_ref().take(HEADER as u64).read_to_end(&mut bytes)?;
    if bytes.starts_with(&MARK) {
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Bytes with their names.
type Parts<'a> = Vec<(String, &'a [u8])>;

/// The manifest of a file, and its parts with their names, when all checksums are right.
pub fn unpack(file: &[u8]) -> Result<(Manifest, Parts<'_>), Kind> {
    if !file.starts_with(&MARK) {
        return Err(Kind::NoProgram);
    }
    let found = file.len() as u64;
    let Some((header, rest)) = file.split_first_chunk::<HEADER>() else {
        return Err(Kind::Truncated { expected: HEADER as u64, found });
    };
    let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|byte| header[8 * i + byte]));
    let [format, text, total, text_sum, header_sum] = [1, 2, 3, 4, 5].map(word);
    if format != FORMAT {
        return Err(Kind::OtherFormat { found: format, expected: FORMAT });
    }
    let damaged = |part: &str| Kind::Damaged { part: part.to_owned() };
    if checksum(&header[..HEADER - 8]) != header_sum {
        return Err(damaged("header"));
    }
    if found < total {
        return Err(Kind::Truncated { expected: total, found });
    }
    let cut = |bytes: u64, from: &'_ [u8]| usize::try_from(bytes).ok().filter(|n| *n <= from.len());
    let length = cut(text, rest).filter(|_| found == total).ok_or_else(|| damaged("file"))?;
    let (text, mut rest) = rest.split_at(length);
    if checksum(text) != text_sum {
        return Err(damaged("manifest"));
    }
    let manifest = Manifest::parse(text)?;
    let mut parts = vec![];
    for part in &manifest.parts {
        let length = cut(part.bytes, rest).ok_or_else(|| damaged("list of parts"))?;
        let (bytes, after) = rest.split_at(length);
        if checksum(bytes) != part.checksum {
            return Err(damaged(&part.name));
        }
        parts.push((part.name.clone(), bytes));
        rest = after;
    }
    match rest.is_empty() {
        true => Ok((manifest, parts)),
        false => Err(damaged("list of parts")),
    }
}

/// A number that is another one if any one word of the bytes is: each step is a bijection of what was there before.
fn checksum(bytes: &[u8]) -> u64 {
    let step = |state: u64, word: u64| {
        let product = (state ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        product ^ (product >> 32)
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let all = words.iter().chain([&last]).map(|word| u64::from_le_bytes(*word));
    step(all.fold(0, step), bytes.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn one_changed_word_changes_the_checksum(
            bytes in prop::collection::vec(any::<u8>(), 1..200),
            at: prop::sample::Index,
            mask in 1..=255u8,
        ) {
            let mut changed = bytes.clone();
            changed[at.index(bytes.len())] ^= mask;
            prop_assert_ne!(checksum(&bytes), checksum(&changed));
            prop_assert_ne!(checksum(&bytes), checksum(&[&bytes[..], &[0]].concat()));
            prop_assert_ne!(checksum(&bytes), checksum(&bytes[1..]));
        }
    }
}
