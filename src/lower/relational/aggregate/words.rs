//! What the rows of a block are summed up in: registers of words, one word a lane. Addends that are small and never negative
//! share a word, each in bits of its own that a block cannot overflow, so that one addition serves them all (Lamport, "Multiple
//! byte processing with full-word instructions", CACM 1975). Wider ones and floats have words to themselves. What a block gives
//! is taken apart and added to totals, which hold a tile.

use super::super::pipeline::TILE_ROWS;
use super::super::registers::LANES;
use super::super::value::{Range, Value};
use quearn_stage::graph::Node;
use quearn_stage::low::{BinOp, Builder, CastOp, Prim, ReduceOp, Ty, V};

/// Registers of rows in a block: with eight values a row the buffers take a sixth of the first-level cache.
pub const ROUNDS: i64 = 16;
/// Rows of a block.
pub const BLOCK: i64 = ROUNDS * LANES as i64;
/// Bits of a word that several sums can share.
const SHARED_BITS: u32 = 32;
/// Bits of a sum in a shared word, at most: a sum that is taken out of its word is no negative `i32`.
const FIELD_BITS: u32 = 31;

/// One sum: the number of rows, or an argument, which several aggregates may share.
struct Sum {
    /// `None` for the number of rows.
    argument: Option<Node>,
    word: usize,
    /// Place and width in the word; `None` for all of it.
    bits: Option<(u32, u32)>,
    /// Machine type of its totals, and their place in memory.
    total: Prim,
    at: i64,
}

/// The words in which a block is summed up.
#[derive(Default)]
pub struct Words {
    words: Vec<Prim>,
    /// Bits of each word that are taken; all for words of one sum.
    taken: Vec<u32>,
    sums: Vec<Sum>,
}

impl Words {
    /// The number of rows and these arguments; those that repeat count once.
    pub fn of(arguments: &[(Node, &Value<'_>)]) -> Words {
        let mut words = Words::default();
        words.add(None, Some(Range::point(1)));
        for (node, value) in arguments {
            if !words.sums.iter().any(|sum| sum.argument == Some(*node)) {
                words.add(
                    Some(*node),
                    (!value.scalar().ty().prim.is_float()).then(|| value.range.unwrap_or(Range::I64)),
                );
            }
        }
        words
    }

    /// One more sum, of addends in a range, or of floats.
    fn add(&mut self, argument: Option<Node>, range: Option<Range>) {
        let times = |rounds: i64| {
            let times = |x: i128| x.saturating_mul(rounds.into());
            range.map(|r| Range::new(times(r.min.min(0)), times(r.max.max(0))))
        };
        let total = times(TILE_ROWS / i64::from(LANES)).map_or(Prim::F64, Range::prim);
        let at = self.total_bytes();
        let block = times(ROUNDS);
        let width = block.filter(|r| r.min == 0).map(|r| 128 - r.max.leading_zeros()).filter(|&w| w <= FIELD_BITS);
        let (word, bits) = match width {
            Some(width) => {
                let word = self.taken.iter().position(|taken| taken + width <= SHARED_BITS);
                let word = word.unwrap_or_else(|| self.word(Prim::I32, 0));
                let shift = self.taken[word];
                self.taken[word] += width;
                (word, Some((shift, width)))
            }
            None => (self.word(block.map_or(Prim::F64, Range::prim), SHARED_BITS), None),
        };
        self.sums.push(Sum { argument, word, bits, total, at });
    }

    fn word(&mut self, prim: Prim, taken: u32) -> usize {
        self.words.push(prim);
        self.taken.push(taken);
        self.words.len() - 1
    }

    /// The types of the registers.
    pub fn types(&self) -> impl Iterator<Item = Ty> {
        self.words.iter().map(|&prim| Ty::vector(prim, LANES))
    }

    /// Nothing summed up yet.
    pub fn zeros<'b>(&self, b: &'b Builder) -> Vec<V<'b>> {
        self.types().map(|ty| b.zero(ty)).collect()
    }

    /// Is anything but integers summed up?
    pub fn has_floats(&self) -> bool {
        self.words.contains(&Prim::F64)
    }

    /// The words of a register of rows, given the values of the arguments.
    pub fn pack<'b>(&self, b: &'b Builder, value: impl Fn(Node) -> V<'b>) -> Vec<V<'b>> {
        let mut words: Vec<Option<V<'b>>> = vec![None; self.words.len()];
        for sum in &self.sums {
            let ty = Ty::vector(self.words[sum.word], LANES);
            let addend = match sum.argument.map(&value) {
                None => b.int(ty, 1),
                Some(lanes) if lanes.ty().prim == ty.prim => lanes,
                Some(lanes) if lanes.ty().prim.is_float() => lanes.cast(CastOp::FpExt, ty.prim),
                // What an addend of 64 bits has in a narrower word fits it.
                Some(lanes) if lanes.ty().prim.bytes() > ty.prim.bytes() => lanes.cast(CastOp::Trunc, ty.prim),
                Some(lanes) => lanes.sext(ty.prim),
            };
            let shift = sum.bits.map_or(0, |(shift, _)| shift);
            let placed = if shift == 0 { addend } else { addend.shl(shift.into()) };
            let word = &mut words[sum.word];
            *word = Some(word.map_or(placed, |word| word | placed));
        }
        words.into_iter().flatten().collect()
    }

