//! Files that appear whole or not at all.

use super::file_error;
use crate::data::Result;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A file under a temporary name next to its final one; removed when dropped before [`AtomicFile::commit`].
pub(crate) struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
}

impl AtomicFile {
    /// Opens the temporary file, in a folder that is made if it is absent.
    pub(crate) fn create(path: &Path) -> Result<AtomicFile> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        folder.map_or(Ok(()), std::fs::create_dir_all).map_err(file_error(path))?;
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{}.{}.part", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
        let temporary = path.with_file_name(name);
        let file = File::create(&temporary).map_err(file_error(path))?;
        Ok(AtomicFile { path: path.into(), temporary, file: BufWriter::with_capacity(1 << 20, file) })
    }

    /// Gives the file its name.
    pub(crate) fn commit(mut self) -> Result<()> {
        let renamed = self.file.flush().and_then(|()| std::fs::rename(&self.temporary, &self.path));
        renamed.map_err(file_error(&self.path))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        // Absent after `commit`; if it cannot be removed otherwise, nothing better can be done here.
        let _ = std::fs::remove_file(&self.temporary);
    }
}
