// SPDX-License-Identifier: Apache-2.0
//! Whether work stays in proportion to the page as pages, label sets and lines grow.

use std::sync::Arc;

use anyhow::Result;
use collector_epp::engines::Engines;
use collector_epp::scan::{Limits, Scanner, Wanted};

use super::{SUITE, VLLM_DP8, scan, throughput};
use crate::race::{Judged, System, race};
use crate::report::Report;

/// Pages in which lines and label sets grow: large against their lines, small against the caches.
const PAGE_BYTES: usize = 500_000;

/// Seconds a byte of the larger or longer against those of the smaller.
const FLAT: f64 = 1.5;

pub(super) fn measure(rounds: u32, report: &mut Report) -> Result<()> {
    let wanted = Engines::builtin().wanted().clone();
    let sizes =
        [("page of 100 KB", 100_000), ("page of 1 MB", 1_000_000), ("page of 16 MB", 16_000_000)];
    let pages = sizes.map(|(case, bytes)| (case, page_of(bytes, VLLM_DP8)));
    let growth = slowdown(&wanted, &pages, rounds / 5, report)?;
    report.goal("scan.growth.page", FLAT, growth);

    let wanted = Arc::new(Wanted::new(["wanted"]));
    let counts = [("8 labels a line", 8), ("32 labels a line", 32), ("128 labels a line", 128)];
    let pages = counts.map(|(case, count)| (case, page_of(PAGE_BYTES, &line_of_labels(count))));
    let growth = slowdown(&wanted, &pages, rounds, report)?;
    report.goal("scan.growth.labels", FLAT, growth);

    let lengths = [("lines of 600 B", 600), ("lines of 6 KB", 6_000), ("lines of 60 KB", 60_000)];
    let pages = lengths.map(|(case, bytes)| (case, page_of(PAGE_BYTES, &line_of_bytes(bytes))));
    let growth = slowdown(&wanted, &pages, rounds, report)?;
    report.goal("scan.growth.line", FLAT, growth);
    Ok(())
}

/// Scans three pages, and tells how much more time a byte of the last takes than one of the first.
fn slowdown(
    wanted: &Arc<Wanted>,
    pages: &[(&'static str, String); 3],
    rounds: u32,
    report: &mut Report,
) -> Result<f64> {
    let mut scanners = [(); 3].map(|()| Scanner::new(Arc::clone(wanted), Limits::default()));
    let [first, second, third] = scanners.each_mut();
    let mut systems = [
        System::new("scanner", || scan(first, &pages[0].1)),
        System::new("scanner", || scan(second, &pages[1].1)),
        System::new("scanner", || scan(third, &pages[2].1)),
    ];
    let seconds = race(rounds, &mut systems, Judged::ByBest)?;
    for ((case, page), seconds) in pages.iter().zip(&seconds) {
        report.row(SUITE, case, "scanner", &[throughput(page, *seconds)]);
    }
    let a_byte = |index: usize| seconds[index] / pages[index].1.len() as f64;
    Ok(a_byte(2) / a_byte(0))
}

/// These lines, over and over, and as many of them as fit.
fn page_of(bytes: usize, lines: &str) -> String {
    let mut page = lines.repeat(bytes / lines.len() + 1);
    page.truncate(bytes);
    page.truncate(page.rfind('\n').map_or(0, |end| end + 1));
    page
}

fn line_of_labels(count: usize) -> String {
    let labels: Vec<String> =
        (0..count).map(|number| format!("label_{number:03}=\"value {number:03}\"")).collect();
    format!("wanted{{{}}} 1.5\n", labels.join(","))
}

fn line_of_bytes(bytes: usize) -> String {
    format!("wanted{{label=\"{}\"}} 1.5\n", "v".repeat(bytes))
}
