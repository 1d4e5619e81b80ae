// SPDX-License-Identifier: Apache-2.0
//! The crates that a binary is made of: which, with which licence, from where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::run::{cargo, output};
use crate::workspace;

/// Name and version of a crate.
pub(crate) type Id = (String, String);

/// A crate of the binary.
pub(crate) struct Package {
    /// Its licence, as an SPDX expression.
    pub(crate) license: String,
    pub(crate) repository: Option<String>,
    /// The folder of its source.
    pub(crate) folder: PathBuf,
    /// SHA-256 of its archive in the registry; none for crates of this workspace.
    pub(crate) checksum: Option<String>,
    /// What it depends on directly.
    pub(crate) dependencies: BTreeSet<Id>,
}

/// Returns the crates of `collector` with its default features, itself included, those that only build it excluded.
pub(crate) fn packages() -> Result<BTreeMap<Id, Package>> {
    let edges = edges(&cargo_tree("depth")?)?;
    let mut details = details()?;
    let mut checksums = checksums()?;
    edges
        .into_iter()
        .map(|(id, dependencies)| {
            let found = details.remove(&id);
            let found = found.with_context(|| format!("cargo metadata lacks {} {}", id.0, id.1))?;
            let text = |key: &str| found[key].as_str().map(str::to_owned);
            let license = text("license").with_context(|| format!("{} has no licence", id.0))?;
            let manifest = PathBuf::from(text("manifest_path").context("no manifest_path")?);
            let folder = manifest.parent().context("a manifest has no folder")?.to_owned();
            let package = Package {
                // The old form of a choice.
                license: license.replace('/', " OR ").replace("  ", " "),
                repository: text("repository"),
                folder,
                checksum: checksums.remove(&id),
                dependencies,
            };
            Ok((id, package))
        })
        .collect()
}

/// Returns what `cargo tree` prints of the binary's crates.
pub(crate) fn cargo_tree(prefix: &str) -> Result<String> {
    let mut tree =
        cargo(&["tree", "--locked", "--package=collector-cli", "--edges=normal", "--format={p}"]);
    output(tree.args(["--prefix", prefix])).context("cargo tree failed")
}

/// Reads a line of `cargo tree` without its depth: `serde v1.0.0 (proc-macro) (*)`.
pub(crate) fn id(line: &str) -> Result<Id> {
    let (name, rest) = line.split_once(" v").with_context(|| format!("no crate: {line:?}"))?;
    let version = rest.split(' ').next().unwrap_or(rest);
    Ok((name.to_owned(), version.to_owned()))
}

/// Reads `cargo tree --prefix depth`. A crate that is printed again, with `(*)`, has no lines below it.
fn edges(tree: &str) -> Result<BTreeMap<Id, BTreeSet<Id>>> {
    let mut edges: BTreeMap<Id, BTreeSet<Id>> = BTreeMap::new();
    let mut parents: Vec<Id> = Vec::new();
    for line in tree.lines() {
        let digits = line.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(0);
        let depth: usize = line[..digits].parse().with_context(|| format!("no depth: {line:?}"))?;
        let id = id(&line[digits..])?;
        ensure!(depth <= parents.len(), "a level is left out before {line:?}");
        parents.truncate(depth);
        if let Some(parent) = parents.last() {
            edges.entry(parent.clone()).or_default().insert(id.clone());
        }
        edges.entry(id.clone()).or_default();
        parents.push(id);
    }
    Ok(edges)
}

fn details() -> Result<BTreeMap<Id, Value>> {
    let mut metadata = cargo(&["metadata", "--locked", "--format-version=1"]);
    let text = output(&mut metadata).context("cargo metadata failed")?;
    let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    Ok(packages
        .iter()
        .filter_map(|package| {
            let (name, version) = (package["name"].as_str()?, package["version"].as_str()?);
            Some(((name.to_owned(), version.to_owned()), package.clone()))
        })
        .collect())
}

fn checksums() -> Result<BTreeMap<Id, String>> {
    let lock = fs::read_to_string(workspace::root().join("Cargo.lock"))?;
    Ok(lock
        .split("[[package]]")
        .filter_map(|package| {
            let value = |key: &str| {
                let lines = package.lines().filter_map(|line| line.split_once(" = "));
                let mut found = lines.filter(|(known, _)| *known == key);
                found.next().map(|(_, value)| value.trim_matches('"').to_owned())
            };
            Some(((value("name")?, value("version")?), value("checksum")?))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_follow_from_the_depth_of_lines() {
        let tree = "0a v1.0.0 (/a)\n1b v2.0.0 (proc-macro)\n2c v3.0.0\n1c v3.0.0 (*)\n";
        let id = |name: &str, version: &str| (name.to_owned(), version.to_owned());
        let (a, b, c) = (id("a", "1.0.0"), id("b", "2.0.0"), id("c", "3.0.0"));
        let expected = BTreeMap::from([
            (a, BTreeSet::from([b.clone(), c.clone()])),
            (b, BTreeSet::from([c.clone()])),
            (c, BTreeSet::new()),
        ]);
        assert_eq!(edges(tree).unwrap(), expected);
        assert!(edges("0a v1.0.0\n2b v1.0.0\n").is_err());
    }
}
