//! How often a model is refreshed: as the configuration says, unless it has an interval of its own.
//!
//! Whoever asks when a model is due asks [`Engine::pace`], and nothing else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{IntervalError, ModelRef};
use tokio::sync::watch;

use crate::config::CacheConfig;
use crate::engine::Engine;

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

    /// The same with an interval of its own, which is its ttl as well: with a shorter ttl reads in
    /// between would start refreshes, with a longer one a value would be called current past its time.
    fn every(self, interval: Duration) -> Self {
        Self { ttl: interval, interval, ..self }
    }
}

/// The intervals that callers have asked for.
#[derive(Default)]
pub(crate) struct Paces {
    wishes: Mutex<HashMap<ModelRef, Duration>>,
    /// Counts the changes of any pace.
    changes: watch::Sender<u64>,
}

impl Paces {
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
        let wish = self.paces.wishes().get(model).copied();
        let own = wish.or_else(|| {
            let variants = self.directory.variants_of(model);
            let shortest = variants.iter().filter_map(|variant| variant.fetch_interval).min();
            // A directory may change to what could not have been configured.
            let timeout = self.slowest_timeout();
            shortest.filter(|interval| self.config.check_interval(*interval, timeout).is_ok())
        });
        own.map_or(pace, |interval| pace.every(interval))
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
