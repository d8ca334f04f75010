//! `train`: trains a network.

use super::machine::Machine;
use super::{bench, print, unwritten};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use quearn::training::{
    Adagrad, Adam, AdamW, Clip, Draw, Fit, Optimizer, Plan, Recipe, RmsProp, Schedule, Sgd, Step, Trainer,
    steps_in_epoch,
};
use quearn::{Session, Tensors};
use quearn_models::training::digits::{self, Digits};
use quearn_models::training::{TASKS, Task, Whole, initial};
use quearn_models::{Error, Result};
use quearn_stage::graph::Graph;
use quearn_stage::rep::{F32, I64, Rep, Stage, Tensor};
use serde::Serialize;
use std::fs;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Reads the name of a network that can be trained.
pub fn task() -> impl TypedValueParser<Value = &'static Task> {
    PossibleValuesParser::new(TASKS.iter().map(|task| task.name))
        .try_map(|name| Task::find(&name).ok_or("no network has this name"))
}

/// `train`.
#[derive(clap::Args)]
pub struct Train {
    /// The network: lenet or mlp for digits.
    #[arg(long, value_parser = task(), default_value = "lenet")]
    model: &'static Task,
    /// What it is trained on.
    #[arg(long, value_enum, default_value_t)]
    data: Data,
    /// Times that all rows are gone through.
    #[arg(long, default_value = "40")]
    epochs: NonZeroU64,
    /// Rows of a step.
    #[arg(long, default_value = "32")]
    batch: NonZeroU64,
    /// Learning rate.
    #[arg(long, default_value = "0.002")]
    lr: f64,
    /// What follows from gradients.
    #[arg(long, value_enum, default_value_t)]
    optimizer: Choice,
    /// What becomes of the learning rate.
    #[arg(long, value_enum, default_value_t)]
    schedule: Course,
    /// Weight decay.
    #[arg(long, default_value = "0")]
    weight_decay: f64,
    /// Steps in each run of the program; those of an epoch must be a multiple of it.
    #[arg(long, default_value = "1")]
    steps_in_run: NonZeroU64,
    /// Limit for the norm of all gradients.
    #[arg(long)]
    clip_norm: Option<f64>,
    /// What random numbers begin with.
    #[arg(long, default_value = "0")]
    seed: i64,
    /// Stop when so many epochs have brought no better accuracy.
    #[arg(long)]
    patience: Option<u64>,
    /// Folder for a checkpoint after each epoch.
    #[arg(long, value_name = "DIR")]
    checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint in that folder.
    #[arg(long, requires = "checkpoint")]
    resume: bool,
    /// File for a picture of the losses (SVG).
    #[arg(long, value_name = "FILE")]
    curve: Option<PathBuf>,
    /// File that the result is appended to, as one line of JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

/// Data to train on.
#[derive(Clone, Copy, clap::ValueEnum, Default)]
enum Data {
    /// Handwritten digits that `scripts/digits` gets.
    #[default]
    Digits,
    /// Seeded pictures like them.
    Seeded,
}

/// Optimisers, with PyTorch's defaults.
#[derive(Clone, Copy, clap::ValueEnum, Default)]
enum Choice {
    Sgd,
    /// SGD with a momentum of 0.9.
    Momentum,
    /// The same, looking ahead.
    Nesterov,
    Adagrad,
    Rmsprop,
    #[default]
    Adam,
    Adamw,
}

/// Learning rates.
#[derive(Clone, Copy, clap::ValueEnum, Default)]
enum Course {
    /// One for all steps.
    Constant,
    /// Down to 0 along half a cosine.
    #[default]
    Cosine,
    /// Up, and down to nearly 0.
    OneCycle,
}

impl Choice {
    fn optimizer(self, weight_decay: f64) -> Optimizer {
        match self {
            Choice::Sgd => Sgd { weight_decay, ..Sgd::default() }.into(),
            Choice::Momentum => Sgd { weight_decay, ..Sgd::momentum(0.9) }.into(),
            Choice::Nesterov => Sgd { weight_decay, nesterov: true, ..Sgd::momentum(0.9) }.into(),
            Choice::Adagrad => Adagrad { weight_decay, ..Adagrad::default() }.into(),
            Choice::Rmsprop => RmsProp { weight_decay, ..RmsProp::default() }.into(),
            Choice::Adam => Adam { weight_decay, ..Adam::default() }.into(),
            Choice::Adamw => AdamW { weight_decay, ..AdamW::default() }.into(),
        }
    }
}

/// What came of it.
#[derive(Serialize)]
struct Report {
    kind: &'static str,
    model: &'static str,
    rows: u64,
    batch: u64,
    epochs: u64,
    steps: u64,
    threads: usize,
    seconds: f64,
    rows_per_s: f64,
    compile_ms: f64,
    loss: f64,
    test_accuracy: f64,
}

impl Train {
    /// Trains the network, and tells what came of it.
    pub fn run(self) -> Result<()> {
        let [train, test] = self.digits()?.split();
        let Some(form) = self.model.digits else {
            let able: Vec<&str> = TASKS.iter().filter(|task| task.digits.is_some()).map(|task| task.name).collect();
            let message = format!("{} takes no digits; these do: {}", self.model.name, able.join(", "));
            return Err(Error::wrong("--model", message));
        };
        let (train, test) = (train.tensors(self.model.input, form)?, test.tensors(self.model.input, form)?);
        let (rows, batch) = (train["target"].len() as u64, self.batch.get());
        if batch > rows {
            return Err(Error::wrong("--batch", format!("{batch} rows of {rows}")));
        }
        let session = self.machine.session()?;
        let plan = self.plan(&train)?;
        let weights = initial::weights(plan.weights(), self.seed)?;
        let mut trainer = plan.start(&session, &weights)?;
        if let (true, Some(folder)) = (self.resume, &self.checkpoint) {
            trainer.resume(folder)?;
        }
        let before = trainer.steps();
        let tester = self.tester(&test)?;
        let seconds = self.fit(&mut trainer, &train, &tester, &test)?;
        let accuracy = accuracy(&session, &tester, &test, trainer.weights()?)?;
        let report = Report {
            kind: "train",
            model: self.model.name,
            rows,
            batch,
            epochs: trainer.steps() / steps_in_epoch(rows, batch),
            steps: trainer.steps(),
            threads: session.options().threads,
            seconds,
            rows_per_s: ((trainer.steps() - before) * batch) as f64 / seconds.max(1e-9),
            compile_ms: trainer.compile_ms(),
            loss: trainer.history.steps.last().map_or(f64::NAN, |step| step.loss),
            test_accuracy: accuracy,
        };
        self.write(&trainer, &report)
    }

