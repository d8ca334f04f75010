//! Blocks of packed strings. A block is the lengths of its strings, in as few bytes each as the longest one needs, and
//! then their bytes, compressed by themselves so that threads can unpack blocks apart.

use crate::data::growing::Growing;
use crate::data::stats::{TextFacts, TextReader};
use arrow::array::{Array, ArrayRef, AsArray, GenericStringArray, OffsetSizeTrait};
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;
use std::mem::take;
use std::sync::{Mutex, PoisonError};
use std::thread;
use zstd::bulk::Decompressor;

/// The fastest level makes a third or a quarter of prose, and the slower ones hardly less.
const LEVEL: i32 = 1;

/// Strings that are to be packed: arrays of plain strings.
pub(crate) struct TextBlock {
    /// Position among the blocks of its column.
    pub(in crate::data) number: usize,
    /// The strings.
    pub(in crate::data) arrays: Vec<ArrayRef>,
}

/// A block on its way to its column, and what is known of its strings.
pub(crate) struct PackedBlock {
    number: usize,
    facts: TextFacts,
    /// Number of strings, and their bytes.
    rows: usize,
    bytes: usize,
    /// Bytes of a length.
    width: usize,
    packed: Vec<u8>,
}

impl PackedBlock {
    /// Position among the blocks of its column.
    pub(in crate::data) fn number(&self) -> usize {
        self.number
    }

    /// Bytes when packed.
    pub(in crate::data) fn held(&self) -> usize {
        self.packed.len()
    }
}

impl TextBlock {
    /// Packs the strings; takes a while.
    pub(crate) fn pack(&self) -> PackedBlock {
        let mut strings = Strings { lengths: vec![], bytes: vec![], reader: TextReader::new() };
        for array in &self.arrays {
            match array.data_type() {
                DataType::LargeUtf8 => strings.append::<i64>(array.as_string()),
                _ => strings.append::<i32>(array.as_string()),
            }
        }
        let Strings { lengths, bytes, reader } = strings;
        let width = match lengths.iter().max() {
            None | Some(..=0xff) => 1,
            Some(..=0xffff) => 2,
            Some(..=0xffff_ffff) => 4,
            Some(_) => 8,
        };
        let mut packed = Vec::with_capacity(lengths.len() * width + bytes.len() / 2);
        lengths.iter().for_each(|length| packed.extend_from_slice(&length.to_le_bytes()[..width]));
        match zstd::bulk::compress(&bytes, LEVEL) {
            Ok(smaller) if smaller.len() < bytes.len() => packed.extend_from_slice(&smaller),
            // Nothing is gained, or there is no memory to do it: what has its own length is taken as it is.
            _ => packed.extend_from_slice(&bytes),
        }
        packed.shrink_to_fit();
        let (rows, bytes) = (lengths.len(), bytes.len());
        PackedBlock { number: self.number, facts: reader.facts(), bytes, rows, width, packed }
    }
}

/// Strings of a block while they are gathered.
struct Strings<'a> {
    lengths: Vec<u64>,
    bytes: Vec<u8>,
    reader: TextReader<'a>,
}

impl<'a> Strings<'a> {
    fn append<O: OffsetSizeTrait>(&mut self, array: &'a GenericStringArray<O>) {
        for text in array {
            let bytes = text.map(str::as_bytes);
            self.reader.add(bytes);
            self.lengths.push(bytes.map_or(0, <[u8]>::len) as u64);
            self.bytes.extend_from_slice(bytes.unwrap_or_default());
        }
    }
}

/// All strings of a column, packed.
#[derive(Debug)]
pub(in crate::data) struct Packed {
    blocks: Vec<Place>,
    data: Buffer,
    rows: usize,
    bytes: usize,
}

/// A block in the memory of its column.
#[derive(Debug)]
struct Place {
    at: usize,
    len: usize,
    rows: usize,
    bytes: usize,
    width: usize,
}

/// Packed blocks in order.
pub(in crate::data) struct Packs {
    blocks: Vec<Place>,
    data: Growing,
    rows: usize,
    bytes: usize,
}

impl Packs {
    /// No blocks, of which there will be at most about so many bytes.
    pub(in crate::data) fn with_capacity(bytes: usize) -> Packs {
        Packs { blocks: vec![], data: Growing::with_capacity(bytes), rows: 0, bytes: 0 }
    }

