//! `explain`: a network or a pipeline at a level of the compiler.

use super::machine::Machine;
use super::pictures::{Pictures, Set};
use super::progress::Bars;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use quearn::Level;
use quearn_models::Result;
use quearn_models::networks::{NETWORKS, Network};
use std::collections::BTreeMap;

/// `explain`.
#[derive(clap::Args)]
pub struct Explain {
    /// A network, or `image_classes`: pictures chosen by a query, classified by SqueezeNet, counted by class.
    #[arg(value_parser = program())]
    program: Program,
    /// graph, rewritten, pipelines, low, llvm or asm.
    #[arg(long, default_value = "pipelines")]
    level: Level,
    /// Items in a batch of a network.
    #[arg(long, default_value_t = 1)]
    batch: u64,
    /// Set of pictures of a pipeline.
    #[arg(long, value_enum, default_value = "a")]
    set: Set,
    /// Scale of the set of pictures.
    #[arg(long, default_value = "0.01", value_parser = super::scale)]
    scale: f64,
    #[command(flatten)]
    machine: Machine,
}

/// What can be explained.
#[derive(Clone, Copy)]
enum Program {
    Network(&'static Network),
    ImageClasses,
}

/// Name of the pipeline.
const IMAGE_CLASSES: &str = "image_classes";

/// Reads the name of a program.
fn program() -> impl TypedValueParser<Value = Program> {
    let names = NETWORKS.iter().map(|network| network.name).chain([IMAGE_CLASSES]);
    PossibleValuesParser::new(names).map(|name| Network::find(&name).map_or(Program::ImageClasses, Program::Network))
}

impl Explain {
    /// Prints the program.
    pub fn run(self) -> Result<()> {
        let text = match self.program {
            Program::Network(network) => {
                let graph = network.graph(&network.seeded_inputs(self.batch, &BTreeMap::new())?)?;
                self.machine.session()?.explain(&graph, self.level)?
            }
            Program::ImageClasses => self.pictures()?,
        };
        super::print(text.trim_end().to_owned() + "\n")
    }

    fn pictures(&self) -> Result<String> {
        let pictures = Pictures { set: self.set, scale: self.scale };
        let graph = pictures.graph()?;
        if self.level == Level::Graph {
            return Ok(graph.to_string());
        }
        let bars = Bars::new();
        let session = pictures.session(&self.machine, &bars)?;
        bars.clear();
        Ok(session.explain(&graph, self.level)?)
    }
}
