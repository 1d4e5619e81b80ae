// SPDX-License-Identifier: Apache-2.0
//! When tracked models are due at one source, and which go into one batch.
//!
//! Pure: time and the draw of the jitter are passed in. A batch costs the server about the same for one
//! model as for hundreds. So a model that is due before the next cycle is fetched in this one, and jitter
//! moves the cycle, never the single model: models that drift apart are no batch.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use collector_core::{ModelRef, Tick};

/// A model is due after this share of its interval, drawn again for each cycle: below 1, so that a
/// value is replaced before its ttl ends when both are equal, as they are by default; spread, so
/// that collectors started together do not ask together.
const SHARE: Range<f64> = 0.85..0.95;

/// A model that a read has fetched within this part of its interval is left out of a cycle.
const JUST_NOW: u32 = 10;

/// How far a coarse clock may be behind the timer that wakes the worker.
const CLOCK_LAG: Duration = Duration::from_millis(20);

/// A tracked model, as one source sees it.
pub(crate) struct Target {
    pub(crate) model: ModelRef,
    /// How often it is to be refreshed; not zero.
    pub(crate) interval: Duration,
    /// When the last fetch that was answered began; `None` when none was.
    pub(crate) fetch_began: Option<Tick>,
    /// Until then it is believed that the model is missing, and it is not asked for.
    pub(crate) missing_until: Option<Tick>,
}

/// What to do now.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// Fetch these, in a cycle that may take `interval`.
    Cycle { models: Vec<ModelRef>, interval: Duration },
    /// Nothing is due before then; never when there is nothing to refresh.
    Wait(Option<Tick>),
}

/// The schedule of one source.
pub(crate) struct Schedule {
    /// When the last cycle with the model began, however it ended: a model that failed is due an interval
    /// later, like any other.
    began: HashMap<ModelRef, Tick>,
    /// When the next slot begins, after a cycle that overran.
    not_before: Tick,
    /// The share of the next cycle.
    share: f64,
}

impl Schedule {
    /// A schedule in which everything is due. `draw` is a random number from 0 to 1.
    pub(crate) fn new(draw: f64) -> Self {
        Self { began: HashMap::new(), not_before: Tick::MIN, share: share(draw) }
    }

    /// What to do now about all tracked models. A model that is not tracked yet may have an interval of
    /// `shortest`, so the worker never waits for longer.
    pub(crate) fn plan(&self, targets: Vec<Target>, shortest: Duration, now: Tick) -> Plan {
        let at_most = (!shortest.is_zero()).then(|| now + shortest.mul_f64(self.share));
        let next = targets.iter().map(|target| self.due(target, self.share)).min();
        let next = next.map(|next| next.max(self.not_before));
        if next.is_none_or(|next| next > now + CLOCK_LAG) {
            return Plan::Wait(next.into_iter().chain(at_most).min());
        }
        let interval = targets.iter().map(|target| target.interval).min().unwrap_or(shortest);
        let next_cycle = now + interval.mul_f64(SHARE.end);
        let goes = |target: &Target| {
            let due = self.due(target, self.share) <= now + CLOCK_LAG;
            let rides = self.due(target, SHARE.end) < next_cycle
                && self.last_fetch(target).age(now) >= target.interval / JUST_NOW
                && target.missing_until.is_none_or(|until| until <= now);
            due || rides
        };
        let models = targets.into_iter().filter(goes).map(|target| target.model).collect();
        Plan::Cycle { models, interval }
    }

    fn last_fetch(&self, target: &Target) -> Tick {
        let began = self.began.get(&target.model).copied();
        began.max(target.fetch_began).unwrap_or(Tick::MIN)
    }

    fn due(&self, target: &Target, share: f64) -> Tick {
        let due = match self.last_fetch(target) {
            Tick::MIN => Tick::MIN,
            last => last + target.interval.mul_f64(share),
        };
        due.max(target.missing_until.unwrap_or(Tick::MIN))
    }

    /// A cycle with these models begins.
    pub(crate) fn begin(&mut self, models: &[ModelRef], now: Tick) {
        for model in models {
            self.began.insert(model.clone(), now);
        }
    }

