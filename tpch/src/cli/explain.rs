//! `explain`: a query at a level of the compiler.

use super::machine::Machine;
use quearn::Level;
use quearn_tpch::{Result, queries};

/// `explain`.
#[derive(clap::Args)]
pub struct Explain {
    /// Number of the query.
    query: u32,
    /// graph, rewritten, pipelines, low, llvm or asm.
    #[arg(long, default_value = "pipelines")]
    level: Level,
    /// Scale factor of the tables, whose statistics the compiled program depends on.
    #[arg(long, default_value_t = 0.01)]
    scale: f64,
    #[command(flatten)]
    machine: Machine,
}

impl Explain {
    /// Prints the query.
    pub fn run(self) -> Result<()> {
        let graph = queries::graph(self.query)?;
        if self.level == Level::Graph {
            return super::print(graph.to_string());
        }
        let session = self.machine.session_for(std::slice::from_ref(&graph), self.scale)?;
        let (scale, backend) = (self.scale, session.backend_name());
        super::note(&format!("compiled for the tables of scale factor {scale} on {backend}"));
        super::print(session.explain(&graph, self.level)?.trim_end().to_owned() + "\n")
    }
}
