//! What can be trained from the command line: data, a loss, and how much of it was learned.

use super::initial;
use crate::nn::Values;
use crate::{Error, Result};
use quearn::data::Table;
use quearn::training::{Plan, Recipe};
use quearn::{Session, Tensors};
use quearn_stage::graph::Graph;
use quearn_stage::rep::{F32, Stage};

/// A network or model with data to train it on.
pub struct Lesson {
    /// Name.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What is used where nobody says something else.
    pub usual: Usual,
    /// What is measured.
    pub measure: Measure,
    /// Gets or makes the data.
    pub(super) begin: fn(&Settings) -> Result<Box<dyn Problem>>,
}

/// Settings that suit a lesson.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Usual {
    /// Times that all rows are gone through.
    pub epochs: u64,
    /// Rows of a step; none where each step takes all of them.
    pub batch: Option<u64>,
    /// Learning rate.
    pub rate: f64,
}

/// What a user may choose of the data.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Settings {
    /// Where they come from; by default digits where the network takes some.
    pub data: Option<Data>,
    /// Rows of a step.
    pub batch: Option<u64>,
    /// What random numbers begin with.
    pub seed: i64,
}

/// Where data come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Data {
    /// Handwritten digits that `scripts/digits` gets.
    Digits,
    /// Seeded data with something to be found in them.
    Seeded,
}

/// What tells how much was learned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Measure {
    /// The part of the rows of a test that are told right.
    Accuracy,
    /// The edits that lead from what is read off to the transcripts of a test, by the length of the transcripts.
    TokenErrors,
    /// The largest distance of a weight from the planted one.
    FromPlanted,
}

impl Measure {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Accuracy => "test_accuracy",
            Measure::TokenErrors => "token_error_rate",
            Measure::FromPlanted => "from_planted",
        }
    }

    /// A value in words.
    pub fn text(self, value: f64) -> String {
        match self {
            Measure::Accuracy => format!("test accuracy {:.2} %", value * 100.0),
            Measure::TokenErrors => format!("token error rate {:.2} %", value * 100.0),
            Measure::FromPlanted => format!("off the planted values by {value:.4}"),
        }
    }

    /// A value as a score: the larger the better.
    pub fn score(self, value: f64) -> f64 {
        if self == Measure::Accuracy { value } else { -value }
    }
}

/// Data, the loss on them, and a test.
pub trait Problem {
    /// Tables that the programs read.
    fn tables(&self) -> &[Table] {
        &[]
    }

    /// Inputs of a step: all rows, of which it draws some, or nothing but tables.
    fn inputs(&self) -> &Tensors;

    /// Rows that an epoch goes through.
    fn rows(&self) -> u64;

    /// Rows of a step.
    fn batch(&self) -> u64;

    /// Steps of an epoch.
    fn steps(&self) -> u64;

    /// A step of training.
    ///
    /// # Errors
    /// A mistake in the program.
    fn plan(&self, recipe: Recipe) -> Result<Plan>;

    /// Weights to begin with.
    ///
    /// # Errors
    /// A program cannot be run.
    fn weights(&self, _: &Session, plan: &Plan, seed: i64) -> Result<Tensors> {
        initial::weights(plan.weights(), seed)
    }

    /// The [`Measure`] of weights.
    ///
    /// # Errors
    /// A program cannot be run.
    fn measured(&self, session: &Session, weights: Tensors) -> Result<f64>;
}

impl Lesson {
    /// Gets or makes the data.
    ///
    /// # Errors
    /// There are none, or they do not go with the settings.
    pub fn begin(&self, settings: &Settings) -> Result<Box<dyn Problem>> {
        match (self.usual.batch, settings.batch) {
            (None, Some(_)) => Err(Error::wrong("--batch", format!("{} takes all rows in each step", self.name))),
            (usual, batch) => (self.begin)(&Settings { batch: batch.or(usual), ..*settings }),
        }
    }
}

/// Rows of a step, of so many.
pub(super) fn batch_of(rows: u64, settings: &Settings) -> Result<u64> {
    match settings.batch.unwrap_or(rows) {
        batch if (1..=rows).contains(&batch) => Ok(batch),
        batch => Err(Error::wrong("--batch", format!("{batch} rows of {rows}"))),
    }
}

/// The data are seeded, or this says that there are no others.
pub(super) fn only_seeded(name: &str, settings: &Settings) -> Result<()> {
    match settings.data {
        Some(Data::Digits) => Err(Error::wrong("--data", format!("{name} takes no digits, only seeded data"))),
        _ => Ok(()),
    }
}

/// The program that tells which part of a test's rows is told right by their logits.
pub(super) fn accuracy(test: &Tensors, logits: impl for<'s> FnOnce(&'s Stage) -> Values<'s>) -> Result<Graph> {
    let s = Stage::new();
    let right = logits(&s).arg_max(1).eq(s.input("target", [test["target"].len() as u64]));
    s.output("accuracy", right.cast::<F32>().mean([0]));
    Ok(s.finish().map_err(quearn::Error::from)?)
}

/// The scalar result `name` of a program as a number.
pub(super) fn scalar(session: &Session, graph: &Graph, given: &Tensors, name: &str) -> Result<f64> {
    let outputs = session.compile(graph)?.run_with(session, given)?;
    let values = outputs.tensor(name)?.as_slice::<f32>()?.to_vec();
    Ok(values.first().copied().map_or(f64::NAN, f64::from))
}
