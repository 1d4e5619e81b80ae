// SPDX-License-Identifier: Apache-2.0
//! The record of a model: everything a cache keeps of it, replaced in one step.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use crate::answer::ModelSample;
use crate::clock::Tick;
use crate::endpoint_picker::EndpointPicker;
use crate::error::BackendError;
use crate::field::Mark;
use crate::key::{CacheKey, Scope};
use crate::metrics::{Allocation, Replicas};
use crate::model::{BackendName, ModelRef, PodName, VariantName};
use crate::nearest::Nearest;
use crate::supply::Supply;

/// The values of one model that were published together: its replicas, and the allocation of each variant.
///
/// Values are equal if their content is, whenever they were published.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelValue {
    /// The replicas.
    pub replicas: Replicas,
    /// The allocations, in the order of the variant directory.
    pub allocations: Box<[Allocation]>,
    /// When it was published; `None` for a value that no collector has published.
    pub published: Option<Published>,
}

/// The publication of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Published {
    /// Grows with each value that is published in a process, of any model, and is never used twice.
    pub generation: u64,
    /// When it was published.
    pub at: Tick,
    /// The wall clock at that moment, so that the time of a sample is shown alike at every read.
    pub wall: SystemTime,
}

/// A sample that is fetched twice differs in its time by how long the two answers took to arrive.
const ARRIVAL_JITTER: Duration = Duration::from_millis(100);

impl PartialEq for ModelValue {
    fn eq(&self, other: &Self) -> bool {
        self.replicas == other.replicas && self.allocations == other.allocations
    }
}

impl ModelValue {
    /// The values of one publication.
    pub fn new(replicas: Replicas, allocations: Vec<Allocation>) -> Self {
        Self { replicas, allocations: allocations.into(), published: None }
    }

    /// Whether this is the sample of `former` once more: all fields are equal, and all times but for the jitter of their
    /// arrival.
    pub fn repeats(&self, former: &Self) -> bool {
        let near = |one: Tick, other: Tick| one.age(other).max(other.age(one)) < ARRIVAL_JITTER;
        let align = |tick: &mut Tick, former: Tick| {
            if near(*tick, former) {
                *tick = former;
            }
        };
        let align_marks = |marks: &mut [Mark], former: &[Mark]| {
            for (mark, former) in marks.iter_mut().zip(former) {
                align(&mut mark.sampled_at, former.sampled_at);
            }
        };
        // Nearly always the sample is newer, which is seen without a copy.
        if !near(self.replicas.oldest, former.replicas.oldest)
            || self.replicas.replicas.len() != former.replicas.replicas.len()
            || self.allocations.len() != former.allocations.len()
        {
            return false;
        }
        let mut aligned = self.clone();
        align(&mut aligned.replicas.oldest, former.replicas.oldest);
        for (row, former) in aligned.replicas.replicas.iter_mut().zip(&former.replicas.replicas) {
            align(&mut row.sampled_at, former.sampled_at);
            align_marks(&mut row.marks, &former.marks);
            if let (Some(latencies), Some(former)) = (&mut row.latencies, &former.latencies)
                && latencies.sampled_at != former.sampled_at
            {
                align(&mut Arc::make_mut(latencies).sampled_at, former.sampled_at);
            }
        }
        // A supply is confirmed again and again, which is nothing new.
        if let (Some(supply), Some(former)) =
            (&mut aligned.replicas.supply, &former.replicas.supply)
            && supply.as_of != former.as_of
        {
            Arc::make_mut(supply).as_of = former.as_of;
        }
        if let (EndpointPicker::Responding(load), EndpointPicker::Responding(former)) =
            (&mut aligned.replicas.endpoint_picker, &former.replicas.endpoint_picker)
        {
            align(&mut Arc::make_mut(load).sampled_at, former.sampled_at);
        }
        for (allocation, former) in aligned.allocations.iter_mut().zip(&former.allocations) {
            align(&mut allocation.oldest, former.oldest);
            align_marks(&mut allocation.marks, &former.marks);
        }
        aligned == *former
    }

    fn bytes(&self) -> usize {
        let allocation = |known: &Allocation| {
            size_of::<Allocation>()
                + size_of_val(known.marks.as_slice())
                + known.failed.bytes()
                + known.reasons.bytes()
        };
        let allocations = self.allocations.iter().map(allocation).sum::<usize>();
        size_of::<Self>() - size_of::<Replicas>() + self.replicas.bytes() + allocations
    }
}

