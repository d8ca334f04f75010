//! P5: customers of TPC-H, scored by a logistic regression on what they ordered, by nation.
//!
//! ```sql
//! SELECT c_nationkey, count(*) AS n, sum(p) AS sum_p, sum(CASE WHEN p > 0.5 THEN 1 ELSE 0 END) AS n_pos
//! FROM (SELECT c_nationkey, sigmoid(w * standardised(features) + b) AS p FROM .. GROUP BY c_custkey, c_nationkey, c_acctbal)
//! GROUP BY c_nationkey
//! ```

use super::answer::by_key;
use super::{Answer, Results, Tolerance};
use crate::nn::{Module, narrowed};
use crate::weights::Weights;
use crate::{Result, random};
use quearn::data::Tensor;
use quearn_stage::rep::{F64, I64, Rep, Stage, Table, avg, count, date, max, min, sum};
use quearn_tpch::schema::{self, CUSTOMER, LINEITEM, ORDERS};

pub(super) const TOLERANCES: &[(&str, Tolerance)] = &[
    ("n", Tolerance::Exact),
    ("sum_p", Tolerance::Relative { of: 1e-4, and: 1e-3 }),
    ("n_pos", Tolerance::Share(1e-3)),
];

/// What is known of a customer.
pub(super) const FEATURES: [&str; 8] =
    ["balance", "items", "revenue", "quantity", "discount", "late", "returned", "active"];

/// `c_nationkey`, `n`, `sum_p`, `n_pos`.
pub(super) fn program(s: &Stage) -> Rep<'_, Table> {
    let customers = customers(s).standardised(&FEATURES);
    let score = Module::root(s).at("score").linear(customers.tensor(&FEATURES), 1).sigmoid();
    customers.with("p", |_| narrowed(score)).group_by(["c_nationkey"]).agg(|r| {
        let p = r.f32("p").cast::<F64>();
        [count("n"), sum("sum_p", p), sum("n_pos", p.gt(0.5).cast::<I64>())]
    })
}

/// Customers, by `o_custkey`, with their features.
pub(super) fn customers(s: &Stage) -> Rep<'_, Table> {
    let scan = |table: &str| s.scan(table, schema::fields(table));
    let orders = scan(ORDERS)
        .filter(|o| o.date("o_orderdate").lt(date("1998-01-01")))
        .join_inner(scan(CUSTOMER), [("o_custkey", "c_custkey")]);
    scan(LINEITEM)
        .join_inner(orders, [("l_orderkey", "o_orderkey")])
        .group_by(["o_custkey", "c_nationkey", "c_acctbal"])
        .agg(|r| {
            let late = r.date("l_receiptdate") - r.date("l_commitdate");
            let price = r.decimal("l_extendedprice") * (1 - r.decimal("l_discount"));
            [
                count("items"),
                sum("revenue", price),
                avg("quantity", r.decimal("l_quantity")),
                avg("discount", r.decimal("l_discount")),
                avg("late", late),
                avg("returned", r.str("l_returnflag").eq("R").cast::<F64>()),
                max("last", r.date("l_shipdate")),
                min("first", r.date("o_orderdate")),
            ]
        })
        .with("balance", |r| r.decimal("c_acctbal").cast::<F64>())
        .with("active", |r| r.date("last") - r.date("first"))
        .select(["o_custkey", "c_nationkey"].into_iter().chain(FEATURES))
}

pub(super) fn weights() -> Result<Weights> {
    let weight = random::weight("P5.w", &[FEATURES.len()], 0.7);
    Ok([
        ("score.weight".to_owned(), Tensor::from_vec(weight, &[1, FEATURES.len() as u64])?),
        ("score.bias".to_owned(), Tensor::from_vec(vec![0.1f32], &[1])?),
    ]
    .into())
}

pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    let columns = ["n", "sum_p", "n_pos"].map(|name| (name, name));
    by_key(results.table("nations")?, "c_nationkey", 25, &columns)
}
