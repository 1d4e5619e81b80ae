// SPDX-License-Identifier: Apache-2.0
//! A line of the snapshot: what each source last answered about one model.
//!
//! These types are the format. They hold no tick, only ages at the time of writing. What is read is judged like
//! an answer of a server: what is there twice counts once, and what cannot be true is unknown.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use collector_core::raw::wire::{Age, Marks, SampleRecord, marks_of, recall_marks};
use collector_core::raw::{SourceAnswer, SourceState};
use collector_core::{BackendName, ModelId, ModelRef, Namespace, Outcome, PodName, Tick};
use serde::{Deserialize, Serialize};

use crate::publish::sane::{keep_first, keep_what_can_be};

/// One model that was tracked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ModelRecord {
    model: ModelId,
    namespace: Namespace,
    /// For how long nobody had read it.
    unread: Age,
    sources: Vec<SourceRecord>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SourceRecord {
    backend: BackendName,
    #[serde(with = "OutcomeRecord")]
    outcome: Outcome,
    answered: Age,
    as_of: Age,
    arrived: Age,
    sample: SampleRecord,
    load_marks: Marks,
    #[serde(rename = "departed")]
    terminated: Vec<(PodName, Age)>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Outcome", rename_all = "lowercase")]
enum OutcomeRecord {
    Found,
    Missing,
    Failed,
}

impl ModelRecord {
    /// The line of a model at `written_at`: the last answer of each source that ever had it.
    pub(super) fn new(
        model: &ModelRef,
        unread: Duration,
        states: &[SourceState],
        written_at: Tick,
    ) -> Self {
        Self {
            model: model.model.clone(),
            namespace: model.namespace.clone(),
            unread: unread.into(),
            sources: states.iter().filter_map(|s| SourceRecord::new(s, written_at)).collect(),
        }
    }

    /// For how long nobody had read the model when the snapshot was written.
    pub(super) fn unread(&self) -> Duration {
        self.unread.into()
    }

    /// The model again, on a clock on which the snapshot was written at `written_at`.
    pub(super) fn recall(self, written_at: Tick) -> (ModelRef, Vec<SourceState>) {
        let states = self.sources.into_iter().map(|source| source.recall(written_at));
        let mut states: Vec<SourceState> = states.collect();
        keep_first(&mut states, |state| state.backend.clone());
        (ModelRef::new(self.model, self.namespace), states)
    }
}

impl fmt::Display for ModelRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", ModelRef::new(self.model.clone(), self.namespace.clone()))
    }
}

impl SourceRecord {
    fn new(state: &SourceState, written_at: Tick) -> Option<Self> {
        let answer = state.answer.as_ref()?;
        let age = |tick| Age::of(tick, written_at);
        Some(Self {
            backend: state.backend.clone(),
            outcome: state.outcome,
            answered: age(state.answered_at.unwrap_or(answer.arrived_at)),
            as_of: age(state.as_of.unwrap_or(answer.sample.as_of)),
            arrived: age(answer.arrived_at),
            sample: SampleRecord::new(&answer.sample, written_at).for_restart(),
            load_marks: marks_of(&answer.load_marks, written_at),
            terminated: answer
                .terminated
                .iter()
                .map(|(pod, left)| (pod.clone(), age(*left)))
                .collect(),
        })
    }

    fn recall(self, written_at: Tick) -> SourceState {
        let terminated =
            self.terminated.into_iter().map(|(pod, left)| (pod, left.tick(written_at)));
        let mut terminated: Vec<(PodName, Tick)> = terminated.collect();
        // It is searched by halves.
        terminated.sort_unstable();
        terminated.dedup_by(|(a, _), (b, _)| a == b);
        let mut sample = self.sample.recall(written_at);
        keep_what_can_be(&mut sample);
        SourceState {
            backend: self.backend,
            outcome: self.outcome,
            // No fetch of this process: its ttl is over, so that the value is last-known-good and due at once.
            ended_at: Tick::MIN,
            answered_at: Some(self.answered.tick(written_at)),
            as_of: Some(self.as_of.tick(written_at)),
            answer: Some(SourceAnswer {
                sample: Arc::new(sample),
                arrived_at: self.arrived.tick(written_at),
                load_marks: recall_marks(self.load_marks, written_at),
                terminated,
                absent: Vec::new(),
            }),
            error: None,
            nearest: None,
        }
    }
}
