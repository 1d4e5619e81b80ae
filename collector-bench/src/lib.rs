// SPDX-License-Identifier: Apache-2.0
//! Measures the collector: `cargo xtask bench` builds it and runs this. A file a suite; `case` and `race` are
//! what most are made of, `report` holds the figures, and `page` writes the page of the documentation.

#![expect(clippy::print_stdout, reason = "a command-line tool prints its figures")]

mod adaptive;
mod autoscalers;
mod case;
mod collector;
mod counts;
mod daemon;
mod hit;
mod hour;
mod instructions;
mod invalidate;
mod latency;
mod machine;
mod memory;
mod miss;
mod own_metrics;
mod page;
mod peers;
mod plot;
mod race;
mod refresh;
mod report;
mod scan;
mod scrape;
mod sizes;
mod threads;
mod workload;

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use tokio::runtime;

pub use crate::case::Case;
pub use crate::counts::counts;
pub use crate::race::System;

use crate::instructions::Counted;
use crate::report::Report;

/// Measures the collector.
#[derive(Parser)]
pub struct Args {
    /// The program to measure, built as it is released.
    #[arg(long, value_name = "PROGRAM")]
    collector: PathBuf,
    /// Fewer rounds.
    #[arg(long)]
    quick: bool,
    /// Also write the figures to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only these suites.
    #[arg(long, value_name = "SUITE")]
    only: Vec<Suite>,
    /// Also write docs/benchmarks.md, as a full run of all suites does.
    #[arg(long)]
    page: bool,
}

/// What can be measured alone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    Hit,
    Instructions,
    Threads,
    Invalidate,
    Memory,
    Miss,
    Refresh,
    Adaptive,
    Scan,
    Sizes,
    Latency,
    Scrape,
    Autoscalers,
    OwnMetrics,
    Daemon,
}

/// What callgrind runs: some runs of one system, and nothing else.
#[derive(Parser)]
struct Repeat {
    /// The case.
    #[arg(long = "repeat-case")]
    case: Counted,
    /// The system, by its name.
    #[arg(long = "repeat-system")]
    system: String,
    /// How often.
    #[arg(long = "repeat-runs")]
    runs: u32,
}

/// Measures, prints, and writes what was asked for.
///
/// # Errors
/// When something cannot be measured, or a file cannot be written.
pub async fn measure(args: &Args) -> Result<()> {
    let mut report = Report::new();
    let (program, quick) = (args.collector.as_path(), args.quick);
    for suite in Suite::value_variants() {
        if args.only.is_empty() || args.only.contains(suite) {
            suite.measure(program, quick, &mut report).await?;
        }
    }
    report.print();
    if let Some(path) = &args.json {
        fs::write(path, report.json().to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let complete = args.only.is_empty() && !quick;
    if complete || args.page {
        page::write(Path::new("docs"), &report)?;
    }
    Ok(())
}

impl Suite {
    async fn measure(self, program: &Path, quick: bool, report: &mut Report) -> Result<()> {
        match self {
            Self::Hit => hit::measure(quick, report).await,
            Self::Instructions => instructions::measure(quick, report).await,
            Self::Threads => threads::measure(quick, report).await,
            Self::Invalidate => invalidate::measure(quick, report),
            Self::Memory => memory::measure(report),
            Self::Miss => miss::measure(report).await,
            Self::Refresh => refresh::measure(quick, report).await,
            Self::Adaptive => adaptive::measure(quick, report),
            Self::Scan => scan::measure(quick, report),
            Self::Sizes => sizes::measure(program, quick, report).await,
            Self::Latency => latency::measure(quick, report).await,
            Self::Scrape => scrape::measure(program, quick, report).await,
            Self::Autoscalers => autoscalers::measure(program, quick, report).await,
            Self::OwnMetrics => own_metrics::measure(program, quick, report).await,
            Self::Daemon => daemon::measure(program, quick, report).await,
        }
    }
}

/// Does what callgrind counts, where this process was started for that, and tells whether it was.
///
/// # Errors
/// When there is no such case or system, or it fails.
pub fn repeat_if_told() -> Result<bool> {
    if !env::args().any(|argument| argument == "--repeat-case") {
        return Ok(false);
    }
    let Repeat { case, system, runs } = Repeat::parse();
    // One thread, so that nothing but the runs is counted.
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(instructions::repeat(case, &system, runs))?;
    Ok(true)
}

/// Is a bare server, where this process was started for that, and tells whether it was.
///
/// # Errors
/// When it cannot listen.
pub async fn serve_if_told() -> Result<bool> {
    autoscalers::http::serve_if_told().await
}

/// The cases of the cache, for the criterion benches.
///
/// # Errors
/// When a cache cannot be filled.
pub async fn cases() -> Result<Vec<Case>> {
    let mut cases: Vec<Case> = hit::hot().await?.into();
    cases.extend(hit::spread().await?);
    cases.extend(threads::cases().await?);
    cases.extend(invalidate::cases());
    cases.push(invalidate::overwrite());
    Ok(cases)
}
