//! Measurements as JSON, with the names that the measurements of other engines have.

use quearn_tpch::host::{Host, Others};
use quearn_tpch::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A run of the benchmark.
#[derive(Serialize)]
pub struct Report {
    pub engine: &'static str,
    pub version: &'static str,
    pub backend: &'static str,
    pub sf: f64,
    pub threads: usize,
    pub runs: usize,
    pub host: Host,
    pub started: String,
    pub loadavg_before: Option<f64>,
    pub loadavg_after: Option<f64>,
    /// All tables from Parquet into memory.
    pub load_s: f64,
    pub peak_rss_load_mb: Option<u64>,
    pub rss_after_load_mb: Option<u64>,
    pub peak_rss_query_mb: Option<u64>,
    pub others: Option<Others>,
    /// By name, such as `q06`.
    pub queries: BTreeMap<String, Measured>,
}

/// A query, by how it ended.
#[derive(Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum Measured {
    Ok(Times),
    Error { error: String, runs_ms: Vec<f64> },
}

/// A query that ran.
#[derive(Serialize)]
pub struct Times {
    /// From the graph to machine code.
    pub compile_ms: f64,
    /// From the graph to a program that is known already.
    pub compile_again_ms: f64,
    /// Compilation and the first run.
    pub first_ms: f64,
    /// Further runs of the compiled query, each to the complete result as an Arrow batch.
    pub runs_ms: Vec<f64>,
    pub median_ms: f64,
    pub min_ms: f64,
    pub rows: usize,
    /// Was the result right? `None` where there is no expected answer.
    pub ok: Option<bool>,
    pub check: String,
}

impl Measured {
    /// Did the query run, without a wrong result?
    pub fn is_good(&self) -> bool {
        matches!(self, Measured::Ok(times) if times.ok != Some(false))
    }
}

/// Finds out before anything is measured whether the figures can be written.
pub fn check_json(path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
    opened.map(drop).map_err(|e| Error::Write { path: path.display().to_string(), message: e.to_string() })
}

/// Writes figures as a file.
pub fn write_json(path: &Path, figures: &impl Serialize) -> Result<()> {
    let failed = |message: String| Error::Write { path: path.display().to_string(), message };
    let text = serde_json::to_string_pretty(figures).map_err(|e| failed(e.to_string()))?;
    std::fs::write(path, text + "\n").map_err(|e| failed(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_stands_beside_the_times() {
        let failed = Measured::Error { error: "out of luck".into(), runs_ms: vec![] };
        let json = serde_json::to_value(&failed).unwrap();
        assert_eq!(json["status"], "error");
        assert!(!failed.is_good());
    }
}
