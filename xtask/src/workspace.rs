// SPDX-License-Identifier: Apache-2.0
//! The contents of the workspace.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::run;

/// Returns the workspace's root.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        // The value at run time takes precedence over the value at compile time: two clones may share a
        // target folder, and therefore this program.
        let xtask = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
        let xtask = xtask.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        xtask.parent().map(Path::to_owned).unwrap_or(xtask)
    });
    &ROOT
}

/// Returns cargo's target folder.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let metadata = metadata()?;
    let folder = metadata["target_directory"].as_str();
    Ok(folder.context("cargo metadata has no target_directory")?.into())
}

/// Returns each package of the workspace, with its features except `default`.
pub(crate) fn packages() -> Result<BTreeMap<String, Vec<String>>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array();
    packages
        .context("cargo metadata has no packages")?
        .iter()
        .map(|package| {
            let name = package["name"].as_str().context("a package has no name")?;
            let features = package["features"].as_object();
            let features = features.context("a package has no features")?;
            let features = features.keys().filter(|feature| *feature != "default");
            Ok((name.to_owned(), features.cloned().collect()))
        })
        .collect()
}

/// The packages that are not published.
pub(crate) fn unpublished() -> Result<Vec<String>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array();
    let packages = packages.context("cargo metadata has no packages")?.iter();
    // `publish = false` is an empty list of registries.
    let unpublished = packages.filter(|package| package["publish"].is_array());
    Ok(unpublished.filter_map(|package| package["name"].as_str().map(str::to_owned)).collect())
}

/// Returns the version of a package of the workspace.
pub(crate) fn version(package: &str) -> Result<String> {
    let metadata = metadata()?;
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let found = packages.find(|found| found["name"] == package);
    let version = found.and_then(|found| found["version"].as_str());
    Ok(version.with_context(|| format!("there is no package {package}"))?.to_owned())
}

/// Returns where the repository is published.
pub(crate) fn repository() -> Result<String> {
    let metadata = metadata()?;
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let repository = packages.find_map(|package| package["repository"].as_str());
    Ok(repository.context("no package names its repository")?.to_owned())
}

/// Returns the files in a folder and below it whose names end so, in order, without what is built or hidden.
pub(crate) fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        // A link leads to a file that is visited anyway.
        let kind = entry.file_type()?;
        if kind.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            found.extend(files(&path, extension)?);
        } else if kind.is_file() && path.extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn metadata() -> Result<Value> {
    let mut command = run::cargo(&["metadata", "--no-deps", "--format-version=1"]);
    let text = run::output(&mut command).context("cargo metadata failed")?;
    serde_json::from_str(&text).context("cargo metadata is not JSON")
}
