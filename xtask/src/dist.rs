// SPDX-License-Identifier: Apache-2.0
//! Makes the packages of a release.

mod check;
mod notices;
mod sbom;
mod tree;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::run::{cargo, output, step};
use crate::{install, workspace};

/// The name of the program and of its packages.
const NAME: &str = "collector";

/// Files of the repository that come with the program, and where in the archive.
const FILES: [(&str, &str); 9] = [
    ("LICENSE", "LICENSE"),
    ("NOTICE", "NOTICE"),
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("SECURITY.md", "SECURITY.md"),
    ("deploy/systemd/collector.service", "systemd/collector.service"),
    ("examples/collector.toml", "examples/collector.toml"),
    ("examples/direct-scraping.toml", "examples/direct-scraping.toml"),
    ("examples/fleet.toml", "examples/fleet.toml"),
];

/// The shells that the program writes completions for, and where below `share` each looks for them.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "bash-completion/completions/collector"),
    ("zsh", "zsh/vendor-completions/_collector"),
    ("fish", "fish/vendor_completions.d/collector.fish"),
];

/// Where below `share` manual pages are.
const MANUAL: &str = "man/man1";

/// What to do with the packages.
#[derive(Args)]
pub(crate) struct Options {
    /// Only verify what is in target/packages.
    #[arg(long)]
    check: bool,
    /// Pack a debug build: to try the packages, not to ship them.
    #[arg(long)]
    dev: bool,
}

/// What is packaged.
struct Build {
    version: String,
    /// The cargo profile that it is built with.
    profile: &'static str,
    /// The target triple that it is built for.
    target: String,
    /// The version of Rust that built it.
    rust: String,
    /// The time of every file, in seconds since 1970.
    time: String,
    program: PathBuf,
    /// Where the packages are.
    packages: PathBuf,
}

impl Build {
    fn new(profile: &'static str) -> Result<Self> {
        let rustc = output(Command::new("rustc").arg("-vV")).context("rustc -vV failed")?;
        let value = |key: &str| {
            let line = rustc.lines().find_map(|line| line.strip_prefix(key));
            line.map(str::to_owned).with_context(|| format!("rustc -vV has no {key}"))
        };
        let target = workspace::target_folder()?;
        Ok(Self {
            version: workspace::version("collector-cli")?,
            target: value("host: ")?,
            rust: value("release: ")?,
            time: time()?,
            program: target.join(if profile == "dev" { "debug" } else { profile }).join(NAME),
            profile,
            packages: target.join("packages"),
        })
    }

    /// The name of the archive, without an end, and of the folder in it.
    fn name(&self) -> String {
        format!("{NAME}-{}-{}", self.version, self.target)
    }

    fn archive(&self) -> String {
        self.name() + ".tar.gz"
    }

    fn bill(&self) -> String {
        self.name() + ".cdx.json"
    }
}

/// `SOURCE_DATE_EPOCH`, or the time of the last commit: packages of the same sources are the same.
fn time() -> Result<String> {
    if let Ok(time) = env::var("SOURCE_DATE_EPOCH") {
        return Ok(time);
    }
    let log = Command::new("git")
        .args(["log", "-1", "--format=%ct"])
        .current_dir(workspace::root())
        .output()
        .ok()
        .filter(|log| log.status.success())
        .and_then(|log| String::from_utf8(log.stdout).ok());
    let time =
        log.context("this is not a clone: set SOURCE_DATE_EPOCH to the time of the release")?;
    Ok(time.trim().to_owned())
}

/// Prints the licences of what the program contains.
pub(crate) fn print_notices() -> Result<()> {
    print!("{}", notices::notices(&tree::packages()?)?);
    Ok(())
}

/// Builds the program, packs it and verifies the packages.
pub(crate) fn run(options: &Options) -> Result<()> {
    let build = Build::new(if options.dev { "dev" } else { "dist" })?;
    if !options.check {
        make(&build)?;
    }
    check::all(&build)
}

fn make(build: &Build) -> Result<()> {
    let deb = install::tool("cargo-deb", &[])?;
    let mut compile = cargo(&["build", "--locked", "--package=collector-cli", "--profile"]);
    step("build", compile.arg(build.profile))?;
    let packages = tree::packages()?;
    if fs::exists(&build.packages)? {
        fs::remove_dir_all(&build.packages)?;
    }
    fs::create_dir_all(&build.packages)?;
    let bill = serde_json::to_string_pretty(&sbom::sbom(build, &packages)?)? + "\n";
    fs::write(build.packages.join(build.bill()), bill)?;
    // Where the manifest of collector-cli says that cargo-deb finds it, whatever the target folder is.
    let share = workspace::root().join("target/share");
    if fs::exists(&share)? {
        fs::remove_dir_all(&share)?;
    }
    write(&share.join("doc/collector/THIRD-PARTY.txt"), notices::notices(&packages)?.as_bytes())?;
    completions(build, &share)?;
    manual_pages(build, &[], &share.join(MANUAL))?;
    archive(build, &share)?;
    debian_package(build, &deb)?;
    sums(build)
}

/// What the program prints, in an empty environment.
fn printed(build: &Build, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(&build.program);
    let text = output(command.env_clear().args(arguments));
    text.with_context(|| format!("`{NAME} {}` failed", arguments.join(" ")))
}

fn completions(build: &Build, share: &Path) -> Result<()> {
    for (shell, path) in COMPLETIONS {
        write(&share.join(path), printed(build, &["completions", shell])?.as_bytes())?;
    }
    Ok(())
}

