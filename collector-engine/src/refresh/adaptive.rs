// SPDX-License-Identifier: Apache-2.0
//! A ttl for one model, from how its readings move.
//!
//! Pure: no clock, no lock, no I/O. [`Signal`] defines what counts and how far two readings are apart,
//! [`AdaptiveTtl`] holds what is learned from fetch to fetch. The figures are in docs/adaptive-ttl.md.

mod config;
mod signal;

use std::time::Duration;

use collector_core::Tick;

pub use config::AdaptiveConfig;
pub use signal::{Quantity, Signal};

/// Weight of the newest fetch in what a fetch is worth.
const WEIGHT: f32 = 0.4;

/// A fetch that is worth more halves the ttl.
const MUCH: f32 = 0.03;

/// A fetch that is worth less doubles the ttl.
const LITTLE: f32 = 0.0075;

/// A difference between two fetches that halves the ttl, whatever the fetches before were worth: the spare
/// capacity at which the Workload Variant Autoscaler adds a replica (`kvSpareTrigger`).
const JUMP: f32 = 0.1;

/// By how much the error of a random walk grows, relative to what it was, when one fetch is skipped.
const SKIPPED: f64 = std::f64::consts::SQRT_2 - 1.0;

/// Between which bounds ttls adapt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// The ttl of a model of which nothing is known yet.
    pub base: Duration,
    /// No ttl is shorter.
    pub min: Duration,
    /// No ttl is longer.
    pub max: Duration,
}

/// The ttl of one model and what it follows from.
///
/// How much a reading moves is not how much it gains from fetches: noise is as wrong after a second as after a
/// minute. So each fetch is compared with the two before it. Had the last one been skipped, the reading would
/// now be off by its difference to the one before; it is off by its difference to the last. What lies between
/// is what the last fetch was worth.
#[derive(Clone, Copy, Debug)]
pub struct AdaptiveTtl {
    /// The last fetch and the one before it.
    signals: [Signal; 2],
    fetched_at: Tick,
    /// How many fetches are known, 3 at most.
    fetches: u8,
    jumped: bool,
    ttl: Duration,
    /// What a fetch is worth, by quantity.
    worth: [f32; Quantity::ALL.len()],
}

/// Why a model has its ttl.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cause {
    /// It is new, was missing, or jumped, as when it gains or loses replicas.
    Watched,
    /// A quantity moves; by how much a reading is expected to be off after a minute, as a share.
    Moves(Quantity, f64),
    /// Nothing moves.
    Still,
}

impl AdaptiveTtl {
    /// A model of which nothing is known yet.
    pub fn new(bounds: &Bounds) -> Self {
        Self {
            signals: [Signal::UNKNOWN; 2],
            fetched_at: Tick::MIN,
            fetches: 0,
            jumped: false,
            ttl: bounds.base,
            worth: [0.0; Quantity::ALL.len()],
        }
    }

    /// How long a value of the model counts as current.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Why the model has its ttl.
    pub fn cause(&self) -> Cause {
        if self.jumped || self.fetches < 3 {
            return Cause::Watched;
        }
        let (mut cause, mut most) = (Cause::Still, LITTLE);
        for (quantity, worth) in Quantity::ALL.into_iter().zip(self.worth) {
            if worth > most {
                most = worth;
                let minutes = self.ttl.as_secs_f64() / 60.0;
                cause = Cause::Moves(quantity, f64::from(worth) / SKIPPED / minutes.sqrt());
            }
        }
        cause
    }

