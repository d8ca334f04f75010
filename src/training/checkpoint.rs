//! Checkpoints: `checkpoint.json`, and the tensors that it names in a file of their own.
//!
//! Both files appear whole or not at all, the tensors first: a process that is killed at any time leaves the checkpoint from
//! before, or the new one.

use super::history::History;
use super::plan::{Kept, Plan, Recipe};
use super::trainer::steps_of;
use crate::Tensors;
use crate::error::{Error, Result};
use crate::io::{read_safetensors, write_safetensors, write_text};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// The file that names the others.
const NAME: &str = "checkpoint.json";
/// Layout of the files.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Manifest {
    version: u32,
    step: u64,
    recipe: Recipe,
    kept: Vec<Kept>,
    /// File of the tensors, beside this one.
    tensors: String,
    /// FNV-1a of its bytes.
    checksum: String,
    history: History,
}

/// What a checkpoint holds.
pub(super) struct Read {
    pub(super) step: u64,
    pub(super) history: History,
    pub(super) tensors: Tensors,
}

/// Writes a checkpoint in place of one that is there.
pub(super) fn write(folder: &Path, plan: &Plan, step: u64, history: &History, tensors: &Tensors) -> Result<()> {
    let name = format!("step-{step:08}.safetensors");
    let file = folder.join(&name);
    write_safetensors(&file, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)))?;
    let bytes = fs::read(&file).map_err(|e| wrong(&file, e))?;
    let manifest = Manifest {
        version: VERSION,
        step,
        recipe: plan.recipe.clone(),
        kept: plan.kept.clone(),
        tensors: name.clone(),
        checksum: checksum(&bytes),
        history: history.clone(),
    };
    let text = serde_json::to_string(&manifest).map_err(|e| wrong(folder, e))?;
    write_text(folder.join(NAME), &text)?;
    remove_others(folder, &name);
    Ok(())
}

/// Tensors of former checkpoints take room; that one of them stays is no failure.
fn remove_others(folder: &Path, kept: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("step-") && name.ends_with(".safetensors") && name != kept {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Reads the checkpoint of a plan.
pub(super) fn read(folder: &Path, plan: &Plan) -> Result<Read> {
    let path = folder.join(NAME);
    let text = fs::read_to_string(&path).map_err(|e| wrong(&path, e))?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|e| wrong(&path, format!("it is damaged: {e}")))?;
    if manifest.version != VERSION {
        return Err(wrong(&path, format!("it has version {}, expected {VERSION}", manifest.version)));
    }
    if let Some(difference) = difference(&manifest.kept, &plan.kept) {
        return Err(wrong(&path, format!("it is of another network or optimiser: {difference}")));
    }
    if manifest.recipe != plan.recipe {
        let text = |recipe: &Recipe| serde_json::to_string(recipe).unwrap_or_default();
        let (found, expected) = (text(&manifest.recipe), text(&plan.recipe));
        return Err(wrong(&path, format!("it is of another recipe: {found}, expected {expected}")));
    }
    // A name that leads elsewhere is none that was written here.
    let file = folder.join(Path::new(&manifest.tensors).file_name().unwrap_or_default());
    let bytes = fs::read(&file).map_err(|e| wrong(&file, e))?;
    if checksum(&bytes) != manifest.checksum {
        return Err(wrong(&file, "it is damaged: its checksum is another than when it was written"));
    }
    let tensors = read_safetensors(&file)?.0;
    if steps_of(&tensors) != Some(manifest.step) {
        return Err(wrong(&file, format!("it is not of step {}", manifest.step)));
    }
    Ok(Read { step: manifest.step, history: manifest.history, tensors })
}

/// The first tensor in which two lists differ.
fn difference(found: &[Kept], expected: &[Kept]) -> Option<String> {
    let text = |kept: &Kept| format!("\"{}\" {}{:?}", kept.name, kept.scalar, kept.shape);
    let differs = |(f, e): &(&Kept, &Kept)| f != e;
    if let Some((f, e)) = found.iter().zip(expected).find(differs) {
        return Some(format!("it has {}, expected {}", text(f), text(e)));
    }
    let (f, e) = (found.len(), expected.len());
    (f != e).then(|| format!("it has {f} tensors, expected {e}"))
}

fn wrong(path: &Path, message: impl ToString) -> Error {
    Error::Checkpoint { path: path.display().to_string(), message: message.to_string() }
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    format!("{:016x}", bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}
