//! Secrets in files: read again when the file changes.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use secrecy::{ExposeSecret, SecretString};

use crate::error::ConfigError;
use crate::files::{NamedFile, Stamp};

/// Returns the secret in a file's text, or the problem, to follow the path.
pub(crate) type Extract = fn(&str) -> Result<&str, String>;

/// A secret in a file, read again when the file changes.
pub struct SecretFile {
    file: NamedFile,
    extract: Extract,
    current: Mutex<Current>,
}

struct Current {
    secret: SecretString,
    stamp: Option<Stamp>,
    /// The last attempt to read the file failed, which was logged.
    failing: bool,
}

impl std::fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SecretFile").field(&self.file.path).finish()
    }
}

impl SecretFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// When the file cannot be read, is not text, or `extract` refuses its text.
    pub fn new(file: NamedFile, extract: Extract) -> Result<Self, ConfigError> {
        // The stamp is taken first: a file that changes in between is then read once more.
        let stamp = file.stamp();
        let secret = read(&file, extract)?;
        Ok(Self { file, extract, current: Mutex::new(Current { secret, stamp, failing: false }) })
    }

    /// Returns the secret in the file, or the last good one while the file cannot be read.
    pub fn get(&self) -> SecretString {
        let stamp = self.file.stamp();
        let unchanged = {
            let current = self.lock();
            stamp.is_some() && stamp == current.stamp
        };
        if !unchanged {
            self.reread();
        }
        self.last()
    }

    /// Returns the secret that was read last, without reading the file.
    pub fn last(&self) -> SecretString {
        self.lock().secret.clone()
    }

    /// Reads the file again, even if its stamp is unchanged. Returns whether the secret changed.
    pub fn reread(&self) -> bool {
        let stamp = self.file.stamp();
        let read = read(&self.file, self.extract);
        let mut current = self.lock();
        match read {
            Ok(secret) => {
                let changed = secret.expose_secret() != current.secret.expose_secret();
                *current = Current { secret, stamp, failing: false };
                changed
            }
            Err(error) => {
                if !std::mem::replace(&mut current.failing, true) {
                    tracing::warn!(%error, "The file cannot be read; its last content is kept");
                }
                false
            }
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // Each change is one assignment, so a panic elsewhere leaves nothing half done.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &NamedFile, extract: Extract) -> Result<SecretString, ConfigError> {
    let bytes = file.read()?;
    let text = std::str::from_utf8(&bytes).map_err(|_| file.problem("is not text"))?;
    match extract(text) {
        Ok(secret) => Ok(secret.into()),
        Err(problem) => Err(file.problem(&problem)),
    }
}
