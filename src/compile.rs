//! The compiler on one screen: every line is a stage of the picture in `ARCHITECTURE.md`.

use crate::data::Catalog;
use crate::error::Result;
use crate::lower::parameter::{self, Parameter};
use crate::lower::{self, Lowered};
use crate::options::Options;
use crate::rewrite::{self, RewriteReport};
use quearn_backends::{Backend, Code, CompileOptions};
use quearn_stage::graph::{self, Graph};
use std::time::Instant;

/// A compiled program with everything that `explain` shows.
pub struct Compiled {
    /// The graph after rewriting.
    pub graph: Graph,
    /// Which rewrites fired.
    pub report: RewriteReport,
    /// The low-level program and how to bind it.
    pub lowered: Lowered,
    /// What runs.
    pub code: Box<dyn Code>,
    /// Milliseconds of each phase.
    pub phases: Vec<(&'static str, f64)>,
}

impl Compiled {
    /// Milliseconds of each phase, the backend's own phases among them.
    pub fn phases(&self) -> Vec<(&'static str, f64)> {
        self.phases.iter().copied().chain(self.code.compile_ms()).collect()
    }
}

/// A graph after the rewrites: all that is needed to know whether it was compiled before.
pub struct Rewritten {
    /// The graph after rewriting.
    pub graph: Graph,
    /// Which rewrites fired.
    pub report: RewriteReport,
    /// Literals that the program gets when it runs.
    pub parameters: Vec<Parameter>,
    /// Milliseconds.
    pub ms: f64,
}

/// Verifies and rewrites a graph.
pub fn rewrite(graph: &Graph, options: &Options) -> Result<Rewritten> {
    let mut watch = Watch(Instant::now());
    graph::verify(graph)?;
    let graph = lower::outputs::as_tables(graph)?;
    let (graph, report) = rewrite::rewrite(&graph, &options.rewrites)?;
    let parameters = parameter::parameters(&graph);
    Ok(Rewritten { graph, report, parameters, ms: watch.lap() })
}

/// Compiles a rewritten graph for the tables of a catalog.
pub fn compile(rewritten: Rewritten, catalog: &Catalog, options: &Options, backend: &dyn Backend) -> Result<Compiled> {
    let Rewritten { graph, report, parameters, ms } = rewritten;
    let mut phases = vec![("rewrite", ms)];
    let mut watch = Watch(Instant::now());

    let lowered = lower::lower(&graph, &parameters, catalog)?;
    phases.push(("lower", watch.lap()));

    let settings = CompileOptions { level: options.level, threads: 0 };
    let code = backend.compile(&lowered.module, &settings)?;
    phases.push(("backend", watch.lap()));

    tracing::debug!(?phases, functions = lowered.module.funcs.len(), "compiled");
    Ok(Compiled { graph, report, lowered, code, phases })
}

struct Watch(Instant);

impl Watch {
    fn lap(&mut self) -> f64 {
        let now = Instant::now();
        let passed = now.duration_since(self.0).as_secs_f64() * 1e3;
        self.0 = now;
        passed
    }
}
