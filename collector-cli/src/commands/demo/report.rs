//! What the demo says when it ends.

use std::fmt::Write as _;
use std::time::Duration;

use collector_core::CollectorState;
use collector_core::text::counted;

use super::readers::Latencies;
use crate::output::signs;

/// What was collected, in the backend's own words: "7 scrapes", for example.
pub(super) type Collected = Vec<String>;

/// A summary in a few lines.
pub(super) fn report(
    state: &CollectorState,
    latencies: &Latencies,
    collected: &Collected,
    ran: Duration,
) -> String {
    let reads = state.hits + state.stale_serves + state.misses;
    let mut text = format!("\nIn {:.1} s:\n", ran.as_secs_f64());
    let share = |part: u64| 100.0 * part as f64 / reads as f64;
    let _ = write!(text, "  {} served", counted(reads, "reading", "readings"));
    if reads > 0 {
        let _ = write!(
            text,
            ", {:.2} % from the cache within its ttl, {:.2} % with the last known good value",
            share(state.hits),
            share(state.stale_serves)
        );
    }
    text.push('\n');
    if let (Some(p50), Some(p99)) = (latencies.quantile(0.5), latencies.quantile(0.99)) {
        let line = format!("  a read took {p50:?} (p50), {p99:?} (p99)\n");
        text.push_str(&line.replace('µ', signs().micro));
    }
    for collected in collected {
        let _ = writeln!(text, "  {collected}");
    }
    text
}
