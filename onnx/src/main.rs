//! `quearn`: runs, measures and explains ONNX models.

mod cli;

use clap::Parser as _;
use std::io::{Write as _, stderr};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There may be nobody to read it.
            let _ = writeln!(stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
