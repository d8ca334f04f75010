//! Columns of strings that are packed while they arrive, so that no column is ever whole and plain in memory. Blocks are
//! packed by whoever asks for them, on any thread, and come back in any order.

use crate::data::stats::{TextFacts, TextReader};
use crate::data::text::{Packed, PackedBlock, Packs, TextBlock};
use arrow::array::*;
use arrow::datatypes::DataType;
use std::collections::{BTreeMap, VecDeque};
use std::mem::take;

/// Bytes of a block's strings and lengths: enough to find what repeats, and little for one thread to unpack.
const BLOCK: usize = 256 << 10;

/// Strings so far.
pub(super) struct Packing {
    /// The block that is not full, and its bytes.
    open: Vec<ArrayRef>,
    open_bytes: usize,
    /// Blocks that nobody has packed.
    full: VecDeque<TextBlock>,
    /// How many blocks were full so far, and their bytes.
    blocks: usize,
    bytes: usize,
    /// Bytes by which it is decided whether packing pays.
    sample: usize,
    decided: bool,
    packs: Packs,
    /// Facts of the strings in `packs`.
    facts: TextFacts,
    /// Blocks that were packed before others in front of them.
    early: BTreeMap<usize, PackedBlock>,
}

impl Packing {
    /// No strings, of which there will be about so many bytes. The first `sample` bytes decide whether packing pays.
    pub(super) fn new(bytes: usize, sample: usize) -> Packing {
        Packing {
            open: vec![],
            open_bytes: 0,
            full: VecDeque::new(),
            blocks: 0,
            bytes: 0,
            sample,
            decided: false,
            packs: Packs::with_capacity(bytes / 2),
            facts: TextReader::new().facts(),
            early: BTreeMap::new(),
        }
    }

    /// Appends an array of plain strings.
    pub(super) fn append(&mut self, array: &ArrayRef) {
        let mut rest = array.clone();
        while !rest.is_empty() {
            let room = BLOCK.saturating_sub(self.open_bytes);
            let (rows, bytes) = match rest.data_type() {
                DataType::LargeUtf8 => fitting::<i64>(rest.as_string(), room, self.open.is_empty()),
                _ => fitting::<i32>(rest.as_string(), room, self.open.is_empty()),
            };
            if rows > 0 {
                self.open.push(rest.slice(0, rows));
                self.open_bytes += bytes;
                rest = rest.slice(rows, rest.len() - rows);
            }
            if !rest.is_empty() {
                self.close();
            }
        }
    }

    /// The open block is full.
    fn close(&mut self) {
        if !self.open.is_empty() {
            self.full.push_back(TextBlock { number: self.blocks, arrays: take(&mut self.open) });
            self.bytes += take(&mut self.open_bytes);
            self.blocks += 1;
        }
    }

    /// Decides whether packing pays, once there are enough strings for that or (`at_end`) all of them. If it does not,
    /// these are the strings so far.
    pub(super) fn give_up(&mut self, at_end: bool) -> Option<Vec<ArrayRef>> {
        if at_end {
            self.close();
        }
        let enough = self.bytes >= self.sample && self.blocks > 0;
        if self.decided || !(enough || at_end) {
            return None;
        }
        self.decided = true;
        let packed: Vec<PackedBlock> = self.full.iter().filter(|_| enough).map(TextBlock::pack).collect();
        let held: usize = packed.iter().map(PackedBlock::held).sum();
        if !enough || 3 * held > 2 * self.bytes {
            return Some(self.full.drain(..).flat_map(|block| block.arrays).chain(self.open.drain(..)).collect());
        }
        self.full.clear();
        packed.into_iter().for_each(|block| self.put(block));
        None
    }

    /// A block to pack, which comes back by [`Packing::put`].
    pub(super) fn next_block(&mut self) -> Option<TextBlock> {
        if self.decided { self.full.pop_front() } else { None }
    }

