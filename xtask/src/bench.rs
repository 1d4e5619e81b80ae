// SPDX-License-Identifier: Apache-2.0
//! Runs the benchmarks.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::run::{cargo, step};
use crate::{install, workspace};

/// What to measure, and where to write the results.
#[derive(Args)]
pub(crate) struct Options {
    /// Fewer and smaller rounds: seconds instead of minutes, with rougher figures.
    #[arg(long)]
    quick: bool,
    /// Also write the figures to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only this suite (hit, threads, refresh …); may be given several times.
    #[arg(long, value_name = "SUITE")]
    only: Vec<String>,
    /// Also write docs/benchmarks.md and its plots, as a complete run does.
    #[arg(long)]
    page: bool,
}

/// Builds the collector in release mode and measures it.
pub(crate) fn run(options: &Options) -> Result<()> {
    install::prometheus()?;
    let build = &mut cargo(&["build", "--profile", "dist", "--package", "collector-cli"]);
    step("build the collector", build)?;
    let collector = workspace::target_folder()?.join("dist/collector");
    let mut bench = cargo(&["run", "--profile", "dist", "--package", "collector-bench", "--"]);
    bench.arg("--collector").arg(collector);
    for (flag, wanted) in [("--quick", options.quick), ("--page", options.page)] {
        if wanted {
            bench.arg(flag);
        }
    }
    for suite in &options.only {
        bench.arg("--only").arg(suite);
    }
    if let Some(json) = &options.json {
        // The benchmarks run in the workspace's root; the path is relative to the user's folder.
        let json =
            std::path::absolute(json).with_context(|| format!("no path: {}", json.display()))?;
        bench.arg("--json").arg(json);
    }
    step("measure", &mut bench)
}
