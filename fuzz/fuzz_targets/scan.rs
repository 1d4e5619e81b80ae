// SPDX-License-Identifier: Apache-2.0
//! The scanner, in one piece and in chunks, against the plain reference reader.
//!
//! The first byte says how to read, the second how long a line may be and where to cut; the page
//! follows.

#![no_main]

#[path = "../../collector-epp/src/scan/tests/reference.rs"]
mod reference;

use std::sync::Arc;

use collector_epp::scan::{Ended, Format, Limits, MALFORMED_KEPT, Sample, Scanner, Wanted};
use libfuzzer_sys::fuzz_target;

use self::reference::{How, Exposition, Seen};

const WANTED: [&str; 8] = [
    "up",
    "x_sum",
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "vllm:cache_config_info",
    "vllm:time_to_first_token_seconds_sum",
    "vllm:time_to_first_token_seconds_count",
    "dotted.name",
];

fuzz_target!(|input: &[u8]| {
    let [how, length, page @ ..] = input else { return };
    let openmetrics = how & 1 == 1;
    let complete = how & 2 == 0;
    let max_line_bytes = if how & 4 == 0 { 64 * 1024 } else { usize::from(*length) };
    let how = How { wanted: &WANTED, openmetrics, max_line_bytes, complete };
    let mut expected = reference::read(page, how);
    let malformed = expected.malformed.len() as u64;
    expected.malformed = expected.listed(MALFORMED_KEPT);

    let wanted = Arc::new(Wanted::new(WANTED));
    let limits = Limits { max_line_bytes, ..Limits::default() };
    let mut scanner = Scanner::new(Arc::clone(&wanted), limits);
    for size in [page.len(), usize::from(*length), 1] {
        let read = scan(&mut scanner, &wanted, how, page.chunks(size.max(1)));
        assert_eq!(read, (expected.clone(), malformed), "chunks of {size}");
    }
});

/// What the scanner makes of a page, in the reference's words, and how many lines it refused.
fn scan<'a>(
    scanner: &mut Scanner,
    wanted: &Wanted,
    how: How<'_>,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (Exposition, u64) {
    let mut page = Exposition::default();
    let mut each = |sample: &Sample<'_>| {
        for (name, value) in sample.labels.iter() {
            assert_eq!(sample.labels.get(&name), Some(value));
        }
        let labels = sample.labels.iter();
        page.seen.push(Seen {
            name: wanted.name(sample.name).to_owned(),
            labels: labels.map(|(name, value)| (name.into(), value.into())).collect(),
            value: sample.value.to_bits(),
            timestamp_ms: sample.timestamp_ms,
            line: sample.line,
        });
    };
    scanner.begin(if how.openmetrics { Format::OpenMetrics } else { Format::Text });
    for chunk in chunks {
        scanner.feed(chunk, &mut each).expect("no input is over the page's limit");
    }
    let ended = if how.complete { Ended::Complete } else { Ended::CutShort };
    let summary = scanner.finish(ended, &mut each).expect("no input is over the page's limit");
    assert_eq!(summary.samples, page.seen.len() as u64);
    let malformed = summary.malformed.iter();
    page.malformed = malformed.map(|bad| (bad.line, wanted.name(bad.name).to_owned())).collect();
    page.lines = summary.lines;
    page.last_line_unterminated = summary.last_line_unterminated;
    page.eof_marker = summary.eof_marker;
    (page, summary.malformed_count)
}
