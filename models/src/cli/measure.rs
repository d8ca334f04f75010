//! A program compiled once and run several times.

use quearn::{Outputs, Program, Session};
use quearn_models::Result;
use quearn_stage::graph::Graph;
use quearn_tpch::host;
use quearn_tpch::times::{elapsed_ms, median, rounded};
use serde::Serialize;
use std::num::NonZeroUsize;
use std::time::Instant;

/// How often a program runs after its first run.
#[derive(Clone, Copy)]
pub enum Runs {
    /// That often.
    Count(NonZeroUsize),
    /// As often as fits into so many seconds, but 10 to 500 times, after some runs that are not counted.
    Seconds(f64),
}

impl Runs {
    /// That often, or as often as fits into so many seconds.
    pub fn new(count: Option<NonZeroUsize>, seconds: f64) -> Runs {
        count.map_or(Runs::Seconds(seconds), Runs::Count)
    }
}

/// Least number of runs in a time.
const LEAST: usize = 10;
/// Largest number of runs in a time.
const MOST: usize = 500;
/// Seconds of runs that are not counted.
const WARM_UP_S: f64 = 0.7;
/// Least number of runs that are not counted.
const WARM_UP: usize = 3;

/// What measurements of networks tell, under the names that those of other engines have.
#[derive(Serialize)]
pub struct Timed {
    /// What was done: `inference` or `training`.
    pub kind: &'static str,
    /// Are the results as expected?
    pub ok: bool,
    /// Quearn.
    pub engine: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The network.
    pub model: &'static str,
    /// Items of a run.
    pub batch: u64,
    /// Threads of the session.
    pub threads: usize,
    /// Type of the weights.
    pub dtype: &'static str,
    /// How many runs were timed.
    pub runs: usize,
    /// The middle of the runs.
    pub median_ms: f64,
    /// The shortest of the runs.
    pub min_ms: f64,
    /// The longest of the runs.
    pub max_ms: f64,
    /// Seconds until the first run may begin, without compilation where that is shown apart.
    pub load_s: f64,
    /// Compilation.
    pub compile_ms: f64,
    /// Seconds of the first run.
    pub first_call_s: f64,
    /// The most memory that the process has had.
    pub peak_rss_mib: Option<u64>,
}

impl Timed {
    /// Of these runs; what else there is to tell is filled in by the caller.
    pub fn of(kind: &'static str, model: &'static str, runs_ms: &[f64]) -> Timed {
        Timed {
            kind,
            ok: true,
            engine: "quearn",
            version: env!("CARGO_PKG_VERSION"),
            model,
            batch: 0,
            threads: 0,
            dtype: "f32",
            runs: runs_ms.len(),
            median_ms: rounded(median(runs_ms).unwrap_or(f64::NAN)),
            min_ms: rounded(runs_ms.iter().copied().fold(f64::INFINITY, f64::min)),
            max_ms: rounded(runs_ms.iter().copied().fold(0.0, f64::max)),
            load_s: 0.0,
            compile_ms: 0.0,
            first_call_s: 0.0,
            peak_rss_mib: host::peak_rss_mb(),
        }
    }
}

/// What was measured, and what came out.
pub struct Measured {
    /// From the graph to machine code, before it was saved if it was loaded.
    pub compile_ms: f64,
    /// From a file to machine code, if it was loaded.
    pub load_ms: Option<f64>,
    /// The first run, in which weights are packed.
    pub first_run_ms: f64,
    /// Further runs, each to the complete result.
    pub runs_ms: Vec<f64>,
    /// Results of the last run.
    pub outputs: Outputs,
}

impl Measured {
    /// Compilation or loading, and the first run.
    pub fn first_ms(&self) -> f64 {
        self.load_ms.unwrap_or(self.compile_ms) + self.first_run_ms
    }

    /// The middle of the further runs.
    pub fn median_ms(&self) -> f64 {
        median(&self.runs_ms).unwrap_or(self.first_run_ms)
    }

    /// The shortest of the further runs.
    pub fn min_ms(&self) -> f64 {
        self.runs_ms.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Compiles a program and runs it once, and then as often as asked.
pub fn measure(session: &Session, graph: &Graph, runs: Runs) -> Result<Measured> {
    measure_beside(session, &session.compile(graph)?, runs, || ())
}

/// Runs a program once, and then as often as asked, with something else done after each of the further runs.
pub fn measure_beside(session: &Session, program: &Program, runs: Runs, mut beside: impl FnMut()) -> Result<Measured> {
    let run = || {
        let start = Instant::now();
        let outputs = program.run(session)?;
        Result::Ok((elapsed_ms(start), outputs))
    };
    let (first_run_ms, mut outputs) = run()?;
    let count = match runs {
        Runs::Count(count) => count.get(),
        Runs::Seconds(seconds) => fitting(seconds, || run().map(drop))?,
    };
    let mut runs_ms = Vec::with_capacity(count);
    for _ in 0..count {
        let (ms, results) = run()?;
        beside();
        runs_ms.push(ms);
        outputs = results;
    }
    let (compile_ms, load_ms) = (program.compile_ms(), program.load_ms());
    Ok(Measured { compile_ms, load_ms, first_run_ms, runs_ms, outputs })
}

/// How many runs fit into so many seconds, by some runs that are not counted.
fn fitting(seconds: f64, run: impl Fn() -> Result<()>) -> Result<usize> {
    let (start, mut done) = (Instant::now(), 0);
    while done < WARM_UP || elapsed_ms(start) < WARM_UP_S * 1e3 {
        run()?;
        done += 1;
    }
    let each_ms = elapsed_ms(start) / done as f64;
    Ok(((seconds * 1e3 / each_ms) as usize).clamp(LEAST, MOST))
}
