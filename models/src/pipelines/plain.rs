//! Programs as people write them who leave the order of things to the system: a model before the filters that need none of it,
//! every column encoded, every table joined, scores of which only the best are kept. They show what rewrites are worth; the twelve
//! pipelines are in good order already.

use super::answer::{by_key, numbers};
use super::boosted_trees::{self, REGIONS, forest, limits, names};
use super::columns::fields;
use super::{Answer, Data, Pipeline, Results, Source, Tolerance, line_items, star_join};
use crate::nn::{Module, Values, narrowed};
use crate::weights::Weights;
use crate::{Progress, Result, random};
use quearn::data::Tensor;
use quearn_stage::graph::Scalar;
use quearn_stage::rep::{F32, F64, Rep, Stage, Table, count, sum};
use quearn_tpch::schema::{self, CUSTOMER, LINEITEM, ORDERS};

const COUNT_AND_SUM: &[(&str, Tolerance)] =
    &[("n", Tolerance::Exact), ("sum_p", Tolerance::Relative { of: 1e-4, and: 0.0 })];

/// The programs. No other system has run them, but those that have the answer of a pipeline.
pub const PLAIN: &[Pipeline] = &[
    Pipeline {
        name: "P10-late",
        about: "P10, written with its filters after the model",
        write: |s, _| s.output("regions", filtered_late(s)),
        data: Source::Made(boosted_trees::data),
        answer: boosted_trees::answer,
        tolerances: boosted_trees::TOLERANCES,
        expected: expected!("p10"),
    },
    Pipeline {
        name: "P10-best",
        about: "the applicants with the highest scores of P10's trees, by region",
        write: |s, _| s.output("regions", best(s)),
        data: Source::Made(boosted_trees::data),
        answer: regions,
        tolerances: COUNT_AND_SUM,
        expected: &[],
    },
    Pipeline {
        name: "P10-sparse",
        about: "P10's applicants, scored by a regression with few weights of all that is known of them",
        write: |s, _| s.output("regions", sparse(s)),
        data: Source::Made(boosted_trees::data),
        answer: regions,
        tolerances: COUNT_AND_SUM,
        expected: &[],
    },
    Pipeline {
        name: "P6-any",
        about: "the customers with a line item that P6's perceptron scores high, by nation",
        write: |s, _| s.output("nations", customers_with_any(s)),
        data: Source::Tpch(line_items::weights),
        answer: |results, _| by_key(results.table("nations")?, "c_nationkey", NATIONS, &[("n", "n")]),
        tolerances: &[("n", Tolerance::Share(1e-4))],
        expected: &[],
    },
    Pipeline {
        name: "P6-view",
        about: "P6's line items in a view with their orders, scored by a regression that reads nothing of those",
        write: |s, _| s.output("scores", scored_view(s)),
        data: Source::Tpch(|| Ok(Weights::new())),
        answer: totals,
        tolerances: COUNT_AND_SUM,
        expected: &[],
    },
    Pipeline {
        name: "P7-scores",
        about: "P7's sales, scored by two layers over what is known of stores and dates; the join has items, too",
        write: |s, _| s.output("scores", scores(s)),
        data: Source::Made(scores_data),
        answer: totals,
        tolerances: COUNT_AND_SUM,
        expected: &[],
    },
];

fn applicants(s: &Stage) -> Rep<'_, Table> {
    let columns = fields(Scalar::I32, ["region", "segment"]).into_iter().chain(fields(Scalar::F32, names()));
    s.scan("applicants", columns).join_inner(limits(s), [("region", "region")])
}

fn scored(s: &Stage) -> Rep<'_, Table> {
    let applicants = applicants(s);
    let names = names();
    let features = applicants.tensor(&names.iter().map(String::as_str).collect::<Vec<_>>());
    applicants.with("p", |_| forest().score(features))
}

fn filtered_late(s: &Stage) -> Rep<'_, Table> {
    let kept = scored(s)
        .filter(|r| r.i32("segment").is_in([1, 3, 4, 6]) & r.f32("x0").gt(-0.8) & r.f32("x1").lt(r.f32("max_x1")));
    boosted_trees::by_region(kept)
}

fn best(s: &Stage) -> Rep<'_, Table> {
    by_region(scored(s).filter(|r| r.f32("p").gt(0.97)))
}