/// When a record is current, due and no longer needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadlines {
    /// Until here the value counts as cached, afterwards as last known good: the arrival of the newest answer
    /// in it + ttl. Not sample time + ttl, or a server that scrapes each minute would always miss.
    pub current_until: Tick,
    /// From here on a read starts a refresh: some source is past its ttl. With one source the same as
    /// `current_until`.
    pub refresh_after: Tick,
    /// From here on the value is of no use. The record is removed once it was not read for
    /// `keep_unread` as well.
    pub keep_until: Tick,
    /// How long a record past `keep_until` survives without a read.
    pub keep_unread: Duration,
}

/// Everything that is kept of one model. A change is another record; only the time of the last read, and of the
/// last refresh that a read has started, change in place.
///
/// A ttl never removes a value; it only says from when on a read should start a refresh.
#[derive(Debug)]
#[non_exhaustive]
pub struct ModelRecord {
    /// The model.
    pub model: ModelRef,
    /// The last good value; `None` when there never was one.
    pub value: Option<Arc<ModelValue>>,
    /// How the last fetch ended, all sources taken together.
    pub outcome: Outcome,
    /// When it is current, due and no longer needed.
    pub deadlines: Deadlines,
    /// It is refreshed in the background. Such records are evicted last.
    pub tracked: bool,
    /// What a hit does not need: the last answer of each source, errors, suggestions.
    pub cold: Arc<Cold>,
    /// The addresses that were invalidated: they read as absent until the next answer that has the model.
    dropped: Box<[CacheKey]>,
    bytes: usize,
    last_read: AtomicU64,
    refresh_claimed: AtomicU64,
}

/// A read of a record that is due starts a refresh at most this often, so that a server that is slow or down
/// costs its readers nothing.
const CLAIM_LASTS: Duration = Duration::from_secs(1);

impl ModelRecord {
    /// A record of `model`, last read at `last_read`.
    pub fn new(
        model: ModelRef,
        value: Option<Arc<ModelValue>>,
        outcome: Outcome,
        cold: Arc<Cold>,
        deadlines: Deadlines,
        tracked: bool,
        last_read: Tick,
    ) -> Self {
        let value_bytes = value.as_ref().map_or(0, |value| value.bytes());
        Self {
            bytes: size_of::<Self>() + value_bytes + cold.bytes(),
            model,
            value,
            outcome,
            deadlines,
            tracked,
            cold,
            dropped: Box::default(),
            last_read: AtomicU64::new(last_read.to_nanos()),
            refresh_claimed: AtomicU64::new(0),
        }
    }

    /// Marks a read. Reads within one step of the coarse clock write once.
    #[inline]
    pub fn touch(&self, now: Tick) {
        if self.last_read.load(Relaxed) < now.to_nanos() {
            self.last_read.fetch_max(now.to_nanos(), Relaxed);
        }
    }

    /// When anything of the model was last read.
    pub fn last_read(&self) -> Tick {
        Tick::from_nanos(self.last_read.load(Relaxed))
    }

    /// Whether this read of a record that is due should start its refresh: one read a second does.
    pub fn claim_refresh(&self, now: Tick) -> bool {
        let last = self.refresh_claimed.load(Relaxed);
        (last == 0 || Tick::from_nanos(last).age(now) >= CLAIM_LASTS)
            && self.refresh_claimed.compare_exchange(last, now.to_nanos(), Relaxed, Relaxed).is_ok()
    }

    /// When the record expires, unless it is read again.
    pub fn expires_at(&self) -> Tick {
        self.deadlines.keep_until.max(self.last_read() + self.deadlines.keep_unread)
    }

    /// The value, where it has replicas that were not invalidated.
    #[inline]
    pub fn replicas(&self) -> Option<&Arc<ModelValue>> {
        let value = self.value.as_ref()?;
        (self.dropped.is_empty() || !self.is_dropped(None)).then_some(value)
    }

    /// The value and the index of a variant's allocation in it, unless that was invalidated.
    #[inline]
    pub fn allocation(&self, variant: &VariantName) -> Option<(&Arc<ModelValue>, usize)> {
        let value = self.value.as_ref()?;
        let index = value.allocations.iter().position(|known| known.variant == *variant)?;
        (self.dropped.is_empty() || !self.is_dropped(Some(variant))).then_some((value, index))
    }

    #[cold]
    fn is_dropped(&self, wanted: Option<&VariantName>) -> bool {
        self.dropped.iter().any(|key| key.variant() == wanted)
    }

    /// The addresses under which the record can be read: one for the replicas, one for each allocation.
    pub fn keys(&self) -> Vec<CacheKey> {
        let allocations = self.value.iter().flat_map(|value| &value.allocations);
        let allocations = allocations.map(|known| {
            CacheKey::allocation(&self.model, &known.variant, known.accelerator.as_ref())
        });
        let mut keys = vec![CacheKey::replicas(&self.model)];
        keys.extend(allocations);
        keys.retain(|key| !self.dropped.contains(key));
        keys
    }

