// SPDX-License-Identifier: Apache-2.0
//! The Kubernetes objects in the files of `--scaled-object` and `--hpa`.

use std::collections::BTreeMap;
use std::fs::File as Opened;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use collector_core::Check;
use serde_json::Value;

use super::yaml::{self, Change, Node, Step, steps};
use crate::exit::Failure;

/// The maximum size of a file: about a thousand objects of the maximum size of a Kubernetes API server.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// The kinds of objects that are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    ScaledObject,
    Hpa,
}

impl Kind {
    fn flag(self) -> &'static str {
        match self {
            Self::ScaledObject => "--scaled-object",
            Self::Hpa => "--hpa",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::ScaledObject => "ScaledObject",
            Self::Hpa => "HorizontalPodAutoscaler",
        }
    }
}

/// A result of a rule.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Finding {
    pub(super) check: Check,
    /// What would make the rule pass, where this is known.
    pub(super) changes: Vec<Change>,
}

impl From<Check> for Finding {
    fn from(check: Check) -> Self {
        Self { check, changes: Vec::new() }
    }
}

impl Finding {
    /// Adds a change that makes the rule pass.
    pub(super) fn fixed_by(mut self, path: Vec<Step>, value: impl Into<Value>) -> Self {
        self.changes.push(Change { path, to: yaml::To::Value(value.into()) });
        self
    }
}

/// An object and where it is.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) kind: Kind,
    /// The index of its document in the file.
    pub(super) document: usize,
    /// The way to it in its document: to an item of a list, or nothing.
    pub(super) path: Vec<Step>,
    pub(super) value: Value,
}

/// A file, parsed.
#[derive(Debug)]
pub(super) struct File {
    /// Its name as the user wrote it.
    pub(super) name: String,
    pub(super) text: String,
    pub(super) documents: Vec<Node>,
    /// The kinds that are checked in it.
    kinds: Vec<Kind>,
}

/// Reads each file once, and standard input (`-`) once for both flags.
pub(super) fn read(scaled_objects: &[PathBuf], hpas: &[PathBuf]) -> Result<Vec<File>, Failure> {
    let mut kinds: BTreeMap<&Path, Vec<Kind>> = BTreeMap::new();
    let mut order = Vec::new();
    let paths = scaled_objects.iter().map(|path| (path, Kind::ScaledObject));
    for (path, kind) in paths.chain(hpas.iter().map(|path| (path, Kind::Hpa))) {
        let known = kinds.entry(path).or_default();
        if known.is_empty() {
            order.push(path.as_path());
        }
        if !known.contains(&kind) {
            known.push(kind);
        }
    }
    let files =
        order.into_iter().map(|path| File::read(path, kinds.remove(path).unwrap_or_default()));
    files.collect()
}

impl File {
    fn read(path: &Path, kinds: Vec<Kind>) -> Result<Self, Failure> {
        let flags: Vec<&str> = kinds.iter().map(|kind| kind.flag()).collect();
        let name = if path == Path::new("-") {
            "standard input".to_owned()
        } else {
            path.display().to_string()
        };
        let failure = |text: String| Failure::usage(format!("{}: {text}", flags.join(", ")));
        let text =
            text_of(path).map_err(|error| failure(format!("cannot read {name}: {error}")))?;
        let file = Self::parse(name, text, kinds).map_err(&failure)?;
        let objects = file.objects();
        let has = |kind: &Kind| objects.iter().any(|object| object.kind == *kind);
        if !file.kinds.iter().any(has) {
            let wanted: Vec<&str> = file.kinds.iter().map(|kind| kind.name()).collect();
            let found = file.kinds_found();
            return Err(failure(format!(
                "{} contains no object of kind {}{found}",
                file.name,
                wanted.join(" or ")
            )));
        }
        Ok(file)
    }

    pub(super) fn parse(name: String, text: String, kinds: Vec<Kind>) -> Result<Self, String> {
        let documents = yaml::parse(&text).map_err(|error| format!("{name} {error}"))?;
        Ok(Self { name, text, documents, kinds })
    }

    /// Replaces the text.
    pub(super) fn with_text(&self, text: String) -> Result<Self, String> {
        Self::parse(self.name.clone(), text, self.kinds.clone())
    }

