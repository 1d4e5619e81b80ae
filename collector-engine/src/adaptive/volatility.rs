//! How much a model's reading gains from being looked at sooner.
//!
//! Not how much it moves: what jumps about at random is as wrong after one second as after a minute, and
//! looking at it more often tells nothing (Cho and Garcia-Molina saw the same of web pages that change
//! faster than they can be visited). So each look is compared with the two before it. Had the last one
//! been skipped, the reading would now be off by its difference to the one before; it is off by the
//! difference to the last. What the last look saved is what it was worth.
//!
//! It is told as the volatility of a random walk, whose error grows with the root of its age: c such that
//! a reading of the age t is off by c * sqrt(t). Between looks at t0, t1 and t2, that is what was saved over
//! sqrt(t2 - t0) - sqrt(t2 - t1). Noise has a volatility of 0. What drifts has the greater one the longer
//! its ttl is, which brings it back; a law of t itself would find short ttls to be worth more than they are,
//! and keep them (tried: up to a tenth more error in fleets whose models move alike).

use collector_core::Tick;

use super::signal::{Differences, Quantity, Signal};

/// Weight of the newest look: the last ten make up four fifths of the estimate. With 0.3 models that move
/// alike got more different ttls by chance, and up to a tenth more error.
const WEIGHT: f64 = 0.15;

/// A difference between two looks from which on the model is watched: the spare capacity at which the
/// Workload Variant Autoscaler adds a replica (`kvSpareTrigger`).
const JUMP: f64 = 0.1;

/// By how much a difference must exceed what the model usually shows to be a jump.
const UNUSUAL: f64 = 3.0;

/// How many looks a model is watched for after something happened. A step by itself says nothing about
/// what comes after it, because two looks before it were alike; without these looks, ramps that fall back
/// each few minutes were off by 40 % more.
const WATCHED_LOOKS: u8 = 3;

/// The volatility of what is watched: as if most of it changed within a minute, more than anything that
/// moves for long.
const WATCHED: f64 = 0.1;

/// What is known of how a model's reading moves.
#[derive(Clone, Debug, Default)]
pub struct Volatility {
    /// The last look and the one before it.
    looks: [Option<(Tick, Signal)>; 2],
    /// The volatility by quantity; below 0 where older looks happened to be nearer.
    moves: [f64; 5],
    /// What looks usually differ by, by quantity.
    usual: [f64; 5],
    /// For how many looks more the model is watched.
    watched: u8,
}

/// Why a model is looked at as often as it is.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Cause {
    /// It is new, was missing, jumped, or gained or lost replicas a few looks ago.
    Watched,
    /// A quantity moves, with this volatility.
    Moves(Quantity, f64),
    /// Nothing moves.
    Still,
}

impl Cause {
    /// The volatility, a share per root of a second.
    pub fn volatility(self) -> f64 {
        match self {
            Self::Watched => WATCHED,
            Self::Moves(_, volatility) => volatility,
            Self::Still => 0.0,
        }
    }
}

impl Volatility {
    /// A model of which nothing is known yet: it is watched.
    pub fn new() -> Self {
        Self { watched: WATCHED_LOOKS, ..Self::default() }
    }

    /// Takes in what a look said. One that is not later than the last is left out.
    pub fn found(&mut self, at: Tick, signal: Signal) {
        let [last, before] = self.looks;
        if last.is_some_and(|(last, _)| at <= last) {
            return;
        }
        self.looks = [Some((at, signal)), last];
        self.watched = self.watched.saturating_sub(1);
        let Some((last_at, last)) = last else { return };
        let moved = last.differences(&signal);
        if last.replicas != signal.replicas || self.jumped(&moved) {
            self.watched = WATCHED_LOOKS;
        }
        for (usual, moved) in self.usual.iter_mut().zip(moved) {
            blend(usual, moved);
        }
        if let Some((before_at, before)) = before {
            let skipped = before.differences(&signal);
            let root = |then: Tick| then.age(at).as_secs_f64().sqrt();
            let older = root(before_at) - root(last_at);
            self.learn(&skipped, &moved, older);
        }
    }

    /// The model had no series when it was looked at: what comes next is another life of it.
    pub fn missing(&mut self) {
        *self = Self::new();
    }

    /// When the model was last found.
    pub fn last_found(&self) -> Option<Tick> {
        self.looks[0].map(|(at, _)| at)
    }

    /// Why, and with it how volatile, the model is.
    pub fn cause(&self) -> Cause {
        if self.watched > 0 {
            return Cause::Watched;
        }
        let mut cause = Cause::Still;
        for (quantity, estimate) in Quantity::ALL.into_iter().zip(self.moves) {
            if estimate > cause.volatility() {
                cause = Cause::Moves(quantity, estimate);
            }
        }
        cause
    }

    fn jumped(&self, moved: &Differences) -> bool {
        let unusual = |(moved, usual): (&Option<f64>, &f64)| {
            moved.is_some_and(|moved| moved >= JUMP && moved >= usual * UNUSUAL)
        };
        moved.iter().zip(&self.usual).any(unusual)
    }

