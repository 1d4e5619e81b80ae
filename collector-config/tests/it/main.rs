// SPDX-License-Identifier: Apache-2.0
//! What users meet: the layers, the messages, the reference.
#![cfg(feature = "prometheus")]

#[cfg(all(feature = "epp", feature = "kubernetes"))]
mod cluster;
mod compose;
#[cfg(feature = "epp")]
mod coverage;
mod errors;
mod keys;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod layers;
mod own_backend;
#[cfg(feature = "epp")]
mod scrape;
mod syntax;
mod ways_in;

use std::path::{Path, PathBuf};

use collector_config::{Entry, Loaded, Loader};

/// A server that is named properly, so that a test is about its own subject.
const URL: (&str, &str) = ("COLLECTOR_PROMETHEUS__URL", "https://prometheus:9090");

/// A configuration file in a folder of its own.
struct ConfigFile {
    folder: tempfile::TempDir,
    name: &'static str,
}

impl ConfigFile {
    fn toml(text: &str) -> Self {
        Self::new("collector.toml", text)
    }

    fn yaml(text: &str) -> Self {
        Self::new("collector.yaml", text)
    }

    fn new(name: &'static str, text: impl AsRef<[u8]>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        Self { folder, name }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(self.name)
    }

    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn loader(&self) -> Loader {
        Loader::new().file(self.path())
    }
}

fn variables(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn entry(loaded: &Loaded, key: &str) -> Entry {
    let entry = loaded.entries().into_iter().find(|entry| entry.key == key);
    entry.unwrap_or_else(|| panic!("{key} has no entry"))
}
