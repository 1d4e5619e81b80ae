// SPDX-License-Identifier: Apache-2.0
//! A day of a fleet in which models and pods come and go: what is held stays as large as the fleet. Alone in its process,
//! whose memory it measures.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, Clock, ErrorKind, KnownModel, ListAsk,
    MetricsCollector as _, ModelRef, ModelSample, Operation, Probe, ProbeAsk, ReplicaMetrics,
    Supports, Tick,
};
use collector_engine::{CacheConfig, CachingCollector, Discovery};
use collector_testkit::TokioClock;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// Models that live at a time. One goes and one comes each ten minutes.
const MODELS: u64 = 40;
const PODS: u64 = 8;
const CHURN: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);

/// A fleet whose pods are replaced each hour. In each sixth hour nothing answers.
struct Churning {
    started_at: Tick,
}

impl Churning {
    fn hour(&self, now: Tick) -> u64 {
        self.started_at.age(now).as_secs() / HOUR.as_secs()
    }

    /// The numbers of the models that live.
    fn numbers(&self, now: Tick) -> std::ops::Range<u64> {
        let gone = self.started_at.age(now).as_secs() / CHURN.as_secs();
        gone..gone + MODELS
    }

    fn is_down(&self, now: Tick, operation: Operation) -> Result<(), BackendError> {
        if self.hour(now) % 6 == 5 {
            return Err(BackendError::new(ErrorKind::Connect, "churning".into(), operation, "it"));
        }
        Ok(())
    }
}

fn model(number: u64) -> ModelRef {
    ModelRef::new(format!("org/m-{number}"), "prod")
}

#[async_trait]
impl Backend for Churning {
    fn name(&self) -> &'static str {
        "churning"
    }

    fn supports(&self) -> Supports {
        Supports::ALL
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        let now = ask.clock.now();
        self.is_down(now, Operation::Fetch)?;
        let live = self.numbers(now);
        let answer = |asked: &ModelRef| {
            let number = asked.model.as_str().trim_start_matches("org/m-").parse().unwrap();
            if !live.contains(&number) {
                return Answer::Missing { as_of: now, last_seen: None };
            }
            let hour = self.hour(now);
            let pods = (0..PODS).map(|pod| {
                let mut row = ReplicaMetrics::new(format!("m-{number}-{hour}-{pod}"), now);
                row.queue_length = Some(hour + pod);
                row
            });
            Answer::Found(ModelSample::new(now, pods.collect()))
        };
        Ok(ask.models.iter().map(|model| (model.clone(), answer(model))).collect())
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        let now = ask.clock.now();
        self.is_down(now, Operation::ListModels)?;
        Ok(self.numbers(now).map(|number| KnownModel::new(model(number), None)).collect())
    }

    async fn probe(&self, _: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        Ok(Probe::new(Vec::new()))
    }
}

/// The memory of this process that is in use, in bytes.
fn resident() -> Option<usize> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

#[tokio::test(start_paused = true)]
async fn memory_models_and_tasks_stay_as_many_as_the_fleet_for_a_day() {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let backend = Arc::new(Churning { started_at: clock.now() });
    let collector = CachingCollector::builder(backend.clone())
        .config(CacheConfig::default())
        .discover(Discovery::default())
        .clock(Arc::clone(&clock))
        .build()
        .unwrap();
    collector.start_background_worker().await.unwrap();

    let mut hours = Vec::new();
    // Shortly before the next hour begins.
    let mut wait = Duration::from_secs(3599);
    for hour in 1..=24 {
        sleep(wait).await;
        wait = HOUR;
        let now = clock.now();
        let live = backend.numbers(now);
        let newest = collector.collect_replica_metrics(&model(live.end - 1)).await;
        match backend.hour(now) % 6 {
            5 => assert!(newest.is_err(), "hour {hour}: nobody has seen it"),
            _ => assert_eq!(newest.unwrap().value().replicas.len() as u64, PODS, "hour {hour}"),
        }
        let state = collector.state();
        let tasks = Handle::current().metrics().num_alive_tasks();
        hours.push((state.tracked, state.cache.entries, state.cache.bytes, tasks, resident()));
    }
    let (_, _, early_bytes, early_tasks, early_memory) = hours[3];
    for (hour, (tracked, entries, bytes, tasks, _)) in hours.iter().enumerate() {
        // A model that is gone is known for a while.
        assert!(*tracked as u64 <= 3 * MODELS, "hour {hour}: {tracked} models: {hours:?}");
        assert!(*entries as u64 <= 4 * MODELS, "hour {hour}: {entries} entries: {hours:?}");
        assert!(*bytes <= 2 * early_bytes.max(1), "hour {hour}: {bytes} bytes: {hours:?}");
        assert!(*tasks <= early_tasks + 2, "hour {hour}: {tasks} tasks: {hours:?}");
    }
    if let (Some(early), Some(late)) = (early_memory, hours[23].4) {
        assert!(late <= early + (4 << 20), "{early} bytes after 4 hours, {late} after a day");
    }
    collector.stop_background_worker().await;
}
