// SPDX-License-Identifier: Apache-2.0
//! What a record means to a reader: a reading, the answer that there is nothing, or neither.

use std::sync::Arc;

use collector_core::Part;
use collector_core::raw::{Label, SourceState};
use collector_core::{
    CollectError, Freshness, FreshnessThresholds, ModelRecord, ModelRef, Outcome, Reading, Source,
    Tick,
};

/// The label of a value that is young enough to be used.
#[inline]
pub(crate) fn label(
    record: &ModelRecord,
    oldest: Tick,
    thresholds: &FreshnessThresholds,
    now: Tick,
) -> Option<Label> {
    let cached = record.outcome == Outcome::Found && now < record.deadlines.current_until;
    let source = if cached { Source::Cache } else { Source::LastKnownGood };
    let mut label = Label::new(oldest, now, thresholds, source);
    if record.outcome != Outcome::Found && is_denied(record) {
        // Every source that had the model has since answered without it: the value may be served, and never as if
        // it were the present state.
        label = label.at_best_stale();
    }
    (label.freshness() != Freshness::Unavailable).then_some(label)
}

/// Whether all the sources that the value can be from now answer that there is no such model. A source that never had
/// it and is down says neither.
#[cold]
fn is_denied(record: &ModelRecord) -> bool {
    let had_it = |state: &&SourceState| state.answer.is_some() && !state.only_lists_pods();
    let mut had_it = record.cold.sources.iter().filter(had_it);
    record.outcome == Outcome::Missing || had_it.all(|state| state.outcome == Outcome::Missing)
}

/// The reading of a record, where the value is young enough to be used.
fn usable<T: Part>(
    record: &ModelRecord,
    name: &T::Name,
    thresholds: &FreshnessThresholds,
    now: Tick,
) -> Option<Reading<T>> {
    let (value, index) = T::find(record, name)?;
    let label = label(record, T::of(value, index).oldest(), thresholds, now)?;
    Some(Reading::in_model(Arc::clone(value), index, label))
}

/// What a record answers without a fetch: a value, or that all sources said a moment ago that the model is missing.
/// `None`: the backend must be asked.
pub(crate) fn consult<T: Part>(
    record: &ModelRecord,
    name: &T::Name,
    thresholds: &FreshnessThresholds,
    now: Tick,
) -> Option<Result<Reading<T>, CollectError>> {
    if let Some(reading) = usable(record, name, thresholds, now) {
        return Some(Ok(reading));
    }
    let nearest = record.cold.nearest.as_ref()?;
    let holds = record.outcome == Outcome::Missing && now < record.deadlines.refresh_after;
    let missing =
        || CollectError::Missing { model: record.model.clone(), nearest: Arc::clone(nearest) };
    holds.then(|| Err(missing()))
}

/// What a record answers to someone for whom the backend was asked, or who does not want it asked.
///
/// `asked_now`: the record comes straight from a fetch.
pub(crate) fn conclude<T: Part>(
    record: &ModelRecord,
    name: &T::Name,
    thresholds: &FreshnessThresholds,
    now: Tick,
    asked_now: bool,
) -> Result<Reading<T>, CollectError> {
    if let Some(mut reading) = usable::<T>(record, name, thresholds, now) {
        if asked_now && record.outcome == Outcome::Found {
            let oldest = reading.value().oldest();
            reading.relabel(Label::new(oldest, now, thresholds, Source::Backend));
        }
        return Ok(reading);
    }
    let model = record.model.clone();
    let cause = record.cold.error.clone();
    Err(match (record.outcome, T::find(record, name)) {
        (Outcome::Missing, _) => {
            let nearest = record.cold.nearest.clone().unwrap_or_default();
            CollectError::Missing { model, nearest }
        }
        (_, Some((value, index))) => CollectError::Unavailable {
            model,
            age: T::of(value, index).oldest().age(now),
            threshold: thresholds.unavailable_threshold,
            cause,
        },
        (_, None) => cause.map_or(CollectError::Pending { model }, CollectError::Backend),
    })
}

/// Nothing is known of a model yet, or no longer.
pub(crate) fn pending(model: &ModelRef) -> CollectError {
    CollectError::Pending { model: model.clone() }
}
