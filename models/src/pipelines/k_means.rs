//! P8: orders of TPC-H by what is in them, in clusters by k-means (Lloyd).

use super::{Answer, Results, Tolerance};
use crate::Result;
use quearn_stage::graph::Dim;
use quearn_stage::rep::{F64, Rep, Stage, Table, Tensor, asc, avg, count, max, sum};
use quearn_tpch::schema::{self, LINEITEM, ORDERS};

pub(super) const TOLERANCES: &[(&str, Tolerance)] = &[
    ("size", Tolerance::Share(2e-3)),
    ("centroid", Tolerance::Relative { of: 5e-3, and: 2e-3 }),
    ("inertia", Tolerance::Relative { of: 1e-4, and: 0.0 }),
];

const FEATURES: [&str; 6] = ["price", "items", "quantity", "discount", "transit", "span"];
const WIDTH: u64 = FEATURES.len() as u64;
const CLUSTERS: u64 = 8;
const ROUNDS: usize = 20;

/// The results `size` [8], `centroid` [8, 6] and `inertia`.
pub(super) fn program(s: &Stage) {
    let orders = orders(s).standardised(&FEATURES).with("one", |_| s.constant(1.0));
    // A column of ones counts what the others are summed up of.
    let counted = orders.tensor::<F64>(&[FEATURES.as_slice(), &["one"]].concat());
    let points = counted.slice(1, 0, 1, WIDTH);
    let mut centroids = first(orders);
    for _ in 0..ROUNDS {
        let sums = assigned(s, distances(points, centroids)).transpose().matmul(counted);
        centroids = sums.slice(1, 0, 1, WIDTH) / sums.slice(1, WIDTH, 1, 1);
    }
    let distances = distances(points, centroids);
    let squares = (points * points).sum([1]);
    s.output("size", assigned(s, distances).sum([0]));
    s.output("centroid", centroids);
    s.output("inertia", (distances.min([1]) + squares).sum([0]));
}

/// Orders with their features.
fn orders(s: &Stage) -> Rep<'_, Table> {
    let scan = |table: &str| s.scan(table, schema::fields(table));
    scan(LINEITEM)
        .join_inner(scan(ORDERS), [("l_orderkey", "o_orderkey")])
        .group_by(["l_orderkey", "o_totalprice", "o_orderdate"])
        .agg(|r| {
            [
                count("items"),
                sum("quantity", r.decimal("l_quantity")),
                avg("discount", r.decimal("l_discount")),
                avg("transit", r.date("l_receiptdate") - r.date("l_shipdate")),
                max("last", r.date("l_shipdate")),
            ]
        })
        .with("price", |r| r.decimal("o_totalprice"))
        .with("span", |r| r.date("last") - r.date("o_orderdate"))
        .select(["l_orderkey"].into_iter().chain(FEATURES))
}

/// The points of the lowest keys [8, 6].
fn first(orders: Rep<'_, Table>) -> Rep<'_, Tensor<F64>> {
    let first = orders.sort([asc("l_orderkey")]).limit(CLUSTERS);
    let mut values = (0..CLUSTERS).flat_map(|i| {
        let row = first.sort([asc("l_orderkey")]).slice(i, 1);
        let row = row.aggregate(|r| FEATURES.map(|name| max(name, r.f64(name))));
        FEATURES.map(|name| row.single::<F64>(name).coalesce(0.0))
    });
    let start = values.next().expect("there are features");
    start.stack(values).reshape([CLUSTERS, WIDTH])
}

/// Squared distances [n, 8], less the squares of the points, which are the same for all clusters.
fn distances<'s>(points: Rep<'s, Tensor<F64>>, centroids: Rep<'s, Tensor<F64>>) -> Rep<'s, Tensor<F64>> {
    (centroids * centroids).sum([1]) - points.matmul(centroids.transpose()) * 2.0
}

/// 1 for the nearest cluster, 0 for the others [n, 8].
fn assigned<'s>(s: &'s Stage, distances: Rep<'s, Tensor<F64>>) -> Rep<'s, Tensor<F64>> {
    let nearest = (-distances).arg_max(1);
    let mut shape = nearest.shape();
    shape.push(Dim::Const(1));
    nearest.reshape(shape).eq(s.iota(CLUSTERS)).cast()
}

pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    ["size", "centroid", "inertia"].into_iter().map(|name| Ok((name, results.tensor(name)?))).collect()
}
