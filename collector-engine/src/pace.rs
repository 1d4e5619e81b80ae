//! How often a model is refreshed: as the configuration says, unless it has an interval of its own, or one
//! that adapts to how its readings move.
//!
//! Whoever asks when a model is due asks [`Engine::pace`], and nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{IntervalError, ModelRef, Outcome, PaceReason, Stored, Tick, Value};
use tokio::sync::watch;

use crate::adaptive::{AdaptiveConfig, AdaptiveTtl, Bounds, Cause, Signal};
use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::source::Source;

/// The pace of one model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pace {
    /// How long a value that was found is current.
    pub(crate) ttl: Duration,
    /// How often the background refreshes it; zero is never.
    pub(crate) interval: Duration,
    /// How long the news that it is missing is believed.
    pub(crate) missing_ttl: Duration,
}

impl Pace {
    /// The pace of every model that has none of its own.
    pub(crate) fn of(config: &CacheConfig) -> Self {
        Self { ttl: config.ttl, interval: config.fetch_interval, missing_ttl: config.missing_ttl }
    }

    /// The same with a ttl that adapts. Where nothing is refreshed in the background, that stays so.
    fn adapted(self, ttl: Duration) -> Self {
        Self { ttl, interval: if self.interval.is_zero() { self.interval } else { ttl }, ..self }
    }

    /// The same with an interval of its own, which is its ttl as well: with a shorter ttl reads in
    /// between would start refreshes, with a longer one a value would be called current past its time.
    fn every(self, interval: Duration) -> Self {
        Self { ttl: interval, interval, ..self }
    }
}

/// The paces that are not configured: intervals that callers have asked for, and ttls that adapt.
pub(crate) struct Paces {
    wishes: Mutex<HashMap<ModelRef, Duration>>,
    /// `None`: ttls do not adapt. What is learned of a model is with what is tracked.
    adaptive: Option<Bounds>,
    /// Counts the changes of any pace.
    changes: watch::Sender<u64>,
}

impl Paces {
    pub(crate) fn new(config: &CacheConfig) -> Self {
        let AdaptiveConfig { enabled, min_ttl: min, max_ttl: max } = config.adaptive;
        let (_, base) = config.base();
        Self {
            wishes: Mutex::default(),
            adaptive: (enabled && config.enabled).then_some(Bounds { base, min, max }),
            changes: watch::Sender::default(),
        }
    }

    fn wishes(&self) -> MutexGuard<'_, HashMap<ModelRef, Duration>> {
        // Nothing under this lock can panic half-way through a change.
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the interval of a model, or takes it back.
    fn set(
        &self,
        model: &ModelRef,
        interval: Option<Duration>,
        limit: usize,
    ) -> Result<(), IntervalError> {
        let mut wishes = self.wishes();
        match interval {
            None => {
                wishes.remove(model);
            }
            Some(_) if wishes.len() >= limit && !wishes.contains_key(model) => {
                return Err(IntervalError::TooMany { limit });
            }
            Some(interval) => {
                wishes.insert(model.clone(), interval);
            }
        }
        drop(wishes);
        self.changed();
        Ok(())
    }

    /// Tells the worker that some model may be due at another time than it was.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Resolves whenever a pace has changed since the last time.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Engine {
    /// How often a model is refreshed: as a caller wants it, else as the hastiest of its variants is
    /// configured, else as everything is.
    pub(crate) fn pace(&self, model: &ModelRef) -> Pace {
        let pace = Pace::of(&self.config);
        if let Some(interval) = self.own_interval(model) {
            return pace.every(interval);
        }
        self.adaptive(model).map_or(pace, |adaptive| pace.adapted(adaptive.ttl()))
    }

