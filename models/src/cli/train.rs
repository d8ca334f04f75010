//! `train`: trains a network.

use super::machine::Machine;
use super::{bench, print, unwritten};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use indicatif::{ProgressBar, ProgressStyle};
use quearn::Tensors;
use quearn::training::{Adagrad, Adam, AdamW, Clip, Fit, Optimizer, Recipe, RmsProp, Schedule, Sgd, Step, Trainer};
use quearn_models::Result;
use quearn_models::training::lesson::{Data, Lesson, Problem, Settings};
use quearn_models::training::{LESSONS, TASKS, Task};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Reads the name of a network that can be trained.
pub fn task() -> impl TypedValueParser<Value = &'static Task> {
    PossibleValuesParser::new(TASKS.iter().map(|task| task.name))
        .try_map(|name| Task::find(&name).ok_or("no network has this name"))
}

fn lesson() -> impl TypedValueParser<Value = &'static Lesson> {
    let value = |lesson: &'static Lesson| PossibleValue::new(lesson.name).help(lesson.about);
    PossibleValuesParser::new(LESSONS.iter().map(value))
        .try_map(|name| LESSONS.iter().find(|lesson| lesson.name == name).ok_or("no network has this name"))
}

/// `train`.
#[derive(clap::Args)]
pub struct Train {
    /// What is trained.
    #[arg(long, value_parser = lesson(), default_value = "lenet")]
    model: &'static Lesson,
    /// What it is trained on; by default digits where it takes some.
    #[arg(long, value_enum)]
    data: Option<Data>,
    /// Times that all rows are gone through; by default as suits the model.
    #[arg(long)]
    epochs: Option<NonZeroU64>,
    /// Rows of a step; by default as suits the model.
    #[arg(long)]
    batch: Option<NonZeroU64>,
    /// Learning rate; by default as suits the model.
    #[arg(long)]
    lr: Option<f64>,
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
    /// Bytes of activations that a step has at most; what does not fit in is computed again.
    #[arg(long, value_name = "BYTES")]
    activations: Option<u64>,
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
    /// Where a budget was given: bytes of activations by an estimate, with all of them kept too, and how many are computed again.
    #[serde(skip_serializing_if = "Option::is_none")]
    activations: Option<[u64; 3]>,
    /// What was learned, under the name of its measure.
    #[serde(flatten)]
    measured: BTreeMap<&'static str, f64>,
}

impl Train {
    /// Trains the network, and tells what came of it.
    pub fn run(self) -> Result<()> {
        let settings = Settings { data: self.data, batch: self.batch.map(NonZeroU64::get), seed: self.seed };
        let problem = self.model.begin(&settings)?;
        let mut session = self.machine.session()?;
        problem.tables().iter().for_each(|table| session.add_table(table.clone()));
        let mut plan = problem.plan(self.recipe(&*problem))?.steps_in_run(self.steps_in_run.get());
        if let Some(bytes) = self.activations {
            plan = plan.activations_within(bytes)?;
        }
        let activations = plan.activations();
        let weights = problem.weights(&session, &plan, self.seed)?;
        let mut trainer = plan.start(&session, &weights)?;
        if let (true, Some(folder)) = (self.resume, &self.checkpoint) {
            trainer.resume(folder)?;
        }
        let before = trainer.steps();
        let seconds = self.fit(&mut trainer, &*problem)?;
        let measured = problem.measured(&session, trainer.weights()?)?;
        let report = Report {
            kind: "train",
            model: self.model.name,
            rows: problem.rows(),
            batch: problem.batch(),
            epochs: trainer.steps() / problem.steps().max(1),
            steps: trainer.steps(),
            threads: session.options().threads,
            seconds,
            rows_per_s: ((trainer.steps() - before) * problem.batch()) as f64 / seconds.max(1e-9),
            compile_ms: trainer.compile_ms(),
            loss: trainer.history.steps.last().map_or(f64::NAN, |step| step.loss),
            activations: activations.map(|found| [found.bytes, found.all, found.again as u64]),
            measured: [(self.model.measure.name(), measured)].into(),
        };
        self.write(&trainer, &report, &self.model.measure.text(measured))
    }

    fn epochs(&self) -> u64 {
        self.epochs.map_or(self.model.usual.epochs, NonZeroU64::get)
    }

    fn recipe(&self, problem: &dyn Problem) -> Recipe {
        let steps = self.epochs() * problem.steps();
        let schedule = match self.schedule {
            Course::Constant => Schedule::Constant,
            Course::Cosine => Schedule::Cosine { steps, least: 0.0 },
            Course::OneCycle => Schedule::one_cycle(steps),
        };
        let optimizer = self.optimizer.optimizer(self.weight_decay);
        let rate = self.lr.unwrap_or(self.model.usual.rate);
        Recipe { optimizer, rate, schedule, clip: self.clip_norm.map(Clip::Norm), seed: self.seed }
    }

    fn fit(&self, trainer: &mut Trainer<'_>, problem: &dyn Problem) -> Result<f64> {
        let session = trainer.session();
        let (measure, steps) = (self.model.measure, problem.steps());
        let bar = bar(self.epochs() * steps, trainer.steps());
        let batch = problem.batch() as f64;
        let mut watch = |step: &Step| {
            bar.set_position(step.step);
            bar.set_message(format!("loss {:.4}  {:.0} rows/s", step.loss, bar.per_sec() * batch));
            ControlFlow::Continue(())
        };
        let mut failure = None;
        let mut score = |weights: &Tensors| {
            Ok(problem.measured(session, weights.clone()).map(|value| measure.score(value)).unwrap_or_else(|error| {
                failure.get_or_insert(error);
                0.0
            }))
        };
        let fit = Fit {
            epochs: self.epochs(),
            steps,
            score: Some(&mut score),
            patience: self.patience,
            checkpoint: self.checkpoint.clone(),
            watch: Some(&mut watch),
        };
        let seconds = trainer.fit(problem.inputs(), fit);
        bar.finish_and_clear();
        failure.map_or(Ok(()), Err)?;
        Ok(seconds?)
    }

    fn write(&self, trainer: &Trainer<'_>, report: &Report, learned: &str) -> Result<()> {
        if let Some(path) = &self.curve {
            fs::write(path, trainer.history.curve()).map_err(|e| unwritten(path, e))?;
        }
        if let Some(path) = &self.json {
            bench::append(path, report)?;
        }
        let Report { model, rows, batch, epochs, steps, threads, seconds, rows_per_s, compile_ms, loss, .. } = report;
        let activations = report.activations.map_or(String::new(), |[bytes, all, again]| {
            format!("  activations {bytes} of {all} bytes, {again} values computed again")
        });
        print(format!(
            "{model} on {rows} rows, batch {batch}, threads {threads}: {epochs} epochs, {steps} steps in {seconds:.2} s \
             ({rows_per_s:.0} rows/s, compile {compile_ms:.0} ms)  loss {loss:.4}  {learned}{activations}\n",
        ))
    }
}

/// A bar on stderr with loss, throughput and what is left; nothing where stderr is no terminal.
fn bar(steps: u64, done: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos:>6} of {len} steps  {msg}  {eta} left");
    let bar = ProgressBar::new(steps).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.with_position(done)
}
