//! `pipelines`: results and times of programs that are queries and models.

use super::ablation::Ablation;
use super::machine::Machine;
use super::measure::{Measured, Runs, measure_beside};
use super::progress::Bars;
use super::unwritten;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use quearn::moved::MoveKind;
use quearn::{Program, Session};
use quearn_models::pipelines::{ALONE, Alone as Model, Answer, PIPELINES, PLAIN, Pipeline, Results};
use quearn_models::{Error, Result};
use quearn_tpch::host;
use quearn_tpch::times::{elapsed_ms, median, rounded};
use serde::Serialize;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// `pipelines`.
#[derive(clap::Args)]
pub struct Pipelines {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// The pipelines, and what they are.
    List,
    /// Run a pipeline once and print its results.
    Run(Run),
    /// Compare results with those of other systems (at the scales 0.01 and 1).
    Check(Check),
    /// Measure a pipeline.
    Bench(Bench),
    /// Show where the time of a pipeline goes, loop by loop; loops of models run inside those of the query.
    Profile(Run),
    /// Measure a pipeline and its model alone, on data in place, in turn.
    Alone(Alone),
    /// Measure pipelines with and without each rewrite that changes them.
    Ablation(Ablation),
}

#[derive(clap::Args)]
struct Run {
    #[arg(value_parser = pipeline())]
    pipeline: &'static Pipeline,
    #[command(flatten)]
    setting: Setting,
    /// File for the measurement and the answer.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Check {
    /// All of them if none is named.
    #[arg(value_parser = pipeline())]
    pipelines: Vec<&'static Pipeline>,
    #[command(flatten)]
    setting: Setting,
}

#[derive(clap::Args)]
struct Bench {
    #[arg(required = true, value_parser = pipeline())]
    pipelines: Vec<&'static Pipeline>,
    #[command(flatten)]
    timing: Timing,
    /// File for the measurements and answers, a line each.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(clap::Args)]
struct Alone {
    #[arg(value_parser = with_model())]
    pipeline: &'static Model,
    #[command(flatten)]
    timing: Timing,
}

/// Reads the name of a pipeline whose model can be run alone.
fn with_model() -> impl TypedValueParser<Value = &'static Model> {
    let names = PossibleValuesParser::new(ALONE.iter().map(|alone| alone.pipeline().name));
    names.map(|name| Model::find(&name).expect("one of the names"))
}

/// How pipelines are measured.
#[derive(clap::Args)]
pub struct Timing {
    /// Scale: 1 for the sizes at which the peers are measured.
    #[arg(long, default_value = "1", value_parser = super::scale)]
    pub scale: f64,
    /// The session.
    #[command(flatten)]
    pub machine: Machine,
    /// Timed runs of each program, after the first.
    #[arg(long, default_value = "5")]
    pub runs: NonZeroUsize,
}

#[derive(clap::Args)]
struct Setting {
    /// Scale; 1 is what the peers are measured with.
    #[arg(long, default_value = "0.01", value_parser = super::scale)]
    scale: f64,
    #[command(flatten)]
    machine: Machine,
}

/// Reads the name of a pipeline.
pub fn pipeline() -> impl TypedValueParser<Value = &'static Pipeline> {
    let names = PossibleValuesParser::new(PIPELINES.iter().chain(PLAIN).map(|pipeline| pipeline.name));
    names.map(|name| Pipeline::find(&name).expect("one of the names"))
}

impl Pipelines {
    /// Does what the command line says.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::List => {
                let line = |pipeline: &Pipeline| format!("{:10} {}\n", pipeline.name, pipeline.about);
                super::print(PIPELINES.iter().chain(PLAIN).map(line).collect::<String>())
            }
            Command::Run(command) => command.run(),
            Command::Check(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Profile(command) => command.profile(),
            Command::Alone(command) => command.run(),
            Command::Ablation(command) => command.run(),
        }
    }
}

