//! Results as named numbers, and the comparison with what other systems answer (see `expected/README.md`).

use crate::{Error, Result};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use quearn::{Outcome, Outputs};
use quearn_stage::graph::Scalar;
use serde_json::Value;
use std::collections::BTreeMap;

/// What a program gives, by name, whatever ran it.
#[derive(Clone, Debug)]
pub struct Results(BTreeMap<String, Outcome>);

impl FromIterator<(String, Outcome)> for Results {
    fn from_iter<I: IntoIterator<Item = (String, Outcome)>>(results: I) -> Results {
        Results(results.into_iter().collect())
    }
}

impl From<&Outputs> for Results {
    fn from(outputs: &Outputs) -> Results {
        outputs.iter().map(|(name, outcome)| (name.to_owned(), outcome.clone())).collect()
    }
}

impl Results {
    /// The table of that name.
    pub(super) fn table(&self, name: &str) -> Result<&RecordBatch> {
        match self.0.get(name) {
            Some(Outcome::Table(table)) => Ok(table),
            _ => Err(Error::wrong(name, "expected a table of that name, found none")),
        }
    }

    /// The numbers of the tensor of that name.
    pub(super) fn tensor(&self, name: &str) -> Result<Vec<f64>> {
        let Some(Outcome::Tensor(tensor)) = self.0.get(name) else {
            return Err(Error::wrong(name, "expected a tensor of that name, found none"));
        };
        match tensor.scalar() {
            Scalar::I64 => Ok(tensor.as_slice::<i64>()?.iter().map(|v| *v as f64).collect()),
            _ => Ok(tensor.as_slice::<f64>()?.to_vec()),
        }
    }
}

/// Numbers by name.
pub type Answer = BTreeMap<&'static str, Vec<f64>>;

/// How far numbers may be off.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Tolerance {
    /// Not at all.
    Exact,
    /// Each number by a share of the expected one, and by an amount.
    Relative {
        /// The share.
        of: f64,
        /// The amount.
        and: f64,
    },
    /// All together by a share of the sum of what is expected: for counts of what is near a limit.
    Share(f64),
}

/// Compares an answer with the expected one, in JSON; gives the largest error as a share of what is allowed.
pub(super) fn check(
    what: &str,
    answer: &Answer,
    expected: &str,
    tolerances: &[(&'static str, Tolerance)],
) -> Result<f64> {
    let expected: BTreeMap<String, Value> =
        serde_json::from_str(expected).map_err(|e| Error::wrong(what, e.to_string()))?;
    let mut worst = 0f64;
    for (name, tolerance) in tolerances {
        let part = format!("{what} {name}");
        let want = expected.get(*name).map(flat).ok_or_else(|| Error::NoExpectation { what: part.clone() })?;
        let found = answer.get(name).map_or(&[][..], Vec::as_slice);
        if found.len() != want.len() {
            return Err(Error::wrong(part, format!("expected {} numbers, found {}", want.len(), found.len())));
        }
        let error = tolerance.error(found, &want);
        if error.is_nan() || error > 1.0 {
            let message = format!("expected {tolerance:?}, found {error:.3} times as much");
            return Err(Error::wrong(part, message));
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

/// The numbers in nested lists, in order.
fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(flat).collect(),
        value => vec![value.as_f64().unwrap_or(f64::NAN)],
    }
}

impl Tolerance {
    /// The largest error as a share of what is allowed; NaN if a number is none.
    fn error(self, found: &[f64], want: &[f64]) -> f64 {
        let pairs = || found.iter().zip(want);
        let largest = |allowed: &dyn Fn(f64) -> f64| {
            let share = |(found, want): (&f64, &f64)| match (found - want).abs() {
                0.0 => 0.0,
                off => off / allowed(*want),
            };
            pairs().map(share).fold(0.0, |worst: f64, e| if e.is_nan() || e > worst { e } else { worst })
        };
        match self {
            Tolerance::Exact => largest(&|_| 0.0),
            Tolerance::Relative { of, and } => largest(&|want| and + of * want.abs()),
            Tolerance::Share(share) => {
                let off: f64 = pairs().map(|(found, want)| (found - want).abs()).sum();
                off / (share * want.iter().map(|want| want.abs()).sum::<f64>())
            }
        }
    }
}

/// A column of numbers without NULLs.
pub(super) fn numbers(result: &RecordBatch, name: &str) -> Result<Vec<f64>> {
    let column = result.column_by_name(name);
    let column = column.ok_or_else(|| Error::wrong(name, "expected a column of that name, found none"))?;
    let column = cast(column, &DataType::Float64).map_err(|e| Error::wrong(name, e.to_string()))?;
    match column.null_count() {
        0 => Ok(column.as_primitive::<Float64Type>().values().to_vec()),
        nulls => Err(Error::wrong(name, format!("expected no NULL, found {nulls}"))),
    }
}

/// The columns of a result with a row for each key, by key from 0 up to (and without) `count`; 0 where there is none.
pub(super) fn by_key(
    result: &RecordBatch,
    key: &str,
    count: usize,
    columns: &[(&'static str, &str)],
) -> Result<Answer> {
    let keys = numbers(result, key)?;
    let dense = |(name, column): &(&'static str, &str)| {
        let mut dense = vec![0.0; count];
        for (key, value) in keys.iter().zip(numbers(result, column)?) {
            let found = || Error::wrong(*name, format!("expected keys of 0 to {}, found {key}", count - 1));
            *dense.get_mut(*key as usize).ok_or_else(found)? += value;
        }
        Ok((*name, dense))
    };
    columns.iter().map(dense).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Tolerance::{Exact, Relative, Share};

    #[test]
    fn errors_are_shares_of_what_is_allowed() {
        assert_eq!(Exact.error(&[1.0, 2.0], &[1.0, 2.0]), 0.0);
        assert_eq!(Exact.error(&[1.0, 2.5], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(Relative { of: 0.25, and: 1.0 }.error(&[0.5, 5.0], &[0.0, 4.0]), 0.5);
        assert_eq!(Share(0.1).error(&[9.0, 31.0], &[10.0, 30.0]), 0.5);
        assert!(Exact.error(&[f64::NAN], &[1.0]).is_nan());
    }

    #[test]
    fn answers_are_compared_part_by_part() {
        let answer = Answer::from([("n", vec![1.0, 2.0])]);
        assert_eq!(check("P", &answer, r#"{"n": [[1], [2.0]], "more": [3]}"#, &[("n", Exact)]).unwrap(), 0.0);
        let wrong = |expected: &str| check("P", &answer, expected, &[("n", Exact)]).unwrap_err().to_string();
        assert_eq!(wrong(r#"{"n": [1]}"#), "P n: expected 1 numbers, found 2");
        assert_eq!(wrong(r#"{"n": [1, 3]}"#), "P n: expected Exact, found inf times as much");
        assert_eq!(wrong("{}"), "no expected result for P n");
    }
}
