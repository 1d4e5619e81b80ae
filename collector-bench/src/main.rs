//! Measures the collector: `cargo xtask bench` builds it and runs this.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line tool prints its figures, and why there are none"
)]

mod adaptive;
mod collector;
mod latency;
mod plot;
mod report;
mod scan;
mod scrape;
mod sizes;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::report::Report;

/// Measures the collector.
#[derive(Parser)]
struct Args {
    /// The program to measure, built as it is released.
    #[arg(long, value_name = "PROGRAM")]
    collector: PathBuf,
    /// Fewer rounds.
    #[arg(long)]
    quick: bool,
    /// Also write the figures to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

// Several threads, because the simulated pods must answer while this one waits for a program.
#[tokio::main(flavor = "multi_thread")]
async fn main() -> ExitCode {
    match measure(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(args: &Args) -> Result<()> {
    let mut report = Report::default();
    adaptive::measure(args.quick, &mut report)?;
    scan::measure(args.quick, &mut report)?;
    sizes::measure(&args.collector, args.quick, &mut report).await?;
    latency::measure(args.quick, &mut report).await?;
    scrape::measure(&args.collector, args.quick, &mut report).await?;
    report.print();
    if let Some(path) = &args.json {
        fs::write(path, report.json().to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
