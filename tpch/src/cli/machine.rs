//! Settings of the session, and a session with the tables that queries need.

use super::progress::Bars;
use arrow::array::RecordBatch;
use clap::ValueEnum;
use quearn::rewrite::rewrite;
use quearn::{BackendKind, Program, Session};
use quearn_stage::graph::Graph;
use quearn_tpch::queries::RESULT;
use quearn_tpch::{Result, catalog};

/// Where programs run.
#[derive(clap::Args)]
pub struct Machine {
    /// Worker threads; 0, the default, means one for each processor.
    #[arg(long)]
    pub threads: Option<usize>,
    /// What runs the compiled programs.
    #[arg(long, value_enum, default_value_t)]
    pub backend: Backend,
}

/// What runs programs.
#[derive(Clone, Copy, ValueEnum, Default)]
pub enum Backend {
    /// LLVM if it was built in, else the interpreter.
    #[default]
    Auto,
    /// Machine code made by LLVM.
    Llvm,
    /// The interpreter: slow, for checking.
    Interp,
}

impl Machine {
    /// A session without tables.
    pub fn session(&self) -> Result<Session> {
        let backend = match self.backend {
            Backend::Auto => BackendKind::Auto,
            Backend::Llvm => BackendKind::Llvm,
            Backend::Interp => BackendKind::Interp,
        };
        Ok(Session::builder().threads(self.threads.unwrap_or(0)).backend(backend).build()?)
    }

    /// A session with the columns that these programs read.
    pub fn session_for(&self, graphs: &[Graph], scale: f64) -> Result<Session> {
        let mut session = self.session()?;
        // What a program reads is known once it is rewritten.
        let read = |graph| Ok(rewrite(graph, &session.options().rewrites).map_err(quearn::Error::from)?.0);
        let rewritten = graphs.iter().map(read).collect::<Result<Vec<_>>>()?;
        let bars = Bars::new();
        let tables = catalog::load_scanned(scale, &rewritten, &bars.progress())?;
        bars.clear();
        tables.into_iter().for_each(|table| session.add_table(table));
        Ok(session)
    }
}

/// The result of a query that has been run, and the milliseconds that it ran.
pub fn run(program: &Program, session: &Session) -> Result<(RecordBatch, f64)> {
    let outputs = program.run(session)?;
    Ok((outputs.table(RESULT)?.clone(), outputs.run_ms))
}
