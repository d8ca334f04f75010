//! Statistics: what the optimiser knows about a column, gathered the same way for every column that is loaded.

use super::{Phys, PlainText, Validity, Values};
use foldhash::fast::FixedState;
use std::hash::BuildHasher;

/// Facts about the values of a column. NULLs count in `nulls` only.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Rows.
    pub rows: usize,
    /// Rows that are NULL.
    pub nulls: usize,
    /// Least value of an integer, decimal (unscaled), date, timestamp or bool column; least code of a coded one.
    pub min: Option<i128>,
    /// Greatest value, as `min`.
    pub max: Option<i128>,
    /// Number of distinct values: exact for dense integers, sorted columns and dictionaries, else an estimate with a
    /// standard error of 1.6 %. `None` for columns with an inner shape.
    pub distinct: Option<u64>,
    /// Are the rows in non-descending order (byte order for text), none of them NULL?
    pub sorted: bool,
    /// Is it known for sure that no two rows have the same value?
    pub unique: bool,
    /// Are the values of a float column numbers, neither infinite nor NaN?
    pub finite: bool,
    /// Length of the longest string in bytes, for text.
    pub max_len: Option<usize>,
}

/// Gathers the facts of a column without inner shape, or (`inner`) only the counts of one with. Those of packed strings
/// are `known`.
pub(super) fn gather(
    values: &Values,
    validity: Option<&Validity>,
    rows: usize,
    inner: bool,
    known: Option<&TextFacts>,
) -> Stats {
    let nulls = validity.map_or(0, |v| v.to_nulls(rows).null_count());
    let base = Stats { rows, nulls, ..Stats::default() };
    if inner {
        return base;
    }
    match values {
        Values::Fixed { phys, data } | Values::Coded { phys, codes: data, .. } => {
            let stats = of_fixed(*phys, data, validity, base);
            match values {
                Values::Coded { dict, .. } => {
                    Stats { max_len: Some(dict.iter().map(str::len).max().unwrap_or(0)), ..stats }
                }
                _ => stats,
            }
        }
        Values::Text(text) => match (known, text.unpacked()) {
            (Some(facts), _) => facts.stats(base),
            (None, Some(text)) => of_text(text, validity, base),
            (None, None) => base,
        },
    }
}

fn of_fixed(phys: Phys, data: &arrow::buffer::Buffer, validity: Option<&Validity>, base: Stats) -> Stats {
    let rows = base.rows;
    match phys {
        Phys::Bool | Phys::U8 => of_ints(&data[..rows], validity, base),
        Phys::I8 => of_ints(&data.typed_data::<i8>()[..rows], validity, base),
        Phys::I16 => of_ints(&data.typed_data::<i16>()[..rows], validity, base),
        Phys::I32 => of_ints(&data.typed_data::<i32>()[..rows], validity, base),
        Phys::I64 => of_ints(&data.typed_data::<i64>()[..rows], validity, base),
        Phys::I128 => of_ints(&data.typed_data::<i128>()[..rows], validity, base),
        Phys::F16 => of_floats(&data.typed_data::<half::f16>()[..rows], |v| v.to_f64(), validity, base),
        Phys::BF16 => {
            let widen = |v: u16| half::bf16::from_bits(v).to_f64();
            of_floats(&data.typed_data::<u16>()[..rows], widen, validity, base)
        }
        Phys::F32 => of_floats(&data.typed_data::<f32>()[..rows], f64::from, validity, base),
        Phys::F64 => of_floats(&data.typed_data::<f64>()[..rows], |v| v, validity, base),
    }
}

/// What the integer statistics need of a storage type.
trait Int: Copy + Ord {
    const MIN: Self;
    const MAX: Self;
    fn wide(self) -> i128;
}

macro_rules! ints {
    ($($t:ty),*) => {$(
        impl Int for $t {
            const MIN: Self = <$t>::MIN;
            const MAX: Self = <$t>::MAX;
            fn wide(self) -> i128 {
                self as i128
            }
        }
    )*};
}
ints!(u8, i8, i16, i32, i64, i128);

