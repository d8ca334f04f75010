//! The folder of what has been generated: `$QUEARN_CACHE/models`, by default `~/.cache/quearn/models`.

use std::env;
use std::path::PathBuf;

/// The folder of this crate; it need not exist.
pub fn folder() -> PathBuf {
    let root = env::var_os("QUEARN_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/quearn");
    root.unwrap_or_else(home).join("models")
}
