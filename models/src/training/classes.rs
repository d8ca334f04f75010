//! Digits in ten classes.

use super::digits::{self, Digits, Form};
use super::lesson::{Data, Problem, Settings, accuracy, batch_of, scalar};
use super::{Task, Whole};
use crate::{Error, Result};
use quearn::training::{Draw, Plan, Recipe, steps_in_epoch};
use quearn::{Session, Tensors};
use quearn_stage::graph::Graph;
use quearn_stage::rep::I64;

/// Seeded digits, those of the test among them.
const SEEDED: usize = 1800;

/// Digits and a network that tells them apart.
struct Classes {
    task: &'static Task,
    train: Tensors,
    test: Tensors,
    /// The program that tells how many of the test's rows are told right.
    tester: Graph,
    batch: u64,
}

/// Digits for the network of that name.
pub(super) fn begin(name: &str, form: Form, settings: &Settings) -> Result<Box<dyn Problem>> {
    let task = Task::find(name).ok_or_else(|| Error::wrong("--model", format!("there is no network {name:?}")))?;
    let all = match settings.data {
        Some(Data::Seeded) => Digits::seeded(SEEDED, settings.seed),
        _ => Digits::read(&digits::file())?,
    };
    let [train, test] = all.split();
    let (train, test) = (train.tensors(task.input, form)?, test.tensors(task.input, form)?);
    let batch = batch_of(train["target"].len() as u64, settings)?;
    let tester = accuracy(&test, |s| task.logits(s, test[task.input].shape(), &Whole))?;
    Ok(Box::new(Classes { task, train, test, tester, batch }))
}

impl Problem for Classes {
    fn inputs(&self) -> &Tensors {
        &self.train
    }

    fn rows(&self) -> u64 {
        self.train["target"].len() as u64
    }

    fn batch(&self) -> u64 {
        self.batch
    }

    fn steps(&self) -> u64 {
        steps_in_epoch(self.rows(), self.batch)
    }

    fn plan(&self, recipe: Recipe) -> Result<Plan> {
        let shape = self.train[self.task.input].shape();
        Ok(Plan::new(recipe, |s| {
            let draw = Draw::new(s, self.rows(), self.batch);
            let target = draw.rows(s.input::<I64>("target", [self.rows()]));
            self.task.logits(s, shape, &draw).cross_entropy(target)
        })?)
    }

    fn measured(&self, session: &Session, weights: Tensors) -> Result<f64> {
        let given = weights.into_iter().chain(self.test.clone()).collect();
        scalar(session, &self.tester, &given, "accuracy")
    }
}
