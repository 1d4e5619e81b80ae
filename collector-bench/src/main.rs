// SPDX-License-Identifier: Apache-2.0
//! Measures the collector: `cargo xtask bench` builds it and runs this.

#![expect(clippy::print_stderr, reason = "a command-line tool says why there are no figures")]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use collector_bench::Args;
use tokio::runtime;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    if collector_bench::repeat_if_told()? {
        return Ok(());
    }
    // Several threads, because the simulated pods must answer while this one waits for a program.
    let runtime = runtime::Builder::new_multi_thread().enable_all().build()?;
    if runtime.block_on(collector_bench::serve_if_told())? {
        return Ok(());
    }
    let args = Args::parse();
    runtime.block_on(collector_bench::measure(&args))
}
