// SPDX-License-Identifier: Apache-2.0
//! The background: refreshes what is tracked, ahead of expiry and in one batch a cycle, and sweeps
//! what is forgotten.

use std::collections::HashSet;
use std::future::pending;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_core::{ModelRef, Outcome, duration};
use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::fetch::Source;
use crate::publish::{UNTRACK_AFTER, next_fetch};
use crate::refresh::schedule::{Plan, Schedule, Target};
use crate::refresh::{discovery, live};
use crate::snapshot;

/// How often the worker checks whether the directory has changed or a reading has grown old.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// How often the cache's counters are logged.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(300);

/// The running background tasks of a collector.
pub(crate) struct Worker {
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Worker {
    pub(crate) fn start(engine: &Arc<Engine>) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        if engine.discoverer.is_some() {
            for index in 0..engine.sources.len() {
                tasks.spawn(discovery::run(Arc::clone(engine), index, stop.clone()));
            }
        }
        if !engine.cache.retains() {
            return Self { stop, tasks };
        }
        let interval = engine.config.fetch_interval;
        for (index, source) in engine.sources.iter().enumerate() {
            if source.pushes() {
                tasks.spawn(live::run(Arc::clone(engine), index, stop.clone()));
                continue;
            }
            // Without an interval for all, some model may still have one of its own.
            tasks.spawn(fetch_loop(Arc::clone(engine), index, stop.clone()));
            if !interval.is_zero() {
                tracing::info!(
                    backend = %source.name, interval = %duration::format(interval),
                    "Started background fetching executor"
                );
            }
        }
        tasks.spawn(housekeeping(Arc::clone(engine), stop.clone()));
        if engine.snapshot.is_some() {
            tasks.spawn(snapshot::keep(Arc::clone(engine), stop.clone()));
        }
        Self { stop, tasks }
    }

    /// Asks the tasks to end.
    pub(crate) fn signal(&self) {
        self.stop.cancel();
    }

    /// Waits for their end.
    pub(crate) async fn ended(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What one turn of the fetch loop came to.
enum Turn {
    /// A cycle has ended.
    Fetched,
    /// Nothing is due for so long; `None`: until something changes.
    Waits(Option<Duration>),
}

async fn fetch_loop(engine: Arc<Engine>, index: usize, stop: CancellationToken) {
    let source = &engine.sources[index];
    let mut schedule = Schedule::new(fastrand::f64());
    let mut changes = engine.paces.changes();
    let mut counted = false;
    loop {
        changes.mark_unchanged();
        let has_listed = engine.has_listed();
        // Outside code runs in a cycle: a cache, a directory. Its panic must not end the refresh of
        // everything in silence.
        let turn = AssertUnwindSafe(engine.turn(index, &mut schedule, &stop)).catch_unwind().await;
        let (fetched, wait) = match turn {
            Ok(Turn::Fetched) => (true, Some(Duration::ZERO)),
            Ok(Turn::Waits(wait)) => (false, wait),
            Err(_panic) => {
                engine.panicked();
                tracing::error!("A refresh cycle panicked; the next one comes as usual");
                (true, Some(engine.shortest_interval().max(WATCH_INTERVAL)))
            }
        };
        // The first cycle counts once all tracked models have been tried, those that were discovered too.
        if has_listed && (fetched || !counted) {
            source.cycles.fetch_add(1, Ordering::Relaxed);
            counted = true;
        }
        let due = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = due => {}
            // The sender lives in the engine.
            _ = changes.changed() => {}
        }
    }
}

async fn housekeeping(engine: Arc<Engine>, stop: CancellationToken) {
    let first = Instant::now();
    let mut sweep = tokio::time::interval_at(
        first + engine.config.cleanup_interval,
        engine.config.cleanup_interval,
    );
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut watch = tokio::time::interval_at(first + WATCH_INTERVAL, WATCH_INTERVAL);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut statistics = tokio::time::interval_at(first + STATISTICS_INTERVAL, STATISTICS_INTERVAL);
    loop {
        tokio::select! {
            _ = sweep.tick() => survive(&engine, "A sweep of the cache", || engine.sweep(UNTRACK_AFTER)),
            _ = watch.tick() => survive(&engine, "A check of the tracked models", || engine.watch()),
            _ = statistics.tick() => engine.log_statistics(),
            () = stop.cancelled() => return,
        }
    }
}

/// Outside code runs in the background: a cache, a directory. Its panic must not end it in silence.
pub(super) fn survive(engine: &Engine, what: &str, run: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(run)).is_err() {
        engine.panicked();
        tracing::error!("{what} panicked; the next one comes as usual");
    }
}

