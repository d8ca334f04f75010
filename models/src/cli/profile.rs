//! `profile`: where the time of a network goes, stage by stage.

use super::machine::Machine;
use super::network::Which;
use quearn::profile::Profile;
use quearn_models::{Error, Result};
use std::fmt::Write as _;
use std::num::NonZeroUsize;

/// `profile`.
#[derive(clap::Args)]
pub struct ProfileNetwork {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    machine: Machine,
    /// Runs, of which the middle one is shown; the first is not among them.
    #[arg(long, default_value = "9")]
    runs: NonZeroUsize,
}

impl ProfileNetwork {
    /// Prints the profile.
    pub fn run(self) -> Result<()> {
        let case = self.which.case()?;
        let session = case.session(&self.machine)?;
        let program = session.compile(&case.graph)?;
        program.run(&session)?;
        let profiles = (0..self.runs.get()).map(|_| Ok(program.profile(&session)?));
        let mut profiles = profiles.collect::<Result<Vec<Profile>>>()?;
        profiles.sort_by(|a, b| a.outputs.run_ms.total_cmp(&b.outputs.run_ms));
        let missing = || Error::NoExpectation { what: self.which.model.name.to_owned() };
        let middle = profiles.get((profiles.len() - 1) / 2).ok_or_else(missing)?;
        super::print(text(middle))
    }
}

/// A line for each stage, in the order of the stages: time of all workers, share, the busiest worker over the mean, runs.
pub fn text(profile: &Profile) -> String {
    let busy: f64 = profile.pipelines.iter().map(|p| p.total_busy_ms()).sum();
    let mut text = format!("{:>9} {:>6} {:>9} {:>6} {:>7}  stage\n", "busy ms", "%", "uneven", "runs", "pieces");
    for stage in &profile.pipelines {
        let ms = stage.total_busy_ms();
        let share = 100.0 * ms / busy.max(f64::MIN_POSITIVE);
        let fused = stage.fused.join(", ");
        let (uneven, runs, pieces, name) = (stage.imbalance(), stage.runs, stage.items, &stage.name);
        let _ = writeln!(text, "{ms:9.3} {share:6.1} {uneven:9.2} {runs:6} {pieces:7}  {name}: {fused}");
    }
    let _ = writeln!(text, "{:9.3} ms, of which {:.3} between stages", profile.outputs.run_ms, profile.serial_ms);
    text
}
