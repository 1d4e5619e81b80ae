// SPDX-License-Identifier: Apache-2.0
//! How often a model is refreshed: as configured, unless it has an interval of its own, or one
//! that adapts to how its readings move.
//!
//! Only [`Engine::pace`] decides when a model is due.

use std::time::Duration;

use collector_core::{IntervalError, LoadRows, ModelRecord, ModelRef, Outcome, PaceReason, Tick};
use tokio::sync::watch;

use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::fetch::{Fetch, Source};
use crate::refresh::adaptive::{AdaptiveConfig, AdaptiveTtl, Bounds, Cause, Signal};
use crate::state::State;

/// The refresh interval and the ttls of one model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pace {
    /// How long a value that was found is current.
    pub(crate) ttl: Duration,
    /// How often the background refreshes it; zero is never.
    pub(crate) interval: Duration,
    /// How long the answer that it is missing is believed.
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

/// Why a model has its pace.
enum Reason {
    /// It has an interval of its own.
    Own(Duration),
    Adaptive(AdaptiveTtl),
    Configured,
}

/// The bounds of ttls that adapt, and whether any pace has changed.
pub(crate) struct Paces {
    /// `None`: ttls do not adapt. What is learned of a model is kept in its cell.
    adaptive: Option<Bounds>,
    /// Counts the changes of any pace.
    changes: watch::Sender<u64>,
}

impl Paces {
    pub(crate) fn new(config: &CacheConfig) -> Self {
        let AdaptiveConfig { enabled, min_ttl: min, max_ttl: max } = config.adaptive;
        let (_, base) = config.base();
        Self {
            adaptive: (enabled && config.enabled).then_some(Bounds { base, min, max }),
            changes: watch::Sender::default(),
        }
    }

    /// Wakes the worker, because some model may be due at another time than it was.
    pub(crate) fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    /// Resolves whenever a pace has changed since the last time.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Engine {
    /// How often a model is refreshed.
    pub(crate) fn pace(&self, model: &ModelRef) -> Pace {
        self.pace_for(&self.reason_of(model))
    }

    /// The same under the lock of the model's cell.
    pub(crate) fn pace_in(&self, cell: &State<Fetch>, model: &ModelRef) -> Pace {
        self.pace_for(&self.reason(model, Some(cell)))
    }

    fn pace_for(&self, reason: &Reason) -> Pace {
        let pace = Pace::of(&self.config);
        match reason {
            Reason::Own(interval) => pace.every(*interval),
            Reason::Adaptive(adaptive) => pace.adapted(adaptive.ttl()),
            Reason::Configured => pace,
        }
    }

    /// The pace of a model as it is shown, with its reason.
    pub(crate) fn shown_pace(&self, model: &ModelRef) -> collector_core::Pace {
        let reason = self.reason_of(model);
        let shown = match &reason {
            Reason::Own(_) => PaceReason::Own,
            Reason::Configured => PaceReason::Configured,
            Reason::Adaptive(adaptive) => match adaptive.cause() {
                Cause::Watched => PaceReason::Watched,
                Cause::Still => PaceReason::Still,
                Cause::Moves(quantity, per_minute) => {
                    PaceReason::Moves { field: quantity.as_str(), per_minute }
                }
            },
        };
        collector_core::Pace::new(self.pace_for(&reason).ttl, shown)
    }

    fn reason_of(&self, model: &ModelRef) -> Reason {
        let in_cell = self.models.peek(model, |cell| self.reason(model, Some(cell)));
        in_cell.unwrap_or_else(|| self.reason(model, None))
    }

    /// As a caller has set it, else as the shortest of its variants is configured, else as its readings move.
    fn reason(&self, model: &ModelRef, cell: Option<&State<Fetch>>) -> Reason {
        let set = cell.and_then(|cell| cell.interval);
        if let Some(interval) = set.or_else(|| self.interval_of_variants(model)) {
            return Reason::Own(interval);
        }
        let adapts = self.paces.adaptive.is_some();
        let adaptive = cell.filter(|_| adapts).and_then(|cell| cell.tracked.as_ref()?.adaptive);
        adaptive.map_or(Reason::Configured, Reason::Adaptive)
    }

    fn interval_of_variants(&self, model: &ModelRef) -> Option<Duration> {
        let variants = self.directory.variants_of(model);
        let shortest = variants.iter().filter_map(|variant| variant.fetch_interval).min();
        // A directory may change to what could not have been configured.
        let timeout = self.slowest_timeout();
        shortest.filter(|interval| self.config.check_interval(*interval, timeout).is_ok())
    }

    /// Takes in the result of a source's fetch, where ttls adapt. Called under the lock of the model's cell.
    pub(crate) fn learn(
        &self,
        cell: &mut State<Fetch>,
        source: &Source,
        outcome: Outcome,
        record: &ModelRecord,
        now: Tick,
    ) {
        // Fetches of two sources at about the same time would pass for two fetches of the model.
        let first_asked = self.sources.iter().find(|source| !source.pushes());
        if first_asked.is_none_or(|first_asked| first_asked.name != source.name) {
            return;
        }
        let Some(bounds) = self.paces.adaptive else { return };
        if matches!(self.reason(&record.model, Some(cell)), Reason::Own(_)) {
            return;
        }
        let Some(tracked) = &mut cell.tracked else { return };
        let ttl = |adaptive: &Option<AdaptiveTtl>| adaptive.map_or(bounds.base, |it| it.ttl());
        let before = ttl(&tracked.adaptive);
        match (outcome, &record.value) {
            (Outcome::Found, Some(value)) if !value.replicas.partial => {
                let states = &record.cold.sources;
                let state = states.iter().find(|state| state.backend == source.name);
                let answer = state.and_then(|state| state.answer.as_ref());
                let load = answer.map_or(&LoadRows::None, |answer| &answer.sample.load);
                let signal = Signal::of(&value.replicas, load);
                let adaptive = tracked.adaptive.get_or_insert_with(|| AdaptiveTtl::new(&bounds));
                adaptive.found(&bounds, now, signal);
            }
            // What comes next is another life of it.
            (Outcome::Missing, _) if tracked.adaptive.is_some() => {
                tracked.adaptive = Some(AdaptiveTtl::new(&bounds));
            }
            _ => {}
        }
        if ttl(&tracked.adaptive) < before {
            self.paces.changed();
        }
    }

    /// The least interval that a model may have that is not tracked yet: within it the worker must
    /// check for such. Zero when none is refreshed.
    pub(crate) fn shortest_interval(&self) -> Duration {
        let set = self.models.all(|cell| cell.interval).into_iter().map(|(_, interval)| interval);
        let all = Some(self.config.fetch_interval).filter(|interval| !interval.is_zero());
        set.chain(all).min().unwrap_or(Duration::ZERO)
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
        let limit = self.max_tracked;
        if !self.models.with(model, |cell| self.models.set_interval(cell, interval, limit)) {
            return Err(IntervalError::TooMany { limit });
        }
        self.paces.changed();
        Ok(())
    }

    /// The greatest time-out of the backends that are asked.
    fn slowest_timeout(&self) -> Duration {
        let asked = self.sources.iter().filter(|source| !source.pushes());
        asked.map(|source| source.timeout).max().unwrap_or(Duration::ZERO)
    }
}
