// SPDX-License-Identifier: Apache-2.0
//! Memory over an hour of simulated time: as many models as may be tracked, over a backend that takes its time.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use collector_core::{Clock, MetricsCollector as _, ModelRef, Source};
use collector_engine::{CachingCollector, DEFAULT_MAX_TRACKED};
use collector_testkit::TokioClock;
use tokio::runtime;
use tokio::time::sleep;

use crate::workload::{self, Steady};

/// What a look at all models takes.
const LOOK: Duration = Duration::from_secs(3);
const SECOND: Duration = Duration::from_secs(1);
/// Seconds until everything has been refreshed, swept and freed some twenty times.
const WARM: usize = 600;
const HOUR: usize = 3600;
/// Each model is read once in so many seconds: what nobody reads for five minutes is untracked.
const ROUND: usize = 200;

/// Bytes that the allocator has given out and not taken back.
pub(crate) struct Memory {
    /// After ten minutes.
    pub(crate) live: f64,
    /// How many more there are after an hour.
    pub(crate) grown: f64,
}

/// Lets the hour pass.
pub(crate) fn measure() -> Result<Memory> {
    // The one thread is this one, whose allocations are counted.
    let mut runtime = runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build()?;
    let mut fleet = None;
    let mut bytes = counted(|| {
        let fleet = fleet.insert(runtime.block_on(Fleet::start())?);
        runtime.block_on(fleet.run(WARM))
    })?;
    let mut fleet = fleet.context("no fleet was started")?;
    bytes += counted(|| runtime.block_on(fleet.cycle()))?;
    let live = bytes;
    bytes += counted(|| runtime.block_on(fleet.run(HOUR)))?;
    bytes += counted(|| runtime.block_on(fleet.cycle()))?;
    fleet.check()?;
    Ok(Memory { live: live as f64, grown: (bytes - live) as f64 })
}

/// How many bytes more there are in memory after something than before it.
fn counted(run: impl FnOnce() -> Result<()>) -> Result<i64> {
    let mut outcome = Ok(());
    let counted = allocation_counter::measure(|| outcome = run());
    outcome?;
    Ok(counted.bytes_current)
}

/// Models that are tracked and read.
struct Fleet {
    collector: CachingCollector,
    models: Vec<ModelRef>,
    seconds: usize,
    oldest: Duration,
}

impl Fleet {
    async fn start() -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let backend = Steady { clock: Arc::clone(&clock), pods: 1, takes: LOOK };
        let collector = CachingCollector::builder(Arc::new(backend)).clock(clock).build()?;
        let models = workload::models(DEFAULT_MAX_TRACKED);
        for read in collector.collect_many(&models).await {
            read?;
        }
        collector.start_background_worker().await.unwrap();
        Ok(Self { collector, models, seconds: 0, oldest: Duration::ZERO })
    }

    /// Until so many seconds have passed in all.
    async fn run(&mut self, seconds: usize) -> Result<()> {
        while self.seconds < seconds {
            self.second().await?;
        }
        Ok(())
    }

    /// To the end of the cycle that is under way or comes next: what is in memory depends on how far a cycle
    /// has come.
    async fn cycle(&mut self) -> Result<()> {
        let cycles = self.collector.state().cycles;
        while self.collector.state().cycles == cycles {
            self.second().await?;
        }
        Ok(())
    }

    async fn second(&mut self) -> Result<()> {
        sleep(SECOND).await;
        for model in self.models.iter().skip(self.seconds % ROUND).step_by(ROUND) {
            let reading = self.collector.collect_replica_metrics(model).await?;
            ensure!(reading.source() == Source::Cache, "{model} was not in the cache");
            self.oldest = self.oldest.max(reading.age());
        }
        self.seconds += 1;
        Ok(())
    }

    /// Whether it was an hour as it should be: flat memory of a collector that refreshes nothing says nothing.
    fn check(&self) -> Result<()> {
        let state = self.collector.state();
        let everything = self.models.len();
        ensure!(state.tracked == everything, "{} models are tracked", state.tracked);
        ensure!(state.cache.entries == everything, "{} entries are left", state.cache.entries);
        // A cycle begins 25.5 to 28.5 s after the one before it, and is one look at everything.
        let refreshed = usize::try_from(state.background_refreshes)?;
        let cycles = refreshed / everything;
        ensure!((HOUR / 29..=self.seconds / 25).contains(&cycles), "{cycles} cycles");
        ensure!(refreshed == cycles * everything, "{refreshed} refreshes");
        ensure!(state.backends[0].skipped_cycles == 0, "a cycle was left out");
        let interval = Duration::from_secs(30);
        ensure!(self.oldest < interval + LOOK, "a reading was {:?} old", self.oldest);
        Ok(())
    }
}