    /// Bytes of the totals of one group.
    pub fn total_bytes(&self) -> i64 {
        self.sums.last().map_or(0, |sum| sum.at + i64::from(LANES) * sum.total.bytes() as i64)
    }

    /// Adds the words of a block to the totals of a group.
    pub fn add_up<'b>(&self, b: &'b Builder, totals: V<'b>, words: &[V<'b>]) {
        for sum in &self.sums {
            let lanes = self.taken_out(sum, words[sum.word]);
            let wide = if lanes.ty().prim == sum.total { lanes } else { lanes.sext(sum.total) };
            b.store(totals, sum.at, b.load(wide.ty(), totals, sum.at) + wide);
        }
    }

    fn taken_out<'b>(&self, sum: &Sum, word: V<'b>) -> V<'b> {
        let Some((shift, width)) = sum.bits else { return word };
        let low = if shift == 0 { word } else { word.bin(BinOp::LShr, word.same(shift.into())) };
        let is_last = shift + width == self.taken[sum.word];
        if is_last { low } else { low.bin(BinOp::And, low.same((1 << width) - 1)) }
    }

    /// The number of rows of a group, from its totals.
    pub fn rows<'b>(&self, b: &'b Builder, totals: V<'b>) -> V<'b> {
        self.sum(b, totals, &self.sums[0])
    }

    /// The sum of an argument, an `i64` or `f64`, from the totals of a group.
    pub fn total<'b>(&self, b: &'b Builder, totals: V<'b>, argument: Node) -> Option<V<'b>> {
        self.sums.iter().find(|sum| sum.argument == Some(argument)).map(|sum| self.sum(b, totals, sum))
    }

    fn sum<'b>(&self, b: &'b Builder, totals: V<'b>, sum: &Sum) -> V<'b> {
        let lanes = b.load(Ty::vector(sum.total, LANES), totals, sum.at);
        let wide = if sum.total == Prim::I32 { lanes.sext(Prim::I64) } else { lanes };
        wide.reduce(ReduceOp::Add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(ranges: &[Option<(i128, i128)>]) -> Words {
        let mut words = Words::default();
        words.add(None, Some(Range::point(1)));
        ranges.iter().for_each(|r| words.add(None, r.map(|(min, max)| Range::new(min, max))));
        words
    }

    type Place = (usize, Option<(u32, u32)>, Prim);

    fn layout(ranges: &[Option<(i128, i128)>]) -> Vec<Place> {
        words(ranges).sums.iter().map(|sum| (sum.word, sum.bits, sum.total)).collect()
    }

    #[test]
    fn small_addends_share_a_word() {
        // 16 rounds of at most 5,000, 10 and 1 need 17, 8 and 5 bits.
        let expected = [
            (0, Some((0, 5)), Prim::I32),
            (0, Some((5, 17)), Prim::I32),
            (1, Some((0, 28)), Prim::I64),
            (0, Some((22, 8)), Prim::I32),
        ];
        assert_eq!(layout(&[Some((100, 5_000)), Some((90_000, 10_494_950)), Some((0, 10))]), expected);
    }

    #[test]
    fn what_can_be_negative_or_is_wide_has_a_word_of_its_own() {
        let expected = [
            (0, Some((0, 5)), Prim::I32),
            (1, None, Prim::I32),
            (2, None, Prim::I64),
            (3, None, Prim::F64),
            (0, Some((5, 4)), Prim::I32),
        ];
        assert_eq!(layout(&[Some((-1, 5)), Some((0, 1 << 40)), None, Some((0, 0))]).len(), expected.len());
        assert_eq!(layout(&[Some((-1, 5)), Some((0, 1 << 40)), None, Some((0, 0))])[..4], expected[..4]);
    }

    #[test]
    fn a_word_is_never_overfull() {
        for max in [0, 1, 7, 255, 4_095, 1 << 20, (1 << 27) - 1, 1 << 27] {
            let words = words(&[Some((0, max)); 5]);
            for (word, &taken) in words.taken.iter().enumerate() {
                let most: i128 = words
                    .sums
                    .iter()
                    .filter(|sum| sum.word == word)
                    .map(|sum| {
                        let addend = if sum.at == 0 { 1 } else { max };
                        let shift = sum.bits.map_or(0, |(shift, _)| shift);
                        (addend * i128::from(ROUNDS)) << shift
                    })
                    .sum();
                assert!(taken <= SHARED_BITS && (words.words[word] != Prim::I32 || most < 1 << 32), "{max}: {most}");
            }
        }
    }
}
