//! P7: a linear regression over a join of sales with three tables, by gradient descent.
//!
//! All that a step needs of the rows, X'(Xw - y), is in the matrix of products of their columns: one pass makes it, and
//! the steps run on it.

use super::columns::{doubles, fields, integers, rows, table};
use super::{Answer, Data, Results, Tolerance};
use crate::random::{gauss, ints};
use crate::{Progress, Result};
use quearn::data::Table as StoredTable;
use quearn_stage::graph::Scalar;
use quearn_stage::rep::{F64, Rep, Stage, Table, Tensor};

pub(super) const TOLERANCES: &[(&str, Tolerance)] = &[("w", Tolerance::Relative { of: 1e-3, and: 1e-4 })];

/// A table that sales are joined with.
struct Dimension {
    table: &'static str,
    key: &'static str,
    /// What the names of its features begin with.
    prefix: &'static str,
    rows: usize,
    features: u64,
}

const DIMENSIONS: [Dimension; 3] = [
    Dimension { table: "stores", key: "store_id", prefix: "s", rows: 1000, features: 10 },
    Dimension { table: "items", key: "item_id", prefix: "i", rows: 50_000, features: 20 },
    Dimension { table: "dates", key: "date_id", prefix: "d", rows: 1000, features: 8 },
];

impl Dimension {
    fn names(&self) -> Vec<String> {
        (1..=self.features).map(|j| format!("{}{j}", self.prefix)).collect()
    }
}

const FACTS: [&str; 3] = ["f1", "f2", "y"];
/// A bias and the features of all tables.
const WEIGHTS: u64 = 41;
const STEPS: usize = 50;
const RATE: f64 = 0.1;

/// The sales with all that is known of their stores, items and dates.
pub(super) fn joined(s: &Stage) -> Rep<'_, Table> {
    let sales = fields(Scalar::F64, FACTS).into_iter().chain(fields(Scalar::I32, DIMENSIONS.map(|d| d.key)));
    DIMENSIONS.iter().fold(s.scan("sales", sales), |joined, dimension| {
        let columns = fields(Scalar::I32, [dimension.key]).into_iter().chain(fields(Scalar::F64, dimension.names()));
        joined.join_inner(s.scan(dimension.table, columns), [(dimension.key, dimension.key)])
    })
}

/// The names of the features, those of sales first.
pub(super) fn names() -> Vec<String> {
    ["f1", "f2"].map(str::to_owned).into_iter().chain(DIMENSIONS.iter().flat_map(Dimension::names)).collect()
}

/// The weights [41, 1].
pub(super) fn program(s: &Stage) -> Rep<'_, Tensor<F64>> {
    let features = names();
    let names = std::iter::once("bias").chain(features.iter().map(String::as_str)).chain(["y"]);
    let names: Vec<&str> = names.collect();
    let rows = joined(s).with("bias", |_| s.constant(1.0)).tensor::<F64>(&names);
    descend(rows.transpose().matmul(rows))
}

/// Full-batch steps from 0, from the products [42, 42] of the columns: bias, features, y.
fn descend(products: Rep<'_, Tensor<F64>>) -> Rep<'_, Tensor<F64>> {
    let of = products.slice(0, 0, 1, WEIGHTS);
    let (squares, target) = (of.slice(1, 0, 1, WEIGHTS), of.slice(1, WEIGHTS, 1, 1));
    // The bias is 1 in every row.
    let rate = RATE / products.slice(0, 0, 1, 1).slice(1, 0, 1, 1);
    (1..STEPS).fold(target * rate, |w, _| w - (squares.matmul(w) - target) * rate)
}

pub(super) fn data(scale: f64, _: Progress) -> Result<Data> {
    let n = rows(4_000_000, scale, 1000);
    let [f1, f2] = ["P7.f1", "P7.f2"].map(|stream| gauss(stream, n));
    let weights = gauss("P7.w", WEIGHTS as usize);
    let mut y: Vec<f64> = f1.iter().zip(&f2).map(|(a, b)| weights[0] + weights[1] * a + weights[2] * b).collect();
    let (mut keys, mut tables, mut weights) = (vec![], vec![], weights[3..].iter());
    for dimension in &DIMENSIONS {
        let count = rows(dimension.rows, scale, 50);
        let key = ints(&format!("P7.{}", dimension.key), n, 0, count as i64);
        let (made, part) = dimension_table(dimension, count, &mut weights)?;
        y.iter_mut().zip(&key).for_each(|(y, key)| *y += part[*key as usize]);
        tables.push(made);
        keys.push((dimension.key, integers(key)));
    }
    y.iter_mut().zip(gauss("P7.noise", n)).for_each(|(y, noise)| *y += 0.5 * noise);
    let columns = [("f1", doubles(f1)), ("f2", doubles(f2)), ("y", doubles(y))];
    tables.push(table("sales", columns.into_iter().chain(keys))?);
    Ok(tables.into())
}

/// The table, and what each of its rows adds to y.
fn dimension_table<'w>(
    dimension: &Dimension,
    count: usize,
    weights: &mut impl Iterator<Item = &'w f64>,
) -> Result<(StoredTable, Vec<f64>)> {
    let mut part = vec![0.0; count];
    let mut columns = vec![(dimension.key.to_owned(), integers(0..count as i64))];
    for (name, weight) in dimension.names().into_iter().zip(weights) {
        let values = gauss(&format!("P7.{name}"), count);
        part.iter_mut().zip(&values).for_each(|(part, value)| *part += weight * value);
        columns.push((name, doubles(values)));
    }
    Ok((table(dimension.table, columns)?, part))
}

pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    Ok([("w", results.tensor("w")?)].into())
}
