// SPDX-License-Identifier: Apache-2.0
//! Measuring ways of doing one thing side by side.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

/// Runs of less are repeated until one measurement takes so many seconds.
const MEASUREMENT: f64 = 500e-6;

/// One way of doing it.
pub struct System<'a> {
    name: &'static str,
    /// Operations of one run.
    operations: u32,
    /// Does so many runs, and tells how long they took.
    runs: Box<dyn FnMut(u32) -> Result<Duration> + 'a>,
}

impl<'a> System<'a> {
    /// One whose run is one operation.
    pub fn new(name: &'static str, run: impl FnMut() -> Result<()> + 'a) -> Self {
        Self::of_many(name, 1, run)
    }

    /// One whose run is so many operations: what takes nanoseconds cannot be timed alone.
    pub fn of_many(
        name: &'static str,
        operations: u32,
        mut run: impl FnMut() -> Result<()> + 'a,
    ) -> Self {
        Self::timed(name, operations, move |runs| {
            let started = Instant::now();
            for _ in 0..runs {
                run()?;
            }
            Ok(started.elapsed())
        })
    }

    /// One that tells itself how long so many runs took, because not all that it does counts.
    pub fn timed(
        name: &'static str,
        operations: u32,
        runs: impl FnMut(u32) -> Result<Duration> + 'a,
    ) -> Self {
        Self { name, operations, runs: Box::new(runs) }
    }

    /// What is measured.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Operations of one run.
    pub fn operations(&self) -> u32 {
        self.operations
    }

    /// How long so many runs take.
    ///
    /// # Errors
    /// When a run fails: what failed is not measured.
    pub fn run(&mut self, runs: u32) -> Result<Duration> {
        (self.runs)(runs).with_context(|| self.name)
    }

    /// Allocations of one operation, those before it not counted.
    pub(crate) fn allocations(&mut self) -> Result<f64> {
        let mut outcome = Ok(Duration::ZERO);
        let measured = allocation_counter::measure(|| outcome = self.run(1));
        outcome?;
        Ok(measured.count_total as f64 / f64::from(self.operations))
    }

    /// Seconds of one run, in the mean of these.
    fn time(&mut self, runs: u32) -> Result<f64> {
        Ok(self.run(runs)?.as_secs_f64() / f64::from(runs))
    }
}

/// Which of its rounds a system is judged by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Judged {
    /// The best, in which the machine did nothing else.
    ByBest,
    /// The one in the middle: where threads get into each other's way, the best round is the one in which
    /// they happened not to.
    ByMedian,
}

/// Seconds that one operation takes each system. They take turns, so that what else the machine does meets
/// all of them.
pub(crate) fn race(rounds: u32, systems: &mut [System<'_>], judged: Judged) -> Result<Vec<f64>> {
    let mut runs = vec![1; systems.len()];
    for (system, runs) in systems.iter_mut().zip(&mut runs) {
        // The first run also warms up.
        system.time(1)?;
        let once = system.time(1)?;
        while f64::from(*runs) * once < MEASUREMENT {
            *runs *= 2;
        }
    }
    let mut times = vec![Vec::new(); systems.len()];
    for _ in 0..rounds {
        for ((system, runs), times) in systems.iter_mut().zip(&runs).zip(&mut times) {
            times.push(system.time(*runs)? / f64::from(system.operations));
        }
    }
    let judge = |mut times: Vec<f64>| {
        times.sort_unstable_by(f64::total_cmp);
        let place = match judged {
            Judged::ByBest => 0,
            Judged::ByMedian => times.len() / 2,
        };
        times.get(place).copied().unwrap_or(f64::NAN)
    };
    Ok(times.into_iter().map(judge).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_judged_by_its_best_round_or_by_the_one_in_the_middle() {
        // The rounds take 10, 20, … 50 ms in a mixed order; what comes before them is no round.
        let rounds = [10, 10, 40, 20, 50, 10, 30];
        for (judged, milliseconds) in [(Judged::ByBest, 10.0), (Judged::ByMedian, 30.0)] {
            let mut times = rounds.iter();
            let system = System::timed("system", 10, |_| {
                Ok(Duration::from_millis(*times.next().context("a round too many")?))
            });
            let seconds = race(5, &mut [system], judged).unwrap()[0];
            assert!((seconds * 10.0 - milliseconds / 1e3).abs() < 1e-9, "{seconds}");
        }
    }

    #[test]
    fn what_fails_is_not_measured() {
        let mut systems = [System::new("system", || anyhow::bail!("an entry is lost"))];
        let error = race(1, &mut systems, Judged::ByBest).unwrap_err();
        assert_eq!(format!("{error:#}"), "system: an entry is lost");
    }
}
