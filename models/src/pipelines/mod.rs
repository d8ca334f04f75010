//! Programs that are queries and models at once, by the names that the peers give them.
//!
//! A pipeline is a program, the data that it reads, and what of its results is compared with other systems. The
//! relational half of a program is written with the operators of tables, the model with those of tensors, in one graph.
//!
//! | file | what it holds |
//! |---|---|
//! | `alone` | the models of pipelines on data in place |
//! | `answer` | results as named numbers, what other systems answer, the comparison |
//! | `columns` | generated columns and tables |
//! | [`requests`] | programs that answer for one key |
//! | `plain` | programs as people write them who leave their order to the system |
//! | the others | a pipeline each |

/// What other systems answer at the scales 0.01 and 1.
macro_rules! expected {
    ($name:literal) => {
        &[
            include_str!(concat!("../../expected/", $name, ".s0.01.json")),
            include_str!(concat!("../../expected/", $name, ".s1.json")),
        ]
    };
}

mod alone;
mod answer;
mod black_scholes;
mod boosted_trees;
mod columns;
mod crime_index;
mod customer_score;
mod haversine;
mod image_classes;
mod k_means;
mod line_items;
mod plain;
pub mod requests;
mod ridge;
mod similar_items;
mod star_join;
mod zip_codes;

pub use alone::{ALONE, Alone};
pub use answer::{Answer, Results, Tolerance};
pub use plain::PLAIN;

use crate::weights::Weights;
use crate::{Error, Progress, Result, Step};
use answer::Tolerance::{Exact, Relative};
use image_classes::Set;
use quearn::Session;
use quearn::data::Table;
use quearn::rewrite::{RewriteOptions, rewrite};
use quearn_stage::graph::Graph;
use quearn_stage::rep::Stage;

/// A program that is a query and a model.
pub struct Pipeline {
    /// The name that the peers give it.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Writes the program for data of a scale.
    write: fn(&Stage, f64),
    data: Source,
    /// What of the results is compared.
    answer: fn(&Results, f64) -> Result<Answer>,
    /// How far each part of the answer may be off.
    tolerances: &'static [(&'static str, Tolerance)],
    /// What other systems answer at the scales 0.01 and 1; nothing if none was asked.
    expected: &'static [&'static str],
}

/// Where the data of a pipeline come from.
enum Source {
    /// They are made for a scale.
    Made(fn(f64, Progress) -> Result<Data>),
    /// The tables of TPC-H that it scans, and these weights.
    Tpch(fn() -> Result<Weights>),
}

impl Source {
    /// The data of a scale that a program reads.
    fn load(&self, graph: &Graph, scale: f64, progress: Progress) -> Result<Data> {
        match self {
            Source::Made(make) => make(scale, progress),
            Source::Tpch(weights) => {
                // What a program reads is known once it is rewritten.
                let rewritten = rewrite(graph, &RewriteOptions::default()).map_err(quearn::Error::from)?.0;
                let step = |_: &str, done, total| {
                    progress(Step { what: "tables", done: done as usize, total: total as usize });
                };
                let tables = quearn_tpch::catalog::load_scanned(scale, [&rewritten], &step)?;
                Ok(Data { tables, tensors: weights()? })
            }
        }
    }
}

/// What a program reads.
#[derive(Clone, Debug, Default)]
pub struct Data {
    /// Tables.
    pub tables: Vec<Table>,
    /// Weights and other tensors, by name.
    pub tensors: Weights,
}

impl From<Vec<Table>> for Data {
    fn from(tables: Vec<Table>) -> Data {
        Data { tables, tensors: Weights::new() }
    }
}

impl Data {
    /// Gives the data to a session.
    pub fn bind(self, session: &mut Session) {
        self.tables.into_iter().for_each(|table| session.add_table(table));
        self.tensors.into_iter().for_each(|(name, tensor)| session.bind(name, tensor));
    }
}

impl Pipeline {
    /// The pipeline of that name, or the one that is [plainly written](PLAIN).
    pub fn find(name: &str) -> Option<&'static Pipeline> {
        PIPELINES.iter().chain(PLAIN).find(|pipeline| pipeline.name == name)
    }

    /// The program for data of a scale.
    pub fn graph(&self, scale: f64) -> Result<Graph> {
        let s = Stage::new();
        (self.write)(&s, scale);
        Ok(s.finish().map_err(quearn::Error::from)?)
    }

    /// The data of a scale; what takes long to make is kept in the cache.
    pub fn data(&self, scale: f64, progress: Progress) -> Result<Data> {
        self.data.load(&self.graph(scale)?, scale, progress)
    }

    /// The part of the results at a scale that is compared.
    pub fn answer(&self, results: &Results, scale: f64) -> Result<Answer> {
        (self.answer)(results, scale)
    }

    /// Compares an answer with that of other systems; gives the largest error as a share of what is allowed. There are
    /// answers for the scales 0.01 and 1.
    pub fn check(&self, answer: &Answer, scale: f64) -> Result<f64> {
        let expected = match scale {
            0.01 => self.expected.first(),
            1.0 => self.expected.get(1),
            _ => None,
        };
        let unknown = || Error::NoExpectation { what: format!("{} at scale {scale}", self.name) };
        answer::check(self.name, answer, expected.ok_or_else(unknown)?, self.tolerances)
    }

    /// Compares an answer with another one; gives the largest error as a share of what is allowed.
    pub fn compare(&self, answer: &Answer, other: &Answer) -> Result<f64> {
        let other = serde_json::to_string(other).map_err(|e| Error::wrong(self.name, e.to_string()))?;
        answer::check(self.name, answer, &other, self.tolerances)
    }
}