    /// The pace of a model as it is shown, with its reason.
    pub(crate) fn shown_pace(&self, model: &ModelRef) -> collector_core::Pace {
        let ttl = self.pace(model).ttl;
        let cause = || Some(self.adaptive(model)?.cause());
        let reason = match (self.own_interval(model), cause()) {
            (Some(_), _) => PaceReason::Own,
            (None, None) => PaceReason::Configured,
            (None, Some(Cause::Watched)) => PaceReason::Watched,
            (None, Some(Cause::Still)) => PaceReason::Still,
            (None, Some(Cause::Moves(quantity, per_minute))) => {
                PaceReason::Moves { field: quantity.as_str(), per_minute }
            }
        };
        collector_core::Pace::new(ttl, reason)
    }

    /// What is learned of a model; `None` where ttls do not adapt, and before it was found.
    fn adaptive(&self, model: &ModelRef) -> Option<AdaptiveTtl> {
        self.paces.adaptive?;
        self.tracker.with_adaptive(model, |adaptive| *adaptive)?
    }

    fn own_interval(&self, model: &ModelRef) -> Option<Duration> {
        let wish = self.paces.wishes().get(model).copied();
        wish.or_else(|| {
            let variants = self.directory.variants_of(model);
            let shortest = variants.iter().filter_map(|variant| variant.fetch_interval).min();
            // A directory may change to what could not have been configured.
            let timeout = self.slowest_timeout();
            shortest.filter(|interval| self.config.check_interval(*interval, timeout).is_ok())
        })
    }

    /// Takes in the result of a source's fetch, where ttls adapt.
    pub(crate) fn learn(
        &self,
        source: &Source,
        model: &ModelRef,
        outcome: Outcome,
        stored: &Stored,
        now: Tick,
    ) {
        // Fetches of two sources at about the same time would pass for two fetches of the model.
        let teacher = self.sources.iter().find(|source| !source.pushes());
        if teacher.is_none_or(|teacher| teacher.name != source.name) {
            return;
        }
        let Some(bounds) = self.paces.adaptive else { return };
        if self.own_interval(model).is_some() {
            return;
        }
        let shorter = self.tracker.with_adaptive(model, |adaptive| {
            let ttl = |adaptive: &Option<AdaptiveTtl>| adaptive.map_or(bounds.base, |it| it.ttl());
            let before = ttl(adaptive);
            match (outcome, &stored.value) {
                (Outcome::Found, Value::Replicas(replicas)) if !replicas.partial => {
                    let states = &stored.cold.sources;
                    let state = states.iter().find(|state| state.backend == source.name);
                    let answer = state.and_then(|state| state.answer.as_ref());
                    let load =
                        answer.map(|answer| answer.sample.load.as_slice()).unwrap_or_default();
                    adaptive.get_or_insert_with(|| AdaptiveTtl::new(&bounds)).found(
                        &bounds,
                        now,
                        Signal::of(replicas, load),
                    );
                }
                // What comes next is another life of it.
                (Outcome::Missing, _) if adaptive.is_some() => {
                    *adaptive = Some(AdaptiveTtl::new(&bounds));
                }
                _ => {}
            }
            ttl(adaptive) < before
        });
        if shorter == Some(true) {
            self.paces.changed();
        }
    }

    /// The least interval that a model may have that is not tracked yet: within it the worker must
    /// look for such. Zero when none is refreshed.
    pub(crate) fn shortest_interval(&self) -> Duration {
        let wished = self.paces.wishes().values().copied().min();
        let all = Some(self.config.fetch_interval).filter(|interval| !interval.is_zero());
        wished.into_iter().chain(all).min().unwrap_or(Duration::ZERO)
    }

    /// Sets the interval of a model, or takes it back.
    ///
    /// # Errors
    /// For an interval that cannot work here, and when as many models as may be tracked have one.
    pub(crate) fn set_interval(
        &self,
        model: &ModelRef,
        interval: Option<Duration>,
    ) -> Result<(), IntervalError> {
        if let Some(interval) = interval {
            self.config.check_interval(interval, self.slowest_timeout())?;
        }
        self.paces.set(model, interval, self.max_tracked)
    }

    /// The greatest time-out of the backends that are asked.
    fn slowest_timeout(&self) -> Duration {
        let asked = self.sources.iter().filter(|source| !source.pushes());
        asked.map(|source| source.timeout).max().unwrap_or(Duration::ZERO)
    }
}
