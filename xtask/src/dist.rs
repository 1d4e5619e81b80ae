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
    ("deploy/systemd/collector.toml", "examples/collector.toml"),
    ("examples/direct-scraping.toml", "examples/direct-scraping.toml"),
    ("examples/fleet.toml", "examples/fleet.toml"),
];

/// What the program writes about itself: its arguments, and where below `share` systems look for it.
const WRITTEN: [(&[&str], &str); 4] = [
    (&["man"], "man/man1/collector.1"),
    (&["completions", "bash"], "bash-completion/completions/collector"),
    (&["completions", "zsh"], "zsh/vendor-completions/_collector"),
    (&["completions", "fish"], "fish/vendor_completions.d/collector.fish"),
];

/// What to do with the packages.
#[derive(Args)]
pub(crate) struct Options {
    /// Only verify what is in target/packages.
    #[arg(long)]
    check: bool,
}

/// What is packaged.
struct Build {
    version: String,
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
    fn new() -> Result<Self> {
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
            program: target.join("dist/collector"),
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
    let time = log.context("this is no clone: set SOURCE_DATE_EPOCH to the time of the release")?;
    Ok(time.trim().to_owned())
}

/// Prints the licences of what the program contains.
pub(crate) fn print_notices() -> Result<()> {
    print!("{}", notices::notices(&tree::packages()?)?);
    Ok(())
}

/// Builds the program, packs it and verifies the packages.
pub(crate) fn run(options: &Options) -> Result<()> {
    let build = Build::new()?;
    if !options.check {
        make(&build)?;
    }
    check::all(&build)
}

fn make(build: &Build) -> Result<()> {
    let deb = install::tool("cargo-deb")?;
    step("build", &mut cargo(&["build", "--locked", "--profile=dist", "--package=collector-cli"]))?;
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
    what_the_program_writes(build, &share)?;
    archive(build, &share)?;
    debian_package(build, &deb)?;
    sums(build)
}

/// Man page and completions, if this program has the commands for them.
fn what_the_program_writes(build: &Build, share: &Path) -> Result<()> {
    for (arguments, path) in WRITTEN {
        let mut command = Command::new(&build.program);
        match output(command.env_clear().args(arguments)) {
            Some(text) => write(&share.join(path), text.as_bytes())?,
            None => println!("   without {path}: there is no `collector {}`", arguments.join(" ")),
        }
    }
    Ok(())
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
    for (_, path) in WRITTEN {
        if let Ok(text) = fs::read(share.join(path)) {
            write(&top.join("share").join(path), &text)?;
        }
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
        .args(["--no-build", "--no-strip", "--locked", "--profile=dist", "--package=collector-cli"])
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
