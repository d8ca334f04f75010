//! `bench`: times of a network.

use super::machine::Machine;
use super::measure::{Measured, Runs, Timed, measure_beside};
use super::network::{Case, Which};
use super::unwritten;
use quearn::{Program, Session};
use quearn_models::check::Difference;
use quearn_models::{Error, Result};
use quearn_tpch::times::{elapsed_ms, rounded};
use serde::Serialize;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// `bench`.
#[derive(clap::Args)]
pub struct Bench {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    machine: Machine,
    /// Timed runs, after the first; by default as many as fit into four seconds, 10 to 500.
    #[arg(long)]
    runs: Option<NonZeroUsize>,
    /// File that the measurements are appended to, as one line of JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// File that the compiled program is saved to; the time that loading it takes is shown beside that of compiling it.
    #[arg(long, value_name = "FILE", conflicts_with = "load")]
    save: Option<PathBuf>,
    /// File with the program, saved before, in place of compiling it.
    #[arg(long, value_name = "FILE")]
    load: Option<PathBuf>,
}

/// Seconds of timed runs.
const SECONDS: f64 = 4.0;

impl Bench {
    /// Measures the network. Fails, after writing, if its outputs are not as expected.
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        let case = self.which.case()?;
        let session = case.session(&self.machine)?;
        let load_ms = elapsed_ms(start);
        let (program, program_load_ms) = self.program(&session, &case)?;
        let measured = measure_beside(&session, &program, Runs::new(self.runs, SECONDS), || ())?;
        let off = case.difference(&measured.outputs)?;
        let times = Times { load_ms, program_load_ms };
        let report = report(&case, session.options().threads, times, &measured, off);
        super::print(line(&report))?;
        if let Some(path) = &self.json {
            append(path, &report)?;
        }
        match report.timed.ok {
            true => Ok(()),
            false => Err(Error::Failed { failed: 1, all: 1 }),
        }
    }

    /// The program, and how long it takes to load it if it was saved.
    fn program(&self, session: &Session, case: &Case) -> Result<(Program, Option<f64>)> {
        if let Some(path) = &self.load {
            let program = session.load_for(&case.graph, path)?;
            let ms = program.load_ms();
            return Ok((program, ms));
        }
        let program = session.compile(&case.graph)?;
        let Some(path) = &self.save else { return Ok((program, None)) };
        program.save(path)?;
        let ms = session.load_for(&case.graph, path)?.load_ms();
        Ok((program, ms))
    }
}

/// A measurement.
#[derive(Serialize)]
struct Report {
    /// Loading is that of the weights, and compilation or loading of the program; in the first run weights are packed.
    #[serde(flatten)]
    timed: Timed,
    /// Is the program for any number of items?
    open_batch: bool,
    gflops_per_s: f64,
    flops: u64,
    max_abs_err: Option<f64>,
    max_rel_err: Option<f64>,
    rms_rel_err: Option<f64>,
    /// Loading the compiled program, where it was saved or loaded.
    program_load_ms: Option<f64>,
    /// Compilation or loading, and the first run.
    first_ms: f64,
    p90_ms: f64,
}

/// Times before the first run.
struct Times {
    /// Reading the weights.
    load_ms: f64,
    /// Loading the program.
    program_load_ms: Option<f64>,
}

fn report(case: &Case, threads: usize, times: Times, measured: &Measured, off: Option<Difference>) -> Report {
    let timed = Timed {
        ok: off.is_none_or(|off| off.max_rel <= case.kept.tolerance()),
        batch: case.reference.batch,
        threads,
        dtype: case.kept.name(),
        load_s: rounded((times.load_ms + measured.load_ms.unwrap_or(measured.compile_ms)) / 1e3),
        compile_ms: rounded(measured.compile_ms),
        first_call_s: rounded(measured.first_run_ms / 1e3),
        ..Timed::of("inference", case.network.name, &measured.runs_ms)
    };
    Report {
        timed,
        open_batch: case.is_open(),
        gflops_per_s: rounded(case.flops() as f64 / measured.median_ms() / 1e6),
        flops: case.flops(),
        max_abs_err: off.map(|off| off.max_abs),
        max_rel_err: off.map(|off| off.max_rel),
        rms_rel_err: off.map(|off| off.rms_rel),
        program_load_ms: times.program_load_ms.map(rounded),
        first_ms: rounded(measured.first_ms()),
        p90_ms: rounded(ninth_decile(&measured.runs_ms)),
    }
}

/// The value that nine in ten do not exceed.
fn ninth_decile(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * 9).div_ceil(10).saturating_sub(1)).copied().unwrap_or(0.0)
}

fn line(report: &Report) -> String {
    let batch = format!("{}{}", report.timed.batch, if report.open_batch { " of any" } else { "" });
    let Report { gflops_per_s, max_rel_err, .. } = report;
    let Timed { ok, model, threads, median_ms, min_ms, max_ms, compile_ms, .. } = &report.timed;
    let load = report.program_load_ms.map_or(String::new(), |ms| format!("load {ms:.1} ms  "));
    let first_ms = report.timed.first_call_s * 1e3;
    let verdict = match max_rel_err {
        Some(error) => format!("{}, relative error {error:.1e}", if *ok { "as expected" } else { "WRONG" }),
        None => "no reference".to_owned(),
    };
    format!(
        "{model} batch {batch} threads {threads}: median {median_ms:.3} ms  min {min_ms:.3}  max {max_ms:.3}  \
         {gflops_per_s:.1} GFLOP/s  compile {compile_ms:.0} ms  {load}first run {first_ms:.0} ms  {verdict}\n"
    )
}

/// Appends a measurement to a file of JSON lines.
pub fn append(path: &Path, report: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(report).map_err(|e| unwritten(path, e))? + "\n";
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| unwritten(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deciles() {
        assert_eq!(ninth_decile(&[]), 0.0);
        assert_eq!(ninth_decile(&[3.0]), 3.0);
        assert_eq!(ninth_decile(&[10.0, 9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]), 9.0);
    }
}