/// The manual page of a command, and those of the commands that it lists.
fn manual_pages(build: &Build, command: &[&str], folder: &Path) -> Result<()> {
    let page = printed(build, &[&["man"], command].concat())?;
    let name = [&[NAME], command].concat().join("-");
    write(&folder.join(format!("{name}.1")), page.as_bytes())?;
    for below in subcommands(&page, &name) {
        if below != "help" {
            manual_pages(build, &[command, &[&below]].concat(), folder)?;
        }
    }
    Ok(())
}

/// The commands that a manual page lists, each in a line like `collector\-get\-replicas(1)`.
fn subcommands(page: &str, name: &str) -> Vec<String> {
    let plain = page.lines().map(|line| line.replace('\\', ""));
    let names = plain.filter_map(|line| {
        let below = line.strip_suffix("(1)")?.strip_prefix(name)?.strip_prefix('-')?;
        Some(below.to_owned())
    });
    names.collect()
}

fn archive(build: &Build, share: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let top = folder.path().join(build.name());
    fs::create_dir(&top)?;
    fs::copy(&build.program, top.join(NAME))?;
    for (from, to) in FILES {
        let from = workspace::root().join(from);
        let text = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
        write(&top.join(to), &text)?;
    }
    fs::copy(share.join("doc/collector/THIRD-PARTY.txt"), top.join("THIRD-PARTY.txt"))?;
    for (_, path) in COMPLETIONS {
        write(&top.join("share").join(path), &fs::read(share.join(path))?)?;
    }
    for page in files(&share.join(MANUAL))? {
        let path = Path::new(MANUAL).join(page);
        write(&top.join("share").join(&path), &fs::read(share.join(&path))?)?;
    }
    let mut tar = Command::new("tar");
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"])
        .args(["--mode=u=rwX,go=rX", "--use-compress-program=gzip -9n"])
        .arg(format!("--mtime=@{}", build.time))
        .arg("--create")
        .arg("--file")
        .arg(build.packages.join(build.archive()))
        .arg("--directory")
        .args([folder.path().as_os_str(), build.name().as_ref()]);
    step("archive", &mut tar)
}

fn debian_package(build: &Build, deb: &Path) -> Result<()> {
    let mut command = Command::new(deb);
    command
        .args(["--no-build", "--no-strip", "--locked", "--package=collector-cli", "--profile"])
        .arg(build.profile)
        .arg("--output")
        .arg(&build.packages)
        .env("SOURCE_DATE_EPOCH", &build.time)
        .current_dir(workspace::root());
    step("Debian package", &mut command)
}

fn sums(build: &Build) -> Result<()> {
    let mut names = files(&build.packages)?;
    names.sort();
    let mut command = Command::new("sha256sum");
    let sums = output(command.args(names).current_dir(&build.packages));
    fs::write(build.packages.join("SHA256SUMS"), sums.context("sha256sum failed")?)?;
    Ok(())
}

/// The names of the files in a folder.
fn files(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("no {}: run `cargo xtask dist`", folder.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Writes a file, and makes the folders that it is in.
fn write(path: &Path, contents: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn commands_are_found_in_a_manual_page() {
        let page =
            ".TP\ncollector\\-get\\-replicas(1)\nThe replicas\n.TP\ncollector\\-get\\-help(1)\n";
        assert_eq!(subcommands(page, "collector-get"), ["replicas", "help"]);
        assert_eq!(subcommands(page, "collector-config"), [""; 0]);
    }

    /// What the program is made of follows from Cargo.lock: each crate that `cargo tree` names is in the bill and, if it
    /// is not ours, in the notices.
    #[test]
    fn every_crate_is_in_the_bill_and_in_the_notices() {
        let packages = tree::packages().unwrap();
        let lines = tree::cargo_tree("none").unwrap();
        let crates: BTreeSet<_> = lines.lines().map(|line| tree::id(line).unwrap()).collect();
        assert!(crates.len() > 150 && crates.iter().eq(packages.keys()), "{}", crates.len());

        let build = Build {
            version: "0.0.0".to_owned(),
            profile: "dist",
            target: "here".to_owned(),
            rust: "1.0.0".to_owned(),
            time: "0".to_owned(),
            program: PathBuf::new(),
            packages: PathBuf::new(),
        };
        let bill = sbom::sbom(&build, &packages).unwrap();
        check::bill_is_complete(&bill).unwrap();
        let notices = notices::notices(&packages).unwrap();
        let mut foreign = 0;
        for ((name, version), package) in &packages {
            let line = format!("\n{name} {version}: {}\n", package.license);
            assert_eq!(notices.contains(&line), package.checksum.is_some(), "{name}");
            foreign += usize::from(package.checksum.is_some());
            assert!(!package.license.is_empty());
        }
        assert!(foreign > 130, "{foreign}");
        // The line below a rule names the crates that come under a text.
        let rule = "-".repeat(100);
        let mut lines = notices.lines();
        let mut users = BTreeSet::new();
        while lines.any(|line| line == rule) {
            users.extend(lines.next().unwrap().split(", "));
        }
        // And the standard library.
        assert_eq!(users.len(), foreign + 1);

        let mut lacking = bill;
        lacking["components"].as_array_mut().unwrap().remove(0);
        assert!(check::bill_is_complete(&lacking).is_err());
    }
}
