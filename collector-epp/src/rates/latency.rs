// SPDX-License-Identifier: Apache-2.0
//! The histogram of a latency over the window.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{LatencyHistogram, Tick};

use crate::engines::Buckets;

/// Number of parts of a window that latencies are kept in, fewer than of counters: each is a whole histogram.
const PARTS: u32 = 6;

/// Pages in a window: the ends of its parts. By the timestamps of a page there may seem to be more.
const PAGES_MAX: usize = PARTS as usize + 1;

/// The length of a part, after which the buckets of a page are due.
pub(super) fn part_of(window: Duration) -> Duration {
    window / PARTS
}

/// One histogram of an engine in the window.
#[derive(Default, Debug)]
pub(super) struct LatencyWindow {
    bounds: Arc<[f64]>,
    /// The buckets of each series on the newest page.
    last: Vec<(u64, Box<[u64]>)>,
    /// The pages in the window, oldest first, each with the observations of each bucket since the page before.
    pages: VecDeque<(Tick, Box<[u32]>)>,
    /// The observations since the oldest page.
    histogram: Option<LatencyHistogram>,
}

impl LatencyWindow {
    /// Records the buckets of a page; `None` if it has no usable ones. A page older than the previous one is ignored.
    ///
    /// The window begins again after a page without usable buckets, or with other bounds.
    pub(super) fn record(&mut self, at: Tick, buckets: Option<&Buckets>, window: Duration) {
        if self.newest_at().is_some_and(|newest| at <= newest) {
            return;
        }
        let Some(buckets) = buckets else {
            *self = Self::default();
            return;
        };
        if buckets.bounds != self.bounds {
            *self = Self { bounds: Arc::clone(&buckets.bounds), ..Self::default() };
        }
        match self.increases(&buckets.series) {
            Some(increases) => self.pages.push_back((at, increases)),
            // No server is that fast.
            None => self.pages = [(at, Box::default())].into(),
        }
        let is_outside = |(oldest, _): &(Tick, _)| oldest.age(at) > window;
        while self.pages.len() > PAGES_MAX || self.pages.front().is_some_and(is_outside) {
            self.pages.pop_front();
        }
        self.last.clone_from(&buckets.series);
        self.histogram = self.sum();
    }

    /// Returns the observations in the window; `None` if fewer than two pages have them.
    pub(super) fn histogram(&self) -> Option<LatencyHistogram> {
        self.histogram.clone()
    }

    /// Returns when the window ends.
    pub(super) fn newest_at(&self) -> Option<Tick> {
        self.pages.back().map(|(at, _)| *at)
    }

    /// Returns the observations of each bucket since the previous page; `None` for more than fit. A series that is new
    /// adds nothing.
    fn increases(&self, series: &[(u64, Box<[u64]>)]) -> Option<Box<[u32]>> {
        let mut increases = vec![0; self.bounds.len()];
        for (series, counts) in series {
            let Some((_, before)) = self.last.iter().find(|(known, _)| known == series) else {
                continue;
            };
            // A bucket that falls shows that the whole series was reset: what it counts came after that.
            let was_reset = counts.iter().zip(before).any(|(now, before)| now < before);
            for ((increase, now), before) in increases.iter_mut().zip(counts).zip(before) {
                *increase += if was_reset { *now } else { now - before };
            }
        }
        increases.into_iter().map(|increase: u64| u32::try_from(increase).ok()).collect()
    }

    fn sum(&self) -> Option<LatencyHistogram> {
        if self.pages.len() < 2 {
            return None;
        }
        let mut counts = vec![0; self.bounds.len()];
        for (_, increases) in self.pages.iter().skip(1) {
            for (count, increase) in counts.iter_mut().zip(increases) {
                *count += u64::from(*increase);
            }
        }
        LatencyHistogram::new(Arc::clone(&self.bounds), counts)
    }
}

#[cfg(test)]
mod tests;
