//! What an entry means to a reader: a reading, the news that there is nothing, or neither.

use std::sync::Arc;

use collector_core::{
    Aged, Allocation, CollectError, Freshness, FreshnessThresholds, ModelRef, Nearest, Outcome,
    Reading, Replicas, Source, Stored, Tick, Value,
};

/// A value that entries hold.
pub(crate) trait Kept: Aged + Sized + Send + Sync + 'static {
    /// The value, where the entry is of this kind and has one.
    fn of(value: &Value) -> Option<&Arc<Self>>;
}

impl Kept for Replicas {
    fn of(value: &Value) -> Option<&Arc<Self>> {
        match value {
            Value::Replicas(replicas) => Some(replicas),
            Value::None | Value::Allocation(_) => None,
        }
    }
}

impl Kept for Allocation {
    fn of(value: &Value) -> Option<&Arc<Self>> {
        match value {
            Value::Allocation(allocation) => Some(allocation),
            Value::None | Value::Replicas(_) => None,
        }
    }
}

/// What there is in place of a model, if all sources said a moment ago that it is missing and there is
/// no value from before.
pub(crate) fn known_missing(stored: &Stored, now: Tick) -> Option<Arc<Nearest>> {
    let nearest = stored.cold.nearest.as_ref()?;
    let holds = stored.outcome == Outcome::Missing && now < stored.refresh_after;
    holds.then(|| Arc::clone(nearest))
}

/// The reading of an entry whose value is young enough to be used.
#[expect(
    clippy::inline_always,
    reason = "a hit is handed through in registers, not copied: half of its time"
)]
#[inline(always)]
pub(crate) fn usable<T: Kept>(
    stored: &Stored,
    thresholds: &FreshnessThresholds,
    now: Tick,
) -> Option<Reading<T>> {
    let value = Arc::clone(T::of(&stored.value)?);
    let mut reading = Reading::new(value, now, thresholds, source(stored, now));
    if is_denied(stored) {
        // Whoever had the model has since said that there is nothing: the value may be served, and
        // never as if it were the present state.
        reading.deny();
    }
    (reading.freshness() != Freshness::Unavailable).then_some(reading)
}

/// The same for a reader that has the reading from before of this very entry. False when the value is
/// no longer of use.
pub(crate) fn read_again<T: Kept>(
    reading: &mut Reading<T>,
    stored: &Stored,
    thresholds: &FreshnessThresholds,
    now: Tick,
) -> bool {
    reading.renew(now, thresholds, source(stored, now));
    if is_denied(stored) {
        reading.deny();
    }
    reading.freshness() != Freshness::Unavailable
}

fn source(stored: &Stored, now: Tick) -> Source {
    match stored.outcome {
        Outcome::Found if now < stored.current_until => Source::Cache,
        _ => Source::LastKnownGood,
    }
}

/// Whether all the sources that the value can be from say now that there is no such model. One that
/// never had it and is down says neither.
fn is_denied(stored: &Stored) -> bool {
    match stored.outcome {
        Outcome::Found => false,
        Outcome::Missing => true,
        Outcome::Failed => all_deny(stored),
    }
}

#[cold]
fn all_deny(stored: &Stored) -> bool {
    let mut had_it = stored.cold.sources.iter().filter(|state| state.answer.is_some());
    had_it.all(|state| state.outcome == Outcome::Missing)
}

/// What an entry says to someone for whom the backend was asked, or who does not want it asked.
///
/// `asked_now`: the entry comes straight from a look at the backend.
pub(crate) fn conclude<T: Kept>(
    model: &ModelRef,
    stored: &Stored,
    thresholds: &FreshnessThresholds,
    now: Tick,
    asked_now: bool,
) -> Result<Reading<T>, CollectError> {
    if let Some(reading) = usable(stored, thresholds, now) {
        return Ok(if asked_now && stored.outcome == Outcome::Found {
            Reading::new(Arc::clone(reading.value()), now, thresholds, Source::Backend)
        } else {
            reading
        });
    }
    let cause = stored.cold.error.clone();
    match (stored.outcome, T::of(&stored.value)) {
        (Outcome::Missing, _) => Err(CollectError::Missing {
            model: model.clone(),
            nearest: stored.cold.nearest.clone().unwrap_or_default(),
        }),
        (_, Some(value)) => Err(CollectError::Unavailable {
            model: model.clone(),
            age: value.oldest().age(now),
            threshold: thresholds.unavailable_threshold,
            cause,
        }),
        (_, None) => Err(match cause {
            Some(error) => CollectError::Backend(error),
            None => CollectError::Pending { model: model.clone() },
        }),
    }
}
