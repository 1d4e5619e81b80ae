// SPDX-License-Identifier: Apache-2.0
//! Holds counts against their bounds: `cargo xtask counts` builds it, optimised, and runs this.

#![expect(clippy::print_stderr, reason = "a command-line tool says what is above its bound")]

use std::process::ExitCode;

use anyhow::Result;

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
    collector_bench::counts()
}
