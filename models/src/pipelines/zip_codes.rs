//! P4: zip codes that people typed in, cleaned and counted.
//!
//! ```sql
//! WITH cut AS (SELECT CASE WHEN incident_zip NOT IN ('NO CLUE', 'N/A', '0') THEN substring(incident_zip, 1, 5) END AS zip
//!              FROM requests)
//! SELECT zip, count(*) AS n FROM (SELECT CASE WHEN zip <> '00000' THEN zip END AS zip FROM cut) GROUP BY zip
//! ```

use super::columns::{rows, table};
use super::{Answer, Data, Results, Tolerance};
use crate::random::{ints, unif};
use crate::{Error, Progress, Result};
use arrow::array::{Array, AsArray, StringArray};
use quearn_stage::graph::{Field, Scalar};
use quearn_stage::rep::{Bool, Rep, Stage, Str, Table, count, when};
use std::sync::Arc;

pub(super) const TOLERANCES: &[(&str, Tolerance)] = &[
    ("n_null", Tolerance::Exact),
    ("n_unique", Tolerance::Exact),
    ("sum_zip", Tolerance::Exact),
    ("min_zip", Tolerance::Exact),
    ("max_zip", Tolerance::Exact),
];

/// What people type who do not know.
const UNKNOWN: [&str; 3] = ["NO CLUE", "N/A", "0"];

/// `zip`, NULL where it is not known, and `n`.
pub(super) fn program(s: &Stage) -> Rep<'_, Table> {
    let typed = s.scan("requests", [Field::nullable("incident_zip", Scalar::String)]);
    typed
        .project(|r| {
            let text = r.str("incident_zip");
            let zip = unless(text.is_in(UNKNOWN), text.substring(1, 5));
            [("zip", unless(zip.eq("00000"), zip).dyn_())]
        })
        .group_by(["zip"])
        .agg(|_| [count("n")])
}

/// A text, NULL where it is of no use.
fn unless<'s>(useless: Rep<'s, Bool>, text: Rep<'s, Str>) -> Rep<'s, Str> {
    when(useless).then(text.stage().null::<Str>()).otherwise(text)
}

pub(super) fn data(scale: f64, _: Progress) -> Result<Data> {
    let n = rows(5_000_000, scale, 1000);
    let kinds = unif("P4.kind", n).into_iter();
    let codes = ints("P4.zip", n, 10_000, 30_000).into_iter().zip(ints("P4.ext", n, 0, 10_000));
    let text = |(kind, (zip, more)): (f64, (i64, i64))| match kind {
        u if u < 0.03 => Some(UNKNOWN[0].to_owned()),
        u if u < 0.05 => Some(UNKNOWN[1].to_owned()),
        u if u < 0.06 => Some(UNKNOWN[2].to_owned()),
        u if u < 0.08 => Some("00000".to_owned()),
        u if u < 0.23 => Some(format!("{zip:05}-{more:04}")),
        u if u < 0.98 => Some(format!("{zip:05}")),
        _ => None,
    };
    let texts: StringArray = kinds.zip(codes).map(text).collect();
    Ok(vec![table("requests", [("incident_zip", Arc::new(texts) as _)])?].into())
}

pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    let result = results.table("zips")?;
    let texts = result["zip"].as_string_opt::<i32>().ok_or_else(|| Error::wrong("zip", "expected texts"))?;
    let count = super::answer::numbers(result, "n")?;
    let zips: Result<Vec<f64>> =
        texts.iter().flatten().map(|text| text.parse().map_err(|_| Error::wrong("zip", text))).collect();
    let zips = zips?;
    let nulls = (0..texts.len()).filter(|row| texts.is_null(*row)).map(|row| count[row]).sum();
    Ok([
        ("n_null", vec![nulls]),
        ("n_unique", vec![zips.len() as f64]),
        ("sum_zip", vec![zips.iter().sum()]),
        ("min_zip", vec![zips.iter().copied().fold(f64::INFINITY, f64::min)]),
        ("max_zip", vec![zips.iter().copied().fold(f64::NEG_INFINITY, f64::max)]),
    ]
    .into())
}
