//! P3: great-circle distances to a place, grouped by region where they are short.

use super::answer::by_key;
use super::columns::{doubles, integers, rows, table};
use super::{Answer, Data, Results, Tolerance};
use crate::random::{ints, unif};
use crate::{Progress, Result};
use quearn_stage::graph::{Field, Scalar};
use quearn_stage::rep::{F64, Rep, Stage, Table, avg, count, max};

pub(super) const TOLERANCES: &[(&str, Tolerance)] = &[
    ("n", Tolerance::Share(1e-6)),
    ("avg_dist", Tolerance::Relative { of: 1e-9, and: 1e-6 }),
    ("max_rating", Tolerance::Relative { of: 0.0, and: 1e-12 }),
];

/// Degrees north and east.
const PLACE: [f64; 2] = [40.671, -73.985];
/// Radius of the earth in miles.
const RADIUS: f64 = 3959.0;
/// The longest distance of interest.
const MOST: f64 = 1500.0;
const REGIONS: usize = 1000;

/// `region`, `n`, `avg_dist`, `max_rating`.
pub(super) fn program(s: &Stage) -> Rep<'_, Table> {
    let fields = ["lat", "lon", "rating"].map(|name| Field::new(name, Scalar::F64));
    s.scan("points", fields.into_iter().chain([Field::new("region", Scalar::I32)]))
        .with("dist", |point| distance([point.f64("lat"), point.f64("lon")]))
        .filter(|point| point.f64("dist").lt(MOST))
        .group_by(["region"])
        .agg(|point| [count("n"), avg("avg_dist", point.f64("dist")), max("max_rating", point.f64("rating"))])
}

/// Miles to [`PLACE`].
fn distance(from: [Rep<'_, F64>; 2]) -> Rep<'_, F64> {
    let [lat, lon] = from.map(|degrees| degrees * 1f64.to_radians());
    let [lat0, lon0] = PLACE.map(f64::to_radians);
    let [half_lat, half_lon] = [(lat - lat0) * 0.5, (lon - lon0) * 0.5].map(Rep::sin);
    let a = half_lat * half_lat + lat.cos() * lat0.cos() * half_lon * half_lon;
    a.sqrt().asin() * (2.0 * RADIUS)
}

pub(super) fn data(scale: f64, _: Progress) -> Result<Data> {
    let n = rows(10_000_000, scale, 1000);
    let values = |name: &str, f: fn(f64) -> f64| doubles(unif(name, n).into_iter().map(f));
    let points = [
        ("lat", values("P3.lat", |u| 20.0 + 30.0 * u)),
        ("lon", values("P3.lon", |u| -130.0 + 70.0 * u)),
        ("region", integers(ints("P3.region", n, 0, REGIONS as i64))),
        ("rating", values("P3.rating", |u| (u * 51.0).floor() / 10.0)),
    ];
    Ok(vec![table("points", points)?].into())
}

pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    let columns = ["n", "avg_dist", "max_rating"].map(|name| (name, name));
    by_key(results.table("regions")?, "region", REGIONS, &columns)
}