impl Engine {
    /// Notices what must not wait for a cycle: a suspend, a directory that has changed, a reading that has
    /// grown old.
    fn watch(&self) {
        self.catch_up();
        self.follow_directory();
        self.log_ages();
    }

    /// One refresh of everything tracked that is due at a source, if anything is.
    async fn turn(&self, index: usize, schedule: &mut Schedule, stop: &CancellationToken) -> Turn {
        let source = &self.sources[index];
        self.catch_up();
        self.follow_directory();
        let now = self.clock.now();
        let tracked = self.models.tracked();
        let targets = tracked.iter().filter_map(|model| self.target(source, model)).collect();
        let (models, interval) = match schedule.plan(targets, self.shortest_interval(), now) {
            Plan::Cycle { models, interval } => (models, interval),
            Plan::Wait(until) => return Turn::Waits(until.map(|until| until.until(now))),
        };
        let tracked: HashSet<&ModelRef> = tracked.iter().collect();
        schedule.retain(|model| tracked.contains(model));
        schedule.begin(&models, now);
        let began = Instant::now();
        self.fetch_in_background(index, models, stop).await;
        let missed = schedule.end(began.elapsed(), interval, self.clock.now(), fastrand::f64());
        source.skipped_cycles.fetch_add(missed, Ordering::Relaxed);
        Turn::Fetched
    }

    /// A tracked model as a source sees it; `None` when it is not to be refreshed.
    fn target(&self, source: &Source, model: &ModelRef) -> Option<Target> {
        let pace = self.pace(model);
        if pace.interval.is_zero() {
            return None;
        }
        let record = self.cache.get(model);
        let mut states = record.iter().flat_map(|record| &record.cold.sources);
        let state = states.find(|state| state.backend == source.name);
        // A fetch that failed says nothing about when the model was last seen: it is tried again.
        let answered = state.filter(|state| state.outcome != Outcome::Failed);
        let missing = answered.filter(|state| state.outcome == Outcome::Missing);
        Some(Target {
            model: model.clone(),
            interval: pace.interval,
            // A restored value was not fetched by this process: it is due at once.
            fetch_began: answered
                .and_then(|state| state.as_of.map(|as_of| as_of.min(state.ended_at))),
            missing_until: missing.map(|state| next_fetch(state, pace)),
        })
    }

    /// Publishes everything again when the directory has changed since.
    fn follow_directory(&self) {
        let generation = self.directory.generation();
        if generation != self.directory_generation.load(Ordering::Relaxed) {
            self.track_variants();
            self.publish_again();
            self.directory_generation.store(generation, Ordering::Relaxed);
            self.paces.changed();
        }
    }

    /// Logs which readings have turned stale, unavailable or fresh again.
    fn log_ages(&self) {
        let now = self.clock.now();
        let age_of = |model: ModelRef| {
            let record = self.cache.get(&model)?;
            let age = record.replicas()?.replicas.oldest.age(now);
            Some((model, age))
        };
        let ages = self.models.tracked().into_iter().filter_map(age_of).collect();
        self.age_log().update(&ages, &self.config.freshness, now);
    }

    fn log_statistics(&self) {
        let hits = self.counters.hits.total() + self.counters.stale_serves.total();
        let misses = self.counters.misses.load(Ordering::Relaxed);
        // No reads, no rate: 0 would say that every read missed.
        let rate = (hits + misses > 0).then(|| hits as f64 / (hits + misses) as f64);
        tracing::info!(
            entries = self.cache.stats().entries,
            hits,
            misses,
            hitRate = rate,
            "Cache statistics"
        );
    }
}
