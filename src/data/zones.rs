//! Zone maps: the least and the greatest value in each block of rows, by which a scan tells that no row of a block can
//! pass a filter (Moerkotte, "Small materialized aggregates", VLDB 1998).

use super::{Phys, Validity, Values};
use quearn_stage::graph::Scalar;

/// Rows of a block.
pub const ZONE_ROWS: usize = 1 << 14;

/// Bounds of the values of a column, block by block.
#[derive(Clone, PartialEq, Debug)]
pub struct Zones {
    bounds: Vec<[i64; 2]>,
    overlap: f64,
}

impl Zones {
    /// Least and greatest value of each block. NULLs do not count; a block of nothing else has a least value that is above
    /// the greatest.
    pub fn bounds(&self) -> &[[i64; 2]] {
        &self.bounds
    }

    /// Part of all pairs of blocks that have a value between their bounds in common: how much of a table is read, about,
    /// for the rows of one value. 1 where values are spread all over the table, next to 0 where they are sorted; few
    /// values far off do not change it much.
    pub fn overlap(&self) -> f64 {
        self.overlap
    }
}

/// The zones of a column of integers, decimals, dates or timestamps of at most 64 bits.
pub(super) fn gather(scalar: Scalar, values: &Values, validity: Option<&Validity>, rows: usize) -> Option<Zones> {
    let Values::Fixed { phys, data } = values else { return None };
    let ordered = scalar.is_int() || matches!(scalar, Scalar::Decimal { .. } | Scalar::Date | Scalar::Timestamp);
    if !ordered {
        return None;
    }
    Some(match phys {
        Phys::U8 => of(&data[..rows], validity),
        Phys::I8 => of(&data.typed_data::<i8>()[..rows], validity),
        Phys::I16 => of(&data.typed_data::<i16>()[..rows], validity),
        Phys::I32 => of(&data.typed_data::<i32>()[..rows], validity),
        Phys::I64 => of(&data.typed_data::<i64>()[..rows], validity),
        _ => return None,
    })
}

fn of<T: Copy + Ord + Into<i64>>(values: &[T], validity: Option<&Validity>) -> Zones {
    let blocks = values.chunks(ZONE_ROWS);
    let bounds: Vec<[i64; 2]> = match validity {
        None => blocks.map(|block| bounds_of(block.iter().copied())).collect(),
        Some(validity) => {
            let present = |(at, block): (usize, &[T])| {
                let rows = (at * ZONE_ROWS..).zip(block).filter(|(row, _)| validity.is_valid(*row));
                bounds_of(rows.map(|(_, v)| *v))
            };
            blocks.enumerate().map(present).collect()
        }
    };
    let overlap = overlap(&bounds);
    Zones { bounds, overlap }
}

fn bounds_of<T: Copy + Ord + Into<i64>>(mut values: impl Iterator<Item = T>) -> [i64; 2] {
    let Some(first) = values.next() else { return [i64::MAX, i64::MIN] };
    let (min, max) = values.fold((first, first), |(min, max), v| (min.min(v), max.max(v)));
    [min.into(), max.into()]
}

fn overlap(bounds: &[[i64; 2]]) -> f64 {
    let present: Vec<&[i64; 2]> = bounds.iter().filter(|[min, max]| min <= max).collect();
    let mut least: Vec<i64> = present.iter().map(|b| b[0]).collect();
    least.sort_unstable();
    // Of two blocks that have nothing in common one lies above the other.
    let above = |b: &&[i64; 2]| least.len() - least.partition_point(|&min| min <= b[1]);
    let apart: usize = present.iter().map(above).sum();
    let (pairs, all) = (present.len() * present.len() - 2 * apart, bounds.len() * bounds.len());
    if all == 0 { 1.0 } else { pairs as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::buffer::{Buffer, NullBuffer};

    const ROWS: i64 = 4 * ZONE_ROWS as i64 + 1;

    fn zones(values: Vec<i64>, valid: Option<NullBuffer>) -> Zones {
        let rows = values.len();
        let values = Values::Fixed { phys: Phys::I64, data: Buffer::from_vec(values) };
        let validity = valid.map(|v| Validity { bits: v.inner().inner().clone(), offset: 0 });
        gather(Scalar::I64, &values, validity.as_ref(), rows).unwrap()
    }

    #[test]
    fn blocks_of_sorted_values_are_apart() {
        let size = ZONE_ROWS as i64;
        let sorted = zones((0..ROWS).collect(), None);
        assert_eq!(sorted.bounds()[..2], [[0, size - 1], [size, 2 * size - 1]]);
        assert_eq!((sorted.bounds()[4], sorted.overlap()), ([ROWS - 1; 2], 0.2));
    }

    #[test]
    fn spread_values_are_everywhere() {
        assert_eq!(zones((0..ROWS - 1).map(|i| i % 100).collect(), None).overlap(), 1.0);
        assert_eq!(zones(vec![], None).overlap(), 1.0);
    }

    #[test]
    fn one_value_far_off_changes_one_block() {
        let values = zones((0..ROWS).map(|i| if i == 7 { 1 << 60 } else { i }).collect(), None);
        assert!((values.overlap() - (5.0 + 8.0) / 25.0).abs() < 1e-9, "{}", values.overlap());
    }

    #[test]
    fn nulls_do_not_count() {
        let size = ZONE_ROWS as i64;
        let valid: NullBuffer = (0..ROWS).map(|i| i / size != 1 && i % 2 == 1).collect::<Vec<bool>>().into();
        let some = zones((0..ROWS).collect(), Some(valid));
        assert_eq!(some.bounds()[..2], [[1, size - 1], [i64::MAX, i64::MIN]]);
        // The last row is NULL, too.
        assert_eq!((some.bounds()[4], some.overlap()), ([i64::MAX, i64::MIN], 3.0 / 25.0));
    }

    #[test]
    fn bools_floats_and_wide_values_have_none() {
        let of = |scalar, phys| gather(scalar, &Values::Fixed { phys, data: Buffer::from_vec(vec![0u128]) }, None, 1);
        assert!(of(Scalar::Bool, Phys::Bool).is_none() && of(Scalar::F64, Phys::F64).is_none());
        assert!(of(Scalar::decimal(38, 2), Phys::I128).is_none() && of(Scalar::decimal(38, 2), Phys::I8).is_some());
    }
}
