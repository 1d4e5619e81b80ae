// SPDX-License-Identifier: Apache-2.0
//! What each command does, one file each.

#[cfg(feature = "kubernetes")]
mod answers;
mod check;
mod config_show;
#[cfg(feature = "sim")]
mod demo;
mod docs;
mod explain;
mod files;
mod generate;
mod get;
#[cfg(feature = "promql")]
mod promql;
#[cfg(feature = "record")]
mod record;
#[cfg(feature = "record")]
mod replay;
#[cfg(all(feature = "keda", feature = "promql"))]
mod scaled_object;
#[cfg(feature = "epp")]
mod scrape;
mod select;
mod serve;
mod settings;
#[cfg(feature = "sim")]
mod sim;
#[cfg(feature = "tui")]
mod top;
mod totals;
mod validate;
mod version;
mod watch;

#[cfg(all(test, feature = "epp"))]
pub(crate) use scrape::{SamplesDocument, ScrapeDocument};

use std::future::Future;

use collector_config::Loader;
use tokio::runtime::Builder;

use crate::args::{Cli, Command, ConfigCommand};
use crate::exit::{Exit, Failure};

/// Runs the command. `base` has the backends that can be chosen.
pub(crate) fn run(cli: &Cli, base: &Loader) -> Result<Exit, Failure> {
    let global = &cli.global;
    match &cli.command {
        #[cfg(feature = "sim")]
        Command::Demo(args) => demo::run(base, global, args),
        Command::Get(args) => get::run(base, global, args),
        Command::Watch(args) => watch::run(base, global, &args.select, args.window, args.timeout),
        #[cfg(feature = "tui")]
        Command::Top(args) => top::run(base, global, args),
        Command::Check(args) => check::run(base, global, args),
        Command::Explain(args) => explain::run(base, global, args),
        Command::Validate(args) => validate::run(base, global, args),
        Command::Config(ConfigCommand::Show(args)) => config_show::run(base, global, args),
        Command::Serve(args) => serve::run(base, global, args),
        #[cfg(feature = "record")]
        Command::Record(args) => record::run(base, global, args),
        #[cfg(feature = "record")]
        Command::Replay(args) => replay::run(base, global, args),
        #[cfg(feature = "epp")]
        Command::Scrape(args) => scrape::run(base, global, args),
        #[cfg(all(feature = "keda", feature = "promql"))]
        Command::ScaledObject(args) => scaled_object::run(base, global, args),
        Command::Version => version::run(global),
        Command::Completions { shell } => generate::completions(global, *shell),
        Command::Man(args) => generate::man(global, args),
        Command::Docs(args) => docs::run(global, args),
        #[cfg(feature = "sim")]
        Command::Sim(args) => sim::run(base, global, args),
        #[cfg(not(feature = "sim"))]
        Command::NoSimulator { .. } => Err(Failure::usage(
            "this build has no simulator: the commands `demo` and `sim` need the cargo feature `sim`",
        )),
    }
}

/// Runs a command that sends a few requests and exits: one thread is enough, and starts fastest.
fn block_on<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    run_on(&mut Builder::new_current_thread(), command)
}

/// Runs a command that serves requests.
fn block_on_many_threads<T>(
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    run_on(&mut Builder::new_multi_thread(), command)
}

fn run_on<T>(
    builder: &mut Builder,
    command: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start: {error}")))?;
    let result = runtime.block_on(command);
    // Does not wait: the resolver of an unreachable name server would block the exit.
    runtime.shutdown_background();
    result
}
