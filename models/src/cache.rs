//! The folder of what has been generated: `$QUEARN_CACHE/models`, by default `~/.cache/quearn/models`.

use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::{env, fs, process};

/// The folder of this crate; it need not exist.
pub fn folder() -> PathBuf {
    let root = env::var_os("QUEARN_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache/quearn");
    root.unwrap_or_else(home).join("models")
}

/// Makes `path` with `write`, unless it is there. A file appears complete or not at all: it is written beside its place
/// and then renamed.
pub(crate) fn ensure(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|e| Error::cache(parent, e))?;
    let unfinished = path.with_extension(format!("unfinished-{}", process::id()));
    write(&unfinished)?;
    fs::rename(&unfinished, path).map_err(|e| Error::cache(path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/file.bin");
        let failed = ensure(&path, |unfinished| {
            fs::write(unfinished, "half").unwrap();
            Err(Error::cache(unfinished, "disk full"))
        });
        assert!(failed.unwrap_err().to_string().ends_with("disk full"));
        assert!(!path.exists());
        ensure(&path, |unfinished| fs::write(unfinished, "whole").map_err(|e| Error::cache(unfinished, e))).unwrap();
        ensure(&path, |_| panic!("it is there")).unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "whole");
    }
}