    /// Returns the objects that are checked.
    pub(super) fn objects(&self) -> Vec<Object> {
        let of = |document: usize, path: Vec<Step>, value: &Value| {
            let kind = self.kinds.iter().find(|kind| value["kind"] == kind.name())?;
            Some(Object { kind: *kind, document, path, value: value.clone() })
        };
        let mut objects = Vec::new();
        for (document, node) in self.documents.iter().enumerate() {
            let value = node.value.value();
            match value["items"].as_array() {
                Some(items) => {
                    let items = items.iter().enumerate();
                    objects
                        .extend(items.filter_map(|(index, item)| {
                            of(document, steps!["items", index], item)
                        }));
                }
                None => objects.extend(of(document, Vec::new(), &value)),
            }
        }
        objects
    }

    /// The kinds of its objects, for an error.
    fn kinds_found(&self) -> String {
        let mut kinds: Vec<String> = Vec::new();
        for node in &self.documents {
            let value = node.value.value();
            let items = value["items"].as_array().cloned().unwrap_or_else(|| vec![value]);
            kinds.extend(items.iter().filter_map(|item| item["kind"].as_str().map(str::to_owned)));
        }
        kinds.sort();
        kinds.dedup();
        kinds.truncate(5);
        if kinds.is_empty() { String::new() } else { format!(", only {}", kinds.join(", ")) }
    }
}

fn text_of(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let limited = |source: &mut dyn Read, text: &mut String| {
        source.take(FILE_BYTES_MAX + 1).read_to_string(text)
    };
    if path.as_os_str() == "-" {
        limited(&mut io::stdin().lock(), &mut text)?;
    } else {
        limited(&mut Opened::open(path)?, &mut text)?;
    }
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20)));
    }
    Ok(text)
}

/// The name of an object: `namespace/name`.
pub(super) fn name_of(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or("(no name)");
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

/// What an object scales: its namespace, and the kind and the name of the workload. `None` without a name.
pub(super) fn target_of(object: &Value) -> Option<String> {
    let target = &object["spec"]["scaleTargetRef"];
    let kind = target["kind"].as_str().unwrap_or("Deployment");
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
    Some(format!("{kind} {namespace}/{}", target["name"].as_str()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, kinds: &[Kind]) -> File {
        File::parse("a.yaml".to_owned(), text.to_owned(), kinds.to_vec()).unwrap()
    }

    #[test]
    fn objects_come_in_documents_and_lists() {
        let text = "kind: ScaledObject\n---\nkind: Deployment\n---\nkind: List\nitems:\n  - kind: \
                    HorizontalPodAutoscaler\n  - kind: ScaledObject\n";
        let both = file(text, &[Kind::ScaledObject, Kind::Hpa]);
        let found: Vec<(Kind, usize, usize)> = both
            .objects()
            .into_iter()
            .map(|object| (object.kind, object.document, object.path.len()))
            .collect();
        assert_eq!(
            found,
            [(Kind::ScaledObject, 0, 0), (Kind::Hpa, 2, 2), (Kind::ScaledObject, 2, 2)]
        );
        assert_eq!(file(text, &[Kind::Hpa]).objects().len(), 1);
        assert_eq!(both.kinds_found(), ", only Deployment, HorizontalPodAutoscaler, ScaledObject");
        assert_eq!(file("", &[Kind::Hpa]).objects().len(), 0);
    }

    #[test]
    fn a_file_without_the_kind_or_with_bad_yaml_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        for (text, says) in [
            ("", "contains no object of kind ScaledObject"),
            ("kind: Deployment\n", "contains no object of kind ScaledObject, only Deployment"),
            ("a: [", "is not valid YAML"),
            ("a: {{ .Values.a }}-b\n", "render a template first"),
            (&"--- 1\n".repeat(10_001), "is too large"),
            ("just text", "contains no object"),
        ] {
            std::fs::write(&path, text).unwrap();
            let failure = read(std::slice::from_ref(&path), &[]).unwrap_err();
            assert!(failure.problems()[0].contains(says), "{:?}", failure.problems());
        }
        let failure = read(&[folder.path().to_owned()], &[]).unwrap_err();
        assert!(failure.problems()[0].contains("cannot read"), "{:?}", failure.problems());
    }
}
