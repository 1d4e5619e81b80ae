// SPDX-License-Identifier: Apache-2.0
//! The document of `collector validate`.

use collector_documents::SCHEMA_VERSION;
use serde::Serialize;

use super::documents::document;

document! {
    /// What `collector validate` found in files without a mistake.
    pub(crate) ValidationDocument<'a> of (files: &'a [ValidatedFile]);
    schema_version: u32 = SCHEMA_VERSION;
    /// `validation`.
    kind: &'static str = "validation";
    /// The files without a mistake; stderr has the mistakes of the others.
    files: &'a [ValidatedFile] = files;
}

/// One configuration file without a mistake.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ValidatedFile {
    pub(crate) file: String,
    /// The backends that it chooses, in order of preference.
    pub(crate) backends: Vec<ValidatedBackend>,
    /// Configured variants.
    pub(crate) variants: usize,
    /// The pods to scrape; null where no chosen backend scrapes pods.
    pub(crate) targets: Option<Targets>,
    /// The files that were checked; null with `--no-files`.
    pub(crate) files_checked: Option<Vec<CheckedFile>>,
    /// What works and may not be meant.
    pub(crate) warnings: Vec<String>,
}

/// A chosen backend.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ValidatedBackend {
    pub(crate) name: String,
    /// The URL of its server, without credentials; null where it has none.
    pub(crate) url: Option<String>,
}

/// How many pods there are to scrape.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Targets {
    /// Targets in the configuration.
    pub(crate) configured: usize,
    /// DNS names; they are not resolved.
    pub(crate) dns_names: usize,
    /// Targets in the target file; null where there is none, or it was not read.
    pub(crate) in_file: Option<usize>,
}

/// A file that was checked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct CheckedFile {
    /// The key that names it.
    pub(crate) key: String,
    pub(crate) path: String,
}
