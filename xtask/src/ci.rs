// SPDX-License-Identifier: Apache-2.0
//! The checks before a merge.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::run::{cargo, has_subcommand, output, step};
use crate::{counts, docs, headers, loom, test, workspace};

/// The crates that combine others by cargo features.
const COMPOSED: [&str; 3] = ["inference-collector", "collector-config", "collector-cli"];

/// The crates that do no I/O, and the dependencies that they must not have.
const PURE: [&str; 2] = ["collector-core", "collector-cache"];
const IMPURE: [&str; 3] = ["tokio", "hyper", "reqwest"];

/// Runs all checks, the quick ones first.
pub(crate) fn all() -> Result<()> {
    step("format", &mut cargo(&["fmt", "--all", "--check"]))?;
    architecture_names_what_exists()?;
    if headers::REQUIRED {
        headers::check()?;
    }
    docs::make_if_possible()?;
    pure_crates_stay_pure()?;
    step(
        "lints",
        &mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-Dwarnings",
        ]),
    )?;
    each_feature_alone()?;
    step(
        "docs",
        cargo(&["doc", "--workspace", "--no-deps", "--all-features"])
            .env("RUSTDOCFLAGS", "-Dwarnings"),
    )?;
    packages()?;
    if has_subcommand("deny") {
        step("licenses, bans and sources", &mut cargo(&["deny", "check"]))?;
    } else {
        println!("== licenses, bans and sources: skipped, because cargo-deny is not installed");
    }
    loom::all()?;
    test::all()?;
    counts::all()
}

/// Features only add: no feature, and each feature alone, must compile.
fn each_feature_alone() -> Result<()> {
    let packages = workspace::packages()?;
    for package in COMPOSED {
        let features = packages.get(package).into_iter().flatten();
        for feature in std::iter::once("").chain(features.map(String::as_str)) {
            step(
                &format!("{package} with the features [{feature}]"),
                &mut cargo(&[
                    "clippy",
                    "--package",
                    package,
                    "--no-default-features",
                    "--features",
                    feature,
                    "--",
                    "-Dwarnings",
                ]),
            )?;
        }
    }
    Ok(())
}

/// Each library can be packed as it would be published, with what its manifest names.
fn packages() -> Result<()> {
    let mut package = cargo(&["package", "--workspace", "--no-verify", "--allow-dirty", "--quiet"]);
    for name in workspace::unpublished()? {
        package.args(["--exclude", &name]);
    }
    step("packages", &mut package)
}

fn pure_crates_stay_pure() -> Result<()> {
    for package in PURE {
        let mut tree = cargo(&["tree", "--edges=normal", "--prefix=none", "--package", package]);
        let tree = output(&mut tree).with_context(|| format!("cargo tree of {package} failed"))?;
        for line in tree.lines() {
            let dependency = line.split(' ').next().unwrap_or(line);
            if IMPURE.contains(&dependency) {
                bail!("{package} does no I/O, and now depends on {dependency}");
            }
        }
    }
    Ok(())
}

/// An unchecked architecture page soon names crates that no longer exist.
fn architecture_names_what_exists() -> Result<()> {
    println!("== ARCHITECTURE.md");
    let page = workspace::root().join("ARCHITECTURE.md");
    let page =
        fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
    let packages: BTreeSet<String> = workspace::packages()?.into_keys().collect();
    let problems = differences(&page, &packages);
    if !problems.is_empty() {
        bail!("ARCHITECTURE.md: {}", problems.join("; "));
    }
    Ok(())
}

fn differences(page: &str, packages: &BTreeSet<String>) -> Vec<String> {
    let words: BTreeSet<&str> =
        page.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '-')).collect();
    let unnamed = packages
        .iter()
        .filter(|package| !words.contains(package.as_str()))
        .map(|package| format!("does not name the crate {package}"));
    let gone = words
        .iter()
        .filter(|word| word.starts_with("collector-") && !packages.contains(**word))
        .map(|word| format!("names {word}, which is not a crate"));
    unnamed.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unnamed_crates_and_unknown_names_are_found() {
        let packages = BTreeSet::from(["collector-core".to_owned(), "xtask".to_owned()]);
        assert!(differences("`collector-core`, and xtask.", &packages).is_empty());
        assert_eq!(
            differences("collector-core and (collector-gone)", &packages),
            ["does not name the crate xtask", "names collector-gone, which is not a crate"]
        );
    }
}
