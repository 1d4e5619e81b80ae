// SPDX-License-Identifier: Apache-2.0
//! Where a value came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value came from, as it is shown to the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the configuration file, or the file as a whole.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// From 1.
        line: Option<usize>,
    },
    /// An environment variable.
    Variable(String),
    /// A flag of the command line.
    Flag(String),
}

impl Origin {
    pub(crate) fn file(path: &Path, line: Option<usize>) -> Self {
        Self::File { path: path.to_owned(), line }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// Where each value came from.
#[derive(Clone, Default, Debug)]
pub struct Origins {
    /// The values of keys that were set, as they may be shown.
    set: BTreeMap<&'static str, (String, Origin)>,
    /// The variants in order.
    variants: Vec<VariantOrigin>,
}

/// Where a variant came from.
#[derive(Clone, Debug)]
pub(crate) struct VariantOrigin {
    /// Its path: `variants[2]`, counted from 0.
    pub(crate) path: String,
    /// Where it begins.
    pub(crate) origin: Origin,
    /// What was written for it.
    pub(crate) entries: Vec<Entry>,
}

/// One key with its value and where that came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key's path.
    pub key: String,
    /// The value as it was written, `***` for a secret, empty for a key that has none.
    pub value: String,
    /// `default`, a file and line, a variable or a flag.
    pub origin: String,
}

impl Entry {
    pub(crate) fn new(key: impl Into<String>, value: impl Into<String>, origin: &Origin) -> Self {
        Self { key: key.into(), value: value.into(), origin: origin.to_string() }
    }
}

impl Origins {
    /// Where the value of a key came from.
    pub fn of(&self, key: &str) -> Origin {
        self.set.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// Where the variant at this place of the configuration came from.
    pub(crate) fn of_variant(&self, index: usize) -> Option<&VariantOrigin> {
        self.variants.get(index)
    }

    /// The value of a key as it may be shown, and where it came from; `None` where nobody set it.
    pub(crate) fn shown(&self, key: &str) -> Option<&(String, Origin)> {
        self.set.get(key)
    }

    /// What is set of each variant.
    pub(crate) fn of_variants(&self) -> impl Iterator<Item = &Entry> {
        self.variants.iter().flat_map(|variant| &variant.entries)
    }

    pub(crate) fn set(&mut self, key: &'static str, shown: String, origin: Origin) {
        self.set.insert(key, (shown, origin));
    }

    pub(crate) fn set_variant(&mut self, variant: VariantOrigin) {
        self.variants.push(variant);
    }
}