impl Run {
    fn run(&self) -> Result<()> {
        let Setting { scale, machine } = &self.setting;
        let case = Case::set_up(self.pipeline, *scale, machine)?;
        let outputs = case.program.run(&case.session)?;
        let times = format!("run {:.1} ms, compile {:.1} ms", outputs.run_ms, case.program.compile_ms());
        super::print(format!("{outputs}{times}\n{}", outputs.moved()))?;
        match &self.json {
            Some(path) => write(path, &[case.measure(NonZeroUsize::MIN)?]),
            None => Ok(()),
        }
    }

    /// Prints the profile of the second run.
    fn profile(&self) -> Result<()> {
        let Setting { scale, machine } = &self.setting;
        let case = Case::set_up(self.pipeline, *scale, machine)?;
        case.program.run(&case.session)?;
        super::print(super::profile::text(&case.program.profile(&case.session)?))
    }
}

impl Check {
    fn run(&self) -> Result<()> {
        let all: Vec<&Pipeline> = match self.pipelines.is_empty() {
            true => PIPELINES.iter().collect(),
            false => self.pipelines.clone(),
        };
        let mut failed = 0;
        for pipeline in &all {
            let outcome = self.check(pipeline);
            failed += usize::from(outcome.is_err());
            let verdict = match outcome {
                Ok(share) => format!("as expected, {:.1} % of the tolerance", share * 100.0),
                Err(error) => format!("FAILED: {error}"),
            };
            super::print(format!("{:4} {verdict}\n", pipeline.name))?;
        }
        self::failed(failed, all.len())
    }

    fn check(&self, pipeline: &'static Pipeline) -> Result<f64> {
        let Setting { scale, machine } = &self.setting;
        let case = Case::set_up(pipeline, *scale, machine)?;
        let outputs = case.program.run(&case.session)?;
        pipeline.check(&pipeline.answer(&Results::from(&outputs), *scale)?, *scale)
    }
}

impl Bench {
    /// Measures the pipelines one after the other. Fails, after writing, if one does not give the expected answer.
    fn run(&self) -> Result<()> {
        let mut reports: Vec<Report> = vec![];
        for pipeline in &self.pipelines {
            let report = Case::set_up(pipeline, self.timing.scale, &self.timing.machine)?.measure(self.timing.runs)?;
            super::print(report.line())?;
            reports.push(report);
            if let Some(path) = &self.json {
                write(path, &reports)?;
            }
        }
        failed(reports.iter().filter(|report| report.is_wrong()).count(), reports.len())
    }
}

impl Alone {
    /// Prints both times and their ratio.
    fn run(&self) -> Result<()> {
        let (pipeline, Timing { scale, machine, runs }) = (self.pipeline.pipeline(), &self.timing);
        let mut case = Case::set_up(pipeline, *scale, machine)?;
        let outputs = case.program.run(&case.session)?;
        let rows = self.pipeline.rows(&pipeline.answer(&Results::from(&outputs), *scale)?);
        let graph = self.pipeline.graph(&mut case.session, rows)?;
        let model = case.session.compile(&graph)?;
        model.run(&case.session)?;
        let mut times = [vec![], vec![]];
        for _ in 0..runs.get() {
            for (program, times) in [&case.program, &model].into_iter().zip(&mut times) {
                let start = Instant::now();
                program.run(&case.session)?;
                times.push(elapsed_ms(start));
            }
        }
        let [whole, model] = times.map(|times| median(&times).unwrap_or_default());
        let threads = case.session.options().threads;
        super::print(format!(
            "{} scale {scale} threads {threads}: {whole:.1} ms, its model alone on {rows} rows in place {model:.1} ms, {:.2} \
             times\n",
            pipeline.name,
            whole / model
        ))
    }
}

/// The outcome of a command of which so many parts failed.
fn failed(failed: usize, all: usize) -> Result<()> {
    if failed == 0 { Ok(()) } else { Err(Error::Failed { failed, all }) }
}

/// A pipeline with its data, compiled.
struct Case {
    pipeline: &'static Pipeline,
    scale: f64,
    session: Session,
    program: Program,
    setup_ms: f64,
}

