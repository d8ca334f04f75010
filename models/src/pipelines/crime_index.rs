//! P1: a crime index of large cities, from a linear model with limits.
//!
//! ```sql
//! SELECT count(*) AS n, sum(CASE WHEN p >= 0.02 THEN 0.032 WHEN p < 0.01 THEN 0.005 ELSE p END) AS sum_index
//! FROM (SELECT (total_population + 2 * adult_population - 2000 * num_robberies) / 100000 AS p
//!       FROM cities WHERE total_population > 500000)
//! ```

use super::answer::numbers;
use super::columns::{doubles, fields, rows, table};
use super::{Answer, Data, Results};
use crate::random::unif;
use crate::{Progress, Result};
use quearn_stage::graph::Scalar;
use quearn_stage::rep::{F64, Rep, Row, Stage, Table, count, sum, when};

const COLUMNS: [&str; 3] = ["total_population", "adult_population", "num_robberies"];

/// One row: `n`, `sum_index`.
pub(super) fn program(s: &Stage) -> Rep<'_, Table> {
    s.scan("cities", fields(Scalar::F64, COLUMNS))
        .filter(|city| city.f64("total_population").gt(500_000.0))
        .aggregate(|city| [count("n"), sum("sum_index", index(city))])
}

fn index(city: Row<'_>) -> Rep<'_, F64> {
    let [total, adult, robberies] = COLUMNS.map(|name| city.f64(name));
    let p = (total + adult * 2.0 - robberies * 2000.0) / 100_000.0;
    when(p.ge(0.02)).then(0.032).otherwise(when(p.lt(0.01)).then(0.005).otherwise(p))
}

pub(super) fn data(scale: f64, _: Progress) -> Result<Data> {
    let n = rows(10_000_000, scale, 1000);
    let total = unif("P1.pop", n).into_iter().map(|u| (20_000.0 + (u * u) * (u * u) * 3_000_000.0).floor());
    let total: Vec<f64> = total.collect();
    let adult = total.iter().zip(unif("P1.adult", n)).map(|(total, u)| (total * (0.6 + 0.2 * u)).floor());
    let robberies = total.iter().zip(unif("P1.rob", n)).map(|(total, u)| (total * 0.002 * u).floor());
    let columns = [doubles(total.iter().copied()), doubles(adult), doubles(robberies)];
    Ok(vec![table("cities", COLUMNS.into_iter().zip(columns))?].into())
}

pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    let index = results.table("index")?;
    Ok([("n", numbers(index, "n")?), ("sum_index", numbers(index, "sum_index")?)].into())
}
