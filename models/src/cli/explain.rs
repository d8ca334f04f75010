//! `explain`: a network or a pipeline at a level of the compiler.

use super::machine::Machine;
use super::pipelines;
use super::progress::Bars;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use quearn::Level;
use quearn_models::Result;
use quearn_models::networks::{NETWORKS, Network};
use quearn_models::pipelines::{PIPELINES, Pipeline};
use std::collections::BTreeMap;

/// `explain`.
#[derive(clap::Args)]
pub struct Explain {
    /// A network or a pipeline.
    #[arg(value_parser = program())]
    program: Program,
    /// graph, rewritten, pipelines, low, llvm or asm.
    #[arg(long, default_value = "pipelines")]
    level: Level,
    /// Items in a batch of a network.
    #[arg(long, default_value_t = 1)]
    batch: u64,
    /// Scale of the data of a pipeline.
    #[arg(long, default_value = "0.01", value_parser = super::scale)]
    scale: f64,
    #[command(flatten)]
    machine: Machine,
}

/// What can be explained.
#[derive(Clone, Copy)]
enum Program {
    Network(&'static Network),
    Pipeline(&'static Pipeline),
}

/// Reads the name of a program.
fn program() -> impl TypedValueParser<Value = Program> {
    let names = NETWORKS.iter().map(|n| n.name).chain(PIPELINES.iter().map(|p| p.name));
    PossibleValuesParser::new(names).map(|name| match (Network::find(&name), Pipeline::find(&name)) {
        (Some(network), _) => Program::Network(network),
        (None, pipeline) => Program::Pipeline(pipeline.expect("one of the names")),
    })
}

impl Explain {
    /// Prints the program.
    pub fn run(self) -> Result<()> {
        let text = match self.program {
            Program::Network(network) => {
                let graph = network.graph(&network.seeded_inputs(self.batch, &BTreeMap::new())?)?;
                self.machine.session()?.explain(&graph, self.level)?
            }
            Program::Pipeline(pipeline) => self.pipeline(pipeline)?,
        };
        super::print(text.trim_end().to_owned() + "\n")
    }

    fn pipeline(&self, pipeline: &Pipeline) -> Result<String> {
        let graph = pipeline.graph(self.scale)?;
        if self.level == Level::Graph {
            return Ok(graph.to_string());
        }
        let bars = Bars::new();
        let session = pipelines::session(pipeline, self.scale, &self.machine, &bars)?;
        bars.clear();
        Ok(session.explain(&graph, self.level)?)
    }
}