fn of_ints<T: Int>(values: &[T], validity: Option<&Validity>, base: Stats) -> Stats {
    let valid = |row: usize| validity.is_none_or(|v| v.is_valid(row));
    let present = base.rows - base.nulls;
    if present == 0 {
        return Stats { distinct: Some(0), sorted: base.nulls == 0, unique: true, ..base };
    }
    let (mut min, mut max) = (T::MAX, T::MIN);
    if base.nulls == 0 {
        values.iter().for_each(|v| (min, max) = (min.min(*v), max.max(*v)));
    } else {
        let present = values.iter().enumerate().filter(|(row, _)| valid(*row));
        present.for_each(|(_, v)| (min, max) = (min.min(*v), max.max(*v)));
    }
    let sorted = base.nulls == 0 && values.is_sorted();
    let (min, max) = (min.wide(), max.wide());
    let range = max.checked_sub(min).and_then(|r| usize::try_from(r).ok());
    let rows_of_bits = base.rows.saturating_mul(8).max(1 << 16);
    let (distinct, exact) = match range {
        _ if sorted => (1 + count_steps(values), true),
        Some(range) if range < rows_of_bits => {
            let present = values.iter().enumerate().filter(|(row, _)| valid(*row));
            (count_in_bitmap(present.map(|(_, v)| (v.wide() - min) as usize), range), true)
        }
        _ => {
            let mut sketch = Sketch::new();
            let present = values.iter().enumerate().filter(|(row, _)| valid(*row));
            present.for_each(|(_, v)| sketch.add(hash_wide(v.wide())));
            (sketch.estimate().min(present_u64(base.rows, base.nulls)), false)
        }
    };
    let unique = exact && distinct == present as u64;
    Stats { min: Some(min), max: Some(max), distinct: Some(distinct), sorted, unique, ..base }
}

fn of_floats<T: Copy>(values: &[T], widen: impl Fn(T) -> f64, validity: Option<&Validity>, base: Stats) -> Stats {
    let (mut sketch, mut finite) = (Sketch::new(), true);
    for (row, v) in values.iter().enumerate() {
        if validity.is_none_or(|validity| validity.is_valid(row)) {
            finite &= widen(*v).is_finite();
            // +0 and -0 are one value.
            sketch.add(mix((widen(*v) + 0.0).to_bits()));
        }
    }
    let sorted = base.nulls == 0 && values.iter().map(|v| widen(*v)).is_sorted();
    let distinct = sketch.estimate().min(present_u64(base.rows, base.nulls));
    Stats { distinct: Some(distinct), sorted, finite, ..base }
}

fn of_text(text: &PlainText, validity: Option<&Validity>, base: Stats) -> Stats {
    let mut reader = TextReader::new();
    let valid = |row: usize| validity.is_none_or(|v| v.is_valid(row));
    (0..base.rows).for_each(|row| reader.add(valid(row).then(|| text.row(row))));
    reader.facts().stats(base)
}

/// Gathers the facts of strings, one after the other.
pub(super) struct TextReader<'a> {
    hasher: FixedState,
    sketch: Sketch,
    max_len: usize,
    nulls: bool,
    /// Do some neighbours descend?
    descend: bool,
    /// Are some neighbours equal?
    equal: bool,
    /// The first and the last one.
    ends: Option<(&'a [u8], &'a [u8])>,
}

impl<'a> TextReader<'a> {
    /// No string was read.
    pub(super) fn new() -> TextReader<'a> {
        let (hasher, sketch) = (FixedState::default(), Sketch::new());
        TextReader { hasher, sketch, max_len: 0, nulls: false, descend: false, equal: false, ends: None }
    }

    /// Reads a string, or NULL.
    pub(super) fn add(&mut self, text: Option<&'a [u8]>) {
        let Some(text) = text else {
            self.nulls = true;
            return;
        };
        self.max_len = self.max_len.max(text.len());
        self.sketch.add(self.hasher.hash_one(text));
        let (first, last) = self.ends.unwrap_or((text, text));
        if !self.descend && self.ends.is_some() {
            let order = last.cmp(text);
            self.descend = order.is_gt();
            self.equal |= order.is_eq();
        }
        self.ends = Some((first, text));
    }

    /// The facts of all strings that were read.
    pub(super) fn facts(self) -> TextFacts {
        let sorted = !self.nulls && !self.descend;
        let ends = self.ends.filter(|_| sorted).map(|(first, last)| [first.into(), last.into()]);
        TextFacts { sketch: self.sketch, max_len: self.max_len, sorted, strictly: !self.equal, ends }
    }
}

