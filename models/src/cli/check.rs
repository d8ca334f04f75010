//! `check`: outputs of a network against reference outputs.

use super::machine::Machine;
use super::network::{Case, LOGITS, Model};
use quearn_models::check::{TOLERANCE, check_tensor};
use quearn_models::{Error, Result};
use std::path::PathBuf;

/// `check`.
#[derive(clap::Args)]
pub struct Check {
    /// The network.
    #[arg(long, value_enum, default_value = "squeezenet1_1")]
    model: Model,
    /// Weights, `.safetensors`; by default seeded weights, and what PyTorch computes with them.
    #[arg(long, requires = "io")]
    weights: Option<PathBuf>,
    /// `.safetensors` with the tensors `in.image` and `out.logits`.
    #[arg(long, requires = "weights")]
    io: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

impl Check {
    /// Checks every case, and fails if one does.
    pub fn run(self) -> Result<()> {
        let cases = match (&self.weights, &self.io) {
            (Some(weights), Some(io)) => vec![Case::in_files(self.model, weights, io)?],
            _ => Case::own(self.model)?,
        };
        let mut failed = 0;
        for case in &cases {
            let outcome = check(case, &self.machine);
            failed += usize::from(outcome.is_err());
            let verdict = outcome.unwrap_or_else(|error| format!("FAILED: {error}"));
            super::print(format!("{}, {}: {verdict}\n", self.model.name(), case.describe()))?;
        }
        match failed {
            0 => Ok(()),
            _ => Err(Error::Failed { failed, all: cases.len() }),
        }
    }
}

/// Runs a case; gives the error of its outputs in words.
fn check(case: &Case, machine: &Machine) -> Result<String> {
    let session = case.session(machine)?;
    let outputs = session.run(&case.graph()?)?;
    let error = check_tensor(outputs.tensor(LOGITS)?, &case.reference.logits, TOLERANCE)?;
    Ok(format!("as expected on {}, relative error {error:.1e}", session.backend_name()))
}