    /// Number of blocks.
    pub(in crate::data) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Adds the next block; what is known of its strings.
    pub(in crate::data) fn push(&mut self, block: PackedBlock) -> TextFacts {
        let PackedBlock { facts, bytes, rows, width, packed, .. } = block;
        self.blocks.push(Place { at: self.data.len(), len: packed.len(), rows, bytes, width });
        self.data.extend_from_slice(&packed);
        self.rows += rows;
        self.bytes += bytes;
        facts
    }

    /// The column's strings.
    pub(in crate::data) fn finish(self) -> Packed {
        let Packs { mut blocks, data, rows, bytes } = self;
        blocks.shrink_to_fit();
        Packed { blocks, data: data.finish(), rows, bytes }
    }
}

/// A block that is being unpacked, and where to.
struct Task<'a, O> {
    place: &'a Place,
    /// Bytes of the strings before it.
    before: usize,
    ends: &'a mut [O],
    text: &'a mut [u8],
}

impl Packed {
    /// Memory held.
    pub(super) fn held(&self) -> usize {
        self.data.len() + size_of_val(self.blocks.as_slice())
    }

    /// Number of strings.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of all strings.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Do positions need more than 32 bits?
    pub(super) fn is_wide(&self) -> bool {
        i32::try_from(self.bytes).is_err()
    }

    /// Writes the strings, and where each of them ends.
    pub(super) fn unpack<O: OffsetSizeTrait>(&self, ends: &mut [O], text: &mut [u8]) -> Result<(), String> {
        let (mut ends, mut text, mut before) = (ends, text, 0);
        let tasks = self.blocks.iter().map(|place| {
            let (own_ends, later_ends) = take(&mut ends).split_at_mut(place.rows);
            let (own_text, later_text) = take(&mut text).split_at_mut(place.bytes);
            (ends, text) = (later_ends, later_text);
            before += place.bytes;
            Task { place, before: before - place.bytes, ends: own_ends, text: own_text }
        });
        in_parallel(tasks.collect(), |decompressor, task| self.unpack_block(decompressor, task))
    }

    fn unpack_block<O: OffsetSizeTrait>(
        &self,
        decompressor: &mut Decompressor<'_>,
        task: Task<'_, O>,
    ) -> Result<(), String> {
        let Task { place, before, ends, text } = task;
        let packed = &self.data[place.at..place.at + place.len];
        let (lengths, packed) = packed.split_at(place.rows * place.width);
        if packed.len() == text.len() {
            text.copy_from_slice(packed);
        } else {
            match decompressor.decompress_to_buffer(packed, text) {
                Ok(written) if written == text.len() => {}
                Ok(written) => return Err(format!("expected {} bytes in a packed block, found {written}", text.len())),
                Err(error) => return Err(format!("a packed block of text: {error}")),
            }
        }
        let end = match place.width {
            1 => sum_up::<O, 1>(before, lengths, ends),
            2 => sum_up::<O, 2>(before, lengths, ends),
            4 => sum_up::<O, 4>(before, lengths, ends),
            _ => sum_up::<O, 8>(before, lengths, ends),
        };
        match end == before + text.len() {
            true => Ok(()),
            false => Err("lengths and bytes of a packed block differ".into()),
        }
    }
}

/// Where strings of these lengths (of `W` bytes) end, one after the other; and where the last one does.
fn sum_up<O: OffsetSizeTrait, const W: usize>(before: usize, lengths: &[u8], ends: &mut [O]) -> usize {
    let (lengths, _) = lengths.as_chunks::<W>();
    lengths.iter().zip(ends).fold(before, |at, (length, end)| {
        let mut word = [0; 8];
        word[..W].copy_from_slice(length);
        let next = at.wrapping_add(u64::from_le_bytes(word) as usize);
        *end = O::usize_as(next);
        next
    })
}

