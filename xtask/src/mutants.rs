// SPDX-License-Identifier: Apache-2.0
//! Runs mutation tests: breaks the code in a thousand small ways, and counts the breaks that no test detects.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::run::{cargo, has_subcommand, step};
use crate::workspace;

/// Percentage of mutants that tests must detect.
const CAUGHT_AT_LEAST: usize = 90;

/// The crates whose guarantees an autoscaler relies on, each with the crates whose tests run second: a
/// crate's own tests take seconds, and surviving mutants are tested with the others.
const CRATES: [(&str, &str); 3] = [
    ("collector-core", "collector-cache,collector-engine,collector-config"),
    ("collector-cache", "collector-engine"),
    ("collector-engine", "collector-config"),
];

/// The results for the mutants that compile.
#[derive(Default)]
struct Tally {
    caught: Vec<String>,
    missed: Vec<String>,
}

/// Installs `cargo-mutants` if necessary and runs it over the crates, as configured in `.cargo/mutants.toml`:
/// an hour or three. `arguments` are passed to it.
pub(crate) fn all(arguments: &[String]) -> Result<()> {
    if !has_subcommand("mutants") {
        step("install cargo-mutants", &mut cargo(&["install", "--locked", "cargo-mutants"]))?;
    }
    let mut all = Tally::default();
    for (package, second_opinion) in CRATES {
        let tally = test(package, second_opinion, arguments)?;
        println!("== {package}: {}", tally.summary());
        all.caught.extend(tally.caught);
        all.missed.extend(tally.missed);
    }
    println!("== all: {}", all.summary());
    for missed in &all.missed {
        println!("missed: {missed}");
    }
    if all.caught.len() * 100 < all.total() * CAUGHT_AT_LEAST {
        bail!("tests catch fewer than {CAUGHT_AT_LEAST} % of the mutants");
    }
    Ok(())
}

/// Most mutants are detected by the crate's own tests, which are quick to build. Survivors are tested with those of
/// the second crates.
fn test(package: &str, second_opinion: &str, arguments: &[String]) -> Result<Tally> {
    let output = workspace::target_folder()?.join("mutants").join(package);
    let results = output.join("mutants.out");
    if results.exists() {
        fs::remove_dir_all(&results)
            .with_context(|| format!("cannot remove {}", results.display()))?;
    }
    let selected: Vec<&str> = arguments.iter().map(String::as_str).collect();
    run(package, &output, &selected)?;
    if !results.exists() {
        // The arguments select nothing of this crate.
        return Ok(Tally::default());
    }
    let mut tally = read(&results)?;
    if tally.missed.is_empty() {
        return Ok(tally);
    }
    let these = only(&tally.missed);
    let mut again = unsharded(&selected);
    again.extend(["--baseline=skip", "--timeout=180", "--test-package", second_opinion]);
    again.extend(these.iter().flat_map(|name| ["--re", name]));
    run(package, &output, &again)?;
    let others = read(&results)?;
    // A pattern accepts fields that were omitted.
    let is_caught = |name: &String| others.caught.contains(name);
    let (caught, missed) = tally.missed.into_iter().partition(is_caught);
    tally.missed = missed;
    tally.caught.extend::<Vec<String>>(caught);
    Ok(tally)
}

/// Returns patterns for exactly these mutants.
fn only(names: &[String]) -> Vec<String> {
    let escaped = |name: &String| -> String {
        let each = name.chars().map(|c| {
            let plain = c.is_alphanumeric() || c.is_whitespace() || "_/:<>=!&%'@,;\"".contains(c);
            if plain { c.to_string() } else { format!("\\{c}") }
        });
        each.collect()
    };
    names.iter().map(|name| format!("^{}$", escaped(name))).collect()
}

/// Removes the arguments that select a part: they would select a part of that part.
fn unsharded<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let mut is_value = false;
    let stays = |argument: &&&str| {
        let dropped = is_value || argument.starts_with("--shard");
        is_value = matches!(**argument, "--shard" | "--sharding");
        !dropped
    };
    arguments.iter().filter(stays).copied().collect()
}

fn run(package: &str, output: &Path, arguments: &[&str]) -> Result<()> {
    println!("== mutants of {package}");
    fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
    let mut mutants = cargo(&["mutants", "--package", package, "--output"]);
    mutants.arg(output).args(arguments);
    mutants.env("CARGO_TARGET_DIR", workspace::target_folder()?.join("mutants/built"));
    let status = mutants.status().context("cannot run cargo mutants")?;
    // 2: some were missed; 3: some made a test hang.
    if !matches!(status.code(), Some(0 | 2 | 3)) {
        bail!("cargo mutants of {package} failed ({status})");
    }
    Ok(())
}

/// Reads the results of the last run in this folder. A mutant that makes a test hang is detected.
fn read(results: &Path) -> Result<Tally> {
    let lines = |name: &str| -> Result<Vec<String>> {
        let text = fs::read_to_string(results.join(name))
            .with_context(|| format!("cannot read {name} in {}", results.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let caught = [lines("caught.txt")?, lines("timeout.txt")?].concat();
    Ok(Tally { caught, missed: lines("missed.txt")? })
}

impl Tally {
    fn total(&self) -> usize {
        self.caught.len() + self.missed.len()
    }

    fn summary(&self) -> String {
        let (caught, total) = (self.caught.len(), self.total());
        let share = caught as f64 * 100.0 / total.max(1) as f64;
        format!("{caught} of {total} mutants caught ({share:.1} %)")
    }
}