/// Facts of the strings of some consecutive rows.
pub(super) struct TextFacts {
    sketch: Sketch,
    max_len: usize,
    /// As in [`Stats`].
    sorted: bool,
    /// Are no two neighbours equal?
    strictly: bool,
    /// The first and the last string, if there are any and they are sorted.
    ends: Option<[Box<[u8]>; 2]>,
}

impl TextFacts {
    /// Adds those of the rows that follow.
    pub(super) fn append(&mut self, next: TextFacts) {
        self.sketch.merge(&next.sketch);
        self.max_len = self.max_len.max(next.max_len);
        self.sorted &= next.sorted;
        self.strictly &= next.strictly;
        self.ends = match (self.ends.take(), next.ends) {
            (Some([first, last]), Some([after, end])) => {
                self.sorted &= last <= after;
                self.strictly &= last != after;
                Some([first, end])
            }
            (before, after) => before.or(after),
        };
    }

    /// Facts of a column with so many rows and NULLs.
    pub(super) fn stats(&self, base: Stats) -> Stats {
        let present = present_u64(base.rows, base.nulls);
        let sorted = self.sorted && base.nulls == 0;
        let unique = sorted && self.strictly;
        let distinct = if unique { present } else { self.sketch.estimate().min(present) };
        Stats { distinct: Some(distinct), sorted, unique, max_len: Some(self.max_len), ..base }
    }
}

fn present_u64(rows: usize, nulls: usize) -> u64 {
    (rows - nulls) as u64
}

/// Neighbours that differ.
fn count_steps<T: Int>(values: &[T]) -> u64 {
    values.windows(2).map(|w| u64::from(w[0] != w[1])).sum()
}

/// Distinct numbers in `0..=range`.
fn count_in_bitmap(numbers: impl Iterator<Item = usize>, range: usize) -> u64 {
    let mut bits = vec![0u64; range / 64 + 1];
    numbers.for_each(|n| bits[n / 64] |= 1 << (n % 64));
    bits.iter().map(|word| u64::from(word.count_ones())).sum()
}

/// Hash of an integer.
fn hash_wide(x: i128) -> u64 {
    mix(x as u64 ^ mix((x >> 64) as u64))
}

/// A bijection that spreads the bits of `x` (the finaliser of MurmurHash3).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// HyperLogLog (Flajolet et al. 2007) with 2^12 registers: an estimate of how many distinct hashes were added.
struct Sketch {
    registers: Vec<u8>,
}

impl Sketch {
    const BITS: u32 = 12;

    fn new() -> Sketch {
        Sketch { registers: vec![0; 1 << Sketch::BITS] }
    }

    /// Adds what another one was shown.
    fn merge(&mut self, other: &Sketch) {
        self.registers.iter_mut().zip(&other.registers).for_each(|(own, other)| *own = (*own).max(*other));
    }

    fn add(&mut self, hash: u64) {
        let register = &mut self.registers[(hash >> (64 - Sketch::BITS)) as usize];
        let rest = (hash << Sketch::BITS) | 1 << (Sketch::BITS - 1);
        *register = (*register).max(rest.leading_zeros() as u8 + 1);
    }

    fn estimate(&self) -> u64 {
        let m = self.registers.len() as f64;
        let sum: f64 = self.registers.iter().map(|r| 2f64.powi(-i32::from(*r))).sum();
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let empty = self.registers.iter().filter(|r| **r == 0).count();
        // With few values the number of empty registers says more.
        let estimate = if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw };
        estimate.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sketch_is_near() {
        for n in [10u64, 1_000, 20_000, 1_000_000] {
            let mut sketch = Sketch::new();
            (0..n).for_each(|i| sketch.add(mix(i + 1)));
            let off = (sketch.estimate() as f64 - n as f64).abs() / n as f64;
            assert!(off < 0.06, "{n}: {}", sketch.estimate());
        }
    }

    #[test]
    fn dense_integers_are_exact() {
        let values = [5i64, 3, 9, 3];
        let stats = of_ints(&values, None, Stats { rows: 4, ..Stats::default() });
        assert_eq!((stats.min, stats.max, stats.distinct), (Some(3), Some(9), Some(3)));
        assert!(!stats.sorted && !stats.unique);
        let stats = of_ints(&[1i64, 4, i64::MAX], None, Stats { rows: 3, ..Stats::default() });
        assert!(stats.sorted && stats.unique);
    }
}
