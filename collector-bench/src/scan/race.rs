//! Measuring ways of doing one thing side by side.

use anyhow::{Context as _, Result};
use tokio::time::Instant;

/// Runs of less are repeated until one measurement takes so many seconds.
const MEASUREMENT: f64 = 500e-6;

/// One way of doing it.
pub(super) struct System<'a> {
    pub(super) name: &'static str,
    run: Box<dyn FnMut() -> Result<()> + 'a>,
}

impl<'a> System<'a> {
    pub(super) fn new(name: &'static str, run: impl FnMut() -> Result<()> + 'a) -> Self {
        Self { name, run: Box::new(run) }
    }

    /// Allocations of one run, those before it not counted.
    pub(super) fn allocations(&mut self) -> Result<u64> {
        let mut outcome = Ok(());
        let measured = allocation_counter::measure(|| outcome = (self.run)());
        outcome.map(|()| measured.count_total)
    }

    /// Seconds of one run, in the mean of these.
    fn time(&mut self, runs: u32) -> Result<f64> {
        let started = Instant::now();
        for _ in 0..runs {
            (self.run)().with_context(|| self.name)?;
        }
        Ok(started.elapsed().as_secs_f64() / f64::from(runs))
    }
}

/// Seconds that each system takes at best. They take turns, so that what else the machine does meets
/// all of them.
pub(super) fn race<const N: usize>(rounds: u32, systems: &mut [System<'_>; N]) -> Result<[f64; N]> {
    let mut runs = [1; N];
    for (system, runs) in systems.iter_mut().zip(&mut runs) {
        // The first run also warms up.
        system.time(1)?;
        let once = system.time(1)?;
        while f64::from(*runs) * once < MEASUREMENT {
            *runs *= 2;
        }
    }
    let mut best = [f64::INFINITY; N];
    for _ in 0..rounds {
        for ((system, runs), best) in systems.iter_mut().zip(runs).zip(&mut best) {
            *best = best.min(system.time(runs)?);
        }
    }
    Ok(best)
}
