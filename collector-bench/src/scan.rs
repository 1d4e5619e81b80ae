// SPDX-License-Identifier: Apache-2.0
//! How fast exposition pages are read: the scanner beside whole-page parsers, and beside the least
//! that any reader of lines must do, which is to find them.

mod growth;

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail, ensure};
use collector_epp::engines::Engines;
use collector_epp::scan::{Ended, Format, Limits, Sample, Scanner, Wanted};
use memchr::memchr_iter;

use crate::case::Case;
use crate::race::{Judged, System, race};
use crate::report::{Figure, Report};

const SUITE: &str = "scan";

/// Names of ways to read a page.
pub(crate) const NEWLINES: &str = "memchr, each newline";
pub(crate) const SCANNER: &str = "scanner";

const VLLM: &str = include_str!("../../collector-epp/tests/captures/vllm_v1.txt");
const VLLM_DP8: &str = include_str!("../../collector-epp/tests/captures/vllm_dp8.txt");
const EPP: &str = include_str!("../../collector-epp/tests/captures/epp.txt");

/// Measures the scanner with the names that the built-in engines want.
pub(crate) fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let wanted = Arc::clone(Engines::builtin().wanted());
    let rounds = if quick { 20 } else { 200 };
    let vllm = one_page("vllm_v1", VLLM, &wanted, rounds, report)?;
    let vllm_dp8 = one_page("vllm_dp8", VLLM_DP8, &wanted, rounds, report)?;
    let epp = one_page("epp", EPP, &wanted, rounds, report)?;

    let factor = vllm.best_crate.min(vllm_dp8.best_crate);
    report.goal_at_least("scan.vllm.vs_best_crate", 50.0, factor);
    let plain = vllm.newlines.max(vllm_dp8.newlines);
    report.goal("scan.vllm.vs_memchr_lines", 2.5, plain);
    report.goal("scan.epp.vs_memchr_lines", 2.5, epp.newlines);
    let allocations = [vllm, vllm_dp8, epp].iter().map(|page| page.allocations).sum::<f64>();
    report.goal("scan.allocations", 0.0, allocations);

    growth::measure(rounds, report)
}

/// Reading the page of a vLLM server: a line is an operation.
pub(crate) fn lines() -> Case {
    let lines = u32::try_from(VLLM.lines().count()).unwrap_or(u32::MAX);
    let mut scanner = Scanner::new(Arc::clone(Engines::builtin().wanted()), Limits::default());
    let systems = vec![
        System::of_many(NEWLINES, lines, || {
            visit_newlines(VLLM);
            Ok(())
        }),
        System::of_many(SCANNER, lines, move || scan(&mut scanner, VLLM)),
    ];
    Case::new(SUITE, "vllm_v1", systems)
}

/// How the scanner did on one page.
struct Outcome {
    /// Its time, in that of visiting each newline.
    newlines: f64,
    /// The time of the fastest crate, in its own.
    best_crate: f64,
    /// Once it has seen the page.
    allocations: f64,
}

fn one_page(
    case: &'static str,
    page: &'static str,
    wanted: &Arc<Wanted>,
    rounds: u32,
    report: &mut Report,
) -> Result<Outcome> {
    let mut scanner = Scanner::new(Arc::clone(wanted), Limits::default());
    let families = page.matches("# TYPE ").count();
    // It passes over names with a colon.
    let without_colons = page.replace("vllm:", "vllm_");
    let mut systems = [
        System::new(NEWLINES, || {
            visit_newlines(page);
            Ok(())
        }),
        System::new(SCANNER, || scan(&mut scanner, page)),
        System::new("prometheus-parse", || prometheus_parse(&without_colons, families)),
        System::new("openmetrics-parser", || openmetrics_parser(page, families)),
    ];
    let seconds = race(rounds, &mut systems, Judged::ByBest)?;
    let mut allocations = [0.0; 4];
    for ((system, seconds_of_it), count) in systems.iter_mut().zip(&seconds).zip(&mut allocations) {
        *count = system.allocations()?;
        let figures = [
            Figure { name: "time", value: seconds_of_it * 1e6, unit: "us" },
            throughput(page, *seconds_of_it),
            Figure { name: "vs newlines", value: seconds_of_it / seconds[0], unit: "times" },
            Figure { name: "allocations", value: *count, unit: "a page" },
        ];
        report.row(SUITE, case, system.name(), &figures);
    }
    let [newlines, plain, ref crates @ ..] = seconds[..] else {
        bail!("of four systems {} were measured", seconds.len());
    };
    Ok(Outcome {
        newlines: plain / newlines,
        best_crate: crates.iter().copied().fold(f64::INFINITY, f64::min) / plain,
        allocations: allocations[1],
    })
}

fn throughput(page: &str, seconds: f64) -> Figure {
    Figure { name: "throughput", value: page.len() as f64 / seconds / 1e6, unit: "MB/s" }
}

fn scan(scanner: &mut Scanner, page: &str) -> Result<()> {
    let each = |sample: &Sample<'_>| {
        black_box(sample);
    };
    scanner.begin(Format::Text);
    scanner.feed(page.as_bytes(), each)?;
    black_box(scanner.finish(Ended::Complete, each)?);
    Ok(())
}

fn visit_newlines(page: &str) {
    for place in memchr_iter(b'\n', page.as_bytes()) {
        black_box(place);
    }
}

/// Refuses to count what does not read the whole page.
fn prometheus_parse(page: &str, families: usize) -> Result<()> {
    let lines = page.lines().map(|line| Ok(line.to_owned()));
    let read = prometheus_parse::Scrape::parse(lines)?;
    let samples = read.samples.len();
    ensure!(samples >= families, "{samples} samples of {families} families");
    black_box(read);
    Ok(())
}

fn openmetrics_parser(page: &str, families: usize) -> Result<()> {
    let read = openmetrics_parser::prometheus::parse_prometheus(page);
    let read = read.map_err(|error| anyhow!("{error}"))?;
    ensure!(read.families.len() >= families, "{} of {families} families", read.families.len());
    black_box(read);
    Ok(())
}
