//! `run`: results of queries.

use super::machine::{self, Machine};
use super::{Expected, Selection};
use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use clap::ValueEnum;
use quearn_tpch::{Result, answers, queries};

/// `run`.
#[derive(clap::Args)]
pub struct Run {
    /// Scale factor.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    machine: Machine,
    /// Compare the results with the expected answers.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    expected: Expected,
    /// How results are printed; with csv, times go to stderr.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum, Default)]
enum Format {
    #[default]
    Table,
    Csv,
}

impl Run {
    /// Runs the queries and prints their results and times.
    pub fn run(self) -> Result<()> {
        let numbers = self.selection.numbers();
        let graphs = numbers.iter().map(|query| queries::graph(*query)).collect::<Result<Vec<_>>>()?;
        let session = self.machine.session_for(&graphs, self.scale)?;
        for (query, graph) in numbers.into_iter().zip(&graphs) {
            let program = session.compile(graph)?;
            let (result, run_ms) = machine::run(&program, &session)?;
            self.print(query, &result, program.compile_ms(), run_ms)?;
            if self.check {
                self.expected.check(query, self.scale, &result)?;
                super::note(&format!("Q{query}: as expected"));
            }
        }
        Ok(())
    }

    fn print(&self, query: u32, result: &RecordBatch, compile_ms: f64, run_ms: f64) -> Result<()> {
        let times =
            format!("Q{query}: {} rows, compiled in {compile_ms:.1} ms, first run {run_ms:.2} ms", result.num_rows());
        match self.format {
            Format::Table => {
                let table = pretty_format_batches(std::slice::from_ref(result))?;
                super::print(format!("{table}\n{times}\n"))
            }
            Format::Csv => {
                super::note(&times);
                super::print(answers::to_csv(result)?)
            }
        }
    }
}
