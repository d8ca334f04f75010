//! The command line.
//!
//! | file | what it holds |
//! |---|---|
//! | `bench`, `check`, `micro`, `profile`, `pipelines`, `ablation`, `requests`, `explain`, `generate`, `demo` | the commands |
//! | `train`, `train_bench` | training, and times of its steps |
//! | `network` | a network with weights, inputs and the outputs to expect |
//! | `machine` | settings of the session |
//! | `measure` | a program compiled once and run several times |
//! | `table` | the table that `demo` prints |
//! | `progress` | bars while something is generated, loaded or compiled |

mod ablation;
mod bench;
mod check;
mod demo;
mod explain;
mod generate;
mod machine;
mod measure;
mod micro;
mod network;
mod pipelines;
mod profile;
mod progress;
mod requests;
mod table;
mod train;
mod train_bench;

use clap::{Parser, Subcommand};
use quearn_models::{Error, Result};
use std::io::{ErrorKind, Write as _, stdout};
use std::path::Path;

/// Networks, and pipelines of queries and networks, compiled by Quearn.
#[derive(Parser)]
#[command(name = "quearn-models", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a network.
    Bench(bench::Bench),
    /// Compare the outputs of a network with reference outputs.
    Check(check::Check),
    /// Measure single operators, and hold them against the processor's rate of multiply-adds.
    Micro(micro::Micro),
    /// Train a network.
    Train(train::Train),
    /// Measure a step of training.
    TrainBench(train_bench::TrainBench),
    /// Show where the time of a network goes.
    Profile(profile::ProfileNetwork),
    /// List, run, check and measure pipelines of queries and models.
    Pipelines(pipelines::Pipelines),
    /// List and measure programs that answer for one key.
    Requests(requests::Requests),
    /// Print a network or a pipeline at a level of the compiler.
    Explain(explain::Explain),
    /// Write a text word by word with a decoder, and tell how long a word takes.
    Generate(generate::Generate),
    /// Run everything there is, TPC-H queries too, check it all and print one table.
    Demo(demo::Demo),
}

impl Cli {
    /// Does what the command line says.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Bench(command) => command.run(),
            Command::Check(command) => command.run(),
            Command::Micro(command) => command.run(),
            Command::Train(command) => command.run(),
            Command::TrainBench(command) => command.run(),
            Command::Profile(command) => command.run(),
            Command::Pipelines(command) => command.run(),
            Command::Requests(command) => command.run(),
            Command::Explain(command) => command.run(),
            Command::Generate(command) => command.run(),
            Command::Demo(command) => command.run(),
        }
    }
}

/// Prints a text that ends in a newline. A reader that has gone away is no failure.
fn print(text: impl AsRef<str>) -> Result<()> {
    match stdout().write_all(text.as_ref().as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(unwritten(Path::new("standard output"), error)),
        _ => Ok(()),
    }
}

fn unwritten(path: &Path, error: impl ToString) -> Error {
    Error::Write { path: path.display().to_string(), message: error.to_string() }
}

/// Reads a scale: a positive number, and not so large that the pictures fill any memory.
fn scale(text: &str) -> std::result::Result<f64, String> {
    let scale = text.parse().ok().filter(|scale| (f64::MIN_POSITIVE..=100.0).contains(scale));
    scale.ok_or_else(|| "expected a number above 0 and up to 100".to_owned())
}