impl Case {
    fn set_up(pipeline: &'static Pipeline, scale: f64, machine: &Machine) -> Result<Case> {
        let (start, bars) = (Instant::now(), Bars::new());
        let session = session(pipeline, scale, machine, &bars)?;
        let setup_ms = elapsed_ms(start);
        bars.clear();
        let program = session.compile(&pipeline.graph(scale)?)?;
        Ok(Case { pipeline, scale, session, program, setup_ms })
    }

    fn measure(&self, runs: NonZeroUsize) -> Result<Report> {
        let measured = measure_beside(&self.session, &self.program, Runs::Count(runs), || ())?;
        Ok(self.report(&measured, self.pipeline.answer(&Results::from(&measured.outputs), self.scale)?))
    }

    fn report(&self, measured: &Measured, result: Answer) -> Report {
        let best_ms = rounded(measured.min_ms());
        Report {
            pipeline: self.pipeline.name,
            stack: "quearn",
            version: env!("CARGO_PKG_VERSION"),
            threads: self.session.options().threads,
            start: "memory",
            scale: self.scale.to_string(),
            best_ms,
            median_ms: rounded(measured.median_ms()),
            times_ms: measured.runs_ms.iter().copied().map(rounded).collect(),
            stages_of_best_ms: [("fused", best_ms)].into(),
            moved_ms: 0.0,
            moved_bytes: MoveKind::ALL.map(|kind| (kind.to_string(), measured.outputs.moved().bytes(kind))).into(),
            compile_ms: rounded(measured.compile_ms),
            first_ms: rounded(measured.first_ms()),
            setup_ms: rounded(self.setup_ms),
            peak_mb: host::peak_rss_mb(),
            check: self.pipeline.check(&result, self.scale).map(|_| ()),
            result,
        }
    }
}

/// A session with the data of a pipeline.
pub fn session(pipeline: &Pipeline, scale: f64, machine: &Machine, bars: &Bars) -> Result<Session> {
    let mut session = machine.session()?;
    pipeline.data(scale, &bars.steps())?.bind(&mut session);
    Ok(session)
}

/// A measurement, with the names that the measurements of other stacks have.
#[derive(Serialize)]
struct Report {
    pipeline: &'static str,
    stack: &'static str,
    version: &'static str,
    threads: usize,
    start: &'static str,
    scale: String,
    best_ms: f64,
    median_ms: f64,
    times_ms: Vec<f64>,
    /// Query and model are one program: there are no stages to tell apart.
    stages_of_best_ms: BTreeMap<&'static str, f64>,
    moved_ms: f64,
    /// Bytes read, written and copied in a run, by kind.
    moved_bytes: BTreeMap<String, u64>,
    compile_ms: f64,
    /// Compilation and the first run.
    first_ms: f64,
    setup_ms: f64,
    peak_mb: Option<u64>,
    /// Is the result as expected?
    #[serde(skip)]
    check: Result<()>,
    result: Answer,
}

impl Report {
    /// Is another result known?
    fn is_wrong(&self) -> bool {
        !matches!(self.check, Ok(()) | Err(Error::NoExpectation { .. }))
    }

    fn line(&self) -> String {
        let Report { pipeline, scale, threads, median_ms, best_ms, first_ms, compile_ms, moved_bytes, .. } = self;
        let border = moved_bytes.get(&MoveKind::Border.to_string()).copied().unwrap_or(0);
        let verdict = match &self.check {
            Ok(()) => "as expected".to_owned(),
            Err(Error::NoExpectation { .. }) => "not checked".to_owned(),
            Err(error) => format!("FAILED: {error}"),
        };
        format!(
            "{pipeline:4} scale {scale} threads {threads}: median {median_ms:.1} ms  min {best_ms:.1}  first \
             {first_ms:.1}  compile {compile_ms:.1}  border {border} bytes  {verdict}\n"
        )
    }
}

/// Writes reports to a file, a line each, in the place of what it held.
fn write(path: &Path, reports: &[Report]) -> Result<()> {
    let lines = reports.iter().map(|report| serde_json::to_string(report).map(|line| line + "\n"));
    let text = lines.collect::<std::result::Result<String, _>>().map_err(|e| unwritten(path, e))?;
    std::fs::write(path, text).map_err(|e| unwritten(path, e))
}
