// SPDX-License-Identifier: Apache-2.0
//! Keeps the gauges of a metrics page as they are on it.

use std::sync::Arc;

use collector_core::{GaugePage, GaugeSample};

use crate::scan::Sample;

/// Samples that are kept of one page: some ten gauges of each of 50 data-parallel ranks.
const SAMPLES_MAX: usize = 512;
/// Bytes of their labels.
const BYTES_MAX: usize = 64 << 10;

/// Keeps the gauges of one page.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    samples: Vec<GaugeSample>,
    bytes: usize,
    incomplete: Option<&'static str>,
}

impl Gauges {
    pub(super) fn take(&mut self, name: &Arc<str>, sample: &Sample<'_>) {
        if sample.timestamp_ms.is_some() {
            // It is as old as the server says, by the server's clock.
            self.incomplete = Some("its samples have timestamps");
            return;
        }
        let mut labels: Vec<(Box<str>, Box<str>)> =
            sample.labels.iter().map(|(name, value)| (name.into(), value.into())).collect();
        self.bytes += labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.samples.len() == SAMPLES_MAX || self.bytes > BYTES_MAX {
            self.incomplete = Some("it has too many gauges");
            return;
        }
        labels.sort_unstable();
        let (name, labels) = (Arc::clone(name), labels.into());
        self.samples.push(GaugeSample { name, labels, value: sample.value });
    }

    /// Returns what was kept. `has_unread_lines`: lines of gauges could not be read.
    pub(super) fn finish(&mut self, has_unread_lines: bool) -> GaugePage {
        let Self { mut samples, incomplete, .. } = std::mem::take(self);
        let incomplete = incomplete.or(has_unread_lines.then_some("some lines cannot be read"));
        // Of a series that stands twice the first sample counts, as in Prometheus.
        samples.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
        samples.dedup_by(|b, a| a.name == b.name && a.labels == b.labels);
        GaugePage { samples, incomplete }
    }
}
