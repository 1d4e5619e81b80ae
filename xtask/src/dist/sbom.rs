// SPDX-License-Identifier: Apache-2.0
//! The software bill of materials, in CycloneDX 1.5.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::tree::{Id, Package};
use super::{Build, NAME};

/// Returns the bill of a build, the same for the same sources.
pub(crate) fn sbom(build: &Build, packages: &BTreeMap<Id, Package>) -> Result<Value> {
    let program = packages.keys().find(|(name, _)| name == "collector-cli");
    let program = program.context("the tree has no collector-cli")?;
    let library = |(id, package): (&Id, &Package)| {
        let mut component = component("library", id, package);
        if let Some(checksum) = &package.checksum {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": checksum }]);
        }
        component
    };
    let mut components: Vec<Value> =
        packages.iter().filter(|(id, _)| *id != program).map(library).collect();
    components.push(json!({
        "type": "library", "bom-ref": standard_library(build), "name": "rust-std",
        "version": build.rust, "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    }));
    let dependencies = packages.iter().map(|(id, package)| {
        let mut on: Vec<String> = package.dependencies.iter().map(reference).collect();
        if id == program {
            on.push(standard_library(build));
        }
        json!({ "ref": reference(id), "dependsOn": on })
    });
    let mut root = component("application", program, &packages[program]);
    root["name"] = NAME.into();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": root,
            "properties": [{ "name": "cargo:target", "value": build.target }],
        },
        "components": components,
        "dependencies": dependencies.collect::<Vec<_>>(),
    }))
}

fn component(kind: &str, id: &Id, package: &Package) -> Value {
    let mut component = json!({
        "type": kind, "bom-ref": reference(id), "name": id.0, "version": id.1, "purl": reference(id),
        "licenses": [{ "expression": package.license }],
    });
    if let Some(repository) = &package.repository {
        component["externalReferences"] = json!([{ "type": "vcs", "url": repository }]);
    }
    component
}

/// Returns the package URL of a crate. A `+` has to be escaped in it.
pub(crate) fn reference((name, version): &Id) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn standard_library(build: &Build) -> String {
    format!("pkg:generic/rust-std@{}", build.rust)
}
