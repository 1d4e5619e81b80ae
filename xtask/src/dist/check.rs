// SPDX-License-Identifier: Apache-2.0
//! Verifies the packages, as who gets them would.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Build, COMPLETIONS, FILES, MANUAL, NAME, files, sbom, tree};
use crate::run::{output, step};

/// Paths of the Debian package, other than what the program writes about itself.
const INSTALLED: [&str; 9] = [
    "usr/bin/collector",
    "etc/collector/collector.toml",
    "usr/lib/systemd/system/collector.service",
    "usr/share/doc/collector/copyright",
    "usr/share/doc/collector/LICENSE",
    "usr/share/doc/collector/NOTICE",
    "usr/share/doc/collector/README.md",
    "usr/share/doc/collector/THIRD-PARTY.txt",
    "usr/share/doc/collector/examples/fleet.toml",
];

/// Verifies everything in the folder of packages.
pub(crate) fn all(build: &Build) -> Result<()> {
    let mut sums = Command::new("sha256sum");
    sums.args(["--check", "--strict", "SHA256SUMS"]).current_dir(&build.packages);
    step("checksums", &mut sums)?;
    let listed = fs::read_to_string(build.packages.join("SHA256SUMS"))?;
    let listed: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name).collect();
    let names = files(&build.packages)?;
    let unlisted: Vec<&String> = names
        .iter()
        .filter(|name| *name != "SHA256SUMS" && !listed.contains(name.as_str()))
        .collect();
    ensure!(unlisted.is_empty(), "SHA256SUMS does not list {unlisted:?}");
    bill(build)?;
    archive(build)?;
    let deb = names.iter().find(|name| Path::new(name).extension().is_some_and(|end| end == "deb"));
    debian_package(build, &build.packages.join(deb.context("there is no Debian package")?))?;
    for name in names {
        let size = fs::metadata(build.packages.join(&name))?.len();
        println!("{size:>10} {name}");
    }
    Ok(())
}

fn bill(build: &Build) -> Result<()> {
    println!("== bill of materials");
    let bill = fs::read(build.packages.join(build.bill()))?;
    let crates = bill_is_complete(&serde_json::from_slice(&bill).context("the bill is not JSON")?)?;
    println!("   {crates} crates");
    Ok(())
}

/// Each crate that cargo names is in the bill, and each reference in it leads somewhere. Returns their number.
pub(crate) fn bill_is_complete(bill: &Value) -> Result<usize> {
    ensure!(bill["bomFormat"] == "CycloneDX", "the bill is not CycloneDX");
    let list = |key: &str| bill[key].as_array().with_context(|| format!("the bill has no {key}"));
    let mut listed = BTreeSet::new();
    for component in list("components")?.iter().chain([&bill["metadata"]["component"]]) {
        let reference = component["bom-ref"].as_str().context("a component has no bom-ref")?;
        ensure!(listed.insert(reference), "{reference} is listed twice");
    }
    for dependency in list("dependencies")? {
        for on in dependency["dependsOn"].as_array().into_iter().flatten() {
            let on = on.as_str().context("a reference is not text")?;
            ensure!(
                listed.contains(on),
                "{} leads to {on}, which is not listed",
                dependency["ref"]
            );
        }
    }
    let tree = tree::cargo_tree("none")?;
    let mut crates = BTreeSet::new();
    for line in tree.lines() {
        let reference = sbom::reference(&tree::id(line)?);
        ensure!(listed.contains(reference.as_str()), "the bill lacks {reference}");
        crates.insert(reference);
    }
    // And the standard library.
    ensure!(crates.len() + 1 == listed.len(), "the bill lists {}", listed.len());
    Ok(crates.len())
}

fn archive(build: &Build) -> Result<()> {
    println!("== contents of the archive");
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(build.packages.join(build.archive()));
    step("extract", tar.arg("--directory").arg(folder.path()))?;
    let top = folder.path().join(build.name());
    for path in FILES.map(|(_, path)| path).into_iter().chain(["THIRD-PARTY.txt"]) {
        has(&top, path)?;
    }
    program_runs(build, &top.join(NAME), &top)
}

fn debian_package(build: &Build, deb: &Path) -> Result<()> {
    step("Debian package", Command::new("dpkg-deb").arg("--info").arg(deb))?;
    let field = |name: &str| {
        let mut command = Command::new("dpkg-deb");
        let field = output(command.arg("--field").arg(deb).arg(name));
        field.map(|field| field.trim().to_owned()).with_context(|| format!("no field {name}"))
    };
    ensure!(field("Package")? == NAME, "another name");
    let version = field("Version")?;
    ensure!(version.starts_with(&build.version), "another version: {version}");
    ensure!(field("Depends")?.contains("libc6"), "it does not depend on libc6");
    let root = tempfile::tempdir().context("cannot make a temporary folder")?;
    install(deb, root.path())?;
    for path in INSTALLED {
        has(root.path(), path)?;
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    step("control files", Command::new("dpkg-deb").arg("--control").arg(deb).arg(folder.path()))?;
    let conffiles = fs::read_to_string(folder.path().join("conffiles")).unwrap_or_default();
    ensure!(
        conffiles.trim() == "/etc/collector/collector.toml",
        "an upgrade would replace the configuration: {conffiles:?}"
    );
    let program = root.path().join("usr/bin/collector");
    program_runs(build, &program, &root.path().join("usr"))?;
    let file = root.path().join("etc/collector/collector.toml");
    step("its configuration", Command::new(program).env_clear().arg("validate").arg(file))
}

/// Installs the package into a root of its own, as root with dpkg's database and the package's scripts.
fn install(deb: &Path, root: &Path) -> Result<()> {
    let is_root = output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    if !is_root {
        println!("== install: unpacked only, because dpkg installs as root alone");
        return step("unpack", Command::new("dpkg-deb").arg("--extract").args([deb, root]));
    }
    fs::create_dir_all(root.join("var/lib/dpkg/info"))?;
    fs::create_dir_all(root.join("var/lib/dpkg/updates"))?;
    fs::write(root.join("var/lib/dpkg/status"), "")?;
    let mut dpkg = Command::new("dpkg");
    // Its dependencies are of this machine, and not in the new root.
    dpkg.arg("--root").arg(root).args([
        "--force-depends",
        "--force-script-chrootless",
        "--install",
    ]);
    step("install", dpkg.arg(deb))
}

/// The program has the version of the package, and with manual pages and completions.
fn program_runs(build: &Build, program: &Path, prefix: &Path) -> Result<()> {
    let version = output(Command::new(program).env_clear().arg("--version"));
    let version = version.with_context(|| format!("{} does not run", program.display()))?;
    ensure!(version.trim() == format!("{NAME} {}", build.version), "another version: {version}");
    let manual = format!("{MANUAL}/{NAME}.1");
    let of_a_command = format!("{MANUAL}/{NAME}-get-replicas.1");
    for path in COMPLETIONS.map(|(_, path)| path).into_iter().chain([&*manual, &*of_a_command]) {
        has(&prefix.join("share"), path)?;
    }
    Ok(())
}

fn has(folder: &Path, path: &str) -> Result<()> {
    // Debian's tools compress man pages.
    let compressed = folder.join(format!("{path}.gz"));
    match fs::metadata(folder.join(path)).or_else(|_| fs::metadata(compressed)) {
        Ok(file) if file.len() > 0 => Ok(()),
        _ => bail!("{path} is missing, or is empty"),
    }
}
