// SPDX-License-Identifier: Apache-2.0
//! What a collector has done since it was made.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

#[derive(Default)]
pub(crate) struct Counters {
    /// Reads served from the cache within their ttl.
    pub(crate) hits: Counter,
    /// Reads served from the cache that were last known good.
    pub(crate) stale_serves: Counter,
    pub(crate) misses: AtomicU64,
    pub(crate) coalesced_misses: AtomicU64,
    pub(crate) background_refreshes: AtomicU64,
    /// Panics of a cache or a directory that were caught.
    pub(crate) panics: AtomicU64,
}

impl Counters {
    /// Goes on from what another collector has counted.
    pub(crate) fn take_over(&self, former: &Self) {
        self.hits.add_many(former.hits.total());
        self.stale_serves.add_many(former.stale_serves.total());
        for (count, before) in self.singles().into_iter().zip(former.singles()) {
            count.fetch_add(before.load(Relaxed), Relaxed);
        }
    }

    fn singles(&self) -> [&AtomicU64; 4] {
        [&self.misses, &self.coalesced_misses, &self.background_refreshes, &self.panics]
    }
}

/// A thread counts in the lane that it was given, which it shares with every eighth thread.
const LANES: usize = 8;

/// In cache lines of its own: one counter for all would be passed between cores at each read, some 40 ns.
#[derive(Default)]
#[repr(align(128))]
struct Lane(AtomicU64);

/// Counts exactly, however many threads do.
#[derive(Default)]
pub(crate) struct Counter([Lane; LANES]);

thread_local! {
    static LANE: Cell<usize> = const { Cell::new(usize::MAX) };
}

#[inline]
fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    LANE.with(|lane| {
        if lane.get() == usize::MAX {
            lane.set(NEXT.fetch_add(1, Relaxed) % LANES);
        }
        lane.get()
    })
}

impl Counter {
    /// Counts one.
    #[inline]
    pub(crate) fn add(&self) {
        self.0[lane() % LANES].0.fetch_add(1, Relaxed);
    }

    /// Counts `count` at once.
    fn add_many(&self, count: u64) {
        self.0[lane() % LANES].0.fetch_add(count, Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|lane| lane.0.load(Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_many_threads_count_is_counted_exactly() {
        let counter = Counter::default();
        for _ in 0..3 {
            thread::scope(|scope| {
                for _ in 0..LANES + 3 {
                    scope.spawn(|| (0..1000).for_each(|_| counter.add()));
                }
            });
        }
        assert_eq!(counter.total(), 3 * 11 * 1000);
    }
}
