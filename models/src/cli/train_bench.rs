//! `train-bench`: times of a step of training, and its losses beside those of other systems.

use super::machine::Machine;
use super::measure::Timed;
use super::train::task;
use super::{bench, print, profile};
use quearn::io::read_safetensors;
use quearn::training::{Adam, Optimizer, Plan, Recipe, Sgd, Trainer};
use quearn::{Level, Tensors};
use quearn_models::training::{Task, Whole};
use quearn_models::{Error, Result};
use quearn_stage::rep::{F32, I64, Rep, Stage, Tensor};
use quearn_tpch::times::{elapsed_ms, rounded};
use serde::{Deserialize, Serialize};
use std::env;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// `train-bench`.
#[derive(clap::Args)]
pub struct TrainBench {
    /// The network.
    #[arg(long, value_parser = task(), default_value = "lenet")]
    model: &'static Task,
    /// Folder with `MODEL.init.safetensors`, `MODEL.data.safetensors` and `MODEL.losses.json`; by default $NN_DATA/train, or
    /// ~/.cache/quearn/nn/train.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Timed steps; by default as many as fit into four seconds, 10 to 500.
    #[arg(long)]
    steps: Option<NonZeroUsize>,
    /// Show where the time of a step goes, too.
    #[arg(long)]
    profile: bool,
    /// Print the program of a step at a level instead: graph, rewritten, pipelines, low, llvm or asm.
    #[arg(long, value_name = "LEVEL")]
    explain: Option<Level>,
    /// File that the measurements are appended to, as one line of JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

/// Seconds of timed steps.
const SECONDS: f64 = 4.0;
/// Batches in the data, which take turns.
const BATCHES: usize = 4;

/// What the other systems have: settings, and the losses of the first steps.
#[derive(Deserialize)]
struct Expected {
    optimiser: String,
    lr: f64,
    momentum: Option<f64>,
    batch: u64,
    forward_flops: Option<u64>,
    loss_f64: Vec<f64>,
    abs_f32_minus_f64: Vec<f64>,
}

/// A measurement.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    timed: Timed,
    flops: Option<u64>,
    gflops_per_s: Option<f64>,
    max_abs_loss_dev_20: f64,
}

impl TrainBench {
    /// Measures the step. Fails, after writing, if the losses are not as expected.
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        let folder = self.data.clone().unwrap_or_else(folder);
        let file = |end: &str| folder.join(format!("{}.{end}", self.model.name));
        let (expected, batches) =
            (Expected::read(&file("losses.json"))?, batches(&file("data.safetensors"), self.model)?);
        let session = self.machine.session()?;
        let plan = Plan::new(expected.recipe()?, loss(self.model, &batches[0]))?;
        if let Some(level) = self.explain {
            return print(session.explain(plan.graph(), level)?.trim_end().to_owned() + "\n");
        }
        let weights = read_safetensors(file("init.safetensors"))?.0;
        let mut trainer = plan.start(&session, &weights)?;
        let load_ms = elapsed_ms(start) - trainer.compile_ms();
        let first = Instant::now();
        let mut losses = vec![trainer.step(&batches[0])?.loss];
        let first_ms = elapsed_ms(first);
        for step in 1..expected.loss_f64.len() {
            losses.push(trainer.step(&batches[step % BATCHES])?.loss);
        }
        let times = self.times(&mut trainer, &batches)?;
        let flops = expected.forward_flops.map(|flops| 3 * flops);
        let timed = Timed {
            ok: expected.holds(&losses),
            batch: expected.batch,
            threads: session.options().threads,
            load_s: rounded(load_ms / 1e3),
            compile_ms: rounded(trainer.compile_ms()),
            first_call_s: rounded(first_ms / 1e3),
            ..Timed::of("training", self.model.name, &times)
        };
        let report = Report {
            flops,
            gflops_per_s: flops.map(|flops| rounded(flops as f64 / timed.median_ms / 1e6)),
            max_abs_loss_dev_20: expected.deviation(&losses),
            timed,
        };
        if self.profile {
            print(profile::text(&trainer.profile(&batches[0])?))?;
        }
        self.tell(&report)
    }

    /// Milliseconds of further steps.
    fn times(&self, trainer: &mut Trainer<'_>, batches: &[Tensors]) -> Result<Vec<f64>> {
        let mut timed = |step: usize| {
            let start = Instant::now();
            trainer.step(&batches[step % BATCHES])?;
            Result::Ok(elapsed_ms(start))
        };
        let (start, mut warm) = (Instant::now(), 0);
        while warm < 2 || elapsed_ms(start) < 500.0 {
            timed(warm)?;
            warm += 1;
        }
        let fitting = SECONDS * 1e3 / (elapsed_ms(start) / warm as f64);
        let count = self.steps.map_or((fitting as usize).clamp(10, 500), NonZeroUsize::get);
        (0..count).map(timed).collect()
    }

    fn tell(&self, report: &Report) -> Result<()> {
        let Timed { ok, model, batch, threads, median_ms, min_ms, max_ms, compile_ms, .. } = &report.timed;
        print(format!(
            "{model} batch {batch} threads {threads}: median {median_ms:.3} ms/step  min {min_ms:.3}  max {max_ms:.3}  {:.1} \
             GFLOP/s  compile {compile_ms:.0} ms  losses {} (off by {:.1e})\n",
            report.gflops_per_s.unwrap_or(0.0),
            if *ok { "as expected" } else { "WRONG" },
            report.max_abs_loss_dev_20,
        ))?;
        if let Some(path) = &self.json {
            bench::append(path, report)?;
        }
        match *ok {
            true => Ok(()),
            false => Err(Error::Failed { failed: 1, all: 1 }),
        }
    }
}

