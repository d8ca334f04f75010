//! `micro`: times of single operators, as shares of what the processor could do.

use super::bench::append;
use super::machine::Machine;
use super::measure::{Measured, Runs, measure_beside};
use quearn::machine::fma_meter;
use quearn_models::Result;
use quearn_models::operators::{self, Operator};
use quearn_tpch::times::{median, rounded};
use serde::Serialize;
use std::path::PathBuf;

/// `micro`.
#[derive(clap::Args)]
pub struct Micro {
    #[command(flatten)]
    machine: Machine,
    /// Groups of operators: gemm, conv, attn, norm.
    #[arg(long, value_delimiter = ',', default_value = "gemm,conv,attn,norm")]
    only: Vec<String>,
    /// Operators whose name contains this.
    #[arg(long, default_value = "")]
    name: String,
    /// Seconds of timed runs for each operator.
    #[arg(long, default_value = "0.35")]
    seconds: f64,
    /// File that the measurements are appended to, a line of JSON each.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A measurement, with the names that the measurements of other engines have.
#[derive(Serialize)]
struct Report<'a> {
    kind: &'static str,
    op: &'a str,
    shape: &'a str,
    engine: &'static str,
    dtype: &'static str,
    threads: usize,
    median_ms: f64,
    min_ms: f64,
    gflops_per_s: f64,
    gbytes_per_s: f64,
    /// Share of the rate of multiply-adds, measured after each run, times the number of threads.
    of_peak: f64,
    compile_ms: f64,
}

impl Micro {
    /// Measures the operators, and the processor beside them: its clock changes.
    pub fn run(self) -> Result<()> {
        for operator in operators::all() {
            if self.only.iter().any(|group| group == operator.group()) && operator.name.contains(&self.name) {
                self.operator(&operator)?;
            }
        }
        Ok(())
    }

    fn operator(&self, operator: &Operator) -> Result<()> {
        let graph = operator.graph()?;
        let (inputs, weights) = operator.tensors(&graph)?;
        let mut session = self.machine.session_with(weights)?;
        inputs.into_iter().for_each(|(name, tensor)| session.bind(name, tensor));
        let threads = session.options().threads;
        let meter = fma_meter()?;
        let mut rates = vec![];
        let measured = measure_beside(&session, &session.compile(&graph)?, Runs::Seconds(self.seconds), || {
            rates.push(meter.flops())
        })?;
        let shares = measured.runs_ms.iter().zip(&rates);
        let shares: Vec<f64> =
            shares.map(|(ms, rate)| operator.flops() as f64 / (ms / 1e3 * rate * threads as f64)).collect();
        let report = report(operator, threads, median(&shares).unwrap_or(0.0), &measured);
        super::print(line(&report))?;
        self.json.as_ref().map_or(Ok(()), |path| append(path, &report))
    }
}

fn report<'a>(operator: &'a Operator, threads: usize, of_peak: f64, measured: &Measured) -> Report<'a> {
    let rate = |amount: u64| amount as f64 / measured.median_ms() * 1e3;
    Report {
        kind: "micro",
        op: operator.group(),
        shape: &operator.name,
        engine: "quearn",
        dtype: "f32",
        threads,
        median_ms: rounded(measured.median_ms()),
        min_ms: rounded(measured.min_ms()),
        gflops_per_s: rounded(rate(operator.flops()) / 1e9),
        gbytes_per_s: rounded(rate(operator.bytes()) / 1e9),
        of_peak: rounded(of_peak),
        compile_ms: rounded(measured.compile_ms),
    }
}

fn line(report: &Report<'_>) -> String {
    let Report { op, shape, threads, median_ms, min_ms, gflops_per_s, gbytes_per_s, of_peak, .. } = report;
    let rate = match *gflops_per_s > 0.0 {
        true => format!("{gflops_per_s:7.1} GFLOP/s {:5.1} % of peak", of_peak * 100.0),
        false => format!("{gbytes_per_s:7.1} GB/s"),
    };
    format!("{op:5} {shape:24} threads {threads}: median {median_ms:9.4} ms  min {min_ms:9.4}  {rate}\n")
}
