// SPDX-License-Identifier: Apache-2.0
//! The command `collector`, for programs that bring backends of their own.
//!
//! Such a program has every command of `collector`. Its `main` registers a backend and calls [`run`]:
//!
//! ```no_run
//! # fn main_with(acme: collector_config::BackendFactory) -> std::process::ExitCode {
//! collector_cli::run(collector_config::Loader::new().register(acme))
//! # }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

mod args;
mod commands;
mod exit;
mod logging;
mod open_files;
mod output;
mod progress;
#[cfg(test)]
mod schema;
#[cfg(any(feature = "sim", feature = "tui"))]
mod screen;
mod server;
mod signals;

use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::process::ExitCode;

use clap::Parser as _;
use collector_config::Loader;

use crate::args::{Cli, Format};
use crate::exit::{Exit, Failure};
use crate::output::{print, printable, shown};

/// Runs the command that the process was called with. `loader` has the backends that can be chosen; the
/// command line, the environment and the file that they name are read over it.
///
/// Sets the process's panic hook and its logger, and is called once, from `main`.
#[expect(clippy::needless_pass_by_value, reason = "a `main` has no other use for it")]
pub fn run(loader: Loader) -> ExitCode {
    panic::set_hook(Box::new(report_panic));
    let cli = Cli::parse();
    logging::expect_format(cli.global.log_format.as_deref());
    cli.global.color.choose();
    open_files::make_room();
    let exit = match panic::catch_unwind(AssertUnwindSafe(|| commands::run(&cli, &loader))) {
        Ok(Ok(exit)) => {
            logging::release("");
            exit
        }
        Ok(Err(failure)) => report(&failure, cli.global.output.as_ref().map(|form| form.format)),
        // The hook has said why.
        Err(_) => {
            logging::release("");
            Exit::Failure
        }
    };
    exit.into()
}

/// Reports a failure on stderr, and as a document on stdout if JSON or YAML is requested.
fn report(failure: &Failure, format: Option<Format>) -> Exit {
    if let Some(document) = failure.document() {
        let text = shown(format.unwrap_or(Format::Table), document, String::new);
        // An error of this is not reported: the failure itself is, below.
        let _ = print(&text);
    }
    let (problems, advice) = (failure.problems(), failure.advice());
    logging::release(&problems.join("\n"));
    for (index, problem) in problems.iter().enumerate() {
        let is_last = index + 1 == problems.len();
        logging::report_error(problem, if is_last { &advice } else { &[] });
    }
    failure.exit()
}

/// Reports a panic in one line, without a backtrace.
fn report_panic(panic: &PanicHookInfo<'_>) {
    #[cfg(any(feature = "sim", feature = "tui"))]
    screen::leave();
    let payload = panic.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let place = panic
        .location()
        .map_or_else(String::new, |place| format!(" ({}:{})", place.file(), place.line()));
    let message = printable(message);
    logging::report_error(&format!("internal error, please report it: {message}{place}"), &[]);
}
