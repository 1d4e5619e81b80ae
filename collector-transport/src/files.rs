// SPDX-License-Identifier: Apache-2.0
//! Files that are read again when they change, because tokens and certificates rotate.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{ConfigError, Section};

/// Greatest size of a file, in bytes. A bundle of all public authorities is a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file named by a key of the configuration.
#[derive(Clone, Debug)]
pub struct NamedFile {
    /// The section of the key.
    pub section: Section,
    /// The key that names the file.
    pub key: &'static str,
    /// Where the file is.
    pub path: PathBuf,
}

/// A stamp that changes when the file does. Kubernetes replaces a mounted secret by a symbolic link to another file,
/// which changes the inode number as well as the time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    number: u64,
}

impl NamedFile {
    /// The file at `path`, which `key` names.
    pub fn new(section: Section, key: &'static str, path: &Path) -> Self {
        Self { section, key, path: path.to_owned() }
    }

    /// An error about this file.
    pub fn problem(&self, problem: &str) -> ConfigError {
        self.section.error(self.key, format!("{} {problem}", self.path.display()))
    }

    /// Returns the file's stamp, or `None` while the file is absent, as in the middle of a rotation.
    pub fn stamp(&self) -> Option<Stamp> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some(Stamp {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            number: number(&metadata),
        })
    }

    /// Reads the whole file, which may have 1 MiB.
    ///
    /// # Errors
    /// If it is not a file, cannot be read or is larger.
    pub fn read(&self) -> Result<Vec<u8>, ConfigError> {
        self.read_up_to(FILE_BYTES_MAX)
    }

    /// Reads the whole file, which may have `limit` bytes, a whole number of MiB.
    ///
    /// # Errors
    /// If it is not a file, cannot be read or is larger.
    pub fn read_up_to(&self, limit: u64) -> Result<Vec<u8>, ConfigError> {
        let cannot = |error: std::io::Error| {
            self.problem(&format!("cannot be read: {error}; check the path and its permissions"))
                .with_source(error)
        };
        let metadata = fs::metadata(&self.path).map_err(cannot)?;
        // Reading from a pipe or a device could block for ever.
        if !metadata.is_file() {
            return Err(self.problem("is not a file"));
        }
        let mut bytes = Vec::new();
        fs::File::open(&self.path)
            .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
            .map_err(cannot)?;
        if bytes.len() as u64 > limit {
            let limit = limit >> 20;
            return Err(self.problem(&format!("is larger than {limit} MiB; is it the right file?")));
        }
        Ok(bytes)
    }
}

#[cfg(unix)]
fn number(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    metadata.ino()
}

#[cfg(not(unix))]
fn number(_: &fs::Metadata) -> u64 {
    0
}