/// Does tasks on as many threads as load tables. They belong to no pool: a thread of one, while it waits for others, may
/// take up a program that waits for this very column.
fn in_parallel<T: Send>(
    tasks: Vec<T>,
    each: impl Fn(&mut Decompressor<'_>, T) -> Result<(), String> + Sync,
) -> Result<(), String> {
    let threads = rayon::current_num_threads().min(tasks.len());
    let tasks = Mutex::new(tasks.into_iter());
    let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        let mut decompressor = Decompressor::new().map_err(|error| error.to_string())?;
        while let Some(task) = next() {
            each(&mut decompressor, task)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        // Where no thread can be started, fewer do it.
        let start = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).filter_map(start).collect();
        let own = work();
        let outcome = |thread: thread::ScopedJoinHandle<'_, Result<(), String>>| {
            thread.join().unwrap_or_else(|_| Err("a thread that unpacked text gave up".into()))
        };
        others.into_iter().map(outcome).fold(own, Result::and)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{LargeStringArray, StringArray};
    use std::sync::Arc;

    /// Blocks of arrays, packed in order.
    fn pack(blocks: Vec<Vec<ArrayRef>>) -> Packed {
        let mut packs = Packs::with_capacity(0);
        for (number, arrays) in blocks.into_iter().enumerate() {
            packs.push(TextBlock { number, arrays }.pack());
        }
        packs.finish()
    }

    fn unpacked<O: OffsetSizeTrait>(packed: &Packed) -> Result<Vec<String>, String> {
        let (mut ends, mut text) = (vec![O::usize_as(0); packed.rows()], vec![0; packed.bytes()]);
        packed.unpack(&mut ends, &mut text)?;
        let starts = std::iter::once(0).chain(ends.iter().map(|end| end.as_usize()));
        let string = |(from, to): (usize, &O)| String::from_utf8(text[from..to.as_usize()].to_vec()).unwrap();
        Ok(starts.zip(&ends).map(string).collect())
    }

    #[test]
    fn strings_of_any_length_come_back() {
        let lengths = [0, 1, 255, 256, 65_535, 65_536, 300_000];
        for longest in 1..=lengths.len() {
            let texts: Vec<String> = lengths[..longest].iter().map(|n| "prose ".repeat(*n)[..*n].into()).collect();
            let nullable = texts.iter().map(|text| (text.len() != 255).then_some(text));
            let narrow = Arc::new(StringArray::from_iter(nullable)) as ArrayRef;
            let wide = Arc::new(LargeStringArray::from_iter_values(&texts)) as ArrayRef;
            let packed = pack(vec![vec![narrow.slice(1, longest - 1), wide.clone()], vec![wide.slice(0, 1)], vec![]]);
            let expected = texts[1..].iter().map(|text| if text.len() == 255 { "" } else { text });
            let expected: Vec<&str> = expected.chain(texts.iter().map(String::as_str)).chain([""]).collect();
            assert_eq!(unpacked::<i32>(&packed).unwrap(), expected);
            assert_eq!(unpacked::<i64>(&packed).unwrap(), expected);
        }
    }

    #[test]
    fn what_does_not_become_smaller_is_kept_as_it_is() {
        let mut seed = 7u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from((seed >> 25) as u8)
        };
        let texts: Vec<String> = (0..100).map(|_| (0..30).map(|_| random()).collect()).collect();
        let packed = pack(vec![vec![Arc::new(StringArray::from_iter_values(&texts))]]);
        assert!(packed.held() <= 3_100 + size_of::<Place>());
        assert_eq!(unpacked::<i32>(&packed).unwrap(), texts);
    }

    #[test]
    fn damage_is_an_error() {
        let array = Arc::new(StringArray::from_iter_values((0..1_000).map(|i| format!("the same words {}", i % 7))));
        let packed = pack(vec![vec![array]]);
        for at in [0, 500, 1_000, 1_004, packed.data.len() - 20] {
            let mut data = packed.data.to_vec();
            data[at] ^= 0x55;
            let blocks = packed.blocks.iter().map(|place| Place { ..*place }).collect();
            let damaged = Packed { blocks, data: data.into(), rows: packed.rows, bytes: packed.bytes };
            // Of the compressed bytes, some may be others without anything to tell it.
            let (mut ends, mut text) = (vec![0i32; packed.rows()], vec![0; packed.bytes()]);
            assert!(damaged.unpack(&mut ends, &mut text).is_err() || at > 1_000, "{at}");
        }
    }
}
