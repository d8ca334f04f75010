//! The compiler on one screen: every line is a stage of the picture in `ARCHITECTURE.md`.

use crate::data::Catalog;
use crate::error::Result;
use crate::executable::Executable;
use crate::lower;
use crate::lower::parameter::{self, Parameter};
use crate::options::Options;
use crate::rewrite::{self, RewriteReport};
use quearn_backends::{Backend, CompileOptions};
use quearn_stage::graph::{self, Graph};
use std::time::Instant;

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

/// Verifies and rewrites a graph for the tables of a catalog.
pub fn rewrite(graph: &Graph, catalog: &Catalog, options: &Options) -> Result<Rewritten> {
    let mut watch = Watch(Instant::now());
    graph::verify(graph)?;
    let graph = lower::outputs::as_tables(graph)?;
    let (graph, report) = rewrite::rewrite_for(&graph, catalog, &options.rewrites)?;
    let parameters = parameter::parameters(&graph);
    Ok(Rewritten { graph, report, parameters, ms: watch.lap() })
}

/// Compiles a rewritten graph for the tables of a catalog.
pub fn compile(
    rewritten: Rewritten,
    catalog: &Catalog,
    options: &Options,
    backend: &dyn Backend,
) -> Result<Executable> {
    let Rewritten { graph, report, parameters, ms } = rewritten;
    let mut phases = vec![("rewrite", ms)];
    let mut watch = Watch(Instant::now());

    let mut lowered = lower::lower(&graph, &parameters, catalog, options.stop_at_match)?;
    lowered.interface.rely_on(report.facts());
    phases.push(("lower", watch.lap()));

    let code = backend.compile(&lowered.module, &settings(options))?;
    phases.push(("backend", watch.lap()));

    tracing::debug!(?phases, functions = lowered.module.funcs.len(), "compiled");
    Ok(Executable::new(lowered.interface, code, phases))
}

/// What the backend is told.
pub fn settings(options: &Options) -> CompileOptions {
    CompileOptions { level: options.level, threads: 0 }
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
