//! `explain`: a network or a pipeline at a level of the compiler.

use super::machine::Machine;
use super::network::Model;
use super::pictures::{Pictures, Set};
use super::progress::Bars;
use clap::ValueEnum;
use quearn::Level;
use quearn_models::Result;
use quearn_models::squeezenet::IMAGE_SIZE;

/// `explain`.
#[derive(clap::Args)]
pub struct Explain {
    /// The program.
    #[arg(value_enum)]
    program: Program,
    /// graph, rewritten, pipelines, low, llvm or asm.
    #[arg(long, default_value = "pipelines")]
    level: Level,
    /// Images in a batch of a network.
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

#[derive(Clone, Copy, ValueEnum)]
enum Program {
    /// SqueezeNet 1.1.
    #[value(name = "squeezenet1_1")]
    SqueezeNet1_1,
    /// Pictures chosen by a query, classified by SqueezeNet, counted by class.
    #[value(name = "image_classes")]
    ImageClasses,
}

impl Explain {
    /// Prints the program.
    pub fn run(self) -> Result<()> {
        let text = match self.program {
            Program::SqueezeNet1_1 => {
                let graph = Model::SqueezeNet1_1.graph(self.batch, IMAGE_SIZE as u64)?;
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
