//! `pipeline`: results and times of a query with a network in it.

use super::machine::Machine;
use super::measure::{Measured, Runs, measure};
use super::pictures::{Pictures, Set};
use super::progress::Bars;
use super::unwritten;
use clap::ValueEnum;
use quearn_models::Result;
use quearn_tpch::host;
use quearn_tpch::times::{elapsed_ms, rounded};
use serde::Serialize;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// `pipeline`.
#[derive(clap::Args)]
pub struct Pipeline {
    /// The pipeline.
    #[arg(long, value_enum, default_value = "image_classes")]
    name: Name,
    /// Set of pictures.
    #[arg(long, value_enum, default_value = "a")]
    set: Set,
    /// Scale: 1 is 4000 pictures of set a, or 400 of set b.
    #[arg(long, default_value = "1", value_parser = super::scale)]
    scale: f64,
    #[command(flatten)]
    machine: Machine,
    /// Timed runs, after the first.
    #[arg(long, default_value = "5")]
    runs: NonZeroUsize,
    /// Compare the result with the expected one (scales 0.01 and 1); a difference is a failure.
    #[arg(long)]
    check: bool,
    /// File for the measurements and the result.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// Pictures chosen by a query, classified by SqueezeNet, counted by class.
    #[value(name = "image_classes")]
    ImageClasses,
}

impl Pipeline {
    /// Measures the pipeline. Fails, after writing, if its result is to be checked and is not as expected.
    pub fn run(self) -> Result<()> {
        let Name::ImageClasses = self.name;
        let pictures = Pictures { set: self.set, scale: self.scale };
        let (start, bars) = (Instant::now(), Bars::new());
        let session = pictures.session(&self.machine, &bars)?;
        let setup_ms = elapsed_ms(start);
        bars.clear();
        let measured = measure(&session, &pictures.graph()?, Runs::Count(self.runs))?;
        super::print(line(pictures, &measured))?;
        if let Some(path) = &self.json {
            report(pictures, session.options().threads, setup_ms, &measured)?.write(path)?;
        }
        match self.check {
            true => super::print(verdict(pictures.check(&measured.outputs)?)),
            false => Ok(()),
        }
    }
}

/// A measurement, with the names that the measurements of other stacks have.
#[derive(Serialize)]
struct Report {
    pipeline: String,
    stack: &'static str,
    version: &'static str,
    threads: usize,
    start: &'static str,
    scale: String,
    best_ms: f64,
    median_ms: f64,
    times_ms: Vec<f64>,
    /// Query and network are one program: there are no stages to tell apart.
    stages_of_best_ms: BTreeMap<&'static str, f64>,
    moved_ms: f64,
    compile_ms: f64,
    /// Compilation and the first run.
    first_ms: f64,
    setup_ms: f64,
    peak_mb: Option<u64>,
    result: BTreeMap<&'static str, Vec<i64>>,
}

impl Report {
    fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(self).map_err(|e| unwritten(path, e))? + "\n";
        std::fs::write(path, text).map_err(|e| unwritten(path, e))
    }
}

fn report(pictures: Pictures, threads: usize, setup_ms: f64, measured: &Measured) -> Result<Report> {
    let counts = pictures.counts(&measured.outputs)?;
    let best_ms = rounded(measured.min_ms());
    Ok(Report {
        pipeline: pictures.peer_name(),
        stack: "quearn",
        version: env!("CARGO_PKG_VERSION"),
        threads,
        start: "memory",
        scale: pictures.scale.to_string(),
        best_ms,
        median_ms: rounded(measured.median_ms()),
        times_ms: measured.runs_ms.iter().copied().map(rounded).collect(),
        stages_of_best_ms: [("fused", best_ms)].into(),
        moved_ms: 0.0,
        compile_ms: rounded(measured.compile_ms),
        first_ms: rounded(measured.first_ms()),
        setup_ms: rounded(setup_ms),
        peak_mb: host::peak_rss_mb(),
        result: [("hist", counts.hist), ("n", counts.n)].into(),
    })
}

fn line(pictures: Pictures, measured: &Measured) -> String {
    format!(
        "{} scale {}: median {:.1} ms  min {:.1}  first {:.1}  compile {:.1}\n",
        pictures.peer_name(),
        pictures.scale,
        measured.median_ms(),
        measured.min_ms(),
        measured.first_ms(),
        measured.compile_ms,
    )
}

fn verdict(differing: Option<f64>) -> String {
    match differing {
        Some(share) => format!("as expected, {:.1} % of the pictures in another class\n", share * 100.0),
        None => "no reference for this scale\n".to_owned(),
    }
}
