//! How often a model is refreshed: as the configuration says, unless it has an interval of its own, or one
//! that adapts to how its readings move.
//!
//! Whoever asks when a model is due asks [`Engine::pace`], and nothing else.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{IntervalError, ModelRecord, ModelRef, Outcome, PaceReason, Tick};
use tokio::sync::watch;

use crate::adaptive::{AdaptiveConfig, Cause, Fleet, Signal};
use crate::config::CacheConfig;
use crate::engine::Engine;
use crate::fetch::Source;
use crate::schedule::MEAN_SHARE;

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

/// The ttls that adapt, and the news that some pace has changed.
pub(crate) struct Paces {
    /// `None`: ttls do not adapt.
    fleet: Option<Mutex<Fleet>>,
    /// Counts the changes of any pace.
    changes: watch::Sender<u64>,
}

impl Paces {
    pub(crate) fn new(config: &CacheConfig) -> Self {
        let AdaptiveConfig { enabled, min_ttl, max_ttl } = config.adaptive;
        let (_, base) = config.base();
        // Reads come after the end of a ttl, the background ahead of it.
        let ahead = if config.fetch_interval.is_zero() { 1.0 } else { MEAN_SHARE };
        let fleet = || Mutex::new(Fleet::new(base, min_ttl, max_ttl, ahead));
        Self { fleet: (enabled && config.enabled).then(fleet), changes: watch::Sender::default() }
    }

    fn fleet(&self) -> Option<MutexGuard<'_, Fleet>> {
        // It is arithmetic on numbers: a panic elsewhere leaves at worst one of them old.
        Some(self.fleet.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner))
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
        self.pace_with(model, self.interval_override(model))
    }

    /// The same, given the interval that a caller has set: for those who hold the lock of the model's cell.
    pub(crate) fn pace_with(&self, model: &ModelRef, set: Option<Duration>) -> Pace {
        let pace = Pace::of(&self.config);
        if let Some(interval) = self.own_interval(model, set) {
            return pace.every(interval);
        }
        let adapted = self.paces.fleet().and_then(|fleet| fleet.ttl(model));
        adapted.map_or(pace, |(ttl, _)| pace.adapted(ttl))
    }

    /// The pace of a model as it is shown, with its reason.
    pub(crate) fn shown_pace(&self, model: &ModelRef) -> collector_core::Pace {
        let ttl = self.pace(model).ttl;
        let cause = || Some(self.paces.fleet()?.ttl(model)?.1);
        let reason = match (self.own_interval(model, self.interval_override(model)), cause()) {
            (Some(_), _) => PaceReason::Own,
            (None, None) => PaceReason::Configured,
            (None, Some(Cause::Watched)) => PaceReason::Watched,
            (None, Some(Cause::Still)) => PaceReason::Still,
            (None, Some(Cause::Moves(quantity, volatility))) => PaceReason::Moves {
                field: quantity.as_str(),
                // It grows with the root of the time.
                per_minute: volatility * 60_f64.sqrt(),
            },
        };
        collector_core::Pace::new(ttl, reason)
    }

    /// The interval that a caller has set for a model.
    fn interval_override(&self, model: &ModelRef) -> Option<Duration> {
        self.models.peek(model, |cell| cell.interval).flatten()
    }

    fn own_interval(&self, model: &ModelRef, set: Option<Duration>) -> Option<Duration> {
        set.or_else(|| {
            let variants = self.directory.variants_of(model);
            let shortest = variants.iter().filter_map(|variant| variant.fetch_interval).min();
            // A directory may change to what could not have been configured.
            let timeout = self.slowest_timeout();
            shortest.filter(|interval| self.config.check_interval(*interval, timeout).is_ok())
        })
    }

    /// Takes in what a look of a source came to, where ttls adapt.
    pub(crate) fn learn(
        &self,
        source: &Source,
        interval: Option<Duration>,
        outcome: Outcome,
        record: &ModelRecord,
        now: Tick,
    ) {
        // One source teaches: fetches of two at about one time would pass for two fetches of a model.
        let teacher = self.sources.iter().find(|source| !source.pushes());
        if teacher.is_none_or(|teacher| teacher.name != source.name) {
            return;
        }
        let model = &record.model;
        let own = self.own_interval(model, interval).is_some();
        let Some(mut fleet) = self.paces.fleet().filter(|_| !own) else { return };
        match (outcome, &record.value) {
            (Outcome::Found, Some(value)) if !value.replicas.partial => {
                let states = &record.cold.sources;
                let state = states.iter().find(|state| state.backend == source.name);
                let answer = state.and_then(|state| state.answer.as_ref());
                let load = answer.map(|answer| answer.sample.load.as_slice()).unwrap_or_default();
                fleet.found(model, now, Signal::of(&value.replicas, load));
            }
            (Outcome::Missing, _) => fleet.missing(model),
            _ => fleet.looked(),
        }
    }

    /// Gives what is tracked its ttls anew, where they adapt. True when some model is due sooner.
    pub(crate) fn adapt(&self, now: Tick) -> bool {
        if self.paces.fleet.is_none() {
            return false;
        }
        // Before the lock of the fleet, which is taken under those of cells.
        let tracked = self.models.all(|cell| cell.tracked.as_ref().map(|_| cell.interval));
        let adapting: HashSet<ModelRef> = tracked
            .into_iter()
            .filter(|(model, interval)| self.own_interval(model, *interval).is_none())
            .map(|(model, _)| model)
            .collect();
        let Some(mut fleet) = self.paces.fleet() else { return false };
        fleet.allocate(now, |model| adapting.contains(model))
    }

    /// The least interval that a model may have that is not tracked yet: within it the worker must
    /// look for such. Zero when none is refreshed.
    pub(crate) fn shortest_interval(&self) -> Duration {
        let set =
            self.models.all(|cell| cell.interval).into_iter().map(|(_, interval)| interval).min();
        let all = Some(self.config.fetch_interval).filter(|interval| !interval.is_zero());
        set.into_iter().chain(all).min().unwrap_or(Duration::ZERO)
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
