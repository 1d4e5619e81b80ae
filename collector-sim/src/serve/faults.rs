// SPDX-License-Identifier: Apache-2.0
//! Faults between a pod and its scraper, switched on and off while the fleet runs.
//!
//! The pod continues to work behind them, and its true state can always be read.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The faults of one pod. They can be combined: a pod may be slow, lie and truncate its pages.
///
/// Killing or restarting a pod is not a fault: see [`FleetServer::kill_pod`](super::FleetServer::kill_pod).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// It refuses connections, and closes open ones.
    #[serde(skip_serializing_if = "is_off")]
    pub vanish: bool,
    /// It accepts requests and never answers.
    #[serde(skip_serializing_if = "is_off")]
    pub hang: bool,
    /// It delays its answer, which has the values of that later time.
    #[serde(skip_serializing_if = "Option::is_none", with = "collector_core::duration::option")]
    pub slow: Option<Duration>,
    /// It answers with this status, 200 to 599, instead of its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What it sends instead of its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyFault>,
    /// How it sends its answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferFault>,
    /// False values of its gauges.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<ValueFault>,
    /// The model name on its page, if the page has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_model: Option<String>,
    /// How far its clock is ahead, as the header `Date` shows.
    #[serde(skip_serializing_if = "Option::is_none", with = "collector_core::duration::option")]
    pub clock_ahead: Option<Duration>,
    /// How far its clock is behind.
    #[serde(skip_serializing_if = "Option::is_none", with = "collector_core::duration::option")]
    pub clock_behind: Option<Duration>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_off(fault: &bool) -> bool {
    !fault
}

/// What a pod sends instead of its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BodyFault {
    /// As many random bytes as its page has.
    Garbage,
    /// A login page, with status 200.
    Html,
    /// Its page, announced as gzip.
    FalseGzip,
    /// Its page, followed by endless lines.
    Endless,
    /// Its page after a sample of a queue whose label is 1 MiB long.
    HugeLine,
    /// Its page after a sample of a queue with 100 000 labels.
    ManyLabels,
}

/// How a pod sends its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TransferFault {
    /// One byte per second.
    Drip,
    /// Half of it, with the `Content-Length` of the complete answer.
    CutShort,
    /// Half of it in chunks, without the final chunk.
    UnendedChunks,
}

/// False values of the gauges of queue, batch and KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ValueFault {
    /// NaN.
    Nan,
    /// Numbers below zero.
    Negative,
    /// Usage of the KV cache above 1; the others stay true.
    KvAboveOne,
}

/// The longest delay: longer than any scraper waits.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);
/// The largest clock error that still has a date.
const FURTHEST_CLOCK: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Faults {
    /// Validates the faults.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(status) = self.status.filter(|status| !(200..=599).contains(status)) {
            return Err(format!("status = {status} is not in 200..=599"));
        }
        if self.slow.is_some_and(|slow| slow > LONGEST_DELAY) {
            return Err("slow is more than 1h: use hang".into());
        }
        let clocks = [self.clock_ahead, self.clock_behind];
        if clocks.iter().flatten().any(|skew| *skew > FURTHEST_CLOCK) {
            return Err("a clock cannot be more than ten years off".into());
        }
        if clocks.iter().flatten().count() > 1 {
            return Err("a clock cannot be ahead and behind: leave one out".into());
        }
        Ok(())
    }
}
