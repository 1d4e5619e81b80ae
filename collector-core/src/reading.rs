// SPDX-License-Identifier: Apache-2.0
//! What a reader gets: a part of a model's value, its true age, and what that age means.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Tick;
use crate::freshness::{Freshness, FreshnessThresholds};
use crate::metrics::{Allocation, Replicas};
use crate::model::VariantName;
use crate::record::{ModelRecord, ModelValue};

/// Where a reading came from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// The backend was asked for this read.
    Backend,
    /// From the cache, within its ttl.
    Cache,
    /// From the cache, past its ttl, or while the last answer had no value.
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

/// A part of a model's value that can be read by itself: its [`Replicas`], or the [`Allocation`] of a variant.
///
/// Sealed: these are the parts that there are.
pub trait Part: sealed::Sealed + Sized + Send + Sync + 'static {
    /// What names the part within the model.
    type Name: ?Sized + Sync;
    /// Where the part stands in the value.
    type Index: Copy + Send + Sync + fmt::Debug;

    /// The part of a record, unless it has none of that name or it was invalidated.
    fn find<'r>(
        record: &'r ModelRecord,
        name: &Self::Name,
    ) -> Option<(&'r Arc<ModelValue>, Self::Index)>;

    /// The part at an index that [`find`](Self::find) returned.
    fn of(value: &ModelValue, index: Self::Index) -> &Self;

    /// When the oldest of what it consists of was sampled.
    fn oldest(&self) -> Tick;

    /// A value that has only this part.
    fn into_value(self) -> (ModelValue, Self::Index);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Replicas {}
    impl Sealed for super::Allocation {}
}

impl Part for Replicas {
    type Name = ();
    type Index = ();

    #[inline]
    fn find<'r>(record: &'r ModelRecord, (): &()) -> Option<(&'r Arc<ModelValue>, ())> {
        Some((record.replicas()?, ()))
    }

    #[inline]
    fn of(value: &ModelValue, (): ()) -> &Self {
        &value.replicas
    }

    #[inline]
    fn oldest(&self) -> Tick {
        self.oldest
    }

    fn into_value(self) -> (ModelValue, ()) {
        (ModelValue::new(self, Vec::new()), ())
    }
}

impl Part for Allocation {
    type Name = VariantName;
    type Index = usize;

    #[inline]
    fn find<'r>(
        record: &'r ModelRecord,
        name: &VariantName,
    ) -> Option<(&'r Arc<ModelValue>, usize)> {
        record.allocation(name)
    }

    #[inline]
    fn of(value: &ModelValue, index: usize) -> &Self {
        &value.allocations[index]
    }

    #[inline]
    fn oldest(&self) -> Tick {
        self.oldest
    }

    fn into_value(self) -> (ModelValue, usize) {
        let (model, backend) = (self.model.clone(), self.backend.clone());
        let replicas = Replicas::new(model, Vec::new(), backend, self.oldest);
        (ModelValue::new(replicas, vec![self]), 0)
    }
}

/// What a reading says about its value: when it was read, how old it was, what that means.
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

    /// The same, stale at best: the backend has since answered without the model.
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

    /// Where the reading came from.
    #[inline]
    pub fn source(&self) -> Source {
        self.source
    }
}

/// A part of a model's value as it stands at one moment. The value is shared and never changes; age and
/// freshness were computed at the read.
pub struct Reading<T: Part> {
    of: Arc<ModelValue>,
    index: T::Index,
    label: Label,
}

impl<T: Part> Clone for Reading<T> {
    fn clone(&self) -> Self {
        Self { of: Arc::clone(&self.of), index: self.index, label: self.label }
    }
}

impl<T: Part + fmt::Debug> fmt::Debug for Reading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reading = f.debug_struct("Reading");
        reading.field("value", self.value()).field("label", &self.label).finish_non_exhaustive()
    }
}

impl<T: Part> Reading<T> {
    /// A reading of `value` at `read_at`, for fakes and tests: nothing else was published with it.
    pub fn new(value: T, read_at: Tick, thresholds: &FreshnessThresholds, source: Source) -> Self {
        let label = Label::new(value.oldest(), read_at, thresholds, source);
        let (value, index) = value.into_value();
        Self { of: Arc::new(value), index, label }
    }

    /// A reading of the part of `value` at `index`, which [`Part::find`] returned.
    #[inline]
    pub fn in_model(value: Arc<ModelValue>, index: T::Index, label: Label) -> Self {
        debug_assert_eq!(
            T::of(&value, index).oldest().age_in_nanos(label.read_at),
            label.age,
            "the label of another value"
        );
        Self { of: value, index, label }
    }

    /// Labels the same value at another moment.
    #[inline]
    pub fn relabel(&mut self, label: Label) {
        debug_assert_eq!(self.value().oldest().age_in_nanos(label.read_at), label.age);
        self.label = label;
    }

    /// The same reading, stale at best: the backend has since answered without the model.
    #[must_use]
    pub fn at_best_stale(mut self) -> Self {
        self.label = self.label.at_best_stale();
        self
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> &T {
        T::of(&self.of, self.index)
    }

    /// Everything that was published together with the value: the replicas of an allocation, the allocations
    /// of replicas.
    pub fn model(&self) -> &Arc<ModelValue> {
        &self.of
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

    /// Where the reading came from.
    pub fn source(&self) -> Source {
        self.label.source
    }

    /// When the read took place, on the collector's clock.
    pub fn read_at(&self) -> Tick {
        self.label.read_at
    }

    /// The number of the publication that the value is from: it grows with each newer sample, and neither age nor
    /// freshness changes it. `None` for a value that no collector has published.
    pub fn generation(&self) -> Option<u64> {
        self.of.published.map(|published| published.generation)
    }

    /// The wall-clock time of the oldest part: the same at every read of one generation. `None` for a value that no
    /// collector has published.
    pub fn sampled_at(&self) -> Option<SystemTime> {
        let published = self.of.published?;
        published.wall.checked_sub(self.value().oldest().age(published.at))
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
        let value = self.value().narrowed_to(variant);
        let mut narrowed = Self::new(value, self.read_at(), thresholds, self.source());
        if let Some(of) = Arc::get_mut(&mut narrowed.of) {
            of.published = self.of.published;
        }
        // A reading is called stale in spite of its age when its model has gone missing; that holds
        // for each part of it.
        if self.freshness() > thresholds.status_of_nanos(self.label.age) {
            narrowed.at_best_stale()
        } else {
            narrowed
        }
    }
}
