//! `bench`: times of queries.

use super::machine::{self, Machine};
use super::progress::Bars;
use super::report::{Measured, Report, Times, check_json, write_json};
use super::{Expected, Selection};
use arrow::array::RecordBatch;
use quearn::Session;
use quearn_tpch::host::{CpuTime, Host};
use quearn_tpch::times::{elapsed_ms, median, rounded};
use quearn_tpch::{Error, Result, catalog, generate, host, queries};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

/// `bench`.
#[derive(clap::Args)]
pub struct Bench {
    /// Scale factor.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    machine: Machine,
    /// Timed runs of each query, after the first.
    #[arg(long, default_value = "5")]
    runs: NonZeroUsize,
    /// File for the measurements.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Bench {
    /// Measures the queries one after the other. Fails, after writing, if one does not give the expected answer.
    pub fn run(self) -> Result<()> {
        check_json(self.json.as_deref())?;
        let numbers = self.selection.numbers();
        // So that an unknown number is found before the tables are loaded.
        numbers.iter().try_for_each(|query| queries::graph(*query).map(drop))?;
        let mut session = self.machine.session()?;
        let mut report = self.load(&mut session)?;
        let (start, cpu) = (Instant::now(), CpuTime::now());
        for query in numbers {
            let measured = self.measure(query, &session);
            super::print(line(query, &measured))?;
            report.queries.insert(format!("q{query:02}"), measured);
        }
        super::print(summary(report.queries.values()))?;
        report.others = cpu.zip(CpuTime::now()).map(|(from, to)| from.until(to, start.elapsed().as_secs_f64()));
        report.peak_rss_query_mb = host::peak_rss_mb();
        report.loadavg_after = host::load_average();
        if let Some(path) = &self.json {
            write_json(path, &report)?;
        }
        match report.queries.values().filter(|measured| !measured.is_good()).count() {
            0 => Ok(()),
            failed => Err(Error::Failed { failed, all: report.queries.len() }),
        }
    }

    /// Loads all tables, whole, as the other engines do, whichever queries follow.
    fn load(&self, session: &mut Session) -> Result<Report> {
        let (started, loadavg_before) = (host::now(), host::load_average());
        let bars = Bars::new();
        generate::generate(self.scale, &bars.progress())?;
        let start = Instant::now();
        let tables = catalog::load(self.scale, &bars.progress())?;
        let load_s = rounded(start.elapsed().as_secs_f64());
        bars.clear();
        tables.into_iter().for_each(|table| session.add_table(table));
        let (peak_rss_load_mb, rss_after_load_mb) = (host::peak_rss_mb(), host::rss_mb());
        host::reset_peak();
        Ok(Report {
            engine: "quearn",
            version: env!("CARGO_PKG_VERSION"),
            backend: session.backend_name(),
            sf: self.scale,
            threads: session.options().threads,
            runs: self.runs.get(),
            host: Host::this(),
            started,
            loadavg_before,
            loadavg_after: None,
            load_s,
            peak_rss_load_mb,
            rss_after_load_mb,
            peak_rss_query_mb: None,
            others: None,
            queries: BTreeMap::new(),
        })
    }

    fn measure(&self, query: u32, session: &Session) -> Measured {
        let mut runs_ms = vec![];
        match self.times(query, session, &mut runs_ms) {
            Ok(times) => Measured::Ok(times),
            Err(error) => Measured::Error { error: error.to_string(), runs_ms },
        }
    }

    fn times(&self, query: u32, session: &Session, runs_ms: &mut Vec<f64>) -> Result<Times> {
        let start = Instant::now();
        let program = session.compile(&queries::graph(query)?)?;
        let (result, _) = machine::run(&program, session)?;
        let first_ms = rounded(elapsed_ms(start));
        let again_ms = session.compile(&queries::graph(query)?)?.compile_ms();
        let (ok, check) = self.check(query, &result);
        for _ in 0..self.runs.get() {
            let start = Instant::now();
            machine::run(&program, session)?;
            runs_ms.push(rounded(elapsed_ms(start)));
        }
        Ok(Times {
            compile_ms: rounded(program.compile_ms()),
            compile_again_ms: rounded(again_ms),
            first_ms,
            median_ms: rounded(median(runs_ms).unwrap_or(first_ms)),
            min_ms: runs_ms.iter().copied().fold(f64::INFINITY, f64::min),
            runs_ms: runs_ms.clone(),
            rows: result.num_rows(),
            ok,
            check,
        })
    }

    fn check(&self, query: u32, result: &RecordBatch) -> (Option<bool>, String) {
        if !self.expected.is_there(self.scale) {
            return (None, format!("no expected answers for scale factor {}", self.scale));
        }
        match self.expected.check(query, self.scale, result) {
            Ok(()) => (Some(true), "as expected".to_owned()),
            Err(mismatch) => (Some(false), mismatch.message),
        }
    }
}

/// Totals and geometric mean of the queries that ran.
fn summary<'m>(measured: impl Iterator<Item = &'m Measured>) -> String {
    let ok = |m: &'m Measured| match m {
        Measured::Ok(times) => Some(times),
        Measured::Error { .. } => None,
    };
    let times: Vec<&Times> = measured.filter_map(ok).collect();
    if times.is_empty() {
        return String::new();
    }
    let total = |of: fn(&Times) -> f64| times.iter().map(|t| of(t)).sum::<f64>();
    let mean = (total(|t| t.median_ms.max(1e-6).ln()) / times.len() as f64).exp();
    let (median, first, compile) = (total(|t| t.median_ms), total(|t| t.first_ms), total(|t| t.compile_ms));
    format!("all  median {median:9.2} ms (geometric mean {mean:.2})  first {first:9.2}  compile {compile:8.1}\n")
}

fn line(query: u32, measured: &Measured) -> String {
    let name = format!("Q{query}");
    match measured {
        Measured::Error { error, .. } => format!("{name:4} failed: {error}\n"),
        Measured::Ok(Times { compile_ms, first_ms, median_ms, min_ms, check, .. }) => format!(
            "{name:4} median {median_ms:9.2} ms  min {min_ms:9.2}  first {first_ms:9.2}  compile {compile_ms:8.1}  {check}\n"
        ),
    }
}
