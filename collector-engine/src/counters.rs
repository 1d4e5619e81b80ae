//! What a collector has done since it was made.

use std::sync::atomic::{AtomicU64, Ordering};

use thread_local::ThreadLocal;

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) hits: Tally,
    pub(crate) stale_serves: Tally,
    pub(crate) misses: AtomicU64,
    pub(crate) coalesced_misses: AtomicU64,
    pub(crate) background_refreshes: AtomicU64,
    /// Panics of a cache or a directory that were caught.
    pub(crate) panics: AtomicU64,
}

/// A counter for the hot path: each thread counts by itself, so that readers on several cores do not
/// pass one line back and forth (some 25 ns a read), and the total is exact all the same.
#[derive(Default)]
pub(crate) struct Tally(ThreadLocal<AtomicU64>);

impl Tally {
    pub(crate) fn count(&self) {
        let own = self.0.get_or_default();
        // Nobody else writes here.
        own.store(own.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn what_many_threads_count_is_counted_whole() {
        let tally = Tally::default();
        for _ in 0..3 {
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| (0..1000).for_each(|_| tally.count()));
                }
            });
        }
        assert_eq!(tally.total(), 12_000);
    }
}
