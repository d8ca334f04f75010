//! P6: line items of TPC-H, each scored by a perceptron of what is known of it and its order, by ship mode.

use super::answer::by_key;
use super::{Answer, Results, Tolerance};
use crate::nn::{Module, Values, narrowed};
use crate::weights::{GAIN, Weights};
use crate::{Error, Result, random};
use arrow::array::{AsArray, Float64Array, RecordBatch};
use quearn::data::Tensor;
use quearn_stage::rep::{F32, F64, I64, Rep, Row, Stage, Table, count, sum};
use quearn_tpch::schema::{self, LINEITEM, ORDERS};
use std::sync::Arc;

pub(super) const TOLERANCES: &[(&str, Tolerance)] = &[
    ("n", Tolerance::Exact),
    ("sum_p", Tolerance::Relative { of: 1e-4, and: 0.0 }),
    ("n_pos", Tolerance::Share(1e-3)),
];

const MODES: [&str; 7] = ["AIR", "FOB", "MAIL", "RAIL", "REG AIR", "SHIP", "TRUCK"];
const PRIORITIES: [&str; 5] = ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"];

/// `l_shipmode`, `n`, `sum_p`, `n_pos`.
pub(super) fn program(s: &Stage) -> Rep<'_, Table> {
    scored(s).group_by(["l_shipmode"]).agg(|r| {
        let p = r.f32("p");
        [count("n"), sum("sum_p", p.cast::<F64>()), sum("n_pos", p.gt(0.5).cast::<I64>())]
    })
}

/// The line items with their orders and scores.
pub(super) fn scored(s: &Stage) -> Rep<'_, Table> {
    let scan = |table: &str| s.scan(table, schema::fields(table));
    scan(LINEITEM).join_inner(scan(ORDERS), [("l_orderkey", "o_orderkey")]).map_rows("p", |r| score(s, features(r)))
}

/// Numbers about 1 [n, 24].
fn features(r: Row<'_>) -> Values<'_> {
    let amount = |name: &str, scale: f32| r.decimal(name).cast::<F32>() * scale;
    let days = |name: &str, scale: f32| (r.date(name) - r.date("l_shipdate")).cast::<F32>() * scale;
    let numbers = [
        amount("l_extendedprice", 1.0 / 100_000.0),
        amount("l_discount", 10.0),
        amount("l_tax", 10.0),
        amount("o_totalprice", 1.0 / 500_000.0),
        days("l_receiptdate", 1.0 / 30.0),
        days("l_commitdate", 1.0 / 90.0),
    ];
    let kinds = [
        r.str("l_returnflag").one_hot(["A", "N", "R"]),
        r.str("l_linestatus").one_hot(["F", "O"]),
        r.str("l_shipmode").one_hot(MODES),
        r.str("o_orderpriority").one_hot(PRIORITIES),
    ];
    amount("l_quantity", 1.0 / 50.0).stack(numbers.into_iter().chain(kinds.into_iter().flatten()))
}

/// Numbers of a line item that the perceptron reads.
pub(super) const FEATURES: u64 = 24;

/// The perceptron on features [n, 24] in an input.
pub(super) fn alone(s: &Stage, input: &str, shape: &[u64]) {
    s.output("p", score(s, s.input::<F32>(input, shape.to_vec())));
}

/// Scores [n] between 0 and 1.
fn score<'s>(s: &'s Stage, x: Values<'s>) -> Values<'s> {
    let m = Module::root(s);
    let x = m.at("fc2").linear(m.at("fc1").linear(x, 128).relu(), 64).relu();
    narrowed(m.at("fc3").linear(x, 1).sigmoid())
}

pub(super) fn weights() -> Result<Weights> {
    let mut weights = Weights::new();
    for (layer, [outputs, inputs]) in [[128, 24], [64, 128], [1, 64]].into_iter().enumerate() {
        let layer = layer + 1;
        let gain = if layer < 3 { GAIN } else { 1.0 };
        let weight = random::weight(&format!("P6.w{layer}"), &[outputs, inputs], gain);
        let bias = if layer < 3 { random::weight(&format!("P6.b{layer}"), &[outputs], 0.1) } else { vec![0.35] };
        weights.insert(format!("fc{layer}.weight"), Tensor::from_vec(weight, &[outputs as u64, inputs as u64])?);
        weights.insert(format!("fc{layer}.bias"), Tensor::from_vec(bias, &[outputs as u64])?);
    }
    Ok(weights)
}

pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    let result = results.table("modes")?;
    let wrong = |message: String| Error::wrong("l_shipmode", message);
    let modes = result["l_shipmode"].as_string_opt::<i32>().ok_or_else(|| wrong("expected texts".into()))?;
    let place = |mode: Option<&str>| MODES.iter().position(|known| Some(*known) == mode).map(|at| at as f64);
    let places: Option<Float64Array> = modes.iter().map(|mode| place(mode).map(Some)).collect();
    let places = places.ok_or_else(|| wrong(format!("expected {MODES:?}, found another")))?;
    let mut columns = vec![("mode", Arc::new(places) as _)];
    columns.extend(["n", "sum_p", "n_pos"].map(|name| (name, Arc::clone(&result[name]))));
    let numbered = RecordBatch::try_from_iter(columns).map_err(|e| wrong(e.to_string()))?;
    by_key(&numbered, "mode", MODES.len(), &["n", "sum_p", "n_pos"].map(|name| (name, name)))
}
