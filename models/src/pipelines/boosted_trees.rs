//! P10: applicants chosen by a query, scored by a hundred boosted trees, by region.
//!
//! The trees are known when the program is written: they become tables of it.
//!
//! `boosted_trees/forest.json` holds trees that scikit-learn 1.9.1 fitted (`HistGradientBoostingClassifier`, 100 rounds,
//! at most 31 leaves and 8 levels, rate 0.1, seed 0) to 60,000 rows of the streams `P10.train`. A node is
//! `[feature, limit, left, right]`, left where the feature is at most the limit; a leaf is what it adds.

use super::answer::by_key;
use super::columns::{fields, floats, integers, rows, table};
use super::{Answer, Data, Results, Tolerance};
use crate::nn::Values;
use crate::random::{gauss, ints, unif};
use crate::{Progress, Result};
use arrow::array::ArrayRef;
use quearn_stage::graph::{self, Scalar, Split, Step, TreeWriter};
use quearn_stage::rep::{F64, I64, Rep, Stage, Table, count, sum};
use serde::Deserialize;

pub(super) const TOLERANCES: &[(&str, Tolerance)] = &[
    ("n", Tolerance::Exact),
    ("sum_p", Tolerance::Relative { of: 1e-5, and: 0.0 }),
    ("n_pos", Tolerance::Share(1e-4)),
];

const FEATURES: u64 = 20;
pub(super) const REGIONS: usize = 16;

/// Names of the features.
pub(super) fn names() -> Vec<String> {
    (0..FEATURES).map(|j| format!("x{j}")).collect()
}

/// `region`, `n`, `sum_p`, `n_pos`.
pub(super) fn program(s: &Stage) -> Rep<'_, Table> {
    let names = names();
    let applicants = s
        .scan("applicants", fields(Scalar::I32, ["region", "segment"]).into_iter().chain(fields(Scalar::F32, &names)))
        .filter(|r| r.i32("segment").is_in([1, 3, 4, 6]) & r.f32("x0").gt(-0.8))
        .join_inner(limits(s), [("region", "region")])
        .filter(|r| r.f32("x1").lt(r.f32("max_x1")));
    let features = applicants.tensor(&names.iter().map(String::as_str).collect::<Vec<_>>());
    by_region(applicants.with("p", |_| forest().score(features)))
}

/// `region`, `n`, `sum_p`, `n_pos` of applicants with their scores.
pub(super) fn by_region(scored: Rep<'_, Table>) -> Rep<'_, Table> {
    scored.group_by(["region"]).agg(|r| {
        let p = r.f32("p");
        [count("n"), sum("sum_p", p.cast::<F64>()), sum("n_pos", p.gt(0.5).cast::<I64>())]
    })
}

/// The largest first feature that a region takes: `region`, `max_x1`.
pub(super) fn limits(s: &Stage) -> Rep<'_, Table> {
    let columns = fields(Scalar::I32, ["region"]).into_iter().chain(fields(Scalar::F32, ["max_x1"]));
    s.scan("limits", columns)
}

/// Boosted trees.
#[derive(Deserialize)]
pub(super) struct Forest {
    base: f32,
    trees: Vec<Tree>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tree {
    Leaf(f32),
    Node(u32, f32, Box<Tree>, Box<Tree>),
}

/// The trees.
pub(super) fn forest() -> Forest {
    serde_json::from_str(include_str!("boosted_trees/forest.json")).expect("the file is part of this program")
}

impl Forest {
    /// Scores [n] between 0 and 1 of features [n, 20].
    pub(super) fn score<'s>(&self, features: Values<'s>) -> Values<'s> {
        let rows = features.shape()[..1].to_vec();
        features.tree_ensemble(self.trees()).reshape(rows).sigmoid()
    }

    fn trees(&self) -> graph::Forest {
        let trees = self.trees.iter().filter_map(|tree| {
            let mut writer = TreeWriter::default();
            tree.write(&mut writer);
            writer.finish(0)
        });
        trees.fold(graph::Forest::new(FEATURES as u32, [self.base]), graph::Forest::with)
    }
}

impl Tree {
    fn write(&self, writer: &mut TreeWriter) {
        match self {
            Tree::Leaf(value) => writer.push(Step::Leaf(*value)),
            Tree::Node(feature, limit, left, right) => {
                writer.push(Step::Split(Split::new(*feature, *limit)));
                left.write(writer);
                right.write(writer);
            }
        }
    }
}

/// Columns of a table, by name.
type Columns = Vec<(String, ArrayRef)>;

/// The columns of the applicants and of the limits.
pub(super) fn columns(scale: f64) -> [Columns; 2] {
    let n = rows(2_000_000, scale, 1000);
    let features = names().into_iter().map(|name| (name.clone(), floats(gauss(&format!("P10.{name}"), n))));
    let number = |name: &str, most| (name.to_owned(), integers(ints(&format!("P10.{name}"), n, 0, most)));
    let applicants = [number("region", REGIONS as i64), number("segment", 8)].into_iter().chain(features).collect();
    let most = floats(unif("P10.lim", REGIONS).into_iter().map(|u| 0.5 + u));
    let limits = [("region", integers(0..REGIONS as i64)), ("max_x1", most)];
    [applicants, limits.map(|(name, column)| (name.to_owned(), column)).into()]
}

pub(super) fn data(scale: f64, _: Progress) -> Result<Data> {
    let [applicants, limits] = columns(scale);
    Ok(vec![table("applicants", applicants)?, table("limits", limits)?].into())
}

pub(super) fn answer(results: &Results, _: f64) -> Result<Answer> {
    by_key(results.table("regions")?, "region", REGIONS, &["n", "sum_p", "n_pos"].map(|name| (name, name)))
}
