//! The documents of commands that read nothing from a backend.

use collector_documents::SCHEMA_VERSION;
use serde::Serialize;

/// How many entries were dropped.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RemovedDocument {
    pub(crate) removed: usize,
}

/// The settings in force.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ConfigDocument {
    schema_version: u32,
    pub(crate) entries: Vec<ConfigEntry>,
}

/// One key of the configuration.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ConfigEntry {
    /// Its path, `cache.ttl` for example.
    pub(crate) key: String,
    /// Its value as a configuration file would have it; secrets are masked.
    pub(crate) value: String,
    /// The file and line, variable or flag it came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
}

impl ConfigDocument {
    /// The document of these keys.
    pub(crate) fn new(entries: Vec<ConfigEntry>) -> Self {
        Self { schema_version: SCHEMA_VERSION, entries }
    }
}
