// SPDX-License-Identifier: Apache-2.0
//! A process that ends, and the next one that begins with its last readings.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use collector_core::{
    BreakerState, Clock, CollectError, ErrorKind, Freshness, MetricsCollector as _, ModelRef,
    Source, Tick,
};
use collector_engine::{Builder, CacheConfig, CachingCollector, Discovery, StaticDirectory};
use collector_testkit::{FakeBackend, ManualClock};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::setup::{llama, pass, secs, variant};

/// The machine that processes run on, and their file.
struct Machine {
    began: Instant,
    folder: TempDir,
}

/// The clock of one process: its ticks begin with it, and its wall clock can be set.
struct ProcessClock {
    machine_began: Instant,
    began: Instant,
    wall_set_by: AtomicI64,
}

struct Process {
    backend: FakeBackend,
    collector: CachingCollector,
    clock: Arc<ProcessClock>,
}

impl Clock for ProcessClock {
    fn now(&self) -> Tick {
        ManualClock::new().now() + self.began.elapsed()
    }

    fn wall(&self) -> SystemTime {
        let wall = SystemTime::UNIX_EPOCH + secs(1_000_000_000) + self.machine_began.elapsed();
        let set_by = self.wall_set_by.load(Ordering::Relaxed);
        let by = secs(set_by.unsigned_abs());
        if set_by < 0 { wall - by } else { wall + by }
    }

    fn catch_up(&self) {}
}

impl Machine {
    fn new() -> Self {
        Self { began: Instant::now(), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("readings")
    }

    /// A process whose worker does not run yet.
    fn process_of(&self, change: impl FnOnce(Builder, CacheConfig) -> Builder) -> Process {
        let clock = Arc::new(ProcessClock {
            machine_began: self.began,
            began: Instant::now(),
            wall_set_by: AtomicI64::new(0),
        });
        let backend = FakeBackend::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let builder = CachingCollector::builder(Arc::new(backend.clone()))
            .clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let config = CacheConfig { snapshot_path: Some(self.path()), ..CacheConfig::default() };
        let collector = change(builder, config).build().unwrap();
        Process { backend, collector, clock }
    }

    fn process(&self) -> Process {
        self.process_of(Builder::config)
    }

    /// Starts a process that can reach its backend, has it read the model, and waits.
    async fn first_process(&self, wait: Duration) -> Process {
        let process = self.process();
        process.backend.serve_pods(&llama(), &["llama-0", "llama-1"]);
        process.collector.start_background_worker().await.unwrap();
        process.collector.collect_replica_metrics(&llama()).await.unwrap();
        pass(wait).await;
        process
    }

    /// A process that read the model `age` ago, and nothing since, has been stopped.
    async fn was_read(&self, age: Duration) {
        let process = self.process_of(|builder, mut config| {
            config.fetch_interval = Duration::ZERO;
            builder.config(config)
        });
        process.backend.serve_pods(&llama(), &["llama-0", "llama-1"]);
        process.collector.start_background_worker().await.unwrap();
        process.collector.collect_replica_metrics(&llama()).await.unwrap();
        process.collector.stop_background_worker().await;
        pass(age).await;
    }
}

impl Process {
    /// Starts the worker while the backend is away.
    async fn start_alone(self) -> Self {
        self.backend.fail(ErrorKind::Connect);
        self.collector.start_background_worker().await.unwrap();
        self
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_read_is_served_as_last_known_good_with_its_true_age() {
    let machine = Machine::new();
    machine.was_read(secs(70)).await;
    let process = machine.process().start_alone().await;
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.source(), reading.age()), (Source::LastKnownGood, secs(70)));
    assert_eq!(reading.freshness(), Freshness::Stale);
    let replica = &reading.value().replicas[1];
    assert_eq!((replica.pod_name.as_str(), replica.queue_length), ("llama-1", Some(1)));
    // It ages on like any other.
    pass(secs(100)).await;
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.source(), reading.age()), (Source::LastKnownGood, secs(170)));
    pass(secs(130)).await;
    let error = process.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    let CollectError::Unavailable { age, cause: Some(cause), .. } = error else {
        panic!("{error}")
    };
    assert!(age >= secs(300), "{age:?}");
    assert_eq!(cause.kind(), ErrorKind::Connect);
}

