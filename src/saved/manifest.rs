//! The manifest of a saved program: JSON, so that it can be read without Quearn.

use super::error::Kind;
use crate::lower::Interface;
use serde::{Deserialize, Serialize};

/// Version of Quearn.
pub const QUEARN: &str = env!("CARGO_PKG_VERSION");
/// A number for the sources of this build.
pub const SOURCES: &str = env!("QUEARN_SOURCES");

/// Who made a program, for which machine, and how to run it.
#[derive(Serialize, Deserialize)]
pub struct Manifest {
    /// Version of Quearn.
    pub quearn: String,
    /// A number for its sources.
    pub sources: String,
    /// What compiled the code.
    pub compiler: String,
    /// Architecture and system that it was compiled for.
    pub triple: String,
    /// Processor that it was compiled for.
    pub cpu: String,
    /// What it needs of the processor.
    pub features: Vec<String>,
    /// Microseconds that compiling it took; whole, as fractions may change on their way through text.
    pub compile_us: u64,
    /// Values of the parameters.
    pub parameters: Vec<Option<i128>>,
    /// Symbols of the functions, and whether they run on a frame.
    pub functions: Vec<(String, bool)>,
    /// How to run it.
    pub interface: Interface,
    /// What follows the manifest, in order.
    pub parts: Vec<Part>,
}

/// Bytes behind the manifest.
#[derive(Serialize, Deserialize)]
pub struct Part {
    /// What they are.
    pub name: String,
    /// How many.
    pub bytes: u64,
    /// Their checksum.
    pub checksum: u64,
}

/// What every manifest says, however the rest of it looks.
#[derive(Deserialize)]
struct Build {
    quearn: String,
    sources: String,
}

impl Manifest {
    /// Reads a manifest of this build.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, Kind> {
        let ill_formed = |e: serde_json::Error| Kind::IllFormed { message: format!("manifest: {e}") };
        let Build { quearn, sources } = serde_json::from_slice(bytes).map_err(ill_formed)?;
        if (quearn.as_str(), sources.as_str()) != (QUEARN, SOURCES) {
            let build = |version: &str, sources: &str| format!("{version} (build {sources})");
            return Err(Kind::OtherVersion { made: build(&quearn, &sources), here: build(QUEARN, SOURCES) });
        }
        serde_json::from_slice(bytes).map_err(ill_formed)
    }
}
