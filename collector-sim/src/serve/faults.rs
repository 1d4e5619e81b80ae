//! What can go wrong between a pod and who scrapes it, switched on and off while the fleet runs.
//!
//! What the pod really does goes on underneath, and can be asked for all the time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The faults of one pod. They add up: a pod may be slow, lie and cut its pages short.
///
/// A killed or restarted pod is no fault but an event:
/// [`FleetServer::kill_pod`](super::FleetServer::kill_pod).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// It refuses connections, and those that are open end.
    #[serde(skip_serializing_if = "is_off")]
    pub vanish: bool,
    /// It takes requests and never answers.
    #[serde(skip_serializing_if = "is_off")]
    pub hang: bool,
    /// It answers so much later, with what is true then.
    #[serde(skip_serializing_if = "Option::is_none", with = "collector_core::duration::option")]
    pub slow: Option<Duration>,
    /// It answers with this status, 200 to 599, in place of its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What it sends in place of its page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyFault>,
    /// How it sends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferFault>,
    /// What its gauges show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<ValueFault>,
    /// The model that its page names in place of its own, where a page names one at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_model: Option<String>,
    /// How far its clock is ahead, as the header `Date` tells.
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

/// What a pod sends in place of its page.
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
    /// Its page, and lines after it that never end.
    Endless,
    /// Its page behind a sample of a queue whose label is 1 MiB long.
    HugeLine,
    /// Its page behind a sample of a queue with 100 000 labels.
    ManyLabels,
}

/// How a pod sends what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TransferFault {
    /// One byte a second.
    Drip,
    /// Half of it, though the `Content-Length` is that of the whole.
    CutShort,
    /// Half of it in chunks, without the chunk that ends them.
    UnendedChunks,
}

/// What the gauges of queue, batch and KV cache show.
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

/// Longer than anybody waits for a page.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);
/// A clock that is further off has no date.
const FURTHEST_CLOCK: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Faults {
    /// Whether a pod can have them.
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
