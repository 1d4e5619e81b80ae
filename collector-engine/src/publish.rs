// SPDX-License-Identifier: Apache-2.0
//! From what backends answer to what is stored: the only place where values are made.
//!
//! [`Publisher`] is pure: no clock, no lock, no I/O. The value of a record follows from what each source last answered
//! and from the directory alone, so that it can be made again at any time, by whichever source brings something new.

mod carry;
mod generation;
mod merge;
pub(crate) mod sane;
mod store;
mod supply;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::{Cold, SourceState};
use collector_core::{
    BackendError, BackendName, Deadlines, ModelRecord, ModelRef, ModelSample, ModelValue, Nearest,
    Outcome, Tick, Variant, VariantDirectory,
};

use self::carry::carry_forward;
use self::merge::View;
use self::supply::PodList;
use crate::config::CacheConfig;
use crate::refresh::Pace;
use crate::state::Tracked;

/// How long an entry survives unread once its value is of no use, and how long a model stays tracked
/// without a read: five minutes, as in the Go collector.
pub(crate) const UNTRACK_AFTER: Duration = Duration::from_secs(300);

/// How long a read past a failed refresh waits before it starts the next one. The circuit breaker
/// covers what is down; this covers what answers with a refusal each time.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(2);

/// How one fetch of a model from a source ended.
#[expect(clippy::large_enum_variant, reason = "nearly every one is the large one")]
pub(crate) enum Fetched {
    /// It was found.
    Found(ModelSample),
    /// It has no series.
    Missing {
        /// The time that the answer speaks of.
        as_of: Tick,
        /// What exists, where that was asked.
        nearest: Option<Arc<Nearest>>,
    },
    /// The fetch failed.
    Failed {
        /// When the fetch began.
        began: Tick,
        /// Why.
        error: Arc<BackendError>,
    },
}

impl Fetched {
    /// The time that the answer speaks of: answers are ordered by it.
    pub(crate) fn as_of(&self) -> Tick {
        match self {
            Self::Found(sample) => sample.as_of,
            Self::Missing { as_of, .. } => *as_of,
            Self::Failed { began, .. } => *began,
        }
    }

    /// How the fetch ended.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Found(_) => Outcome::Found,
            Self::Missing { .. } => Outcome::Missing,
            Self::Failed { .. } => Outcome::Failed,
        }
    }
}

/// Makes the records of one model.
pub(crate) struct Publisher<'a> {
    pub(crate) config: &'a CacheConfig,
    pub(crate) pace: Pace,
    pub(crate) directory: &'a dyn VariantDirectory,
    /// The sources that there are, in order of preference.
    pub(crate) sources: &'a [BackendName],
    pub(crate) model: &'a ModelRef,
    /// The tracked state of the model, if it is tracked.
    pub(crate) tracked: Option<&'a Tracked>,
    pub(crate) now: Tick,
}

