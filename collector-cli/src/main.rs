// SPDX-License-Identifier: Apache-2.0
//! The command `collector`: reads, checks and serves the load of LLM-inference fleets.

use std::process::ExitCode;

use collector_config::Loader;

fn main() -> ExitCode {
    collector_cli::run(Loader::new())
}