    /// Takes in the signal of a fetch that found the model.
    pub fn found(&mut self, bounds: &Bounds, at: Tick, signal: Signal) {
        // Two fetches at nearly the same time, as when a caller could not wait, are no measure of anything.
        if self.fetches > 0 && self.fetched_at.age(at) < bounds.min / 2 {
            return;
        }
        let [last, before] = self.signals;
        self.signals = [signal, last];
        self.fetched_at = at;
        if self.fetches < 2 {
            self.fetches += 1;
            return;
        }
        self.fetches = 3;
        let moved = last.differences(&signal);
        let skipped = before.differences(&signal);
        for ((worth, skipped), moved) in self.worth.iter_mut().zip(skipped).zip(moved) {
            *worth += WEIGHT * ((skipped - moved).max(0.0) - *worth);
        }
        self.jumped = moved.into_iter().any(|moved| moved > JUMP);
        let most = self.worth.into_iter().fold(0.0, f32::max);
        if self.jumped || most > MUCH {
            self.ttl = (self.ttl / 2).max(bounds.min);
        } else if most < LITTLE {
            self.ttl = self.ttl.saturating_mul(2).min(bounds.max);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { base: secs(30), min: secs(15), max: secs(60) };

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(seconds: u64) -> Tick {
        Tick::from_nanos(seconds * 1_000_000_000)
    }

    fn usage(usage: f64) -> Signal {
        Signal::new(2, Some(usage), None, None, None)
    }

    /// What is learned from fetches every 30 s.
    fn after(values: impl IntoIterator<Item = f64>) -> AdaptiveTtl {
        let mut model = AdaptiveTtl::new(&BOUNDS);
        for (index, value) in values.into_iter().enumerate() {
            model.found(&BOUNDS, at(30 * index as u64), usage(value));
        }
        model
    }

    #[test]
    fn a_new_model_is_watched_at_the_base_ttl() {
        for fetches in 0..3 {
            let model = after(vec![0.5; fetches]);
            assert_eq!((model.ttl(), model.cause()), (secs(30), Cause::Watched));
        }
    }

    #[test]
    fn an_idle_model_gets_the_longest_ttl() {
        let model = after([0.5; 3]);
        assert_eq!((model.ttl(), model.cause()), (secs(60), Cause::Still));
        assert_eq!(after([0.5; 9]).ttl(), secs(60));
    }

    #[test]
    fn a_model_that_drifts_gets_the_shortest_ttl_and_its_quantity_is_named() {
        let model = after((0..9).map(|fetch| 0.05 * f64::from(fetch)));
        assert_eq!(model.ttl(), secs(15));
        let Cause::Moves(Quantity::KvCacheUsage, per_minute) = model.cause() else {
            panic!("{model:?}")
        };
        // Nearly five points a fetch of 15 s, by the law of a random walk.
        assert!((0.2..0.25).contains(&per_minute), "{per_minute}");
    }

    #[test]
    fn noise_gains_nothing_from_fetches() {
        let mut draws = fastrand::Rng::with_seed(1);
        let model = after((0..200).map(|_| 0.5 + 0.01 * draws.f64()));
        assert_eq!((model.ttl(), model.cause()), (secs(60), Cause::Still));
    }

    #[test]
    fn a_jump_halves_the_ttl_at_once() {
        let mut model = after([0.2; 9]);
        model.found(&BOUNDS, at(300), usage(0.35));
        assert_eq!((model.ttl(), model.cause()), (secs(30), Cause::Watched));
        model.found(&BOUNDS, at(330), Signal::new(3, Some(0.35), None, None, None));
        assert_eq!((model.ttl(), model.cause()), (secs(15), Cause::Watched));
    }

    #[test]
    fn a_fetch_soon_after_another_teaches_nothing() {
        let mut model = after([0.2; 9]);
        model.found(&BOUNDS, at(247), usage(0.9));
        assert_eq!((model.ttl(), model.cause()), (secs(60), Cause::Still));
        model.found(&BOUNDS, at(248), usage(0.9));
        assert_eq!(model.ttl(), secs(30));
    }

    #[test]
    fn an_unknown_value_counts_for_nothing() {
        let mut model = after([0.2; 9]);
        model.found(&BOUNDS, at(300), Signal::new(2, None, None, None, None));
        assert_eq!((model.ttl(), model.cause()), (secs(60), Cause::Still));
    }

    proptest! {
        #[test]
        fn a_ttl_stays_within_its_bounds(
            fetches in proptest::collection::vec(
                (0_u64..300, proptest::option::of(any::<f64>()), 0_u32..5), 0..50)
        ) {
            let bounds = Bounds { base: secs(30), min: secs(20), max: secs(100) };
            let mut model = AdaptiveTtl::new(&bounds);
            let mut now = 0;
            for (passed, usage, replicas) in fetches {
                now += passed;
                model.found(&bounds, at(now), Signal::new(replicas, usage, usage, usage, usage));
                prop_assert!((bounds.min..=bounds.max).contains(&model.ttl()), "{model:?}");
                if let Cause::Moves(_, per_minute) = model.cause() {
                    prop_assert!(per_minute.is_finite() && per_minute > 0.0, "{per_minute}");
                }
            }
        }
    }
}
