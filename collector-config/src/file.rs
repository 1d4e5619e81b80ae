// SPDX-License-Identifier: Apache-2.0
//! The file's layer: a document's tree against the table of keys.

use std::path::Path;

use collector_engine::VariantSpec;
use figment::value::{Dict, Value};
use serde::Deserialize;

use crate::backend::Backends;
use crate::document::{self, Content, Node, Pair};
use crate::error::ConfigError;
use crate::extract::in_words;
use crate::key::Kind;
use crate::keys::{Keys, VARIANT_KEYS};
use crate::layer::Setting;
use crate::nearest::nearest;
use crate::origin::{Entry, Origin, VariantOrigin};
use crate::text::printable;

/// What a file sets.
#[derive(Default)]
pub(crate) struct FileLayer {
    pub(crate) settings: Vec<Setting>,
    pub(crate) variants: Vec<(VariantSpec, VariantOrigin)>,
    /// Sections of backends that exist and are not compiled in.
    pub(crate) ignored: Vec<(&'static str, Origin)>,
    pub(crate) errors: Vec<ConfigError>,
}

/// Reads a file.
pub(crate) fn read(path: &Path, keys: &Keys, backends: &Backends) -> FileLayer {
    let base = path.parent().unwrap_or(Path::new(""));
    let mut reader = Reader { path, base, keys, backends, layer: FileLayer::default() };
    match document::read(path) {
        Ok((pairs, errors)) => {
            reader.table("", pairs);
            reader.layer.errors.extend(errors);
            // People read their errors from the top of the file.
            reader.layer.errors.sort_by_key(|error| match error.origin() {
                Some(Origin::File { line, .. }) => *line,
                _ => None,
            });
        }
        Err(error) => reader.layer.errors.push(error),
    }
    reader.layer
}

struct Reader<'a> {
    path: &'a Path,
    /// Where relative paths start.
    base: &'a Path,
    keys: &'a Keys,
    backends: &'a Backends,
    layer: FileLayer,
}

impl Reader<'_> {
    fn at(&self, line: usize) -> Origin {
        Origin::file(self.path, Some(line))
    }

    fn fail(&mut self, error: ConfigError, line: usize) {
        let origin = self.at(line);
        self.layer.errors.push(error.at(origin));
    }

    fn table(&mut self, section: &str, pairs: Vec<Pair>) {
        for Pair { line, name, node } in pairs {
            let path = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
            // A quoted "cache.ttl" is one name with a dot, not a path.
            let known = !name.contains('.');
            if path == "variants" {
                self.variants(node, line);
            } else if let Some(key) = self.keys.find(&path).filter(|_| known) {
                match key.kind.read_content(&node.content, self.base) {
                    // A key without a value, as YAML lets one write it, is a key that is not set.
                    _ if node.content == Content::Null => {}
                    Ok(value) => {
                        let origin = self.at(line);
                        let entry_lines = match (key.kind, &node.content) {
                            (Kind::Tables, Content::List(items)) => {
                                items.iter().map(|item| item.line).collect()
                            }
                            _ => Vec::new(),
                        };
                        self.layer.settings.push(Setting { key, value, origin, entry_lines });
                    }
                    Err(message) => self.fail(ConfigError::new(message).key(key.path), line),
                }
            } else if known && self.keys.is_section(&path) {
                match node.content {
                    Content::Table(pairs) => self.table(&path, pairs),
                    Content::Null => {}
                    other => {
                        let message =
                            format!("expected a table of keys, found {}", other.describe());
                        self.fail(ConfigError::new(message).key(path), line);
                    }
                }
            } else if let Some(backend) = self.backends.left_out(&path) {
                let origin = self.at(line);
                self.layer.ignored.push((backend, origin));
            } else {
                self.fail(self.keys.unknown(&path), line);
            }
        }
    }

    fn variants(&mut self, node: Node, line: usize) {
        match node.content {
            Content::Null => {}
            Content::List(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    self.variant(index, item);
                }
            }
            other => {
                let message = format!(
                    "expected a list of tables, found {}: in TOML each variant begins with [[variants]]",
                    other.describe()
                );
                self.fail(ConfigError::new(message).key("variants"), line);
            }
        }
    }

    fn variant(&mut self, index: usize, node: Node) {
        let variant = format!("variants[{index}]");
        let pairs = match node.content {
            Content::Table(pairs) => pairs,
            other => {
                let message = format!("expected a table of keys, found {}", other.describe());
                self.fail(ConfigError::new(message).key(variant), node.line);
                return;
            }
        };
        let errors_before = self.layer.errors.len();
        let mut dict = Dict::new();
        let mut entries = Vec::new();
        for Pair { line, name, node } in pairs {
            let path = format!("{variant}.{}", printable(&name));
            let Some(key) = VARIANT_KEYS.iter().find(|key| key.path == name) else {
                let message = match nearest(&name, VARIANT_KEYS.iter().map(|key| key.path)) {
                    Some(known) => format!("unknown key; did you mean {known}?"),
                    None => "unknown key of a variant".to_owned(),
                };
                self.fail(ConfigError::new(message).key(path), line);
                continue;
            };
            match key.kind.read_content(&node.content, self.base) {
                _ if node.content == Content::Null => {}
                Ok(value) => {
                    entries.push(Entry::new(path, key.shown(&value), &self.at(line)));
                    dict.insert(name, value);
                }
                Err(message) => self.fail(ConfigError::new(message).key(path), line),
            }
        }
        // With a wrong key among them, a missing one may only be misspelt.
        if self.layer.errors.len() > errors_before {
            return;
        }
        for key in ["name", "namespace", "model"].into_iter().filter(|key| !dict.contains_key(*key))
        {
            let message = format!("`{key}` is not set, and is required");
            self.fail(ConfigError::new(message).key(variant.as_str()), node.line);
        }
        if self.layer.errors.len() > errors_before {
            return;
        }
        let origin = self.at(node.line);
        match VariantSpec::deserialize(&Value::from(dict)) {
            Ok(spec) => {
                self.layer.variants.push((spec, VariantOrigin { path: variant, origin, entries }));
            }
            Err(error) => {
                let path = std::iter::once(&variant).chain(&error.path);
                let path = path.map(String::as_str).collect::<Vec<_>>().join(".");
                self.fail(ConfigError::new(in_words(&error.kind)).key(path), node.line);
            }
        }
    }
}
