//! P2: prices of options by Black and Scholes, two columns from five.

use super::answer::numbers;
use super::columns::{doubles, fields, rows, table};
use super::{Answer, Data, Results, Tolerance};
use crate::random::unif;
use crate::{Progress, Result};
use quearn_stage::graph::Scalar;
use quearn_stage::rep::{F64, Rep, Stage, Table};
use std::f64::consts::FRAC_1_SQRT_2;

pub(super) const TOLERANCES: &[(&str, Tolerance)] = {
    const NEAR: Tolerance = Tolerance::Relative { of: 1e-9, and: 1e-9 };
    &[("sum_call", NEAR), ("sum_put", NEAR), ("call", NEAR), ("put", NEAR)]
};

const COLUMNS: [&str; 5] = ["price", "strike", "t", "rate", "vol"];

/// `call` and `put` of every option.
pub(super) fn program(s: &Stage) -> Rep<'_, Table> {
    s.scan("options", fields(Scalar::F64, COLUMNS)).project(|option| {
        let [price, strike, t, rate, vol] = COLUMNS.map(|name| option.f64(name));
        let deviation = vol * t.sqrt();
        let d1 = ((price / strike).log() + (rate + vol * vol * 0.5) * t) / deviation;
        let discounted = strike * (-rate * t).exp();
        let call = price * normal(d1) - discounted * normal(d1 - deviation);
        [("call", call.dyn_()), ("put", (call - price + discounted).dyn_())]
    })
}

/// The share of a normal distribution below `x`.
fn normal(x: Rep<'_, F64>) -> Rep<'_, F64> {
    (x * FRAC_1_SQRT_2).erf() * 0.5 + 0.5
}

pub(super) fn data(scale: f64, _: Progress) -> Result<Data> {
    let n = rows(10_000_000, scale, 1000);
    let column = |name: &str, from: f64, by: f64| {
        let values = unif(&format!("P2.{name}"), n).into_iter().map(move |u| from + by * u);
        values.collect::<Vec<f64>>()
    };
    let price = column("price", 50.0, 150.0);
    let strike = price.iter().zip(column("strike", 0.5, 1.0)).map(|(price, part)| price * part).collect();
    let others = [column("t", 0.25, 1.75), column("rate", 0.01, 0.05), column("vol", 0.1, 0.5)];
    let columns = [price, strike].into_iter().chain(others).map(doubles);
    Ok(vec![table("options", COLUMNS.into_iter().zip(columns))?].into())
}

/// Sums, and up to 500 prices at equal distances.
pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    let mut answer = Answer::new();
    for (name, sum) in [("call", "sum_call"), ("put", "sum_put")] {
        let prices = numbers(results.table("prices")?, name)?;
        let step = (prices.len() / 500).max(1);
        answer.insert(sum, vec![prices.iter().sum()]);
        answer.insert(name, prices.into_iter().step_by(step).take(500).collect());
    }
    Ok(answer)
}
