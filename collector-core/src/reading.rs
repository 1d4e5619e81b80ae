//! What a reader gets: a value, its true age, and what that age means.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Tick;
use crate::freshness::{Freshness, FreshnessThresholds};
use crate::metrics::Replicas;
use crate::model::VariantName;

/// Something whose age is that of its oldest part.
pub trait Aged {
    /// When the oldest part was sampled.
    fn oldest(&self) -> Tick;
}

/// How a reading was come by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// The backend was asked for this read.
    Backend,
    /// From the cache, within its ttl.
    Cache,
    /// From the cache, past its ttl, or beside an answer that was no value.
    LastKnownGood,
}

impl Source {
    /// The word used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Cache => "cache",
            Self::LastKnownGood => "last-known-good",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A value as it stands at one moment. The value itself is shared and never changes; age and
/// freshness were computed at the read.
#[derive(Debug)]
pub struct Reading<T> {
    value: Arc<T>,
    read_at: Tick,
    // Nanoseconds, because a hit is handed through as four words, and a `Duration` is copied in pieces
    // that straddle them: that cost a third of it.
    age: u64,
    freshness: Freshness,
    source: Source,
}

impl<T> Clone for Reading<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), ..*self }
    }
}

impl<T: Aged> Reading<T> {
    /// A reading of `value` at `read_at`.
    #[inline]
    pub fn new(
        value: Arc<T>,
        read_at: Tick,
        thresholds: &FreshnessThresholds,
        source: Source,
    ) -> Self {
        let age = value.oldest().age_in_nanos(read_at);
        Self { value, read_at, age, freshness: thresholds.status_of_nanos(age), source }
    }

    /// The same value at another moment.
    pub fn renew(&mut self, read_at: Tick, thresholds: &FreshnessThresholds, source: Source) {
        self.read_at = read_at;
        self.age = self.value.oldest().age_in_nanos(read_at);
        self.freshness = thresholds.status_of_nanos(self.age);
        self.source = source;
    }

    /// The same reading, called stale at best: the backend has since said that there is nothing.
    #[must_use]
    pub fn at_best_stale(mut self) -> Self {
        self.deny();
        self
    }

    /// Calls the reading stale at best, as [`at_best_stale`](Self::at_best_stale) does.
    pub fn deny(&mut self) {
        self.freshness = self.freshness.max(Freshness::Stale);
    }
}

impl<T> Reading<T> {
    /// The value.
    pub fn value(&self) -> &Arc<T> {
        &self.value
    }

    /// How old the oldest part of the value was when it was read.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(self.age)
    }

    /// How old something sampled at `tick` was when this was read.
    pub fn age_of(&self, tick: Tick) -> Duration {
        tick.age(self.read_at)
    }

    /// What the age means.
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// How the reading was come by.
    pub fn source(&self) -> Source {
        self.source
    }

    /// When the read took place, on the collector's clock.
    pub fn read_at(&self) -> Tick {
        self.read_at
    }

    /// The wall-clock time of the oldest part, derived from its age, given that of the read.
    pub fn collected_at(&self, wall_of_read: SystemTime) -> SystemTime {
        wall_of_read.checked_sub(self.age()).unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Reading<Replicas> {
    /// The same reading narrowed to one variant's replicas, without another request. Its age is
    /// that of its own oldest replica.
    #[must_use]
    pub fn narrowed_to(&self, variant: &VariantName, thresholds: &FreshnessThresholds) -> Self {
        let value = Arc::new(self.value.narrowed_to(variant));
        let narrowed = Self::new(value, self.read_at, thresholds, self.source);
        // A reading is called stale in spite of its age when its model has gone missing; that holds
        // for each part of it.
        if self.freshness > thresholds.status_of_nanos(self.age) {
            narrowed.at_best_stale()
        } else {
            narrowed
        }
    }
}