    fn digits(&self) -> Result<Digits> {
        match self.data {
            Data::Digits => Digits::read(&digits::file()),
            Data::Seeded => Ok(Digits::seeded(1800, self.seed)),
        }
    }

    fn plan(&self, data: &Tensors) -> Result<Plan> {
        let (rows, batch) = (data["target"].len() as u64, self.batch.get());
        let steps = self.epochs.get() * steps_in_epoch(rows, batch);
        let schedule = match self.schedule {
            Course::Constant => Schedule::Constant,
            Course::Cosine => Schedule::Cosine { steps, least: 0.0 },
            Course::OneCycle => Schedule::one_cycle(steps),
        };
        let optimizer = self.optimizer.optimizer(self.weight_decay);
        let clip = self.clip_norm.map(Clip::Norm);
        let recipe = Recipe { optimizer, rate: self.lr, schedule, clip, seed: self.seed };
        let shape = data[self.model.input].shape();
        Ok(Plan::new(recipe, drawn_loss(self.model, shape, rows, batch))?.steps_in_run(self.steps_in_run.get()))
    }

    /// The program that tells how many of the test's rows are told right.
    fn tester(&self, test: &Tensors) -> Result<Graph> {
        let s = Stage::new();
        let logits = self.model.logits(&s, test[self.model.input].shape(), &Whole);
        let right = logits.arg_max(1).eq(s.input("target", [test["target"].len() as u64]));
        s.output("accuracy", right.cast::<F32>().mean([0]));
        Ok(s.finish().map_err(quearn::Error::from)?)
    }

    fn fit(&self, trainer: &mut Trainer<'_>, train: &Tensors, tester: &Graph, test: &Tensors) -> Result<f64> {
        let session = trainer.session();
        let steps = steps_in_epoch(train["target"].len() as u64, self.batch.get());
        let all = self.epochs.get() * steps;
        let bar = bar(all, trainer.steps());
        let batch = self.batch.get() as f64;
        let mut watch = |step: &Step| {
            bar.set_position(step.step);
            bar.set_message(format!("loss {:.4}  {:.0} rows/s", step.loss, bar.per_sec() * batch));
            ControlFlow::Continue(())
        };
        let mut failure = None;
        let mut score = |weights: &Tensors| {
            Ok(accuracy(session, tester, test, weights.clone()).unwrap_or_else(|error| {
                failure.get_or_insert(error);
                0.0
            }))
        };
        let fit = Fit {
            epochs: self.epochs.get(),
            steps,
            score: Some(&mut score),
            patience: self.patience,
            checkpoint: self.checkpoint.clone(),
            watch: Some(&mut watch),
        };
        let seconds = trainer.fit(train, fit);
        bar.finish_and_clear();
        failure.map_or(Ok(()), Err)?;
        Ok(seconds?)
    }

    fn write(&self, trainer: &Trainer<'_>, report: &Report) -> Result<()> {
        if let Some(path) = &self.curve {
            fs::write(path, trainer.history.curve()).map_err(|e| unwritten(path, e))?;
        }
        if let Some(path) = &self.json {
            bench::append(path, report)?;
        }
        let Report {
            model,
            rows,
            batch,
            epochs,
            steps,
            threads,
            seconds,
            rows_per_s,
            compile_ms,
            loss,
            test_accuracy,
            ..
        } = report;
        print(format!(
            "{model} on {rows} rows, batch {batch}, threads {threads}: {epochs} epochs, {steps} steps in {seconds:.2} s \
             ({rows_per_s:.0} rows/s, compile {compile_ms:.0} ms)  loss {loss:.4}  test accuracy {:.2} %\n",
            test_accuracy * 100.0
        ))
    }
}

/// The loss on rows that the program draws.
fn drawn_loss(
    task: &'static Task,
    shape: &[u64],
    rows: u64,
    batch: u64,
) -> impl for<'s> FnOnce(&'s Stage) -> Rep<'s, Tensor<F32>> {
    move |s| {
        let draw = Draw::new(s, rows, batch);
        let target = draw.rows(s.input::<I64>("target", [rows]));
        task.logits(s, shape, &draw).cross_entropy(target)
    }
}

/// A bar on stderr with loss, throughput and what is left; nothing where stderr is no terminal.
fn bar(steps: u64, done: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos:>6} of {len} steps  {msg}  {eta} left");
    let bar = ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_position(done)
}

/// The part of a test's rows that a network with these weights tells right.
fn accuracy(session: &Session, tester: &Graph, test: &Tensors, weights: Tensors) -> Result<f64> {
    let given: Tensors = weights.into_iter().chain(test.clone()).collect();
    let outputs = session.compile(tester)?.run_with(session, &given)?;
    Ok(outputs.tensor("accuracy")?.as_slice::<f32>()?.first().copied().map_or(0.0, f64::from))
}