#[tokio::test(start_paused = true)]
async fn a_restored_value_is_past_its_ttl_and_replaced_by_the_first_fetch() {
    let machine = Machine::new();
    machine.was_read(secs(1)).await;
    let process = machine.process();
    process.backend.serve_pods(&llama(), &["llama-7"]);
    process.collector.start_background_worker().await.unwrap();
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.source(), reading.age()), (Source::LastKnownGood, secs(1)));
    assert_eq!(reading.freshness(), Freshness::Fresh);
    assert_eq!(process.collector.state().backends[0].last_success, None);
    assert_eq!(process.collector.state().backends[0].breaker, BreakerState::Closed);
    pass(secs(1)).await;
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.source(), Source::Cache);
    assert_eq!(reading.value().replicas.len(), 1);
    assert_eq!(reading.value().replicas[0].pod_name.as_str(), "llama-7");
    assert_eq!(process.collector.state().misses, 0);
}

#[tokio::test(start_paused = true)]
async fn a_read_refreshes_a_restored_value_though_nothing_is_fetched_in_the_background() {
    let machine = Machine::new();
    machine.was_read(secs(1)).await;
    let process = machine.process_of(|builder, mut config| {
        config.fetch_interval = Duration::ZERO;
        builder.config(config)
    });
    process.backend.serve_pods(&llama(), &["llama-7"]);
    process.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    assert_eq!(process.backend.fetches(), 0);
    process.collector.collect_replica_metrics(&llama()).await.unwrap();
    pass(secs(1)).await;
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.source(), process.backend.fetches()), (Source::Cache, 1));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_finds_nothing_replaces_what_was_restored() {
    let machine = Machine::new();
    machine.was_read(secs(1)).await;
    let process = machine.process();
    process.collector.start_background_worker().await.unwrap();
    pass(secs(1)).await;
    // As within one process: there, and never called fresh again.
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.freshness(), reading.age()), (Freshness::Stale, secs(2)));
    pass(secs(300)).await;
    let error = process.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert!(matches!(error, CollectError::Missing { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_invalidated_after_it_was_restored_does_not_come_back() {
    let machine = Machine::new();
    machine.was_read(secs(1)).await;
    let process = machine.process().start_alone().await;
    assert_eq!(process.collector.invalidate_cache(&llama()), 1);
    let error = process.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    assert!(matches!(error, CollectError::Backend(_)), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_started_again_reads_no_file_because_memory_is_newer() {
    let machine = Machine::new();
    machine.was_read(secs(1)).await;
    let process = machine.process().start_alone().await;
    let old = fs::read(machine.path()).unwrap();
    process.collector.stop_background_worker().await;
    assert_eq!(process.collector.invalidate_cache(&llama()), 1);
    fs::write(machine.path(), old).unwrap();
    process.collector.start_background_worker().await.unwrap();
    assert_eq!((process.collector.state().tracked, process.collector.cache_size()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_the_start_is_newer_than_the_file() {
    let machine = Machine::new();
    machine.was_read(secs(1)).await;
    let process = machine.process();
    process.backend.serve_pods(&llama(), &["llama-7"]);
    process.collector.collect_replica_metrics(&llama()).await.unwrap();
    process.collector.start_background_worker().await.unwrap();
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!((reading.source(), reading.value().replicas.len()), (Source::Cache, 1));
}

#[tokio::test(start_paused = true)]
async fn a_restart_is_no_read() {
    let machine = Machine::new();
    // Four minutes without a read.
    let process = machine.first_process(secs(240)).await;
    process.collector.stop_background_worker().await;
    // The time in which nobody could read does not count.
    pass(secs(40)).await;
    let process = machine.process();
    process.backend.serve_pods(&llama(), &["llama-0"]);
    process.collector.start_background_worker().await.unwrap();
    pass(secs(50)).await;
    assert_eq!(process.collector.state().tracked, 1);
    assert_eq!(process.backend.fetches(), 2);
    // The sweep after a minute finds it unread for five.
    pass(secs(20)).await;
    assert_eq!((process.collector.state().tracked, process.collector.cache_size()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_could_not_be_fetched_yet_is_tracked_again() {
    let machine = Machine::new();
    let process = machine.first_process(secs(1)).await;
    process.collector.invalidate_cache(&llama());
    process.collector.stop_background_worker().await;
    let process = machine.process();
    process.backend.serve_pods(&llama(), &["llama-0"]);
    process.collector.start_background_worker().await.unwrap();
    assert_eq!((process.collector.state().tracked, process.collector.cache_size()), (1, 0));
    pass(secs(1)).await;
    assert_eq!(process.collector.cache_size(), 1);
}

#[tokio::test(start_paused = true)]
async fn allocations_follow_from_the_variants_of_the_new_process() {
    let machine = Machine::new();
    machine.was_read(secs(10)).await;
    let process = machine.process_of(|builder, config| {
        let specs = vec![variant("fast", &llama(), "*-0"), variant("slow", &llama(), "*-1")];
        builder.config(config).directory(Arc::new(StaticDirectory::new(specs).unwrap()))
    });
    let process = process.start_alone().await;
    let collector = &process.collector;
    let fast = collector.collect_allocation(&llama(), &"fast".into()).await.unwrap();
    assert_eq!((fast.source(), fast.age()), (Source::LastKnownGood, secs(10)));
    assert_eq!(fast.value().num_replicas, 1);
    let replicas = collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(replicas.value().replicas[1].variant_name.as_ref().unwrap().as_str(), "slow");
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_said_that_is_not_asked_any_more_is_left_out() {
    let machine = Machine::new();
    machine.was_read(secs(10)).await;
    let clock = Arc::clone(&machine.process().clock) as Arc<dyn Clock>;
    let other = FakeBackend::new(Arc::clone(&clock)).named("other");
    other.fail(ErrorKind::Connect);
    let config = CacheConfig { snapshot_path: Some(machine.path()), ..CacheConfig::default() };
    let builder = CachingCollector::builder(Arc::new(other)).clock(clock).config(config);
    let collector = builder.build().unwrap();
    collector.start_background_worker().await.unwrap();
    assert_eq!((collector.state().tracked, collector.cache_size()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_the_snapshot_of_the_last_minute_is_used() {
    let machine = Machine::new();
    let process = machine.first_process(secs(110)).await;
    // No word of farewell.
    drop(process);
    pass(secs(10)).await;
    let process = machine.process().start_alone().await;
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    // Written at 60 s, when the last refresh was some seconds old; it is 120 s now.
    assert!(reading.age() >= secs(60) && reading.age() < secs(90), "{:?}", reading.age());
    assert_eq!(reading.source(), Source::LastKnownGood);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_was_set_back_hides_no_age() {
    let machine = Machine::new();
    machine.was_read(secs(10)).await;
    let process = machine.process();
    process.clock.wall_set_by.store(-12, Ordering::Relaxed);
    let process = process.start_alone().await;
    assert_eq!((process.collector.cache_size(), process.collector.state().tracked), (0, 0));

    let machine = Machine::new();
    machine.was_read(secs(10)).await;
    let process = machine.process();
    process.clock.wall_set_by.store(-11, Ordering::Relaxed);
    let process = process.start_alone().await;
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.age(), Duration::ZERO, "a second is the step of a clock that is corrected");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_too_old_by_now_says_when_it_was_last_seen() {
    let machine = Machine::new();
    machine.was_read(secs(10)).await;
    let process = machine.process();
    process.clock.wall_set_by.store(86_400, Ordering::Relaxed);
    let process = process.start_alone().await;
    let error = process.collector.collect_replica_metrics(&llama()).await.unwrap_err();
    let CollectError::Unavailable { age, .. } = error else { panic!("{error}") };
    assert!(age >= secs(86_410) && age < secs(86_420), "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_line_is_left_out_and_the_file_replaced_within_a_minute() {
    let machine = Machine::new();
    machine.was_read(secs(10)).await;
    let mut bytes = fs::read(machine.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] = b'\n';
    fs::write(machine.path(), bytes).unwrap();
    let process = machine.first_process(Duration::ZERO).await;
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.source(), Source::Cache);
    assert_eq!(process.collector.state().misses, 1);
    pass(secs(61)).await;
    let snapshot = process.collector.state().snapshot.unwrap();
    assert_eq!(snapshot.failures, 0);
    assert_eq!(snapshot.bytes, Some(fs::metadata(machine.path()).unwrap().len()));
    drop(process);
    let process = machine.process().start_alone().await;
    assert_eq!(process.collector.cache_size(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_counted_and_harms_no_reading() {
    let machine = Machine::new();
    let folder = machine.folder.path().join("not-there-yet");
    let path = folder.join("readings");
    let process = machine.process_of(|builder, mut config| {
        config.snapshot_path = Some(path.clone());
        builder.config(config)
    });
    process.backend.serve_pods(&llama(), &["llama-0"]);
    process.collector.start_background_worker().await.unwrap();
    process.collector.collect_replica_metrics(&llama()).await.unwrap();
    pass(secs(130)).await;
    let snapshot = process.collector.state().snapshot.unwrap();
    assert_eq!((snapshot.failures, snapshot.last_success, snapshot.bytes), (2, None, None));
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.source(), Source::Cache);
    fs::create_dir(&folder).unwrap();
    pass(secs(60)).await;
    let snapshot = process.collector.state().snapshot.unwrap();
    assert_eq!(snapshot.failures, 2);
    assert_eq!(snapshot.last_success.unwrap().as_secs(), 10);
    assert!(path.is_file());
}

#[tokio::test(start_paused = true)]
async fn who_does_not_start_the_worker_neither_reads_nor_writes_the_file() {
    let machine = Machine::new();
    machine.was_read(secs(10)).await;
    let before = fs::read(machine.path()).unwrap();
    let process = machine.process();
    process.backend.serve_pods(&llama(), &["llama-7"]);
    let reading = process.collector.collect_replica_metrics(&llama()).await.unwrap();
    assert_eq!(reading.source(), Source::Backend);
    pass(secs(130)).await;
    process.collector.stop_background_worker().await;
    assert_eq!(fs::read(machine.path()).unwrap(), before);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_keeps_nothing_has_no_snapshot() {
    let machine = Machine::new();
    let process = machine.process_of(|builder, mut config| {
        config.enabled = false;
        builder.config(config)
    });
    process.collector.start_background_worker().await.unwrap();
    pass(secs(130)).await;
    process.collector.stop_background_worker().await;
    assert!(!machine.path().exists());
}

#[tokio::test(start_paused = true)]
async fn no_more_models_are_restored_than_may_be_tracked() {
    let machine = Machine::new();
    let process = machine.process();
    for name in ["a", "b", "c"] {
        let model = ModelRef::new(name, "prod");
        process.backend.serve_pods(&model, &["pod"]);
        process.collector.collect_replica_metrics(&model).await.unwrap();
    }
    process.collector.start_background_worker().await.unwrap();
    process.collector.stop_background_worker().await;
    let process = machine.process_of(|builder, config| builder.config(config).max_tracked(2));
    let process = process.start_alone().await;
    assert_eq!((process.collector.state().tracked, process.collector.cache_size()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn restored_models_are_not_lost_while_the_backend_that_listed_them_is_down() {
    let machine = Machine::new();
    let discovering = || {
        machine.process_of(|builder, config| builder.config(config).discover(Discovery::default()))
    };
    let gone = ModelRef::new("gone", "prod");
    let process = discovering();
    process.backend.serve_pods(&llama(), &["llama-0"]);
    process.backend.serve_pods(&gone, &["gone-0"]);
    process.collector.start_background_worker().await.unwrap();
    pass(secs(60)).await;
    process.collector.stop_background_worker().await;

    let process = discovering();
    process.backend.fail(ErrorKind::Connect);
    process.collector.start_background_worker().await.unwrap();
    pass(secs(3600)).await;
    assert_eq!(process.collector.state().tracked, 2);
    process.backend.restore();
    process.backend.serve_pods(&llama(), &["llama-0"]);
    pass(secs(600)).await;
    let tracked: Vec<_> = process.collector.tracked().into_iter().map(|it| it.model).collect();
    assert_eq!(tracked, [llama()], "only this one is listed again");
}