    /// The cycle has ended, after `took`. Returns how many cycles came due while it ran: they are left
    /// out, so that a server that needs longer than an interval gets a pause.
    pub(crate) fn end(&mut self, took: Duration, interval: Duration, now: Tick, draw: f64) -> u64 {
        let period = interval.mul_f64(self.share);
        let overran = took >= interval && !period.is_zero();
        let missed = if overran { took.as_nanos() / period.as_nanos() } else { 0 };
        self.not_before = if overran {
            let into_slot = took.as_nanos() % period.as_nanos();
            let into_slot = Duration::from_nanos(u64::try_from(into_slot).unwrap_or(0));
            now + period.saturating_sub(into_slot)
        } else {
            Tick::MIN
        };
        self.share = share(draw);
        u64::try_from(missed).unwrap_or(u64::MAX)
    }

    /// Forgets models that are no longer tracked.
    pub(crate) fn retain(&mut self, is_tracked: impl Fn(&ModelRef) -> bool) {
        self.began.retain(|model, _| is_tracked(model));
    }
}

fn share(draw: f64) -> f64 {
    SHARE.start + (SHARE.end - SHARE.start) * draw
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{Clock as _, ManualClock};

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    struct Fixture {
        clock: ManualClock,
        schedule: Schedule,
        /// Name and interval in seconds.
        models: Vec<(&'static str, u64)>,
        fetch_began: HashMap<&'static str, Tick>,
        missing_until: HashMap<&'static str, Tick>,
    }

    impl Fixture {
        fn new(models: &[(&'static str, u64)]) -> Self {
            Self {
                clock: ManualClock::new(),
                schedule: Schedule::new(0.5),
                models: models.to_vec(),
                fetch_began: HashMap::new(),
                missing_until: HashMap::new(),
            }
        }

        fn plan(&self) -> Plan {
            let target = |(name, interval): &(&'static str, u64)| Target {
                model: ModelRef::new(*name, "prod"),
                interval: secs(*interval),
                fetch_began: self.fetch_began.get(name).copied(),
                missing_until: self.missing_until.get(name).copied(),
            };
            self.schedule.plan(self.models.iter().map(target).collect(), secs(30), self.clock.now())
        }

        /// Runs the cycles of so many seconds, each of which takes `took`; returns when each began and its
        /// models.
        fn run(&mut self, seconds: u64, took: Duration) -> Vec<(u64, Vec<String>)> {
            let began = self.clock.now();
            let mut cycles = Vec::new();
            let mut draw = 0.0;
            while began.age(self.clock.now()) < secs(seconds) {
                match self.plan() {
                    Plan::Wait(until) => {
                        let until = until.expect("there is always something to refresh");
                        self.clock.advance(until.until(self.clock.now()));
                    }
                    Plan::Cycle { models, interval } => {
                        let now = self.clock.now();
                        self.schedule.begin(&models, now);
                        self.clock.advance(took);
                        draw = 1.0 - draw;
                        self.schedule.end(took, interval, self.clock.now(), draw);
                        let names = models.iter().map(|model| model.model.to_string()).collect();
                        cycles.push((began.age(now).as_secs(), names));
                    }
                }
            }
            cycles
        }
    }

    #[test]
    fn models_of_one_interval_share_each_batch() {
        let mut fixture = Fixture::new(&[("a", 30), ("b", 30), ("c", 30)]);
        // A read has found one of them in between.
        fixture.fetch_began.insert("b", fixture.clock.now() + secs(40));
        let cycles = fixture.run(290, secs(1));
        assert!((11..=12).contains(&cycles.len()), "{cycles:?}");
        for (at, models) in &cycles[2..] {
            assert_eq!(models.len(), 3, "at {at}: {cycles:?}");
        }
    }

    #[test]
    fn a_model_due_after_the_next_cycle_is_left_out() {
        let mut fixture = Fixture::new(&[("fast", 10), ("slow", 30)]);
        let cycles = fixture.run(270, secs(1));
        let with_slow = cycles.iter().filter(|(_, models)| models.len() == 2).count();
        assert!((28..=32).contains(&cycles.len()), "{}", cycles.len());
        assert!((9..=11).contains(&with_slow), "{with_slow}: {cycles:?}");
        assert!(cycles.iter().all(|(_, models)| models.contains(&"fast".to_owned())));
    }

    #[test]
    fn no_model_waits_longer_than_its_interval() {
        let intervals = [("a", 7), ("b", 11), ("c", 30), ("d", 13), ("e", 100)];
        let mut fixture = Fixture::new(&intervals);
        let cycles = fixture.run(1000, Duration::from_millis(10));
        for (name, interval) in intervals {
            let at: Vec<u64> =
                cycles.iter().filter(|(_, m)| m.iter().any(|m| m == name)).map(|c| c.0).collect();
            let longest = at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
            assert!(longest <= interval, "{name}: {longest}");
        }
        // The shortest interval sets the cycles; the others cause none of their own.
        assert!((143..=168).contains(&cycles.len()), "{}", cycles.len());
    }

    #[test]
    fn a_model_that_a_read_has_just_fetched_is_left_out_of_one_cycle() {
        let mut fixture = Fixture::new(&[("a", 30), ("b", 30)]);
        let began = fixture.clock.now();
        fixture.schedule.begin(&[ModelRef::new("a", "prod"), ModelRef::new("b", "prod")], began);
        fixture.clock.advance(secs(27));
        fixture.fetch_began.insert("b", began + secs(26));
        let Plan::Cycle { models, .. } = fixture.plan() else { panic!("a is due") };
        assert_eq!(models, [ModelRef::new("a", "prod")]);
        fixture.schedule.begin(&models, fixture.clock.now());
        fixture.clock.advance(secs(26));
        // It is the first that is due, and takes the other along.
        let Plan::Cycle { models, .. } = fixture.plan() else { panic!("b is due") };
        assert_eq!(models.len(), 2);
    }

    #[test]
    fn a_missing_model_is_not_fetched_until_its_time_is_over() {
        let mut fixture = Fixture::new(&[("a", 10), ("typo", 10)]);
        let until = fixture.clock.now() + secs(60);
        fixture.missing_until.insert("typo", until);
        let cycles = fixture.run(100, secs(1));
        let first = cycles.iter().find(|(_, models)| models.len() == 2).unwrap();
        assert!((60..70).contains(&first.0), "{cycles:?}");
    }

    #[test]
    fn a_cycle_that_overruns_skips_the_next_one_only() {
        let mut fixture = Fixture::new(&[("a", 30)]);
        let Plan::Cycle { models, interval } = fixture.plan() else { panic!("all is due") };
        let began = fixture.clock.now();
        fixture.schedule.begin(&models, began);
        fixture.clock.advance(secs(40));
        assert_eq!(fixture.schedule.end(secs(40), interval, fixture.clock.now(), 0.5), 1);
        // Slots of 27 s: the second is over, the third begins after 54.
        let Plan::Wait(Some(until)) = fixture.plan() else { panic!("its slot has passed") };
        assert_eq!(began.age(until), secs(54));
        // One that ends in its interval, though late, is no overrun.
        fixture.clock.advance(secs(14));
        fixture.schedule.begin(&models, fixture.clock.now());
        fixture.clock.advance(secs(29));
        assert_eq!(fixture.schedule.end(secs(29), interval, fixture.clock.now(), 0.5), 0);
        assert!(matches!(fixture.plan(), Plan::Cycle { .. }));
    }

    #[test]
    fn with_nothing_to_refresh_there_is_no_cycle() {
        let fixture = Fixture::new(&[]);
        assert!(matches!(fixture.plan(), Plan::Wait(Some(_))), "a model may be tracked any time");
        let schedule = Schedule::new(0.5);
        let plan = schedule.plan(Vec::new(), Duration::ZERO, fixture.clock.now());
        assert_eq!(plan, Plan::Wait(None));
    }

    #[test]
    fn a_timer_that_is_ahead_of_a_coarse_clock_finds_its_model_due() {
        let mut fixture = Fixture::new(&[("a", 30)]);
        fixture.missing_until.insert("a", fixture.clock.now() + CLOCK_LAG / 2);
        let Plan::Cycle { models, .. } = fixture.plan() else { panic!("a is due") };
        assert_eq!(models, [ModelRef::new("a", "prod")]);
    }

    #[test]
    fn a_model_that_is_tracked_again_is_due_at_once() {
        let mut fixture = Fixture::new(&[("a", 30)]);
        fixture.schedule.begin(&[ModelRef::new("a", "prod")], fixture.clock.now());
        fixture.clock.advance(secs(1));
        fixture.schedule.retain(|_| true);
        assert!(matches!(fixture.plan(), Plan::Wait(_)));
        fixture.schedule.retain(|_| false);
        assert!(matches!(fixture.plan(), Plan::Cycle { .. }));
    }
}
