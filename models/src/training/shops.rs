//! Models over the result of a query: sales are filtered, joined with their shops and summed up by shop, and a model is
//! trained on what comes out, in the same program.
//!
//! What is sold, whether it is, and where customers come from follow planted rules in sales of one kind; in all others there is
//! only noise, so that a program that forgot the filter would find other values.

use super::initial;
use super::lesson::{Problem, Settings, only_seeded};
use crate::random::{Gauss, Stream};
use crate::{Error, Result};
use arrow::array::{ArrayRef, AsArray as _, Float64Array, Int64Array, RecordBatch};
use quearn::data::{Table as StoredTable, Tensor as StoredTensor};
use quearn::training::{Plan, Recipe};
use quearn::{Session, Tensors};
use quearn_stage::graph::{Field, Graph, Scalar};
use quearn_stage::rep::{F64, Rep, Stage, Table, Tensor, asc, avg};
use std::sync::Arc;

/// Shops, and sales of the kind that counts in each.
const SHOPS: i64 = 60;
const SALES: i64 = 100;
/// The planted lines: factors of a shop's rent and size, and what is added.
const LINE: [f64; 3] = [1.5, -0.8, 0.4];
const CHANCE: [f64; 3] = [-1.2, 0.9, 0.3];
/// The planted centres of customers, as wide from each other as can be told apart.
const CENTRES: [[f64; 2]; 3] = [[-2.0, 1.0], [1.5, 2.0], [0.5, -2.5]];
/// What is around them.
const SPREAD: f64 = 0.3;

/// A model.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Model {
    /// The mean amount of a shop as a line.
    Linear,
    /// The part of a shop's customers that buy, by a line of its logarithmic odds.
    Logistic,
    /// Where customers come from, in clusters.
    KMeans,
}

struct Shops {
    model: Model,
    tables: [StoredTable; 2],
    inputs: Tensors,
}

/// The mean amount of a shop.
pub(super) fn linear(settings: &Settings) -> Result<Box<dyn Problem>> {
    begin("linear_regression", Model::Linear, settings)
}

/// The part of its customers that buy.
pub(super) fn logistic(settings: &Settings) -> Result<Box<dyn Problem>> {
    begin("logistic_regression", Model::Logistic, settings)
}

/// Where they come from.
pub(super) fn k_means(settings: &Settings) -> Result<Box<dyn Problem>> {
    begin("k_means", Model::KMeans, settings)
}

fn begin(name: &str, model: Model, settings: &Settings) -> Result<Box<dyn Problem>> {
    only_seeded(name, settings)?;
    Ok(Box::new(Shops { model, tables: tables(settings.seed)?, inputs: Tensors::new() }))
}

const FEATURES: [&str; 2] = ["rent", "size"];
const PLACES: [&str; 2] = ["east", "north"];
const SOLD: [&str; 2] = ["amount", "bought"];

fn tables(seed: i64) -> Result<[StoredTable; 2]> {
    let shop: Vec<[f64; 2]> = (0..SHOPS as u64).map(|i| FEATURES.map(|name| gauss(seed, name).value(i))).collect();
    let dice = Stream::new(&format!("shops.{seed}.dice"));
    let noise = [PLACES[0], PLACES[1], "noise"].map(|name| gauss(seed, name));
    let (mut shops, mut kinds, mut numbers) = (vec![], vec![], [const { vec![] }; 4]);
    for i in 0..2 * SHOPS * SALES {
        let (at, j, kind) = (i / 2 % SHOPS, i / 2 / SHOPS, i % 2);
        let [east, north, noise] = noise.map(|stream| stream.value(i as u64));
        let line = |[rent, size, rest]: [f64; 3]| rent * shop[at as usize][0] + size * shop[at as usize][1] + rest;
        let chance = 1.0 / (1.0 + (-line(CHANCE)).exp());
        let bought = f64::from((j as f64 + 0.5) / (SALES as f64) < chance);
        let centre = CENTRES[at as usize % CENTRES.len()];
        let row = match kind {
            0 => [line(LINE) + 0.1 * noise, bought, centre[0] + SPREAD * east, centre[1] + SPREAD * north],
            _ => [9.0 * noise, f64::from(dice.unif(i as u64) < 0.5), 9.0 * east, 9.0 * north],
        };
        shops.push(at);
        kinds.push(kind);
        numbers.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let floats = |values: Vec<f64>| Arc::new(Float64Array::from(values)) as ArrayRef;
    let integers = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let sold = SOLD.into_iter().chain(PLACES).zip(numbers.map(floats));
    let sales = [("shop", integers(shops)), ("kind", integers(kinds))].into_iter().chain(sold);
    let features = (0..2).map(|i| (FEATURES[i], floats(shop.iter().map(|shop| shop[i]).collect())));
    let shops = [("id", integers((0..SHOPS).collect()))].into_iter().chain(features);
    Ok([table("sales", sales)?, table("shops", shops)?])
}

fn gauss(seed: i64, name: &str) -> Gauss {
    Gauss::new(&format!("shops.{seed}.{name}"))
}

fn table<'n>(name: &str, columns: impl IntoIterator<Item = (&'n str, ArrayRef)>) -> Result<StoredTable> {
    let batch = RecordBatch::try_from_iter(columns).map_err(|e| Error::wrong(name, e.to_string()))?;
    Ok(StoredTable::from_batches(name, &[batch])?)
}

