// SPDX-License-Identifier: Apache-2.0
//! Rates and peaks over a window, computed from consecutive metrics pages of a pod.
//!
//! [`collector_core::window`] defines the meaning of each field. Memory does not depend on the scrape interval: a
//! window is kept in at most [`PARTS`] parts and its ends. With scrapes that are closer together than a part,
//!
//! - a rate covers between 14/15 of the window and all of it;
//! - a peak may be kept for up to 1/15 of the window too long, and never too short.
//!
//! With fewer scrapes in a window than parts, both are exact. Histograms of latencies are kept of seven pages, whose
//! buckets are read for that (`latency`).

mod counters;
mod engine;
mod fields;
mod history;
mod latency;
mod parts;
mod peak;
mod times;
mod why;

use std::time::Duration;

pub(crate) use fields::quantities_of;
pub(crate) use history::{History, PodIdentity, PodModel, name_of};
pub(crate) use parts::{Part, fill, rates};
pub(crate) use times::ScrapeTime;
pub(crate) use why::IN_TURNS;

/// Number of parts of a window.
const PARTS: u32 = 15;

/// The length of a part.
fn part_of(window: Duration) -> Duration {
    window / PARTS
}