    /// Takes a packed block.
    pub(super) fn put(&mut self, block: PackedBlock) {
        self.early.insert(block.number(), block);
        while let Some(block) = self.early.remove(&self.packs.len()) {
            self.facts.append(self.packs.push(block));
        }
    }

    /// The strings and what is known of them, when all blocks have come back.
    pub(super) fn finish(mut self) -> (Packed, TextFacts) {
        self.close();
        while let Some(block) = self.next_block() {
            self.put(block.pack());
        }
        (self.packs.finish(), self.facts)
    }
}

/// How many rows of an array, at least one if they are the `first` of a block, fit into so many bytes, and bytes of them.
fn fitting<O: OffsetSizeTrait>(array: &GenericStringArray<O>, room: usize, first: bool) -> (usize, usize) {
    let offsets = array.value_offsets();
    // A length takes a byte at least.
    let bytes = |rows: usize| (offsets[rows] - offsets[0]).as_usize() + rows;
    let rows = (1..=array.len()).take_while(|rows| bytes(*rows) <= room).count();
    let rows = rows.max(usize::from(first));
    (rows, bytes(rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Stats, Text};
    use std::sync::Arc;

    /// Strings in arrays of so many rows, whose blocks come back in no order.
    fn pack(texts: &[String], rows: usize, sample: usize) -> Option<(Packed, TextFacts)> {
        let mut packing = Packing::new(0, sample);
        let mut out = vec![];
        for part in texts.chunks(rows) {
            packing.append(&(Arc::new(StringArray::from_iter_values(part)) as ArrayRef));
            if packing.give_up(false).is_some() {
                return None;
            }
            out.extend(std::iter::from_fn(|| packing.next_block()));
            if out.len() > 3 {
                out.drain(..).rev().for_each(|block| packing.put(block.pack()));
            }
        }
        if packing.give_up(true).is_some() {
            return None;
        }
        out.iter().rev().for_each(|block| packing.put(block.pack()));
        Some(packing.finish())
    }

    #[test]
    fn blocks_are_put_in_order_and_their_facts_together() {
        let sorted: Vec<String> = (0..60_000).map(|i| format!("customer number {i:09}")).collect();
        let mut shuffled = sorted.clone();
        shuffled.swap(30_000, 3);
        let mut doubled = sorted.clone();
        doubled[40_000] = doubled[40_001].clone();
        let mut long = sorted.clone();
        long[20_000] = sorted[20_000].clone() + &"x".repeat(3 * BLOCK);
        for (texts, is_sorted, is_unique) in
            [(&sorted, true, true), (&shuffled, false, false), (&doubled, true, false), (&long, true, true)]
        {
            for rows in [1_000, 16_384, 60_000] {
                let (packed, facts) = pack(texts, rows, 1 << 20).unwrap();
                let stats = facts.stats(Stats { rows: texts.len(), ..Stats::default() });
                assert_eq!((stats.sorted, stats.unique), (is_sorted, is_unique));
                assert_eq!(stats.max_len, texts.iter().map(String::len).max());
                let text = Text::from(packed);
                assert!(text.held() < 500_000, "{}", text.held());
                let plain = text.plain("c").unwrap();
                assert!((0..texts.len()).all(|row| plain.row(row) == texts[row].as_bytes()));
            }
        }
    }

    #[test]
    fn few_strings_and_those_without_pattern_stay_plain() {
        let texts: Vec<String> = (0..1_000).map(|i| format!("customer number {i:09}")).collect();
        assert!(pack(&texts, 100, 1 << 20).is_none());
        assert!(pack(&texts, 100, 1_000).is_some());
        assert!(pack(&[], 100, 0).is_none());
        assert!(pack(&vec![String::new(); 10], 3, 0).is_none());
        let mut seed = 1u64;
        let mut random = || {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (seed >> 33) as u32
        };
        let noise: Vec<String> =
            (0..200_000).map(|_| (0..9).map(|_| char::from((random() % 90 + 33) as u8)).collect()).collect();
        for rows in [1_000, 200_000] {
            assert!(pack(&noise, rows, 1 << 20).is_none());
        }
    }
}
