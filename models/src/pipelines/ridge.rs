//! P12: ridge regressions over a join, for a grid of penalties and sets of features, each validated on five folds.
//!
//! A pass over the rows of each fold makes the matrix of products of all columns. All that the 600 fits and their errors need is
//! in these matrices; the fits of a set of features are solved together by conjugate gradients.

use super::columns::{doubles, fields, integers, rows, table};
use super::{Answer, Data, Results, Tolerance};
use crate::random::{gauss, ints};
use crate::{Progress, Result};
use quearn::data::Tensor as StoredTensor;
use quearn_stage::graph::{Dim, Scalar};
use quearn_stage::rep::{F64, Rep, Stage, Tensor};

pub(super) const TOLERANCES: &[(&str, Tolerance)] =
    &[("mse", Tolerance::Relative { of: 1e-6, and: 0.0 }), ("best", Tolerance::Exact)];

const FOLDS: u64 = 5;
const PENALTIES: u64 = 40;
/// Features of each of the two tables.
const HALF: u64 = 30;
/// Columns of the products: features, y, and 1.
const COLUMNS: u64 = 2 * HALF + 2;
/// First feature and number of features of the sets that are tried.
const SETS: [[u64; 2]; 3] = [[0, HALF], [HALF, HALF], [0, 2 * HALF]];
/// Rounds of conjugate gradients: the features are hardly correlated, so that each gains a digit or so.
const ROUNDS: usize = 30;

type Values<'s> = Rep<'s, Tensor<F64>>;

fn names(table: char) -> Vec<String> {
    (0..HALF).map(|j| format!("{table}{j}")).collect()
}

/// The results `mse` [120] and `best`, the position of the smallest.
pub(super) fn program(s: &Stage) {
    let [a, b] = ['a', 'b'].map(names);
    let context = fields(Scalar::I32, ["ctx_id"]).into_iter().chain(fields(Scalar::F64, &b));
    let observed = fields(Scalar::I32, ["ctx_id", "fold", "flag"]).into_iter().chain(fields(Scalar::F64, &a));
    let joined = s
        .scan("obs", observed.chain(fields(Scalar::F64, ["y"])))
        .filter(|r| r.i32("flag").eq(1))
        .join_inner(s.scan("ctx", context), [("ctx_id", "ctx_id")])
        .with("one", |_| s.constant(1.0));
    let columns: Vec<&str> = a.iter().chain(&b).map(String::as_str).chain(["y", "one"]).collect();
    let products = (0..FOLDS).map(|k| {
        let rows = joined.filter(|r| r.i32("fold").eq(k as i32)).tensor::<F64>(&columns);
        rows.transpose().matmul(rows).reshape([1, COLUMNS, COLUMNS])
    });
    let mse = errors(s, joined_along(products, 0));
    s.output("mse", mse);
    s.output("best", (-mse).arg_max(0));
}

fn joined_along<'s>(parts: impl IntoIterator<Item = Values<'s>>, axis: usize) -> Values<'s> {
    let mut parts = parts.into_iter();
    let first = parts.next().expect("there are parts");
    first.concat(parts, axis)
}

/// Mean squared errors [120] by set and penalty, from the products [5, 62, 62] of the columns in each fold.
fn errors<'s>(s: &'s Stage, products: Values<'s>) -> Values<'s> {
    let others = products.sum([0]) - products;
    let [y, one] = [2 * HALF, 2 * HALF + 1];
    let penalties = s.weight("penalties", [PENALTIES, 1]);
    let of_set = |[from, count]: [u64; 2]| {
        let square = |x: Values<'s>| x.slice(1, from, 1, count).slice(2, from, 1, count);
        let target = |x: Values<'s>| x.slice(1, y, 1, 1).slice(2, from, 1, count);
        let w = fitted(square(others), target(others), penalties);
        // |Xw - y|² = w'X'Xw - 2 w'X'y + y'y
        let bent = (w.matmul(square(products)) - target(products) * 2.0) * w;
        let [length, rows] = [y, one].map(|at| products.slice(1, at, 1, 1).slice(2, at, 1, 1).reshape([FOLDS, 1]));
        ((bent.sum([2]) + length) / rows).mean([0])
    };
    joined_along(SETS.map(of_set), 0)
}

/// Weights w [5, 40, m] with (X'X + penalty) w = X'y, from `squares` [5, m, m], `target` [5, 1, m] and `penalties` [40, 1].
fn fitted<'s>(squares: Values<'s>, target: Values<'s>, penalties: Values<'s>) -> Values<'s> {
    let mut shape = target.shape();
    shape[1] = Dim::Const(PENALTIES);
    let dot = |a: Values<'s>, b: Values<'s>| (a * b).sum([2]).reshape([FOLDS, PENALTIES, 1]);
    // Once nothing is left, 0 / 0 is to be 0.
    let ratio = |a: Values<'s>, b: Values<'s>| a / b.maximum(f64::MIN_POSITIVE);
    let start = target.broadcast(shape);
    let (mut w, mut left, mut towards) = (start * 0.0, start, start);
    let mut length = dot(left, left);
    for _ in 0..ROUNDS {
        let bent = towards.matmul(squares) + towards * penalties;
        let step = ratio(length, dot(towards, bent));
        w = w + towards * step;
        left = left - bent * step;
        let next = dot(left, left);
        towards = left + towards * ratio(next, length);
        length = next;
    }
    w
}

pub(super) fn data(scale: f64, _: Progress) -> Result<Data> {
    let (n, m) = (rows(400_000, scale, 4000), rows(5_000, scale, 200));
    let [a, b] = ['a', 'b'].map(names);
    let column = |name: &String, count| gauss(&format!("P12.{name}"), count);
    let weights = gauss("P12.w", 2 * HALF as usize);
    let key = ints("P12.fk", n, 0, m as i64);
    let mut y: Vec<f64> = gauss("P12.noise", n).into_iter().map(|noise| 5.0 * noise).collect();
    let (mut obs, mut ctx) = (vec![], vec![("ctx_id".to_owned(), integers(0..m as i64))]);
    for (j, (a, b)) in a.into_iter().zip(b).enumerate() {
        let (own, other) = (column(&a, n), column(&b, m));
        let weights = [weights[j], weights[j + HALF as usize]];
        for (row, y) in y.iter_mut().enumerate() {
            *y += weights[0] * own[row];
            *y += weights[1] * other[key[row] as usize];
        }
        obs.push((a, doubles(own)));
        ctx.push((b, doubles(other)));
    }
    let numbers = [("ctx_id", key), ("fold", ints("P12.fold", n, 0, 5)), ("flag", ints("P12.flag", n, 0, 2))];
    obs.extend(numbers.map(|(name, values)| (name.to_owned(), integers(values))));
    obs.push(("y".to_owned(), doubles(y)));
    let penalty = |i| 10f64.powf(-2.0 + 7.0 / 39.0 * f64::from(i));
    let penalties = StoredTensor::from_vec((0..PENALTIES as u32).map(penalty).collect::<Vec<f64>>(), &[PENALTIES, 1])?;
    Ok(Data { tables: vec![table("obs", obs)?, table("ctx", ctx)?], tensors: [("penalties".into(), penalties)].into() })
}

pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    let best = results.tensor("best")?[0];
    let penalties = PENALTIES as f64;
    Ok([("mse", results.tensor("mse")?), ("best", vec![(best / penalties).floor(), best % penalties])].into())
}
