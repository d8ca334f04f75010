//! What today's tools answer, and the comparison with it (see `expected/README.md`).

use super::Set;
use crate::squeezenet::CLASSES;
use crate::{Error, Result};
use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Share of the pictures whose class may differ, counted where it is missing and where it is too many.
pub const TOLERANCE: f64 = 0.02;

/// Counts of the pictures that the query keeps.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Expected {
    /// By class; classes without pictures are left out.
    pub hist: BTreeMap<usize, i64>,
    /// By region.
    pub n: Vec<i64>,
}

/// Number of regions.
const REGIONS: usize = 8;

/// Counts of the pictures in a result.
#[derive(Clone, PartialEq, Debug)]
pub struct Counts {
    /// By class, over all regions.
    pub hist: Vec<i64>,
    /// By region.
    pub n: Vec<i64>,
}

/// The counts in a result with the integer columns `region`, `class` and `n`.
pub fn counts(set: Set, result: &RecordBatch) -> Result<Counts> {
    count(&set.to_string(), result, REGIONS)
}

fn count(what: &str, result: &RecordBatch, regions: usize) -> Result<Counts> {
    let mut counts = Counts { hist: vec![0; CLASSES], n: vec![0; regions] };
    let [regions, classes, numbers] = ["region", "class", "n"].map(|name| integers(what, result, name));
    let (regions, classes, numbers) = (regions?, classes?, numbers?);
    for row in 0..result.num_rows() {
        *slot(what, "region", &mut counts.n, regions.value(row))? += numbers.value(row);
        *slot(what, "class", &mut counts.hist, classes.value(row))? += numbers.value(row);
    }
    Ok(counts)
}

/// The expected counts; they are known for the scales 1 and 0.01.
pub fn expected(set: Set, scale: f64) -> Result<Expected> {
    let text = match (set, scale) {
        (Set::A, 1.0) => include_str!("../../../expected/p9a.s1.json"),
        (Set::A, 0.01) => include_str!("../../../expected/p9a.s0.01.json"),
        (Set::B, 1.0) => include_str!("../../../expected/p9b.s1.json"),
        (Set::B, 0.01) => include_str!("../../../expected/p9b.s0.01.json"),
        _ => return Err(Error::NoExpectation { what: format!("{set} at scale {scale}") }),
    };
    serde_json::from_str(text).map_err(|e| Error::wrong(set.to_string(), e.to_string()))
}

/// Compares a result with the integer columns `region`, `class` and `n` with the expected counts; gives the share of
/// pictures whose class differs.
pub fn check(set: Set, scale: f64, result: &RecordBatch) -> Result<f64> {
    compare(&set.to_string(), result, &expected(set, scale)?)
}

fn compare(what: &str, result: &RecordBatch, want: &Expected) -> Result<f64> {
    let Counts { hist, n } = count(what, result, want.n.len())?;
    if n != want.n {
        return Err(Error::wrong(what, format!("expected {:?} pictures by region, found {n:?}", want.n)));
    }
    let difference = |(class, count): (usize, &i64)| count.abs_diff(want.hist.get(&class).copied().unwrap_or(0));
    let differing: u64 = hist.iter().enumerate().map(difference).sum();
    let share = differing as f64 / want.n.iter().sum::<i64>() as f64;
    if share <= TOLERANCE {
        return Ok(share);
    }
    Err(Error::wrong(what, format!("expected classes to differ by at most {TOLERANCE}, found {share:.4}")))
}

fn integers(what: &str, result: &RecordBatch, name: &str) -> Result<Int64Array> {
    let column = result.column_by_name(name);
    let column = column.ok_or_else(|| Error::wrong(what, format!("expected a column `{name}`, found none")))?;
    let column = cast(column, &DataType::Int64).map_err(|e| Error::wrong(what, format!("column `{name}`: {e}")))?;
    if column.null_count() > 0 {
        return Err(Error::wrong(what, format!("column `{name}`: expected no NULL, found {}", column.null_count())));
    }
    Ok(column.as_primitive::<Int64Type>().clone())
}

fn slot<'a>(what: &str, column: &str, counts: &'a mut [i64], at: i64) -> Result<&'a mut i64> {
    let len = counts.len();
    let slot = usize::try_from(at).ok().and_then(|at| counts.get_mut(at));
    slot.ok_or_else(|| Error::wrong(what, format!("column `{column}`: expected 0 to {}, found {at}", len - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int32Array};
    use std::sync::Arc;

    fn result(rows: &[[i32; 3]]) -> RecordBatch {
        let column = |i: usize| Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row[i]))) as ArrayRef;
        RecordBatch::try_from_iter([("region", column(0)), ("class", column(1)), ("n", column(2))]).unwrap()
    }

    fn want() -> Expected {
        Expected { hist: BTreeMap::from([(7, 60), (9, 140)]), n: vec![150, 50] }
    }

    #[test]
    fn a_flipped_class_is_tolerated() {
        assert_eq!(compare("t", &result(&[[0, 7, 60], [0, 9, 90], [1, 9, 50]]), &want()).unwrap(), 0.0);
        assert_eq!(compare("t", &result(&[[0, 7, 61], [0, 9, 89], [1, 9, 50]]), &want()).unwrap(), 0.01);
        assert!(compare("t", &result(&[[0, 7, 70], [0, 9, 80], [1, 9, 50]]), &want()).is_err());
    }

    #[test]
    fn a_missing_row_is_not() {
        let error = compare("t", &result(&[[0, 7, 60], [0, 9, 90], [1, 9, 49]]), &want()).unwrap_err();
        assert_eq!(error.to_string(), "t: expected [150, 50] pictures by region, found [150, 49]");
        let error = compare("t", &result(&[[2, 7, 60]]), &want()).unwrap_err();
        assert_eq!(error.to_string(), "t: column `region`: expected 0 to 1, found 2");
    }

    #[test]
    fn the_known_counts_add_up() {
        for (set, scale) in [(Set::A, 1.0), (Set::A, 0.01), (Set::B, 1.0), (Set::B, 0.01)] {
            let known = expected(set, scale).unwrap();
            assert_eq!(known.hist.values().sum::<i64>(), known.n.iter().sum::<i64>());
        }
        assert!(expected(Set::A, 2.0).is_err());
    }
}
