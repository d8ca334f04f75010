//! `gen`: tables as Parquet files.

use super::progress::Bars;
use quearn_tpch::{Result, generate};

/// `gen`.
#[derive(clap::Args)]
pub struct Generate {
    /// Scale factor.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
}

impl Generate {
    /// Generates the tables and prints where they are.
    pub fn run(self) -> Result<()> {
        let bars = Bars::new();
        let folder = generate::generate(self.scale, &bars.progress())?;
        bars.clear();
        super::print(format!("{}\n", folder.display()))
    }
}
