// SPDX-License-Identifier: Apache-2.0
//! How documents are defined, and those of commands that read nothing from a backend.

use collector_documents::SCHEMA_VERSION;
use serde::Serialize;

/// Defines a document and how it is made: each field with its value.
macro_rules! document {
    ($(#[$meta:meta])* $vis:vis $name:ident$(<$a:lifetime>)? of ($($from:ident: $from_type:ty),+);
     $($(#[$doc:meta])* $shown:vis $field:ident: $type:ty = $value:expr;)*) => {
        $(#[$meta])*
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        $vis struct $name$(<$a>)? {
            $($(#[$doc])* $shown $field: $type,)*
        }

        impl$(<$a>)? $name$(<$a>)? {
            $vis fn of($($from: $from_type),+) -> Self {
                Self { $($field: $value,)* }
            }
        }
    };
}
pub(crate) use document;

/// How many entries were dropped.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RemovedDocument {
    pub(crate) removed: usize,
}

document! {
    /// The settings in force.
    pub(crate) ConfigDocument of (entries: Vec<ConfigEntry>);
    schema_version: u32 = SCHEMA_VERSION;
    pub(crate) entries: Vec<ConfigEntry> = entries;
}

document! {
    /// What the program is.
    pub(crate) VersionDocument<'a> of (commit: Option<&'a str>, features: Vec<&'a str>);
    schema_version: u32 = SCHEMA_VERSION;
    /// `version`.
    kind: &'static str = "version";
    pub(crate) version: &'a str = env!("CARGO_PKG_VERSION");
    /// The commit that it was built from; null when that is unknown.
    pub(crate) commit: Option<&'a str> = commit;
    /// The cargo features that it was built with.
    pub(crate) features: Vec<&'a str> = features;
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
