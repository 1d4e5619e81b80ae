//! What an entry means to a reader: a reading, the news that there is nothing, or neither.

use std::cell::RefCell;
use std::sync::Arc;

use collector_cache::Recent;
use collector_core::{
    Aged, Allocation, CollectError, Freshness, FreshnessThresholds, Label, ModelRef, Nearest,
    Outcome, Reading, Replicas, Source, Stored, Tick, Value,
};

use crate::readers::{Reader, Seen};

/// A value that entries hold.
pub(crate) trait Kept: Aged + Sized + Send + Sync + 'static {
    /// The value, where the entry is of this kind and has one.
    fn of(value: &Value) -> Option<&Arc<Self>>;

    /// Those that a thread read lately.
    fn recent(reader: &Reader) -> &RefCell<Recent<Seen<Self>>>;
}

impl Kept for Replicas {
    fn of(value: &Value) -> Option<&Arc<Self>> {
        match value {
            Value::Replicas(replicas) => Some(replicas),
            Value::None | Value::Allocation(_) => None,
        }
    }

    fn recent(reader: &Reader) -> &RefCell<Recent<Seen<Self>>> {
        &reader.replicas
    }
}

impl Kept for Allocation {
    fn of(value: &Value) -> Option<&Arc<Self>> {
        match value {
            Value::Allocation(allocation) => Some(allocation),
            Value::None | Value::Replicas(_) => None,
        }
    }

    fn recent(reader: &Reader) -> &RefCell<Recent<Seen<Self>>> {
        &reader.allocations
    }
}

/// What there is in place of a model, if all sources said a moment ago that it is missing and there is
/// no value from before.
pub(crate) fn known_missing(stored: &Stored, now: Tick) -> Option<Arc<Nearest>> {
    let nearest = stored.cold.nearest.as_ref()?;
    let holds = stored.outcome == Outcome::Missing && now < stored.refresh_after;
    holds.then(|| Arc::clone(nearest))
}

/// What the label of a reading follows from, at any time.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    oldest: Tick,
    /// Until when the value counts as cached; after it as last known good.
    cached_until: Tick,
    refresh_after: Tick,
    denied: bool,
}

impl Terms {
    /// Those of an entry and its value.
    pub(crate) fn of(stored: &Stored, value: &impl Aged) -> Self {
        Self {
            oldest: value.oldest(),
            cached_until: match stored.outcome {
                Outcome::Found => stored.current_until,
                Outcome::Missing | Outcome::Failed => Tick::MIN,
            },
            refresh_after: stored.refresh_after,
            denied: is_denied(stored),
        }
    }

    /// The label of a value that is young enough to be used.
    #[inline]
    pub(crate) fn label(self, thresholds: &FreshnessThresholds, now: Tick) -> Option<Label> {
        let source = if now < self.cached_until { Source::Cache } else { Source::LastKnownGood };
        let mut label = Label::new(self.oldest, now, thresholds, source);
        if self.denied {
            // Whoever had the model has since said that there is nothing: the value may be served, and
            // never as if it were the present state.
            label = label.at_best_stale();
        }
        (label.freshness() != Freshness::Unavailable).then_some(label)
    }

    /// Whether a read should see to a refresh.
    #[inline]
    pub(crate) fn is_due(self, now: Tick) -> bool {
        now >= self.refresh_after
    }
}

/// The reading of an entry whose value is young enough to be used.
pub(crate) fn usable<T: Kept>(
    stored: &Stored,
    thresholds: &FreshnessThresholds,
    now: Tick,
) -> Option<Reading<T>> {
    let value = T::of(&stored.value)?;
    Some(Terms::of(stored, &**value).label(thresholds, now)?.on(Arc::clone(value)))
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
