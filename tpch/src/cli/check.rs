//! `check`: results of queries against the expected answers.

use super::machine::{self, Backend, Machine};
use super::{Expected, Selection};
use clap::ValueEnum;
use quearn::Session;
use quearn_stage::graph::Graph;
use quearn_tpch::{Error, Result, queries};

/// `check`.
#[derive(clap::Args)]
pub struct Check {
    /// Scale factor: 0.01 or 1, others with --answers.
    #[arg(long, default_value_t = 0.01)]
    scale: f64,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    expected: Expected,
    /// Worker threads; one for each processor by default.
    #[arg(long)]
    threads: Option<usize>,
    /// What runs the compiled programs.
    #[arg(long, value_enum, default_value_t)]
    backend: Backends,
}

#[derive(Clone, Copy, ValueEnum, Default)]
enum Backends {
    /// LLVM if it was built in, else the interpreter.
    #[default]
    Auto,
    Llvm,
    Interp,
    Both,
}

impl Backends {
    fn each(self) -> &'static [Backend] {
        match self {
            Backends::Auto => &[Backend::Auto],
            Backends::Llvm => &[Backend::Llvm],
            Backends::Interp => &[Backend::Interp],
            Backends::Both => &[Backend::Llvm, Backend::Interp],
        }
    }
}

impl Check {
    /// Checks every query on every backend, and fails if one does.
    pub fn run(self) -> Result<()> {
        let numbers = self.selection.numbers();
        let graphs = numbers.iter().map(|query| queries::graph(*query)).collect::<Result<Vec<_>>>()?;
        let mut failed = 0;
        for &backend in self.backend.each() {
            let machine = Machine { threads: self.threads, backend };
            let session = machine.session_for(&graphs, self.scale)?;
            for (query, graph) in numbers.iter().zip(&graphs) {
                let outcome = self.check(*query, graph, &session);
                failed += usize::from(outcome.is_err());
                let verdict = outcome.map_or_else(|error| format!("FAILED: {error}"), |()| "as expected".to_owned());
                super::print(format!("Q{query} on {}: {verdict}\n", session.backend_name()))?;
            }
        }
        match failed {
            0 => Ok(()),
            _ => Err(Error::Failed { failed, all: numbers.len() * self.backend.each().len() }),
        }
    }

    fn check(&self, query: u32, graph: &Graph, session: &Session) -> Result<()> {
        let (result, _) = machine::run(&session.compile(graph)?, session)?;
        Ok(self.expected.check(query, self.scale, &result)?)
    }
}
