//! `check`: outputs of a network against reference outputs.

use super::machine::Machine;
use super::network::{self, Case};
use quearn_models::networks::Network;
use quearn_models::{Error, Result};
use std::num::NonZeroU64;
use std::path::PathBuf;

/// `check`.
#[derive(clap::Args)]
pub struct Check {
    /// The network.
    #[arg(long, value_parser = network::model(), default_value = "squeezenet1_1")]
    model: &'static Network,
    /// Items in a batch.
    #[arg(long, default_value = "1")]
    batch: NonZeroU64,
    /// Weights, `.safetensors`; by default seeded weights and what PyTorch computes with them where this program has
    /// that, else the files that `bench` takes.
    #[arg(long, requires = "io")]
    weights: Option<PathBuf>,
    /// `.safetensors` with the tensors `in.NAME` and `out.NAME`.
    #[arg(long, requires = "weights")]
    io: Option<PathBuf>,
    #[command(flatten)]
    machine: Machine,
}

impl Check {
    /// Checks every case, and fails if one does.
    pub fn run(self) -> Result<()> {
        let cases = match (&self.weights, &self.io) {
            (Some(weights), Some(io)) => vec![Case::in_files(self.model, weights, io, self.batch.get())?],
            _ => self.known()?,
        };
        let mut failed = 0;
        for case in &cases {
            let outcome = check(case, &self.machine);
            failed += usize::from(outcome.is_err());
            let verdict = outcome.unwrap_or_else(|error| format!("FAILED: {error}"));
            super::print(format!("{}, {}: {verdict}\n", self.model.name, case.describe()))?;
        }
        match failed {
            0 => Ok(()),
            _ => Err(Error::Failed { failed, all: cases.len() }),
        }
    }

    fn known(&self) -> Result<Vec<Case>> {
        let own = Case::own(self.model)?;
        if !own.is_empty() {
            return Ok(own);
        }
        let missing = || Error::NoExpectation { what: self.model.name.to_owned() };
        let folder = network::exported_folder(self.model).ok_or_else(missing)?;
        Ok(vec![Case::exported(self.model, &folder, self.batch.get())?])
    }
}

/// Runs a case; gives the error of its outputs in words.
fn check(case: &Case, machine: &Machine) -> Result<String> {
    let session = case.session(machine)?;
    let error = case.checked(&session.run(&case.graph)?)?;
    Ok(format!("as expected on {}, relative error {error:.1e}", session.backend_name()))
}
