//! Runs the fuzz target.

use std::fs;

use anyhow::{Result, bail};

use crate::run::{cargo, has_subcommand, output, step};
use crate::workspace;

/// Fuzzes the scanner for this many seconds, from the seeds and the findings of earlier runs.
pub(crate) fn scan(seconds: u32) -> Result<()> {
    if !has_subcommand("fuzz") {
        bail!("fuzzing needs cargo-fuzz, and a C++ compiler: run `cargo install cargo-fuzz`");
    }
    let corpus = workspace::root().join("fuzz/corpus/scan");
    fs::create_dir_all(&corpus)?;
    let mut fuzz = cargo(&["fuzz", "run", "scan", "fuzz/corpus/scan", "fuzz/seeds/scan", "--"]);
    fuzz.arg(format!("-max_total_time={seconds}")).arg("-max_len=4096");
    if !is_nightly() {
        // It allows the flags that instrument the code.
        fuzz.env("RUSTC_BOOTSTRAP", "1");
    }
    step(&format!("fuzz the scanner for {seconds} s"), &mut fuzz)
}

fn is_nightly() -> bool {
    output(&mut cargo(&["--version"])).is_some_and(|version| version.contains("nightly"))
}
