//! Measures the collector: `cargo xtask bench` builds it and runs this.

#![expect(clippy::print_stderr, reason = "a command-line tool says why there are no figures")]

use std::process::ExitCode;

use clap::Parser as _;
use collector_bench::{Args, Repeat};
use tokio::runtime;

fn main() -> ExitCode {
    let outcome = if std::env::args().any(|argument| argument == "--repeat-case") {
        // One thread, so that nothing but the runs is counted.
        let repeat = Repeat::parse();
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Into::into).and_then(|it| it.block_on(collector_bench::repeat(&repeat)))
    } else {
        let args = Args::parse();
        // Several, because the simulated pods must answer while this one waits for a program.
        let runtime = runtime::Builder::new_multi_thread().enable_all().build();
        runtime.map_err(Into::into).and_then(|it| it.block_on(collector_bench::measure(&args)))
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
