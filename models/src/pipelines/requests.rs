//! Requests: programs that answer for one key, over the data of pipelines. They are compiled once and run often, from many
//! threads at once.

use super::boosted_trees;
use super::columns::{fields, integers, table};
use super::customer_score::{self, FEATURES};
use super::{Data, Source};
use crate::nn::{Module, narrowed};
use crate::weights::{GAIN, Weights};
use crate::{Progress, Result, random};
use quearn::data::{Table as StoredTable, Tensor};
use quearn_stage::graph::{Graph, Scalar};
use quearn_stage::rep::{I32, Rep, Stage, Table};
use quearn_tpch::schema::{self, CUSTOMER};

/// The name under which the key is given.
const KEY: &str = "key";

/// A program that answers for one key.
pub struct Request {
    /// Name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    write: for<'s> fn(&'s Stage) -> Rep<'s, Table>,
    data: Source,
    /// The table whose rows the keys number, from `first` on.
    table: &'static str,
    first: i32,
}

/// All requests.
pub const REQUESTS: &[Request] = &[
    Request {
        name: "customer",
        about: "TPC-H: a customer with features of all that he ordered, scored by a perceptron",
        write: customer,
        data: Source::Tpch(weights),
        table: CUSTOMER,
        first: 1,
    },
    Request {
        name: "applicant",
        about: "an applicant with the limit of his region, scored by boosted trees",
        write: applicant,
        data: Source::Made(applicants),
        table: "applicants",
        first: 0,
    },
];

impl Request {
    /// The request of that name.
    pub fn find(name: &str) -> Option<&'static Request> {
        REQUESTS.iter().find(|request| request.name == name)
    }

    /// The program: `rows`, the key and the score `p`; no row for a key that is not there.
    pub fn graph(&self) -> Result<Graph> {
        let s = Stage::new();
        s.output("rows", (self.write)(&s));
        Ok(s.finish().map_err(quearn::Error::from)?)
    }

    /// The data of a scale.
    pub fn data(&self, scale: f64, progress: Progress) -> Result<Data> {
        self.data.load(&self.graph()?, scale, progress)
    }

    /// How many keys there are in the data.
    pub fn keys(&self, data: &Data) -> usize {
        data.tables.iter().find(|table| table.name() == self.table).map_or(0, StoredTable::rows)
    }

    /// What the program is given for the key of a number.
    pub fn given(&self, number: usize) -> Result<quearn::Tensors> {
        let key = Tensor::from_vec(vec![self.first + number as i32], &[])?;
        Ok([(KEY.to_owned(), key)].into())
    }
}

fn customer(s: &Stage) -> Rep<'_, Table> {
    let key = schema::fields(CUSTOMER).into_iter().filter(|field| field.name == "c_custkey");
    let known = customer_score::customers(s).standardised(&FEATURES);
    let one = s
        .scan(CUSTOMER, key)
        .filter(|c| c.i32("c_custkey").eq(s.given::<I32>(KEY)))
        .join_inner(known, [("c_custkey", "o_custkey")]);
    let m = Module::root(s);
    let x = m.at("fc1").linear(one.tensor(&FEATURES), 64).relu();
    let x = m.at("fc2").linear(x, 32).relu();
    let score = narrowed(m.at("fc3").linear(x, 1).sigmoid());
    one.with("p", |_| score).select(["c_custkey", "p"])
}

fn weights() -> Result<Weights> {
    let mut weights = Weights::new();
    for (layer, [outputs, inputs]) in [[64, FEATURES.len()], [32, 64], [1, 32]].into_iter().enumerate() {
        let layer = layer + 1;
        let weight = random::weight(&format!("request.w{layer}"), &[outputs, inputs], GAIN);
        let bias = random::weight(&format!("request.b{layer}"), &[outputs], 0.1);
        weights.insert(format!("fc{layer}.weight"), Tensor::from_vec(weight, &[outputs as u64, inputs as u64])?);
        weights.insert(format!("fc{layer}.bias"), Tensor::from_vec(bias, &[outputs as u64])?);
    }
    Ok(weights)
}

fn applicant(s: &Stage) -> Rep<'_, Table> {
    let names = boosted_trees::names();
    let columns = fields(Scalar::I32, ["id", "region"]).into_iter().chain(fields(Scalar::F32, &names));
    let one = s
        .scan("applicants", columns)
        .filter(|r| r.i32("id").eq(s.given::<I32>(KEY)))
        .join_inner(boosted_trees::limits(s), [("region", "region")]);
    let features = one.tensor(&names.iter().map(String::as_str).collect::<Vec<_>>());
    one.with("p", |_| boosted_trees::forest().score(features)).select(["id", "max_x1", "p"])
}

fn applicants(scale: f64, _: Progress) -> Result<Data> {
    let [applicants, limits] = boosted_trees::columns(scale);
    let rows = applicants.first().map_or(0, |(_, column)| column.len());
    let ids = ("id".to_owned(), integers(0..rows as i64));
    Ok(vec![table("applicants", std::iter::once(ids).chain(applicants))?, table("limits", limits)?].into())
}