impl Expected {
    fn read(path: &Path) -> Result<Expected> {
        let wrong = |message: String| Error::wrong(path.display().to_string(), message);
        let text = fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))
    }

    fn recipe(&self) -> Result<Recipe> {
        let optimizer: Optimizer = match self.optimiser.as_str() {
            "sgd" => Sgd::momentum(self.momentum.unwrap_or(0.0)).into(),
            "adam" => Adam::default().into(),
            other => return Err(Error::wrong("optimiser", format!("{other}; expected sgd or adam"))),
        };
        Ok(Recipe::new(optimizer, self.lr))
    }

    /// The largest distance of a loss from the one in float64.
    fn deviation(&self, losses: &[f64]) -> f64 {
        losses.iter().zip(&self.loss_f64).map(|(found, expected)| (found - expected).abs()).fold(0.0, f64::max)
    }

    /// Is each loss as close to the one in float64 as ten times what float32 makes out so far, and a little?
    fn holds(&self, losses: &[f64]) -> bool {
        let mut most = 0f64;
        let rows = losses.iter().zip(&self.loss_f64).zip(&self.abs_f32_minus_f64);
        losses.len() == self.loss_f64.len()
            && rows.into_iter().all(|((found, expected), noise)| {
                most = most.max(*noise);
                (found - expected).abs() <= 1e-5 + 10.0 * most
            })
    }
}

fn folder() -> PathBuf {
    let root = env::var_os("NN_DATA").map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/quearn/nn");
    root.unwrap_or_else(home).join("train")
}

/// The batches of a file: `in.I.NAME` and `target.I`.
fn batches(path: &Path, task: &Task) -> Result<Vec<Tensors>> {
    let mut all = read_safetensors(path)?.0;
    let mut take = |name: String| {
        all.remove(&name).ok_or_else(|| Error::wrong(path.display().to_string(), format!("no tensor \"{name}\"")))
    };
    let mut batch = |i: usize| {
        let (input, target) = (take(format!("in.{i}.{}", task.input))?, take(format!("target.{i}"))?);
        Result::Ok([(task.input.to_owned(), input), ("target".to_owned(), target)].into())
    };
    (0..BATCHES).map(&mut batch).collect()
}

/// The loss on a batch of such shapes.
fn loss(task: &'static Task, batch: &Tensors) -> impl for<'s> FnOnce(&'s Stage) -> Rep<'s, Tensor<F32>> {
    let (input, target) = (batch[task.input].shape(), batch["target"].shape().to_vec());
    move |s| task.logits(s, input, &Whole).cross_entropy(s.input::<I64>("target", target))
}
