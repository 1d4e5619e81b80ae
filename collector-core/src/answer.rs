// SPDX-License-Identifier: Apache-2.0
//! What a backend answers about each model.

use std::collections::BTreeMap;
use std::collections::btree_map::{self, Entry};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Tick;
use crate::endpoint_picker::EndpointPicker;
use crate::error::BackendError;
use crate::field::FieldReasons;
use crate::load::LoadRates;
use crate::metrics::{ReplicaMetrics, bytes_of_rows};
use crate::model::{ModelRef, PodName};
use crate::supply::Supply;
use crate::trace::TraceRow;

/// The answers of one fetch: one for each model.
///
/// A model without an answer has failed. Of two answers about a model the first counts.
#[derive(Default, Debug)]
pub struct Answers(BTreeMap<ModelRef, Answer>);

impl Answers {
    /// No answer yet.
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Answers about a model, unless it has an answer; returns whether it had none.
    pub fn insert(&mut self, model: ModelRef, answer: Answer) -> bool {
        match self.0.entry(model) {
            Entry::Vacant(vacant) => {
                vacant.insert(answer);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Returns the answer about a model.
    pub fn get(&self, model: &ModelRef) -> Option<&Answer> {
        self.0.get(model)
    }

    /// Takes the answer about a model out.
    pub fn remove(&mut self, model: &ModelRef) -> Option<Answer> {
        self.0.remove(model)
    }

    /// Returns how many models are answered.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no model is answered.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the answers in the order of the models.
    pub fn iter(&self) -> impl Iterator<Item = (&ModelRef, &Answer)> {
        self.0.iter()
    }
}

impl IntoIterator for Answers {
    type Item = (ModelRef, Answer);
    type IntoIter = btree_map::IntoIter<ModelRef, Answer>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Extend<(ModelRef, Answer)> for Answers {
    fn extend<I: IntoIterator<Item = (ModelRef, Answer)>>(&mut self, answers: I) {
        for (model, answer) in answers {
            self.insert(model, answer);
        }
    }
}

impl FromIterator<(ModelRef, Answer)> for Answers {
    fn from_iter<I: IntoIterator<Item = (ModelRef, Answer)>>(answers: I) -> Self {
        let mut all = Self::new();
        all.extend(answers);
        all
    }
}

/// The answer of one fetch about one model.
#[derive(Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "nearly every answer is the large one")]
pub enum Answer {
    /// Series of the model exist. No replica in it: the model is known and has no live pod.
    Found(ModelSample),
    /// The server answered, and has nothing of this model.
    Missing {
        /// When the server was asked.
        as_of: Tick,
        /// When something of it was last there, where the server or the backend remembers: then it has
        /// been scaled to zero, and is not misspelt.
        last_seen: Option<Tick>,
    },
    /// This model could not be fetched; others of the same fetch may have been.
    Failed(BackendError),
}

/// The pods that live and are not in a sample.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub enum Absent {
    /// There are none: the sample is complete.
    #[default]
    None,
    /// These could not be reached. All others that are not in the sample are gone.
    Pods(Vec<PodName>),
    /// Any pod may be absent: warnings, `isPartial`. With the server's warning, where there is one: what
    /// stays absent under one and the same warning for three fetches has left.
    Unknown(Option<Arc<str>>),
}

impl Absent {
    /// These pods; none where there are none.
    pub fn pods(pods: Vec<PodName>) -> Self {
        if pods.is_empty() { Self::None } else { Self::Pods(pods) }
    }

    /// Returns whether no pod is absent.
    pub const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Returns the warning under which any pod may be absent.
    pub fn warning(&self) -> Option<&Arc<str>> {
        match self {
            Self::Unknown(warning) => warning.as_ref(),
            Self::None | Self::Pods(_) => None,
        }
    }

    /// Returns the pods that could not be reached; empty where they cannot be named.
    pub fn named(&self) -> &[PodName] {
        match self {
            Self::Pods(pods) => pods,
            Self::None | Self::Unknown(_) => &[],
        }
    }
}

/// The answer of one fetch about a model that exists.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ModelSample {
    /// When the server was asked, on our clock: this orders answers.
    pub as_of: Tick,
    /// The live replicas.
    pub replicas: Vec<ReplicaMetrics>,
    /// The load of the model, as a whole or pod by pod.
    pub load: LoadRows,
    /// Fields whose query failed, with the reason: unknown, which is not "not measured". They keep
    /// their former values.
    pub failed: FieldReasons,
    /// The live pods that may be absent from [`replicas`](Self::replicas), and why.
    pub absent: Absent,
    /// Whether the backend has a list of the pods that exist, so that no replica means no pod. Default false: there are no
    /// series of pods, which may exist and not be scraped.
    pub lists_pods: bool,
    /// The time over which peaks and rates were taken; `None` when the backend does not say.
    pub window: Option<Duration>,
    /// Warnings about a reading whose values are right, as in
    /// [`Replicas::warnings`](crate::Replicas::warnings).
    pub warnings: Vec<Arc<str>>,
    /// The endpoint picker that routes requests to the model.
    pub endpoint_picker: EndpointPicker,
    /// The pods that the cluster lists; `None` from a backend that does not ask one. A sample with a supply and without
    /// replicas says nothing of metrics: such a model is missing if no other backend has it.
    pub supply: Option<Arc<Supply>>,
    /// How the values came about; empty unless [`Ask::trace`](crate::Ask::trace) was set.
    pub trace: Vec<TraceRow>,
}

impl ModelSample {
    /// A complete sample of these replicas, without load.
    pub fn new(as_of: Tick, replicas: Vec<ReplicaMetrics>) -> Self {
        Self {
            as_of,
            replicas,
            load: LoadRows::None,
            failed: FieldReasons::NONE,
            absent: Absent::None,
            lists_pods: false,
            window: None,
            warnings: Vec::new(),
            endpoint_picker: EndpointPicker::None,
            supply: None,
            trace: Vec::new(),
        }
    }

    /// Returns whether the sample only lists pods, and says nothing of what they do.
    pub fn only_lists_pods(&self) -> bool {
        self.supply.is_some() && self.replicas.is_empty()
    }

    /// About how many bytes the sample holds, except for the text of names, which is shared.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + bytes_of_rows(&self.replicas)
            + size_of_val(self.load.pods())
            + self.load.iter().map(|row| row.reasons.bytes()).sum::<usize>()
            + size_of_val(self.absent.named())
            + self.failed.bytes()
            + size_of_val(self.warnings.as_slice())
            + self.endpoint_picker.bytes()
            + self.supply.as_deref().map_or(0, Supply::bytes)
            + size_of_val(self.trace.as_slice())
    }
}

/// The load of a model, as a whole or by pod. It is never both: a model's load cannot be split by pod, and the load
/// of some pods is not the model's.
#[derive(Clone, PartialEq, Default, Debug)]
#[non_exhaustive]
pub enum LoadRows {
    /// The load was not measured.
    #[default]
    None,
    /// The load of the whole model: sufficient unless
    /// [`Ask::wants_load_per_pod`](crate::Ask::wants_load_per_pod) returns true.
    Model(LoadRow),
    /// The load of each live pod, once. Backends may always return it.
    Pods(Vec<(PodName, LoadRow)>),
}

impl LoadRows {
    /// Returns whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Returns the row of the whole model, if there is one.
    pub fn of_model(&self) -> Option<&LoadRow> {
        match self {
            Self::Model(row) => Some(row),
            Self::None | Self::Pods(_) => None,
        }
    }

