//! From pages that follow each other to what their numbers mean over a window.
//!
//! What each field means stands in [`collector_core::window`]. Memory is bounded whatever the scrape
//! interval: a window is kept in at most [`PARTS`] parts and the ends, so that with scrapes that are
//! closer together than a part,
//!
//! - a rate covers between 14/15 of the window and all of it;
//! - a peak may outlive the window by 1/15 of it, and never leaves it early.
//!
//! With fewer scrapes in a window than it has parts, both are exact.

mod counters;
mod engine;
mod history;
mod parts;
mod peak;
mod times;
mod why;

use std::time::Duration;

pub(crate) use history::{History, PodModel, Whose, name_of};
pub(crate) use parts::{Part, fill, rates};
pub(crate) use times::PageTime;
pub(crate) use why::IN_TURNS;

/// The parts of a window.
const PARTS: u32 = 15;

/// The length of a part.
fn part_of(window: Duration) -> Duration {
    window / PARTS
}
