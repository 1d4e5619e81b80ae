// SPDX-License-Identifier: Apache-2.0
//! Runs the fuzz targets.

use std::fs;

use anyhow::{Result, bail};

use crate::run::{cargo, has_subcommand, output, step};
use crate::workspace;

/// The targets, each with the greatest length of its inputs: a page, a query that exceeds its limit, metadata with a name
/// that does, and a selector that does.
const TARGETS: [(&str, u32); 4] =
    [("scan", 4 << 10), ("promql", 20 << 10), ("keda", 6 << 10), ("selector", 6 << 10)];

/// Fuzzes each target for this many seconds, from the seeds and the findings of earlier runs.
pub(crate) fn all(seconds: u32) -> Result<()> {
    if !has_subcommand("fuzz") {
        bail!("fuzzing needs cargo-fuzz, and a C++ compiler: run `cargo install cargo-fuzz`");
    }
    for (target, max_len) in TARGETS {
        let (corpus, seeds) = (format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}"));
        fs::create_dir_all(workspace::root().join(&corpus))?;
        let mut fuzz = cargo(&["fuzz", "run", target, &corpus, &seeds, "--"]);
        fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={max_len}"));
        // What takes longer is a finding.
        fuzz.arg("-timeout=2");
        if !is_nightly() {
            // It allows the flags that instrument the code.
            fuzz.env("RUSTC_BOOTSTRAP", "1");
        }
        step(&format!("fuzz {target} for {seconds} s"), &mut fuzz)?;
    }
    Ok(())
}

fn is_nightly() -> bool {
    output(&mut cargo(&["--version"])).is_some_and(|version| version.contains("nightly"))
}
