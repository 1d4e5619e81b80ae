// SPDX-License-Identifier: Apache-2.0
//! A setting: one value of one key, and where it came from.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use crate::error::ConfigError;
use crate::key::Key;
use crate::origin::Origin;

/// A key that somebody set. A [`Provider`] of its own, so that figment knows each value's origin.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) key: &'static Key,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
    /// The line of each entry of a list of tables in a file; else empty.
    pub(crate) entry_lines: Vec<usize>,
}

impl Setting {
    /// Where the value at `path` inside of it stands: `2.url` is in the third entry of a list.
    pub(crate) fn origin_of(&self, path: &str) -> Origin {
        let entry = path.split('.').next().and_then(|entry| entry.parse::<usize>().ok());
        let line = entry.and_then(|entry| self.entry_lines.get(entry));
        match (&self.origin, line) {
            (Origin::File { path, .. }, Some(line)) => Origin::file(path, Some(*line)),
            _ => self.origin.clone(),
        }
    }

    /// The setting, or what is wrong with the text.
    pub(crate) fn from_text(
        key: &'static Key,
        text: &str,
        origin: Origin,
    ) -> Result<Self, ConfigError> {
        match key.kind.read_text(text) {
            Ok(value) => Ok(Self { key, value, origin, entry_lines: Vec::new() }),
            Err(message) => Err(ConfigError::new(message).key(key.path).at(origin)),
        }
    }
}

impl Provider for Setting {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = figment::util::nest(self.key.path, self.value.clone());
        Ok(Profile::Default.collect(nested.into_dict().unwrap_or_default()))
    }
}