    /// What the last look saved, by how much older, in roots of seconds, the one before it is.
    fn learn(&mut self, skipped: &Differences, moved: &Differences, older: f64) {
        for ((estimate, skipped), moved) in self.moves.iter_mut().zip(skipped).zip(moved) {
            let saved = skipped.zip(*moved).map(|(skipped, moved)| (skipped - moved) / older);
            blend(estimate, saved);
        }
    }
}

/// Moves an estimate towards a value; an unknown one says nothing.
fn blend(estimate: &mut f64, value: Option<f64>) {
    if let Some(value) = value {
        *estimate += WEIGHT * (value - *estimate);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: u64) -> Tick {
        Tick::from_nanos(seconds * 1_000_000_000)
    }

    fn usage(kv_cache_usage: f64) -> Signal {
        Signal { replicas: 2, kv_cache_usage: Some(kv_cache_usage), ..Signal::default() }
    }

    /// What is known after looks every 30 s.
    fn after(values: impl IntoIterator<Item = f64>) -> Volatility {
        let mut volatility = Volatility::new();
        for (place, value) in values.into_iter().enumerate() {
            volatility.found(at(30 * place as u64), usage(value));
        }
        volatility
    }

    #[test]
    fn a_model_that_is_new_is_watched_and_then_still() {
        assert_eq!(Volatility::new().cause(), Cause::Watched);
        assert_eq!(after([0.5; 2]).cause(), Cause::Watched);
        assert_eq!(after([0.5; 4]).cause(), Cause::Still);
    }

    #[test]
    fn what_drifts_is_named_with_its_volatility() {
        let Cause::Moves(quantity, volatility) =
            after((0..40).map(|n| 0.01 * f64::from(n))).cause()
        else {
            panic!("it moves");
        };
        assert_eq!(quantity, Quantity::KvCacheUsage);
        // A skipped look would have cost a point more, between the roots of 30 and of 60 s.
        let expected = 0.01 / (60_f64.sqrt() - 30_f64.sqrt());
        assert!((volatility / expected - 1.0).abs() < 0.01, "{volatility} is not {expected}");
    }

    #[test]
    fn what_is_noise_gains_nothing_from_looks() {
        let mut draws = fastrand::Rng::with_seed(1);
        let noise = after((0..400).map(|_| 0.5 + 0.04 * draws.f64()));
        let mut walk = 0.5;
        let walk = after((0..400).map(|_| {
            walk += 0.04 * (draws.f64() - 0.5);
            walk
        }));
        assert!(noise.cause().volatility() < walk.cause().volatility() / 3.0, "{noise:?} {walk:?}");
    }

    #[test]
    fn a_jump_is_watched_for_a_few_looks() {
        let mut volatility = after([0.2; 20]);
        assert_eq!(volatility.cause(), Cause::Still);
        volatility.found(at(600), usage(0.5));
        assert_eq!(volatility.cause(), Cause::Watched);
        for look in 1..=3 {
            volatility.found(at(600 + 30 * look), usage(0.5));
        }
        // What it cost to have missed it is remembered for longer.
        assert!(matches!(volatility.cause(), Cause::Moves(Quantity::KvCacheUsage, _)));
        for look in 4..40 {
            volatility.found(at(600 + 30 * look), usage(0.5));
        }
        assert!(volatility.cause().volatility() < 0.0001, "{volatility:?}");
    }

    #[test]
    fn what_always_leaps_as_far_has_not_jumped() {
        let leaps = after((0..40).map(|look| if look % 2 == 0 { 0.3 } else { 0.5 }));
        assert_ne!(leaps.cause(), Cause::Watched);
    }

    #[test]
    fn a_model_that_gains_or_loses_replicas_or_comes_back_is_watched() {
        let mut volatility = after([0.2; 20]);
        volatility.found(at(600), Signal { replicas: 3, ..usage(0.2) });
        assert_eq!(volatility.cause(), Cause::Watched);
        let mut volatility = after([0.2; 20]);
        volatility.missing();
        assert_eq!(volatility.cause(), Cause::Watched);
    }

    #[test]
    fn unknown_values_and_looks_out_of_order_change_nothing() {
        let known = after((0..10).map(|n| 0.01 * f64::from(n)));
        let mut late = known.clone();
        late.found(at(10), usage(0.9));
        assert_eq!(late.cause(), known.cause());
        let mut unknown = known.clone();
        unknown.found(at(300), Signal { kv_cache_usage: None, ..usage(0.0) });
        assert_eq!(unknown.cause(), known.cause());
    }

    proptest! {
        #[test]
        fn whatever_is_seen_the_volatility_is_a_number_from_zero_on(
            looks in proptest::collection::vec(
                (1_u64..300, proptest::option::of(any::<f64>()), 0_u32..5), 0..50)
        ) {
            let mut volatility = Volatility::new();
            let mut now = 0;
            for (passed, kv_cache_usage, replicas) in looks {
                now += passed;
                let signal = Signal { replicas, kv_cache_usage, ..Signal::default() };
                volatility.found(at(now), signal);
                let shown = volatility.cause().volatility();
                prop_assert!(shown.is_finite() && shown >= 0.0, "{shown}");
            }
        }
    }
}