    /// Returns the rows of pods; empty if the load is not known by pod.
    pub fn pods(&self) -> &[(PodName, LoadRow)] {
        match self {
            Self::Pods(rows) => rows,
            Self::None | Self::Model(_) => &[],
        }
    }

    /// Iterates over the rows.
    pub fn iter(&self) -> impl Iterator<Item = &LoadRow> {
        self.of_model().into_iter().chain(self.pods().iter().map(|(_, row)| row))
    }

    /// Iterates over the rows mutably.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut LoadRow> {
        let (of_model, pods): (_, &mut [_]) = match self {
            Self::None => (None, &mut []),
            Self::Model(row) => (Some(row), &mut []),
            Self::Pods(rows) => (None, rows),
        };
        of_model.into_iter().chain(pods.iter_mut().map(|(_, row)| row))
    }
}

/// Collects rows of pods.
impl FromIterator<(PodName, LoadRow)> for LoadRows {
    fn from_iter<T: IntoIterator<Item = (PodName, LoadRow)>>(rows: T) -> Self {
        Self::Pods(rows.into_iter().collect())
    }
}

/// Load of a model or of one of its pods.
#[derive(Clone, PartialEq, Default, Debug)]
#[non_exhaustive]
pub struct LoadRow {
    /// Rates over the window.
    pub rates: LoadRates,
    /// Why rates are unknown, by the fields that are made of them, where the backend can say.
    pub reasons: FieldReasons,
}

impl From<LoadRates> for LoadRow {
    fn from(rates: LoadRates) -> Self {
        Self { rates, reasons: FieldReasons::NONE }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_answers_about_a_model_the_first_counts() {
        let model = ModelRef::new("m", "n");
        let missing = |as_of| Answer::Missing { as_of, last_seen: None };
        let mut answers = Answers::new();
        assert!(answers.insert(model.clone(), missing(Tick::MIN)));
        assert!(!answers.insert(model.clone(), missing(Tick::MAX)));
        assert!(matches!(answers.remove(&model), Some(Answer::Missing { as_of: Tick::MIN, .. })));
        assert!(answers.is_empty());
    }
}
