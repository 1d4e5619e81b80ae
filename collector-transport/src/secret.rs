// SPDX-License-Identifier: Apache-2.0
//! Secrets, those in files read again when the file changes.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use secrecy::{ExposeSecret, SecretString};

use crate::error::ConfigError;
use crate::files::{NamedFile, Stamp};

/// Returns the secret in a file's text, or the problem, to follow the path.
pub type Extract = fn(&str) -> Result<&str, String>;

/// A secret of the configuration, or one in a file that is read again when it changes.
pub struct Secret {
    file: Option<(NamedFile, Extract)>,
    current: Mutex<Current>,
}

struct Current {
    secret: SecretString,
    stamp: Option<Stamp>,
    /// The last attempt to read the file failed, which was logged.
    failing: bool,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret").field("path", &self.path()).finish_non_exhaustive()
    }
}

impl Secret {
    /// A secret that never changes.
    pub fn given(secret: &SecretString) -> Self {
        let current = Current { secret: secret.clone(), stamp: None, failing: false };
        Self { file: None, current: Mutex::new(current) }
    }

    /// Reads a file for the first time.
    ///
    /// # Errors
    /// If the file cannot be read, is not text, or `extract` refuses its text.
    pub fn in_file(file: NamedFile, extract: Extract) -> Result<Self, ConfigError> {
        // The stamp is taken first: a file that changes in between is then read once more.
        let stamp = file.stamp();
        let secret = read(&file, extract)?;
        let current = Mutex::new(Current { secret, stamp, failing: false });
        Ok(Self { file: Some((file, extract)), current })
    }

    /// Returns the secret, the last good one while the file cannot be read.
    pub fn get(&self) -> SecretString {
        if let Some((file, _)) = &self.file {
            let stamp = file.stamp();
            let unchanged = stamp.is_some() && stamp == self.lock().stamp;
            if !unchanged {
                self.reread();
            }
        }
        self.last()
    }

    /// Returns the secret that was read last, without reading the file.
    pub fn last(&self) -> SecretString {
        self.lock().secret.clone()
    }

    /// Reads the file again, even if its stamp is unchanged. Returns whether the secret changed.
    pub fn reread(&self) -> bool {
        let Some((file, extract)) = &self.file else { return false };
        let stamp = file.stamp();
        let read = read(file, *extract);
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

    /// Where the file is; `None` for a secret of the configuration.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(file, _)| &*file.path)
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
