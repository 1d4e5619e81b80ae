// SPDX-License-Identifier: Apache-2.0
//! What is logged, and how often.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_core::{
    ErrorKind, Field as Measured, MetricsCollector as _, ModelSample, ReplicaMetrics,
};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::setup::{config, llama, pass, secs, setup, setup_with, variant, variants};

/// The lines that the thread of a test has logged, each with its fields.
#[derive(Clone, Default)]
pub(crate) struct Logs(Arc<Mutex<Vec<String>>>);

impl Logs {
    pub(crate) fn capture() -> (Self, DefaultGuard) {
        let logs = Self::default();
        let guard = tracing::subscriber::set_default(logs.clone());
        (logs, guard)
    }

    pub(crate) fn with(&self, message: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.starts_with(message)).cloned().collect()
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.0.insert_str(0, &format!("{value:?}")),
            name => write!(self.0, " {name}={value:?}").unwrap(),
        }
    }
}

impl Subscriber for Logs {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_fails_is_logged_when_that_begins_and_when_it_is_over() {
    let (logs, _guard) = Logs::capture();
    let setup = setup_with(variants(vec![variant("v", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.backend.fail(ErrorKind::Unauthorized);
    pass(secs(100)).await;
    assert!(setup.backend.fetches() >= 3);
    let failed = logs.with("Background fetch failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].contains(" models=1 "), "{failed:?}");
    assert_eq!(logs.with("Background fetch works again").len(), 0);
    setup.backend.restore();
    pass(secs(100)).await;
    assert_eq!(logs.with("Background fetch works again").len(), 1);
    assert_eq!(logs.with("Background fetch failed").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn fields_that_cannot_be_queried_are_logged_once_and_reported_until_they_are_answered() {
    let (logs, _guard) = Logs::capture();
    let setup = setup_with(variants(vec![variant("v", &llama(), "*")]));
    let sample = |as_of, failed: &[Measured]| {
        let mut sample = ModelSample::new(as_of, vec![ReplicaMetrics::new("llama-0", as_of)]);
        sample.failed = failed.iter().map(|field| (*field, "422 too many samples")).collect();
        sample
    };
    setup.backend.serve(&llama(), move |as_of| sample(as_of, &[Measured::KvCacheUsage]));
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(100)).await;
    let reported = || setup.collector.state().backends[0].failed_fields.clone();
    assert_eq!(logs.with("Some fields cannot be asked for").len(), 1);
    assert!(reported().unwrap().to_string().contains("kvCacheUsage: 422 too many samples"));
    assert!(setup.collector.state().backends[0].last_error.is_none(), "the fetch was answered");
    setup.backend.serve(&llama(), move |as_of| sample(as_of, &[]));
    pass(secs(100)).await;
    assert_eq!(logs.with("All fields are answered again").len(), 1);
    assert_eq!(logs.with("Some fields cannot be asked for").len(), 1);
    assert!(reported().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_failed_read_is_reported_to_its_caller_and_not_logged() {
    let (logs, _guard) = Logs::capture();
    let setup = setup();
    setup.backend.fail(ErrorKind::Unauthorized);
    assert!(setup.collector.collect_replica_metrics(&llama()).await.is_err());
    assert_eq!(logs.with("Background fetch failed").len(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_stage_of_a_reading_that_grows_old_is_logged_once_and_that_it_is_fresh_again() {
    let (logs, _guard) = Logs::capture();
    let setup = setup_with(variants(vec![variant("v", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(60)).await;
    let counts = || {
        let of = |message: &str| logs.with(message).len();
        [of("Metrics are stale"), of("Metrics are unavailable"), of("Metrics are fresh again")]
    };
    for times in 0..2 {
        setup.backend.fail(ErrorKind::Unauthorized);
        pass(secs(35)).await;
        assert_eq!(counts(), [2 * times, times, times]);
        // From fresh_threshold on it is stale, from stale_threshold on that is a warning.
        for (seconds, stale, unavailable) in [(45, 1, 0), (70, 2, 0), (100, 2, 0), (100, 2, 1)] {
            pass(secs(seconds)).await;
            assert_eq!(counts(), [2 * times + stale, times + unavailable, times]);
        }
        setup.backend.restore();
        pass(secs(60)).await;
        assert_eq!(counts(), [2 * (times + 1), times + 1, times + 1]);
    }
    let stale = logs.with("Metrics are stale");
    for (line, threshold) in stale.iter().zip(["threshold=1m", "threshold=2m"]) {
        assert!(line.contains(" model=\"llama\" namespace=\"prod\" age="), "{line}");
        assert!(line.contains(threshold), "{line}");
    }
    assert!(logs.with("Metrics are fresh again")[0].contains("notFreshFor="));
}

#[tokio::test(start_paused = true)]
async fn of_many_models_that_turn_stale_at_once_some_are_named_and_the_others_counted() {
    let (logs, _guard) = Logs::capture();
    let model = |index: usize| collector_core::ModelRef::new(format!("m{index:02}"), "prod");
    let specs = (0..50).map(|index| variant(&format!("v{index}"), &model(index), "*"));
    let setup = setup_with(variants(specs.collect()));
    (0..50).for_each(|index| setup.backend.serve_pods(&model(index), &["pod"]));
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(10)).await;
    setup.backend.fail(ErrorKind::Unauthorized);
    pass(secs(100)).await;
    assert_eq!(logs.with("Metrics are stale").len(), 20);
    let others = logs.with("Metrics of more models are stale");
    assert_eq!(others, ["Metrics of more models are stale models=30"]);
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_and_each_change_of_the_circuit_are_logged() {
    let (logs, _guard) = Logs::capture();
    let setup = setup_with(variants(vec![variant("v", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(70)).await;
    assert_eq!(logs.with("The backend answers").len(), 1);
    setup.backend.fail(ErrorKind::Connect);
    pass(secs(200)).await;
    let opened = logs.with("The circuit is open");
    assert_eq!(opened.len(), 1, "{opened:?}");
    assert!(opened[0].contains("failures=3 ") && opened[0].contains("retryIn="), "{opened:?}");
    assert_eq!(logs.with("The circuit is closed").len(), 0);
    setup.backend.restore();
    pass(secs(60)).await;
    let closed = logs.with("The circuit is closed");
    assert_eq!(closed.len(), 1, "{closed:?}");
    assert!(closed[0].contains("openFor="), "{closed:?}");
    let again = logs.with("Background fetch works again");
    assert!(again.len() == 1 && again[0].contains("failures="), "{again:?}");
    assert_eq!(logs.with("The backend answers").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_counters_of_the_cache_are_logged_every_five_minutes() {
    let (logs, _guard) = Logs::capture();
    let setup = setup_with(config(|config| config.fetch_interval = Duration::ZERO));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(299)).await;
    assert_eq!(logs.with("Cache statistics").len(), 0);
    pass(secs(2)).await;
    // No reads, no rate.
    assert_eq!(logs.with("Cache statistics"), ["Cache statistics entries=0 hits=0 misses=0"]);
    // A miss, and later two hits, and three that are served past the ttl while the backend fails.
    setup.read(&llama()).await;
    pass(secs(300)).await;
    setup.collector.invalidate_cache(&llama());
    for _ in 0..3 {
        setup.read(&llama()).await;
    }
    setup.backend.fail(ErrorKind::Unauthorized);
    pass(secs(40)).await;
    for _ in 0..3 {
        setup.read(&llama()).await;
    }
    pass(secs(260)).await;
    let rates = logs.with("Cache statistics").into_iter().skip(1);
    let rates: Vec<String> =
        rates.map(|mut line| line.split_off(line.find(" hits").unwrap())).collect();
    assert_eq!(
        rates,
        [" hits=0 misses=1 hitRate=0.0", " hits=5 misses=2 hitRate=0.7142857142857143"]
    );
}

#[tokio::test(start_paused = true)]
async fn that_the_background_fetches_is_logged_where_it_does() {
    let (logs, _guard) = Logs::capture();
    for (interval, times) in [(Duration::ZERO, 0), (secs(30), 1)] {
        let setup = setup_with(config(|config| config.fetch_interval = interval));
        setup.collector.start_background_worker().await.unwrap();
        assert_eq!(logs.with("Started background fetching executor").len(), times);
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_written_is_logged_when_that_begins_and_when_it_is_over() {
    let (logs, _guard) = Logs::capture();
    let machine = tempfile::tempdir().unwrap();
    let folder = machine.path().join("not-there-yet");
    let path = folder.join("readings");
    let setup = setup_with(config(|config| config.snapshot_path = Some(path)));
    setup.collector.start_background_worker().await.unwrap();
    let failed = || logs.with("Cannot write the snapshot of the readings").len();
    let works = || logs.with("The snapshot of the readings can be written again").len();
    let failures = || setup.collector.state().snapshot.unwrap().failures;
    pass(secs(59)).await;
    assert_eq!((failures(), failed()), (0, 0));
    pass(secs(131)).await;
    assert_eq!(failures(), 3);
    assert_eq!((failed(), works()), (1, 0));
    std::fs::create_dir(&folder).unwrap();
    pass(secs(120)).await;
    assert_eq!((failed(), works()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_cannot_be_read_is_logged_with_its_reason() {
    let header = "{\"collectorSnapshot\":3,\"writtenAt\":0}\n";
    let model = "{\"model\":\"m\",\"namespace\":\"n\",\"unread\":0,\"sources\":[]}\n";
    for (file, message, part) in [
        (format!("{header}{{}}\n{model}junk"), "Lines of the snapshot cannot be read", "lost=2"),
        (format!("{header}{{}}\n{model}junk"), "Restored the readings", "models=1"),
        (
            "collector-snapshot 2 0 0\n".to_owned(),
            "The snapshot of the readings is ignored",
            "earlier",
        ),
    ] {
        let (logs, _guard) = Logs::capture();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("readings");
        std::fs::write(&path, file).unwrap();
        let setup = setup_with(config(|config| config.snapshot_path = Some(path)));
        setup.collector.start_background_worker().await.unwrap();
        let lines = logs.with(message);
        assert!(lines.len() == 1 && lines[0].contains(part), "{lines:?}");
    }
}
