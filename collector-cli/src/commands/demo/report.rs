// SPDX-License-Identifier: Apache-2.0
//! What the demo says when it ends.

use std::fmt::Write as _;
use std::time::Duration;

use collector_core::CollectorState;
use collector_core::text::counted;

use super::readers::Latencies;
use crate::output::signs;

/// A summary in two lines. `collected` is the second, in the backend's own words: "7 scrapes", for example.
pub(super) fn report(
    state: &CollectorState,
    latencies: &Latencies,
    collected: &str,
    ran: Duration,
) -> String {
    let reads = state.hits + state.stale_serves + state.misses;
    let mut text =
        format!("{} served in {:.1}s", counted(reads, "reading", "readings"), ran.as_secs_f64());
    if reads > 0 {
        let cached = 100.0 * (state.hits + state.stale_serves) as f64 / reads as f64;
        let _ = write!(text, ", {cached:.2} % of them from the cache");
    }
    if let (Some(p50), Some(p99)) = (latencies.quantile(0.5), latencies.quantile(0.99)) {
        let took = format!("; a read took {p50:.1?} (p50), {p99:.1?} (p99)");
        text.push_str(&took.replace('µ', signs().micro));
    }
    let _ = write!(text, "\n{collected}\n");
    text
}