impl Publisher<'_> {
    /// The record after a fetch from one source, given what all of them answered before it.
    pub(crate) fn publish(
        &self,
        backend: &BackendName,
        fetched: Fetched,
        before: &[SourceState],
        last_read: Tick,
    ) -> ModelRecord {
        let former = before.iter().find(|state| state.backend == *backend);
        let mut states = vec![self.after(backend, fetched, former)];
        states.extend(before.iter().filter(|state| state.backend != *backend).cloned());
        self.record(states, last_read)
    }

    /// The state of a source after one more fetch.
    fn after(
        &self,
        backend: &BackendName,
        fetched: Fetched,
        former: Option<&SourceState>,
    ) -> SourceState {
        // A clock that is ahead makes nothing younger than now.
        let as_of = fetched.as_of().min(self.now);
        if let Some(former) = former
            && former.as_of.is_some_and(|newer| newer > as_of)
        {
            // An older fetch never replaces a newer one, however it ended.
            return former.clone();
        }
        let former_answer = former.and_then(|state| state.answer.as_ref());
        let state = SourceState {
            backend: backend.clone(),
            outcome: fetched.outcome(),
            ended_at: self.now,
            answered_at: Some(self.now),
            as_of: Some(as_of),
            answer: former_answer.cloned(),
            error: None,
            nearest: None,
        };
        match fetched {
            Fetched::Found(sample) => {
                let answer = carry_forward(sample, former_answer, backend, self.config, self.now);
                SourceState { answer: Some(answer), ..state }
            }
            Fetched::Missing { nearest, .. } => {
                let known = || former.and_then(|state| state.nearest.clone());
                SourceState { nearest: nearest.or_else(known), ..state }
            }
            Fetched::Failed { error, .. } => SourceState {
                answered_at: former.and_then(|state| state.answered_at),
                as_of: former.and_then(|state| state.as_of),
                error: Some(error),
                ..state
            },
        }
    }

    /// The record that follows from what each source last answered.
    pub(crate) fn record(&self, states: Vec<SourceState>, last_read: Tick) -> ModelRecord {
        let cold = self.cold(states);
        let outcome = self.outcome(&cold.sources);
        let value = self.value(&cold.sources);
        let deadlines = self.deadlines(value.as_ref(), outcome, &cold);
        let (model, value) = (self.model.clone(), value.map(Arc::new));
        ModelRecord::new(model, value, outcome, cold, deadlines, self.tracked.is_some(), last_read)
    }

    fn value(&self, states: &[SourceState]) -> Option<ModelValue> {
        let thresholds = &self.config.freshness;
        let listing = PodList::of(states, thresholds, self.now);
        let views = self.views(states, listing.as_ref());
        let replicas = merge::replicas(self.model, &views, thresholds, self.now);
        let replicas = match listing {
            Some(listing) => listing.complete(replicas, self.model)?,
            None => replicas?,
        };
        let of_variant = |variant: &Arc<Variant>| {
            merge::allocation(variant, &replicas, &views, thresholds, self.now)
        };
        let allocations = self.kept_variants().iter().map(of_variant).collect();
        Some(ModelValue::new(replicas, allocations))
    }

    /// The sources of metrics whose answers make the value. A source without the model counts only if no source has it and
    /// no cluster says that it has no pod: its last answer is then the last known good one.
    fn views<'s>(&self, states: &'s [SourceState], listing: Option<&PodList<'_>>) -> Vec<View<'s>> {
        let has = |state: &&SourceState| state.answer.is_some() && !state.only_lists_pods();
        let denies = |state: &&SourceState| state.outcome == Outcome::Missing;
        let some_do_not = states.iter().filter(has).any(|state| !denies(&state))
            || listing.is_some_and(PodList::says_zero);
        states
            .iter()
            .filter(has)
            .filter(|state| !(some_do_not && denies(state)))
            .filter_map(|state| {
                let answer = state.answer.as_ref()?;
                let mut rows = answer.sample.replicas.clone();
                if let Some(listing) = listing {
                    rows.retain(|row| !listing.saw_delete(row));
                }
                for row in &mut rows {
                    if let Some(variant) = self.directory.variant_of(self.model, &row.pod_name) {
                        row.variant_name = Some(variant.name.clone());
                        row.accelerator_name.clone_from(&variant.accelerator);
                        row.cost = Some(variant.cost);
                    }
                }
                let thresholds = &self.config.freshness;
                let said_by = (&state.backend, state.outcome);
                Some(View::new(said_by, answer, rows, thresholds, self.now))
            })
            .collect()
    }

    fn cold(&self, mut states: Vec<SourceState>) -> Arc<Cold> {
        let index = |state: &SourceState| self.sources.iter().position(|n| *n == state.backend);
        states.sort_by_key(index);
        let error = states.iter().find_map(|state| state.error.clone());
        let nearest = states.iter().filter_map(|state| state.nearest.clone());
        let mut nearest = nearest.reduce(|one, other| Arc::new(one.and(&other)));
        let listing = PodList::of(&states, &self.config.freshness, self.now);
        if let Some(pods) = listing.and_then(|listing| listing.pods()) {
            Arc::make_mut(nearest.get_or_insert_default()).pods = Some(pods);
        }
        Arc::new(Cold { sources: states, error, nearest })
    }

    /// How the last fetches ended, taken together: found where one source has the model, missing only
    /// where all of them have answered that they have not. Pods in a cluster are no metrics of the model, unless the
    /// cluster says that there is none.
    fn outcome(&self, states: &[SourceState]) -> Outcome {
        let listing = PodList::of(states, &self.config.freshness, self.now);
        let is_zero = listing.is_some_and(|listing| listing.is_known_zero());
        let found = |state: &SourceState| {
            state.outcome == Outcome::Found && (is_zero || !state.only_lists_pods())
        };
        let has_none = |state: &SourceState| {
            state.outcome == Outcome::Missing
                || (state.outcome == Outcome::Found && state.only_lists_pods())
        };
        if states.iter().any(found) {
            Outcome::Found
        } else if states.iter().all(has_none) && states.len() >= self.sources.len() {
            Outcome::Missing
        } else {
            Outcome::Failed
        }
    }

    fn kept_variants(&self) -> Vec<Arc<Variant>> {
        let mut variants = self.directory.variants_of(self.model);
        if let Some(tracked) = self.tracked {
            variants.retain(|variant| !tracked.stopped.contains(&variant.name));
        }
        variants
    }

    fn deadlines(&self, value: Option<&ModelValue>, outcome: Outcome, cold: &Cold) -> Deadlines {
        let of_outcome = cold.sources.iter().filter(|state| state.outcome == outcome);
        let due = of_outcome.map(|state| next_fetch(state, self.pace));
        let current_until = due.clone().max().unwrap_or(self.now + PAUSE_AFTER_FAILURE);
        let refresh_after = match outcome {
            // One source that pushes all the time does not make up for another that is only asked.
            Outcome::Found => due.min().unwrap_or(current_until),
            Outcome::Missing | Outcome::Failed => current_until,
        };
        let useful_until = |value: &ModelValue| {
            let oldest = value.allocations.iter().map(|allocation| allocation.oldest);
            let newest = oldest.fold(value.replicas.oldest, Tick::max);
            newest + self.config.freshness.unavailable_threshold
        };
        let keep_until = match value {
            // What is tracked without reads is remembered for as long as that is so.
            _ if self.tracked.is_some_and(Tracked::stays) => Tick::MAX,
            Some(value) => useful_until(value),
            None => current_until,
        };
        // Negative records expire `missing_ttl` after their last read.
        let keep_unread = if value.is_none() { self.pace.missing_ttl } else { UNTRACK_AFTER };
        Deadlines { current_until, refresh_after, keep_until, keep_unread }
    }
}

/// When a source is to be asked again, unless a read does so before.
pub(crate) fn next_fetch(state: &SourceState, pace: Pace) -> Tick {
    state.ended_at
        + match state.outcome {
            Outcome::Found => pace.ttl,
            Outcome::Missing => pace.missing_ttl,
            Outcome::Failed => PAUSE_AFTER_FAILURE,
        }
}