/// All pipelines.
pub const PIPELINES: &[Pipeline] = &[
    Pipeline {
        name: "P1",
        about: "crime index: filter, a linear model with limits, a sum",
        write: |s, _| s.output("index", crime_index::program(s)),
        data: Source::Made(crime_index::data),
        answer: crime_index::answer,
        tolerances: &[("n", Exact), ("sum_index", Relative { of: 1e-9, and: 0.0 })],
        expected: expected!("p1"),
    },
    Pipeline {
        name: "P2",
        about: "Black-Scholes prices of options",
        write: |s, _| s.output("prices", black_scholes::program(s)),
        data: Source::Made(black_scholes::data),
        answer: black_scholes::answer,
        tolerances: black_scholes::TOLERANCES,
        expected: expected!("p2"),
    },
    Pipeline {
        name: "P3",
        about: "great-circle distances, filtered and grouped",
        write: |s, _| s.output("regions", haversine::program(s)),
        data: Source::Made(haversine::data),
        answer: haversine::answer,
        tolerances: haversine::TOLERANCES,
        expected: expected!("p3"),
    },
    Pipeline {
        name: "P4",
        about: "zip codes, cleaned and counted",
        write: |s, _| s.output("zips", zip_codes::program(s)),
        data: Source::Made(zip_codes::data),
        answer: zip_codes::answer,
        tolerances: zip_codes::TOLERANCES,
        expected: expected!("p4"),
    },
    Pipeline {
        name: "P5",
        about: "TPC-H: customers scored by a logistic regression",
        write: |s, _| s.output("nations", customer_score::program(s)),
        data: Source::Tpch(customer_score::weights),
        answer: customer_score::answer,
        tolerances: customer_score::TOLERANCES,
        expected: expected!("p5"),
    },
    Pipeline {
        name: "P6",
        about: "TPC-H: line items scored by a perceptron",
        write: |s, _| s.output("modes", line_items::program(s)),
        data: Source::Tpch(line_items::weights),
        answer: line_items::answer,
        tolerances: line_items::TOLERANCES,
        expected: expected!("p6"),
    },
    Pipeline {
        name: "P7",
        about: "a regression over a star join, by gradient descent",
        write: |s, _| s.output("w", star_join::program(s)),
        data: Source::Made(star_join::data),
        answer: star_join::answer,
        tolerances: star_join::TOLERANCES,
        expected: expected!("p7"),
    },
    Pipeline {
        name: "P8",
        about: "TPC-H: orders in clusters by k-means",
        write: |s, _| k_means::program(s),
        data: Source::Tpch(|| Ok(Weights::new())),
        answer: k_means::answer,
        tolerances: k_means::TOLERANCES,
        expected: expected!("p8"),
    },
    Pipeline {
        name: "P9a",
        about: "small pictures chosen by a query, classified by SqueezeNet, counted by class",
        write: |s, scale| s.output("classes", image_classes::program(s, Set::A, scale)),
        data: Source::Made(|scale, progress| image_classes::data(Set::A, scale, progress)),
        answer: image_classes::answer,
        tolerances: image_classes::TOLERANCES,
        expected: expected!("p9a"),
    },
    Pipeline {
        name: "P9b",
        about: "the same with large pictures",
        write: |s, scale| s.output("classes", image_classes::program(s, Set::B, scale)),
        data: Source::Made(|scale, progress| image_classes::data(Set::B, scale, progress)),
        answer: image_classes::answer,
        tolerances: image_classes::TOLERANCES,
        expected: expected!("p9b"),
    },
    Pipeline {
        name: "P10",
        about: "applicants chosen by a query, scored by boosted trees",
        write: |s, _| s.output("regions", boosted_trees::program(s)),
        data: Source::Made(boosted_trees::data),
        answer: boosted_trees::answer,
        tolerances: boosted_trees::TOLERANCES,
        expected: expected!("p10"),
    },
    Pipeline {
        name: "P11",
        about: "texts chosen by a query, encoded, and matched with items",
        write: similar_items::program,
        data: Source::Made(similar_items::data),
        answer: similar_items::answer,
        tolerances: similar_items::TOLERANCES,
        expected: expected!("p11"),
    },
    Pipeline {
        name: "P12",
        about: "ridge regressions over a join: penalties, features and folds",
        write: |s, _| ridge::program(s),
        data: Source::Made(ridge::data),
        answer: ridge::answer,
        tolerances: ridge::TOLERANCES,
        expected: expected!("p12"),
    },
];
