//! A ttl for each model, from how its readings move, within one budget of looks.
//!
//! Pure: no clock, no lock, no I/O. [`Signal`] says what counts and how far two readings are apart,
//! [`Volatility`] what is learnt from look to look, [`Steps`] who gets which ttl; [`Fleet`] keeps all of it
//! for a set of models. The figures are in docs/adaptive-ttl.md.

mod allocation;
mod config;
mod signal;
mod volatility;

use std::collections::BTreeMap;
use std::time::Duration;

use collector_core::{ModelRef, Tick};

pub use allocation::{Need, Steps};
pub use config::AdaptiveConfig;
pub use signal::{Differences, Quantity, Signal};
pub use volatility::{Cause, Volatility};

/// How many looks a model can leave over for later.
const SAVED_LOOKS: f64 = 8.0;

/// Within which time saved looks are spent when there is need for them.
const SPENT_WITHIN: Duration = Duration::from_secs(60);

/// The models of a collector and their ttls.
#[derive(Debug)]
pub struct Fleet {
    steps: Steps,
    /// The ttl with which all models together would use up the budget.
    base: Duration,
    /// The share of its ttl after which a model is really looked at.
    ahead: f64,
    models: BTreeMap<ModelRef, Member>,
    /// Looks that were left over.
    saved: f64,
    /// When the ttls were last given.
    allocated: Option<Tick>,
}

#[derive(Debug)]
struct Member {
    volatility: Volatility,
    /// `None` until ttls are given for the first time.
    ttl: Option<Duration>,
}

impl Fleet {
    /// No models yet. They get ttls from `min` to `max`, and all together as many looks as if each had
    /// the ttl `base`. A refresh comes ahead of the end of a ttl, after a share of `ahead` on average.
    pub fn new(base: Duration, min: Duration, max: Duration, ahead: f64) -> Self {
        Self {
            steps: Steps::new(base, min, max),
            base,
            ahead,
            models: BTreeMap::new(),
            saved: 0.0,
            allocated: None,
        }
    }

    /// The shortest ttl that a model can have.
    pub fn shortest(&self) -> Duration {
        self.steps.shortest()
    }

    /// A look at `at` found the model.
    pub fn found(&mut self, model: &ModelRef, at: Tick, signal: Signal) {
        self.looked();
        let too_soon = self.steps.shortest() / 2;
        let volatility = &mut self.member(model).volatility;
        // Two looks at nearly one time, as when a caller could not wait, are no measure of anything.
        if volatility.last_found().is_none_or(|last| last.age(at) >= too_soon) {
            volatility.found(at, signal);
        }
    }

    /// A look did not find the model, which it had found before.
    pub fn missing(&mut self, model: &ModelRef) {
        self.looked();
        if let Some(member) = self.models.get_mut(model) {
            member.volatility.missing();
        }
    }

    /// A look that taught nothing: it failed, or saw a part of the model.
    pub fn looked(&mut self) {
        self.saved -= 1.0;
    }

    /// Gives every model its ttl anew, unless that was done only just now, and forgets those for which
    /// `keep` is false. True when some model is due sooner than it was.
    pub fn allocate(&mut self, now: Tick, keep: impl Fn(&ModelRef) -> bool) -> bool {
        let passed = self.allocated.map_or(Duration::MAX, |allocated| allocated.age(now));
        if passed < self.steps.shortest() / 2 {
            return false;
        }
        self.models.retain(|model, _| keep(model));
        let budget = self.budget(passed);
        self.allocated = Some(now);
        let need = |member: &Member| Need {
            volatility: member.volatility.cause().volatility(),
            held: member.ttl,
        };
        let needs: Vec<Need> = self.models.values().map(need).collect();
        let ttls = self.steps.allocate(&needs, budget);
        let mut sooner = false;
        for (member, ttl) in self.models.values_mut().zip(ttls) {
            sooner |= ttl < member.ttl.unwrap_or(self.base);
            member.ttl = Some(ttl);
        }
        sooner
    }

    /// The ttl of a model and why; `None` when nothing is known of it.
    pub fn ttl(&self, model: &ModelRef) -> Option<(Duration, Cause)> {
        let member = self.models.get(model)?;
        Some((member.ttl.unwrap_or(self.base), member.volatility.cause()))
    }

    /// Looks a second, as ttls count them, now that so much time has passed: what is earned, and of what
    /// was saved as much as is to be spent. What was spent too much is saved again.
    fn budget(&mut self, passed: Duration) -> f64 {
        let models = self.models.len() as f64;
        let earned = models / self.base.as_secs_f64();
        // The first time, nothing has been earned and nothing spent.
        let passed = if self.allocated.is_some() { passed.as_secs_f64() } else { 0.0 };
        let looks = earned / self.ahead * passed;
        self.saved = (self.saved + looks).clamp(-models, models * SAVED_LOOKS);
        // What comes and goes with the phases of the ttls is no saving, and to spend it would be to change ttls
        // all the time.
        let spare = if self.saved > 0.0 { (self.saved - models).max(0.0) } else { self.saved };
        earned + spare * self.ahead / SPENT_WITHIN.as_secs_f64()
    }