    /// How many [`keys`](Self::keys) there are.
    pub fn entries(&self) -> usize {
        let allocations = self.value.as_ref().map_or(0, |value| value.allocations.len());
        1 + allocations - self.dropped.len()
    }

    /// About how many bytes the record holds, everything behind it included. Names are shared text and count as
    /// pointers, except those of pods.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The record without the addresses that were invalidated in the one before it: for a record that has no newer
    /// answer in it.
    #[must_use]
    pub fn still_without(mut self, before: &Self) -> Self {
        let keys = self.keys().into_iter();
        self.dropped = keys.filter(|key| before.is_dropped(key.variant())).collect();
        self
    }

    /// The record without the addresses of a scope, `None` when none is left; and how many were removed.
    pub fn without(&self, scope: &Scope) -> (Option<Self>, usize) {
        let (removed, kept): (Vec<_>, Vec<_>) =
            self.keys().into_iter().partition(|key| scope.contains(key));
        let count = removed.len();
        let rest = (!kept.is_empty()).then(|| {
            let mut rest = Self::new(
                self.model.clone(),
                self.value.clone(),
                self.outcome,
                Arc::clone(&self.cold),
                self.deadlines,
                self.tracked,
                self.last_read(),
            );
            rest.dropped = self.dropped.iter().cloned().chain(removed).collect();
            rest
        });
        (rest, count)
    }
}

/// How the last fetch of a model ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With a value.
    Found,
    /// The model has no series. A value from before is then never fresh.
    Missing,
    /// With an error. A value from before keeps its own age.
    Failed,
}

/// The part of a record that only writers and errors need.
#[derive(Clone, Default, Debug)]
pub struct Cold {
    /// The state of each source that has been asked, in order of preference.
    pub sources: Vec<SourceState>,
    /// Why there is nothing newer: the error of the most preferred source whose last fetch failed.
    pub error: Option<Arc<BackendError>>,
    /// What exists instead of a model that is missing.
    pub nearest: Option<Arc<Nearest>>,
}

/// What one source last answered about a model.
#[derive(Clone, Debug)]
pub struct SourceState {
    /// The source.
    pub backend: BackendName,
    /// How its last fetch ended.
    pub outcome: Outcome,
    /// When that was.
    pub ended_at: Tick,
    /// When it last answered, with the model or without it; `None` when it never has.
    pub answered_at: Option<Tick>,
    /// The time that its last answer speaks of; orders its answers. `None` when it never has.
    pub as_of: Option<Tick>,
    /// The last answer that had the model.
    pub answer: Option<SourceAnswer>,
    /// Why its last fetch failed; `None` when it did not.
    pub error: Option<Arc<BackendError>>,
    /// What it has instead of the model, if it was asked.
    pub nearest: Option<Arc<Nearest>>,
}

/// An answer of one source that had the model.
#[derive(Clone, Debug)]
pub struct SourceAnswer {
    /// The answer, completed from the answer before it.
    pub sample: Arc<ModelSample>,
    /// When it arrived.
    pub arrived_at: Tick,
    /// The load fields that were kept from a fetch before it, because their query failed in this one.
    pub load_marks: Vec<Mark>,
    /// The pods that the source has seen terminate, each with the first fetch that lacked it. Another source
    /// may still show them from before.
    pub terminated: Vec<(PodName, Tick)>,
    /// The pods that were kept although the last answers lacked them, each with how many answers in a row
    /// did so under the same warning.
    pub absent: Vec<(PodName, u8)>,
}

impl SourceState {
    /// Returns the pods that the source lists, unless it has since answered that there is no such model.
    pub fn supply(&self) -> Option<&Arc<Supply>> {
        let answer = self.answer.as_ref().filter(|_| self.outcome != Outcome::Missing)?;
        answer.sample.supply.as_ref()
    }

    /// Returns whether the last answer with the model only lists its pods.
    pub fn only_lists_pods(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.sample.only_lists_pods())
    }
}

impl Cold {
    fn bytes(&self) -> usize {
        let source = |source: &SourceState| {
            size_of::<SourceState>()
                + source.answer.as_ref().map_or(0, |answer| {
                    answer.sample.bytes()
                        + size_of_val(answer.load_marks.as_slice())
                        + size_of_val(answer.terminated.as_slice())
                        + size_of_val(answer.absent.as_slice())
                })
        };
        let nearest = self.nearest.as_ref().map_or(0, |nearest| {
            size_of_val(nearest.models.as_slice())
                + size_of_val(nearest.in_namespace.as_slice())
                + size_of_val(nearest.namespaces.as_slice())
        });
        size_of::<Self>() + self.sources.iter().map(source).sum::<usize>() + nearest
    }
}
