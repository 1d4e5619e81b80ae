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

/// What a reading says of its value, but for the value: computed at the read, before the value is at hand.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    read_at: Tick,
    // Nanoseconds, because a hit is handed through as four words, and a `Duration` is copied in pieces
    // that straddle them: that cost a third of it.
    age: u64,
    freshness: Freshness,
    source: Source,
}

impl Label {
    /// That of a value whose oldest part was sampled at `oldest`, read at `read_at`.
    #[inline]
    pub fn new(
        oldest: Tick,
        read_at: Tick,
        thresholds: &FreshnessThresholds,
        source: Source,
    ) -> Self {
        let age = oldest.age_in_nanos(read_at);
        Self { read_at, age, freshness: thresholds.status_of_nanos(age), source }
    }

    /// The same, called stale at best: the backend has since said that there is nothing.
    #[inline]
    #[must_use]
    pub fn at_best_stale(self) -> Self {
        Self { freshness: self.freshness.max(Freshness::Stale), ..self }
    }

    /// What the age means.
    #[inline]
    pub fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// How the reading was come by.
    #[inline]
    pub fn source(&self) -> Source {
        self.source
    }

    /// The reading of the value that this was made for.
    #[inline]
    pub fn on<T: Aged>(self, value: Arc<T>) -> Reading<T> {
        debug_assert_eq!(value.oldest().age_in_nanos(self.read_at), self.age, "of another value");
        Reading { value, label: self }
    }
}

/// A value as it stands at one moment. The value itself is shared and never changes; age and
/// freshness were computed at the read.
#[derive(Debug)]
pub struct Reading<T> {
    value: Arc<T>,
    label: Label,
}

impl<T> Clone for Reading<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), label: self.label }
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
        Label::new(value.oldest(), read_at, thresholds, source).on(value)
    }

    /// The same value, labelled at another moment.
    pub fn relabel(&mut self, label: Label) {
        debug_assert_eq!(self.value.oldest().age_in_nanos(label.read_at), label.age);
        self.label = label;
    }

    /// The same reading, called stale at best: the backend has since said that there is nothing.
    #[must_use]
    pub fn at_best_stale(mut self) -> Self {
        self.label = self.label.at_best_stale();
        self
    }
}

impl<T> Reading<T> {
    /// The value.
    pub fn value(&self) -> &Arc<T> {
        &self.value
    }

    /// How old the oldest part of the value was when it was read.
    pub fn age(&self) -> Duration {
        Duration::from_nanos(self.label.age)
    }

    /// How old something sampled at `tick` was when this was read.
    pub fn age_of(&self, tick: Tick) -> Duration {
        tick.age(self.label.read_at)
    }

    /// What the age means.
    pub fn freshness(&self) -> Freshness {
        self.label.freshness
    }

    /// How the reading was come by.
    pub fn source(&self) -> Source {
        self.label.source
    }

    /// When the read took place, on the collector's clock.
    pub fn read_at(&self) -> Tick {
        self.label.read_at
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
        let narrowed = Self::new(value, self.read_at(), thresholds, self.source());
        // A reading is called stale in spite of its age when its model has gone missing; that holds
        // for each part of it.
        if self.freshness() > thresholds.status_of_nanos(self.label.age) {
            narrowed.at_best_stale()
        } else {
            narrowed
        }
    }
}