/// `region`, `n`, `sum_p`.
fn by_region(scored: Rep<'_, Table>) -> Rep<'_, Table> {
    scored.group_by(["region"]).agg(|r| [count("n"), sum("sum_p", r.f32("p").cast::<F64>())])
}

fn regions(results: &Results, _: f64) -> Result<Answer> {
    by_key(results.table("regions")?, "region", REGIONS, &[("n", "n"), ("sum_p", "sum_p")])
}

/// Every third number and what is known of the region has a weight, the limit and the other numbers have none.
fn sparse(s: &Stage) -> Rep<'_, Table> {
    let scored = applicants(s).map_rows("p", |r| {
        let mut x: Vec<Rep<'_, F32>> = names().iter().map(|name| r.f32(name)).collect();
        let numbers = x.len();
        x.extend(r.i32("region").one_hot(0..REGIONS as i32));
        x.push(r.f32("max_x1"));
        let kept = |at: usize| if at < numbers { at.is_multiple_of(3) } else { at < numbers + REGIONS };
        let weights = random::gauss("P10.sparse", x.len()).into_iter().enumerate();
        let mut weights = weights.map(|(at, weight)| s.constant(if kept(at) { weight as f32 } else { 0.0 }));
        let weights = side_by_side(&mut weights).reshape([x.len() as u64, 1]);
        narrowed(side_by_side(&mut x.into_iter()).matmul(weights).sigmoid())
    });
    by_region(scored)
}

const NATIONS: usize = 25;

/// `c_nationkey`, `n`.
fn customers_with_any(s: &Stage) -> Rep<'_, Table> {
    let high = line_items::scored(s).filter(|r| r.f32("p").gt(0.7));
    s.scan(CUSTOMER, schema::fields(CUSTOMER))
        .join_semi(high, [("c_custkey", "o_custkey")])
        .group_by(["c_nationkey"])
        .agg(|_| [count("n")])
}

/// `n`, `sum_p`.
fn scored_view(s: &Stage) -> Rep<'_, Table> {
    let scan = |table: &str| s.scan(table, schema::fields(table));
    let view = scan(LINEITEM).join_left(scan(ORDERS), [("l_orderkey", "o_orderkey")]);
    let amounts = [("l_quantity", 0.02), ("l_extendedprice", 1e-5), ("l_discount", 10.0), ("l_tax", 10.0)];
    total(view.map_rows("p", |r| {
        let x = side_by_side(&mut amounts.iter().map(|(name, scale)| r.decimal(name).cast::<F32>() * *scale));
        let weights = random::gauss("P6.view", amounts.len());
        let weights = side_by_side(&mut weights.into_iter().map(|weight| s.constant(weight as f32)));
        narrowed(x.matmul(weights.reshape([amounts.len() as u64, 1])).sigmoid())
    }))
}

/// `n`, `sum_p`.
fn total(scored: Rep<'_, Table>) -> Rep<'_, Table> {
    scored.aggregate(|r| [count("n"), sum("sum_p", r.f32("p").cast::<F64>())])
}

/// Values in a new last dimension; there is one at least.
fn side_by_side<'s>(values: &mut dyn Iterator<Item = Rep<'s, F32>>) -> Values<'s> {
    let first = values.next().expect("a value");
    first.stack(values)
}

/// The features of P7 but those of items.
fn features() -> Vec<String> {
    star_join::names().into_iter().filter(|name| !name.starts_with('i')).collect()
}

/// Outputs of the first layer.
const HIDDEN: u64 = 8;

/// `n`, `sum_p`.
fn scores(s: &Stage) -> Rep<'_, Table> {
    let scored = star_join::joined(s).map_rows("p", |r| {
        let x = side_by_side(&mut features().iter().map(|name| r.f64(name).cast::<F32>()));
        let m = Module::root(s);
        narrowed(m.at("fc2").linear(m.at("fc1").linear(x, HIDDEN).relu(), 1).sigmoid())
    });
    total(scored)
}

fn scores_data(scale: f64, progress: Progress) -> Result<Data> {
    let mut data = star_join::data(scale, progress)?;
    for (layer, [outputs, inputs]) in [("fc1", [HIDDEN, features().len() as u64]), ("fc2", [1, HIDDEN])] {
        let weight = random::weight(&format!("P7.{layer}"), &[outputs as usize, inputs as usize], 1.0);
        let bias = random::weight(&format!("P7.{layer}.bias"), &[outputs as usize], 0.1);
        data.tensors.insert(format!("{layer}.weight"), Tensor::from_vec(weight, &[outputs, inputs])?);
        data.tensors.insert(format!("{layer}.bias"), Tensor::from_vec(bias, &[outputs])?);
    }
    Ok(data)
}

fn totals(results: &Results, _: f64) -> Result<Answer> {
    let table = results.table("scores")?;
    ["n", "sum_p"].into_iter().map(|name| Ok((name, numbers(table, name)?))).collect()
}
