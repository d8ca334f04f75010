//! `profile`: where the time of a query goes, pipeline by pipeline.

use super::machine::{self, Machine};
use super::report::{check_json, write_json};
use quearn::Session;
use quearn::profile::{PipelineProfile, Profile};
use quearn_tpch::host::Host;
use quearn_tpch::times::rounded;
use quearn_tpch::{Result, host, queries};
use serde::Serialize;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// `profile`.
#[derive(clap::Args)]
pub struct ProfileQuery {
    /// Number of the query.
    #[arg(long)]
    query: u32,
    /// Scale factor.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    #[command(flatten)]
    machine: Machine,
    /// Profiled runs, after one that is not; the one of median time is shown.
    #[arg(long, default_value = "5")]
    runs: NonZeroUsize,
    /// File for the profile.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// A profile as JSON.
#[derive(Serialize)]
struct Report {
    query: u32,
    sf: f64,
    backend: &'static str,
    threads: usize,
    host: Host,
    started: String,
    runs_ms: Vec<f64>,
    compile_ms: BTreeMap<&'static str, f64>,
    run_ms: f64,
    serial_ms: f64,
    calls: BTreeMap<&'static str, Calls>,
    pipelines: Vec<Pipeline>,
}

/// Calls of a runtime function outside of loops.
#[derive(Serialize)]
struct Calls {
    calls: u64,
    ms: f64,
}

#[derive(Serialize)]
struct Pipeline {
    name: String,
    fused: Vec<String>,
    materialised: Vec<String>,
    wall_ms: Option<f64>,
    busy_ms: Vec<f64>,
    imbalance: f64,
    runs: u64,
    tiles: u64,
    items: u64,
    bytes: Option<u64>,
    cycles: Option<u64>,
    instructions: Option<u64>,
}

impl ProfileQuery {
    /// Prints the profile.
    pub fn run(self) -> Result<()> {
        check_json(self.json.as_deref())?;
        let graph = queries::graph(self.query)?;
        let session = self.machine.session_for(std::slice::from_ref(&graph), self.scale)?;
        let started = host::now();
        let program = session.compile(&graph)?;
        machine::run(&program, &session)?;
        let profile = || Ok(program.profile(&session)?);
        let mut profiles = (0..self.runs.get()).map(|_| profile()).collect::<Result<Vec<Profile>>>()?;
        let runs_ms = profiles.iter().map(|p| rounded(p.outputs.run_ms)).collect();
        profiles.sort_by(|a, b| a.outputs.run_ms.total_cmp(&b.outputs.run_ms));
        let middle = &profiles[(profiles.len() - 1) / 2];
        super::print(middle.to_string())?;
        self.json.as_ref().map_or(Ok(()), |path| write_json(path, &self.report(middle, &session, started, runs_ms)))
    }

    fn report(&self, profile: &Profile, session: &Session, started: String, runs_ms: Vec<f64>) -> Report {
        Report {
            query: self.query,
            sf: self.scale,
            backend: session.backend_name(),
            threads: session.options().threads,
            host: Host::this(),
            started,
            runs_ms,
            compile_ms: profile.compile.iter().map(|(phase, ms)| (*phase, rounded(*ms))).collect(),
            run_ms: rounded(profile.outputs.run_ms),
            serial_ms: rounded(profile.serial_ms),
            calls: profile.calls.iter().map(|c| (c.name, Calls { calls: c.calls, ms: rounded(c.ms) })).collect(),
            pipelines: profile.pipelines.iter().map(Pipeline::of).collect(),
        }
    }
}

impl Pipeline {
    fn of(profile: &PipelineProfile) -> Pipeline {
        Pipeline {
            name: profile.name.clone(),
            fused: profile.fused.clone(),
            materialised: profile.materialised.clone(),
            wall_ms: profile.wall_ms.map(rounded),
            busy_ms: profile.busy_ms.iter().copied().map(rounded).collect(),
            imbalance: rounded(profile.imbalance()),
            runs: profile.runs,
            tiles: profile.tiles,
            items: profile.items,
            bytes: profile.bytes,
            cycles: profile.counted.map(|c| c.cycles),
            instructions: profile.counted.map(|c| c.instructions),
        }
    }
}
