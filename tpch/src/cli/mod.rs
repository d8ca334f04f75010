//! The command line.
//!
//! | file | what it holds |
//! |---|---|
//! | `generate`, `load`, `run`, `check`, `bench`, `profile`, `explain` | the commands |
//! | `machine` | settings of the session, and a session with the tables that queries need |
//! | `report` | measurements as JSON, in the form that the peers' measurements have |
//! | `progress` | bars while tables are generated and loaded |

mod bench;
mod check;
mod explain;
mod generate;
mod load;
mod machine;
mod profile;
mod progress;
mod report;
mod run;

use arrow::array::RecordBatch;
use clap::{Parser, Subcommand};
use quearn_tpch::{Error, Result, answers, queries};
use std::io::{ErrorKind, Write as _, stderr, stdout};
use std::path::PathBuf;

/// TPC-H queries, compiled by Quearn.
#[derive(Parser)]
#[command(name = "quearn-tpch", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Generate the tables as Parquet files under $QUEARN_CACHE (default ~/.cache/quearn); those that are there stay.
    Gen(generate::Generate),
    /// Load the tables and show what they cost, and what is known about their columns.
    Load(load::Load),
    /// Run queries and print their results.
    Run(run::Run),
    /// Compare the results of queries with the expected answers, without printing them.
    Check(check::Check),
    /// Measure queries.
    Bench(bench::Bench),
    /// Show where the time of a query goes.
    Profile(profile::ProfileQuery),
    /// Print a query at a level of the compiler.
    Explain(explain::Explain),
}

impl Cli {
    /// Does what the command line says.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Gen(command) => command.run(),
            Command::Load(command) => command.run(),
            Command::Run(command) => command.run(),
            Command::Check(command) => command.run(),
            Command::Bench(command) => command.run(),
            Command::Profile(command) => command.run(),
            Command::Explain(command) => command.run(),
        }
    }
}

/// Which queries.
#[derive(clap::Args)]
struct Selection {
    /// Numbers of queries, such as 1,6; all by default.
    #[arg(long, value_delimiter = ',')]
    query: Vec<u32>,
}

impl Selection {
    fn numbers(&self) -> Vec<u32> {
        match self.query.is_empty() {
            true => queries::numbers(),
            false => self.query.clone(),
        }
    }
}

/// Where expected answers are.
#[derive(clap::Args)]
struct Expected {
    /// Folder with expected answers, qNN.csv or sf<scale>/qNN.csv, for scale factors other than 0.01 and 1.
    #[arg(long, value_name = "DIR")]
    answers: Option<PathBuf>,
}

impl Expected {
    /// Is there an answer to compare with?
    fn is_there(&self, scale: f64) -> bool {
        self.answers.is_some() || answers::has_answers(scale)
    }

    /// Compares the result of a query.
    fn check(&self, query: u32, scale: f64, result: &RecordBatch) -> Result<(), answers::Mismatch> {
        match &self.answers {
            Some(folder) => answers::check_file(query, scale, folder, result),
            None => answers::check(query, scale, result),
        }
    }
}

/// Says something beside the results. There may be nobody to read it.
fn note(text: &str) {
    let _ = writeln!(stderr(), "{text}");
}

/// Prints a text that ends in a newline. A reader that has gone away is no failure.
fn print(text: impl AsRef<str>) -> Result<()> {
    match stdout().write_all(text.as_ref().as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Write { path: "standard output".into(), message: error.to_string() })
        }
        _ => Ok(()),
    }
}