/// The means of each shop.
fn means(s: &Stage) -> Rep<'_, Table> {
    let integers = |names: &[&'static str]| names.iter().map(|name| Field::new(*name, Scalar::I64)).collect::<Vec<_>>();
    let floats = |names: [&'static str; 2]| names.map(|name| Field::new(name, Scalar::F64));
    let sales = s.scan("sales", integers(&["shop", "kind"]).into_iter().chain(floats(SOLD)).chain(floats(PLACES)));
    let shops = s.scan("shops", integers(&["id"]).into_iter().chain(floats(FEATURES)));
    let joined = sales.filter(|r| r.i64("kind").eq(0)).join_inner(shops, [("shop", "id")]);
    let names = FEATURES.into_iter().chain(SOLD).chain(PLACES);
    joined.group_by(["shop"]).agg(|r| names.map(|name| avg(name, r.f64(name))).collect::<Vec<_>>())
}

/// The squared distance of each shop's customers to the nearest centre, in the mean.
fn nearest<'s>(s: &'s Stage, shops: Rep<'s, Table>) -> Rep<'s, Tensor<F64>> {
    let [k, width] = [CENTRES.len(), PLACES.len()].map(|n| n as u64);
    let (points, centres) = (shops.tensor::<F64>(&PLACES), s.weight::<F64>("centres", [k, width]));
    let from_centres = (centres * centres).sum([1]) - points.matmul(centres.transpose()) * 2.0;
    ((-from_centres).max([1]) * -1.0 + (points * points).sum([1])).mean([0])
}

/// The line of each shop [n, 1].
fn line<'s>(s: &'s Stage, shops: Rep<'s, Table>) -> Rep<'s, Tensor<F64>> {
    let weight = s.weight::<F64>("weight", [FEATURES.len() as u64, 1]);
    shops.tensor::<F64>(&FEATURES).matmul(weight) + s.weight::<F64>("bias", [1])
}

/// Points to begin with: the first shop, then always the one that is farthest from all of them (Gonzalez 1985).
fn far_apart(session: &Session) -> Result<Vec<f64>> {
    let s = Stage::new();
    s.output("points", means(&s).sort([asc("shop")]).select(PLACES));
    let graph: Graph = s.finish().map_err(quearn::Error::from)?;
    let outputs = session.run(&graph)?;
    let columns: Vec<&Float64Array> =
        outputs.table("points")?.columns().iter().map(|column| column.as_primitive()).collect();
    let points: Vec<Vec<f64>> =
        (0..SHOPS as usize).map(|i| columns.iter().map(|column| column.value(i)).collect()).collect();
    let mut chosen = vec![points[0].as_slice()];
    while chosen.len() < CENTRES.len() {
        let distance = |point: &[f64]| chosen.iter().map(|other| between(point, other)).fold(f64::INFINITY, f64::min);
        let farthest = points.iter().max_by(|a, b| distance(a).total_cmp(&distance(b)));
        chosen.extend(farthest.map(Vec::as_slice));
    }
    Ok(chosen.concat())
}

/// The largest difference of two coordinates.
fn between(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

impl Problem for Shops {
    fn tables(&self) -> &[StoredTable] {
        &self.tables
    }

    fn inputs(&self) -> &Tensors {
        &self.inputs
    }

    fn rows(&self) -> u64 {
        self.tables[0].rows() as u64
    }

    fn batch(&self) -> u64 {
        self.rows()
    }

    fn steps(&self) -> u64 {
        1
    }

    fn plan(&self, recipe: Recipe) -> Result<Plan> {
        Ok(Plan::new(recipe, |s| {
            let shops = means(s);
            match self.model {
                Model::Linear => line(s, shops).mse(shops.tensor(&["amount"])),
                Model::Logistic => line(s, shops).bce_with_logits(shops.tensor(&["bought"])),
                Model::KMeans => nearest(s, shops),
            }
        })?)
    }

    fn weights(&self, session: &Session, plan: &Plan, seed: i64) -> Result<Tensors> {
        if self.model != Model::KMeans {
            return initial::weights(plan.weights(), seed);
        }
        let shape = [CENTRES.len() as u64, PLACES.len() as u64];
        Ok([("centres".to_owned(), StoredTensor::from_vec(far_apart(session)?, &shape)?)].into())
    }

    fn measured(&self, _: &Session, weights: Tensors) -> Result<f64> {
        let planted = match self.model {
            Model::Linear => LINE,
            Model::Logistic => CHANCE,
            Model::KMeans => {
                let found: Vec<&[f64]> = weights["centres"].as_slice::<f64>()?.chunks(PLACES.len()).collect();
                let off =
                    |centre: &[f64; 2]| found.iter().map(|found| between(found, centre)).fold(f64::INFINITY, f64::min);
                return Ok(CENTRES.iter().map(off).fold(0.0, f64::max));
            }
        };
        let found = [weights["weight"].as_slice::<f64>()?, weights["bias"].as_slice::<f64>()?].concat();
        Ok(between(&found, &planted))
    }
}