    fn member(&mut self, model: &ModelRef) -> &mut Member {
        let unknown = || Member { volatility: Volatility::new(), ttl: None };
        self.models.entry(model.clone()).or_insert_with(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn fleet() -> Fleet {
        Fleet::new(secs(32), secs(8), secs(128), 1.0)
    }

    fn model(place: usize) -> ModelRef {
        ModelRef::new(format!("m{place:02}"), "n")
    }

    /// Looks at models when they are due, second by second; `usage` tells their KV-cache usage.
    /// Returns how many looks there were.
    fn run(
        fleet: &mut Fleet,
        models: usize,
        seconds: std::ops::Range<u64>,
        usage: impl Fn(usize, u64) -> f64,
    ) -> usize {
        let mut looks = 0;
        let mut last = vec![None; models];
        for second in seconds {
            let now = Tick::from_nanos(second * 1_000_000_000);
            fleet.allocate(now, |_| true);
            for (place, last) in last.iter_mut().enumerate() {
                let ttl = fleet.ttl(&model(place)).map_or(Duration::ZERO, |(ttl, _)| ttl);
                if last.is_none_or(|last: Tick| last.age(now) >= ttl) {
                    *last = Some(now);
                    looks += 1;
                    let kv_cache_usage = Some(usage(place, second));
                    let signal = Signal { replicas: 2, kv_cache_usage, ..Signal::default() };
                    fleet.found(&model(place), now, signal);
                }
            }
        }
        looks
    }

    #[test]
    fn what_is_idle_goes_to_the_longest_ttl_and_stays_there() {
        let mut fleet = fleet();
        run(&mut fleet, 4, 0..600, |_, _| 0.0);
        for place in 0..4 {
            assert_eq!(fleet.ttl(&model(place)), Some((secs(128), Cause::Still)));
        }
    }

    #[test]
    fn a_burst_has_the_shortest_ttl_after_one_look_and_loses_it_when_it_is_over() {
        let mut fleet = fleet();
        let burst = |place, second| {
            if place == 0 && (1000..1200).contains(&second) {
                0.2 + 0.003 * (second - 1000) as f64
            } else {
                0.2
            }
        };
        run(&mut fleet, 8, 0..1000, burst);
        assert_eq!(fleet.ttl(&model(0)), Some((secs(128), Cause::Still)));
        // The longest ttl until it is seen, and then it is watched.
        run(&mut fleet, 8, 1000..1160, burst);
        assert_eq!(fleet.ttl(&model(0)).unwrap().0, secs(8));
        assert_eq!(fleet.ttl(&model(1)).unwrap().0, secs(128));
        run(&mut fleet, 8, 1160..2400, burst);
        assert_eq!(fleet.ttl(&model(0)).unwrap().0, secs(128));
    }

    #[test]
    fn the_budget_of_a_fixed_interval_is_kept_whatever_moves() {
        for moving in [0, 1, 5, 20] {
            let mut fleet = fleet();
            let mut draws = fastrand::Rng::with_seed(3);
            let noise: Vec<f64> = (0..20 * 4000).map(|_| draws.f64()).collect();
            let looks = run(&mut fleet, 20, 0..4000, |place, second| {
                let second = usize::try_from(second).unwrap();
                if place < moving { noise[place * 4000 + second] } else { 0.3 }
            });
            // The first looks at all, and no more than the interval allows.
            assert!(looks <= 20 + 20 * 4000 / 32, "{looks} looks where {moving} models move");
        }
    }

    #[test]
    fn a_fleet_that_was_quiet_has_looks_left_for_all_of_it() {
        let mut fleet = fleet();
        run(&mut fleet, 4, 0..1200, |_, _| 0.2);
        run(&mut fleet, 4, 1200..1420, |_, second| 0.2 + 0.003 * (second - 1200) as f64);
        for place in 0..4 {
            assert!(fleet.ttl(&model(place)).unwrap().0 <= secs(16), "{fleet:?}");
        }
    }

    #[test]
    fn a_refresh_ahead_of_expiry_does_not_use_up_the_budget() {
        // As the worker does: 10 % ahead of each ttl.
        let mut fleet = Fleet::new(secs(30), secs(30), secs(60), 0.9);
        for look in 0..100 {
            let now = Tick::from_nanos(look * 27_000_000_000);
            fleet.allocate(now, |_| true);
            for place in 0..3 {
                let kv_cache_usage = Some(0.01 * (look % 50) as f64);
                let signal = Signal { replicas: 1, kv_cache_usage, ..Signal::default() };
                fleet.found(&model(place), now, signal);
            }
        }
        assert_eq!(fleet.ttl(&model(0)).unwrap().0, secs(30));
    }

    #[test]
    fn models_that_move_alike_do_not_take_each_others_looks() {
        let mut fleet = fleet();
        let walk = |_, second: u64| (second % 3000) as f64 / 3000.0;
        run(&mut fleet, 4, 0..600, walk);
        for quarter in 20..40 {
            run(&mut fleet, 4, 32 * quarter..32 * (quarter + 1), walk);
            for place in 0..4 {
                assert_eq!(fleet.ttl(&model(place)).unwrap().0, secs(32));
            }
        }
    }

    #[test]
    fn what_is_no_longer_wanted_is_forgotten() {
        let mut fleet = fleet();
        run(&mut fleet, 2, 0..10, |_, _| 0.2);
        fleet.allocate(Tick::from_nanos(60_000_000_000), |kept| *kept == model(1));
        assert_eq!(fleet.ttl(&model(0)), None);
        assert!(fleet.ttl(&model(1)).is_some());
        fleet.missing(&model(0));
        assert_eq!(fleet.ttl(&model(0)), None);
    }

    fn look(fleet: &mut Fleet, at: u64, kv_cache_usage: f64) {
        let signal =
            Signal { replicas: 1, kv_cache_usage: Some(kv_cache_usage), ..Signal::default() };
        fleet.found(&model(0), tick(at), signal);
    }

    fn tick(second: u64) -> Tick {
        Tick::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn a_look_within_half_of_the_shortest_ttl_teaches_nothing() {
        for (apart, cause) in [(3, Cause::Watched), (4, Cause::Still)] {
            let mut fleet = fleet();
            for look in 0..4 {
                self::look(&mut fleet, look * apart, 0.2);
            }
            assert_eq!(fleet.ttl(&model(0)).unwrap().1, cause, "{apart} s");
        }
    }

    #[test]
    fn a_model_that_was_missing_is_watched() {
        let mut fleet = fleet();
        run(&mut fleet, 1, 0..600, |_, _| 0.2);
        assert_eq!(fleet.ttl(&model(0)).unwrap().1, Cause::Still);
        fleet.missing(&model(0));
        assert_eq!(fleet.ttl(&model(0)).unwrap().1, Cause::Watched);
    }

    #[test]
    fn ttls_are_given_anew_after_half_of_the_shortest() {
        let mut fleet = fleet();
        assert_eq!(fleet.shortest(), secs(8));
        look(&mut fleet, 0, 0.2);
        fleet.allocate(tick(0), |_| true);
        fleet.allocate(tick(3), |_| false);
        assert!(fleet.ttl(&model(0)).is_some());
        fleet.allocate(tick(4), |_| false);
        assert_eq!(fleet.ttl(&model(0)), None);
    }

    #[test]
    fn it_is_told_when_a_model_is_due_sooner() {
        let mut fleet = fleet();
        let ttls = |fleet: &Fleet| -> Vec<Duration> {
            let ttl = |place| fleet.ttl(&model(place)).map_or(fleet.base, |(ttl, _)| ttl);
            (0..4).map(ttl).collect()
        };
        let mut last = [0; 4];
        let mut told = Vec::new();
        for second in 0..900 {
            let before = ttls(&fleet);
            let sooner = fleet.allocate(tick(second), |_| true);
            let after = ttls(&fleet);
            let is_sooner = after.iter().zip(&before).any(|(after, before)| after < before);
            assert_eq!(sooner, is_sooner, "at {second}: {before:?} {after:?}");
            told.push(sooner);
            for (place, ttl) in after.into_iter().enumerate() {
                if second == 0 || secs(second - last[place]) >= ttl {
                    last[place] = second;
                    // One begins to move when all are known to be still.
                    let moves = if place == 0 { second.saturating_sub(600) } else { 0 };
                    let kv_cache_usage = Some(0.2 + 0.003 * moves as f64);
                    let signal = Signal { replicas: 1, kv_cache_usage, ..Signal::default() };
                    fleet.found(&model(place), tick(second), signal);
                }
            }
        }
        assert!(told[600..].contains(&true));
    }

    #[test]
    fn saved_looks_beyond_one_of_each_are_spent_within_a_minute_and_debts_paid_back() {
        let mut fleet = Fleet::new(secs(30), secs(30), secs(60), 0.9);
        look(&mut fleet, 0, 0.2);
        fleet.allocated = Some(tick(0));
        let earned = 1.0 / 30.0;
        for (saved, spare) in [(5.0, 4.0), (0.5, 0.0), (-0.5, -0.5), (100.0, 7.0), (-100.0, -1.0)] {
            fleet.saved = saved;
            let budget = fleet.budget(Duration::ZERO);
            assert!((budget - earned - spare * 0.9 / 60.0).abs() < 1e-12, "{saved}: {budget}");
        }
    }
}
