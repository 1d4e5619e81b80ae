// SPDX-License-Identifier: Apache-2.0
//! What the demo shows of a model, and the line about it where there is no terminal.

use std::fmt::Write as _;
use std::time::Duration;

use collector_core::text::counted;
use collector_core::{Allocation, CollectError, ModelRef, Reading, Replicas, TrackedModel};

use crate::commands::totals::{mean_usage, total_queue, total_running};
use crate::output::cells::{age, known, whole, whole_percent};
use crate::output::{ErrorDocument, printable};

/// What is shown of one model.
pub(super) struct Shown {
    pub(super) model: ModelRef,
    pub(super) replicas: Result<Reading<Replicas>, CollectError>,
    /// The allocation of its variant, which has its rates.
    pub(super) allocation: Option<Reading<Allocation>>,
}

impl Shown {
    /// A tracked model with its one variant. The rates of one of several variants are not those of the model.
    pub(super) fn of(tracked: TrackedModel) -> Self {
        let pods = tracked.replicas.as_ref().map_or(0, |reading| reading.value().replicas.len());
        let is_whole =
            |reading: &Reading<Allocation>| reading.value().num_replicas as usize == pods;
        let mut variants = tracked.allocations.into_iter();
        let only = variants.next().filter(|_| variants.next().is_none());
        Self {
            model: tracked.model,
            replicas: tracked.replicas,
            allocation: only.and_then(|(_, allocation)| allocation.ok()).filter(is_whole),
        }
    }

    /// How many pods there are to show.
    pub(super) fn pods(&self) -> usize {
        self.replicas.as_ref().map_or(0, |reading| reading.value().replicas.len())
    }

    /// The model in one line that needs no header. `ran` is how long the demo has run.
    pub(super) fn line(&self, ran: Duration) -> String {
        let mut line = format!(
            "{}s {} in {}: ",
            ran.as_secs(),
            printable(self.model.model.as_str()),
            printable(self.model.namespace.as_str())
        );
        let reading = match &self.replicas {
            Ok(reading) => reading,
            Err(error) => {
                let _ = write!(line, "{}", printable(ErrorDocument::of(error).message()));
                return line;
            }
        };
        let Replicas { replicas, backend, partial, .. } = reading.value();
        let _ = write!(
            line,
            "{}, {} old, from {}, {}",
            reading.freshness(),
            age(reading.age()),
            printable(backend.as_str()),
            counted(replicas.len(), "pod", "pods"),
        );
        if *partial {
            line.push_str(" and perhaps more");
        }
        let rounded = |value: Option<f64>| known(value, |value| format!("{value:.0}"));
        let usage = known(mean_usage(replicas), whole_percent);
        let allocation = self.allocation.as_ref().map(Reading::value);
        let _ = write!(
            line,
            ", queue {}, KV cache {usage}, running {}, requests/min {}, first token {} ms",
            whole(total_queue(replicas)),
            whole(total_running(replicas)),
            rounded(allocation.and_then(|allocation| allocation.load.arrival_rate)),
            rounded(allocation.and_then(|allocation| allocation.ttft_average)),
        );
        line
    }
}
