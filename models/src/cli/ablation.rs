//! `pipelines ablation`: what each rewrite is worth to each pipeline, time and bytes with and without it, in turn.

use super::machine::STOP_AT_MATCH;
use super::pipelines::{Timing, pipeline};
use super::progress::Bars;
use quearn::moved::MoveKind;
use quearn::rewrite::RULES;
use quearn::{Level, Outputs, Program, Session};
use quearn_models::pipelines::{PIPELINES, PLAIN, Pipeline, Results};
use quearn_models::{Error, Result};
use quearn_tpch::times::{elapsed_ms, median};
use std::time::Instant;

/// `pipelines ablation`.
#[derive(clap::Args)]
pub struct Ablation {
    /// All of them, and those that are plainly written, if none is named.
    #[arg(value_parser = pipeline())]
    pipelines: Vec<&'static Pipeline>,
    #[command(flatten)]
    timing: Timing,
}

/// A program with some rewrites, and the session that it runs in.
struct Variant {
    session: Session,
    program: Program,
    runs_ms: Vec<f64>,
    outputs: Outputs,
}

impl Variant {
    fn new(session: Session, pipeline: &Pipeline, scale: f64) -> Result<Variant> {
        let program = session.compile(&pipeline.graph(scale)?)?;
        let outputs = program.run(&session)?;
        Ok(Variant { session, program, runs_ms: vec![], outputs })
    }

    fn run(&mut self) -> Result<()> {
        let start = Instant::now();
        self.outputs = self.program.run(&self.session)?;
        self.runs_ms.push(elapsed_ms(start));
        Ok(())
    }

    fn median_ms(&self) -> f64 {
        median(&self.runs_ms).unwrap_or_default()
    }

    /// Megabytes read, written out and copied.
    fn moved_mb(&self) -> f64 {
        let moved = self.outputs.moved();
        let kinds = [MoveKind::Read, MoveKind::LookedUp, MoveKind::Written, MoveKind::Border];
        kinds.iter().map(|kind| moved.bytes(*kind)).sum::<u64>() as f64 / 1e6
    }
}

impl Ablation {
    /// Prints a row of a table for each rewrite that changes a pipeline.
    pub fn run(&self) -> Result<()> {
        super::print("| pipeline | without | ms with | ms without | times | MB with | MB without |\n")?;
        super::print("|---|---|--:|--:|--:|--:|--:|\n")?;
        let pipelines =
            if self.pipelines.is_empty() { PIPELINES.iter().chain(PLAIN).collect() } else { self.pipelines.clone() };
        pipelines.into_iter().try_for_each(|pipeline| self.rows(pipeline))
    }

    /// Do both give what is expected, or else the same?
    fn check(&self, pipeline: &Pipeline, with: &Variant, without: &Variant) -> Result<()> {
        let scale = self.timing.scale;
        let answer = |variant: &Variant| pipeline.answer(&Results::from(&variant.outputs), scale);
        let [ours, theirs] = [answer(with)?, answer(without)?];
        pipeline.compare(&theirs, &ours)?;
        match pipeline.check(&theirs, scale) {
            Ok(_) | Err(Error::NoExpectation { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn rows(&self, pipeline: &'static Pipeline) -> Result<()> {
        let bars = Bars::new();
        let data = pipeline.data(self.timing.scale, &bars.steps())?;
        bars.clear();
        let session = |rule| -> Result<Session> {
            let mut session = self.timing.machine.session_without(rule)?;
            data.clone().bind(&mut session);
            Ok(session)
        };
        let graph = pipeline.graph(self.timing.scale)?;
        let base = session(None)?;
        let plan = |session: &Session, level| Ok::<_, Error>(session.explain(&graph, level)?);
        let (rewritten, pipelines) = (plan(&base, Level::Rewritten)?, plan(&base, Level::Pipelines)?);
        let mut with = Variant::new(base, pipeline, self.timing.scale)?;
        let rules = RULES.iter().filter(|rule| !rule.required).map(|rule| rule.name);
        for rule in rules.chain([STOP_AT_MATCH]) {
            let other = session(Some(rule))?;
            if plan(&other, Level::Rewritten)? == rewritten && plan(&other, Level::Pipelines)? == pipelines {
                continue;
            }
            // Without pruning, a program reads columns that are not loaded.
            let mut without = match Variant::new(other, pipeline, self.timing.scale) {
                Ok(without) => without,
                Err(error) => {
                    super::print(format!("| {} | {} | – | {error} | | | |\n", pipeline.name, rule))?;
                    continue;
                }
            };
            with.runs_ms.clear();
            for _ in 0..self.timing.runs.get() {
                with.run()?;
                without.run()?;
            }
            self.check(pipeline, &with, &without)?;
            let (ours, theirs) = (with.median_ms(), without.median_ms());
            let (name, times) = (pipeline.name, theirs / ours);
            let [some, all] = [with.moved_mb(), without.moved_mb()];
            super::print(format!(
                "| {name} | {rule} | {ours:.1} | {theirs:.1} | {times:.2} | {some:.1} | {all:.1} |\n"
            ))?;
        }
        Ok(())
    }
}
