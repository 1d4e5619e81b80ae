// SPDX-License-Identifier: Apache-2.0
//! Every command of `collector`, with this backend among those that a configuration can choose.

use std::process::ExitCode;

use collector::{cli, config::Loader};

fn main() -> ExitCode {
    cli::run(Loader::new().register(static_json_backend::factory()))
}
