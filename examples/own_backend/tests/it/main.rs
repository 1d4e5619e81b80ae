// SPDX-License-Identifier: Apache-2.0
//! The backend through the conformance suite, and what is its own.

mod command;

use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use collector::async_trait;
use collector::core::{
    Answer, Ask, Backend, BackendError, Clock, ErrorKind, Field, ModelRef, ReplicaMetrics,
    SystemClock, Tick,
};
use collector::testkit::conformance::{
    self, BreakableServer, Breakage, Fleet, FleetModel, FleetPod,
};
use static_json_backend::StaticJson;
use tempfile::TempDir;

const FLEET: &str = include_str!("../../fleet.json");

/// A file in a folder of its own.
struct FileFleet {
    folder: TempDir,
    clock: Arc<SystemClock>,
}

impl FileFleet {
    fn new() -> Self {
        let fleet = Self { folder: TempDir::new().unwrap(), clock: Arc::new(SystemClock::new()) };
        fleet.write(FLEET.as_bytes());
        fleet
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("fleet.json")
    }

    fn write(&self, text: &[u8]) {
        fs::write(self.path(), text).unwrap();
    }

    fn backend(&self) -> StaticJson {
        StaticJson::new(self.path())
    }

    async fn fetch(&self) -> Result<Answer, BackendError> {
        let models = [ModelRef::new("org/chat", "prod")];
        let answers = self.backend().fetch(Ask::new(&models, &*self.clock)).await?;
        Ok(answers.into_iter().next().unwrap().1)
    }

    #[track_caller]
    fn check_error(fetched: Result<Answer, BackendError>, kind: ErrorKind, part: &str) {
        let error = fetched.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let message = error.to_string();
        assert!(message.contains("fleet.json"), "no path in: {message}");
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

#[async_trait]
impl Fleet for FileFleet {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<SystemClock>::clone(&self.clock)
    }

    fn models(&self) -> Vec<FleetModel> {
        let mut row = ReplicaMetrics::new("chat-0", Tick::MIN);
        row.kv_cache_usage = Some(0.42);
        row.queue_length = Some(3);
        row.running_requests = Some(7);
        row.num_gpu_blocks = Some(12_000);
        row.block_size = Some(16);
        row.prefix_cache_hit_rate = Some(0.61);
        let load = [Some(1.5), Some(768.0), Some(192.0), None, None, None, None];
        let busy = FleetPod::from(row).with_load(load.into());
        let mut row = ReplicaMetrics::new("chat-1", Tick::MIN);
        row.kv_cache_usage = Some(0.0);
        row.queue_length = Some(0);
        let unmeasured = [Field::RunningRequests, Field::CacheConfig, Field::PrefixCacheHitRate];
        let idle = FleetPod::from(row).without(unmeasured);
        let none: [FleetPod; 0] = [];
        vec![
            FleetModel::new(ModelRef::new("org/chat", "prod"), [busy, idle]),
            FleetModel::new(ModelRef::new("org/asleep", "prod"), none),
        ]
    }

    /// The file says 1.5 s, and ages while the suite runs. Wall clock and coarse monotonic clock differ by some
    /// milliseconds.
    fn ages(&self) -> RangeInclusive<Duration> {
        Duration::from_millis(1400)..=Duration::from_secs(300)
    }

    fn breakable(&self) -> Option<&dyn BreakableServer> {
        Some(self)
    }
}

#[async_trait]
impl BreakableServer for FileFleet {
    async fn break_down(&self, how: &Breakage) -> bool {
        let is_down = *how == Breakage::Down;
        if is_down {
            self.write(br#"{"models": ["#);
        }
        is_down
    }

    async fn restore(&self) {
        self.write(FLEET.as_bytes());
    }
}

#[tokio::test]
async fn the_backend_conforms() {
    let fleet = FileFleet::new();
    conformance::backend(&fleet.backend(), &fleet).await;
}

#[tokio::test]
async fn the_age_of_the_file_is_added_to_the_age_it_states() {
    let fleet = FileFleet::new();
    let minute = Duration::from_secs(60);
    let file = File::options().write(true).open(fleet.path()).unwrap();
    file.set_modified(fleet.clock.wall() - minute).unwrap();

    let Ok(Answer::Found(sample)) = fleet.fetch().await else {
        panic!("the file has it");
    };
    // The file says 1.5 s. The wall clock and the coarse monotonic one differ by some milliseconds.
    let age = sample.replicas[0].sampled_at.age(sample.as_of);
    let stated = minute + Duration::from_millis(1500);
    assert!(age >= stated && age < stated + minute, "{age:?}");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_an_error_that_names_it() {
    let fleet = FileFleet::new();
    let configuration = ErrorKind::Configuration;

    fs::remove_file(fleet.path()).unwrap();
    FileFleet::check_error(fleet.fetch().await, configuration, "is the path right");
    fs::create_dir(fleet.path()).unwrap();
    FileFleet::check_error(fleet.fetch().await, configuration, "not a regular file");
    fs::remove_dir(fleet.path()).unwrap();

    fleet.write(b"{}");
    FileFleet::check_error(fleet.fetch().await, ErrorKind::BadAnswer, "models");
    let file = File::create(fleet.path()).unwrap();
    file.set_len(9 * 1024 * 1024).unwrap();
    FileFleet::check_error(fleet.fetch().await, ErrorKind::TooLarge, "8388608 bytes");
}
