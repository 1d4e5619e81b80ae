// SPDX-License-Identifier: Apache-2.0
//! `/metrics`: the collector's own metrics, and the readings of what is tracked.
//!
//! What the crates below count goes through the `metrics` facade into a recorder. What the
//! collector can be asked for is written at each scrape, so that the series of a pod or a
//! model that is gone are gone too.

mod expiry;
pub(super) mod http;
mod names;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::iter;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use collector_core::{
    BackendState, BreakerState, CollectError, CollectorState, Freshness, ModelRef, Pace,
    PaceReason, Part, Reading, Replicas, TrackedModel,
};
use collector_engine::CachingCollector;
use tokio::time::timeout;

use self::expiry::Credentials;
use super::app::App;
use super::recorder::announce_namespace;
use super::respond::streamed;
use crate::output::{
    ALLOCATION_SERIES, Exposition, Kind, REPLICA_SERIES, SUPPLY_SERIES, Series, allocation_samples,
    replica_samples, series, supply_samples,
};

/// Words of `collector_readings`; each has a series, at 0 where nothing has that status.
const STATUSES: [&str; 4] = ["fresh", "stale", "missing", "unavailable"];

/// How long a scrape waits for files.
const FILES_TIMEOUT: Duration = Duration::from_secs(1);

/// The page that Prometheus scrapes.
pub(super) async fn scrape(State(app): State<Arc<App>>) -> Response {
    let config = app.loaded.config.metrics;
    let tracked = app.collector.tracked();
    let namespaces: BTreeSet<_> = tracked.iter().map(|it| it.model.namespace.as_str()).collect();
    namespaces.into_iter().for_each(announce_namespace);
    let mut page = Exposition::default();
    describe_state(&mut page, &app.collector.state());
    describe_program(&mut page);
    process::describe(&mut page);
    describe_readings_up(&mut page, &tracked);
    app.reloads.describe(&mut page);
    describe_pods(&mut page, &tracked);
    describe_freshness(&mut page, &tracked);
    describe_paces(&mut page, &app.collector, &tracked);
    let mut own = String::new();
    names::add_families(&mut own, &app.recorder.render(), config.upstream_names);
    names::add_families(&mut own, &page.into_text(), config.upstream_names);
    own.push_str(&describe_files(&app).await);
    let parts = iter::once(own).chain(describe_readings(tracked, config.per_replica));
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (headers, streamed(parts)).into_response()
}

/// The readings family by family: of a large fleet, all of them at once would be a lot to keep for
/// every client that is slow to take them.
fn describe_readings(
    tracked: Vec<TrackedModel>,
    per_replica: bool,
) -> impl Iterator<Item = String> {
    fn replicas(tracked: &[TrackedModel]) -> impl Iterator<Item = &Reading<Replicas>> {
        tracked.iter().filter_map(|tracked| tracked.replicas.as_ref().ok())
    }
    let tracked = Arc::new(tracked);
    let (of_replicas, of_supply) = (Arc::clone(&tracked), Arc::clone(&tracked));
    let of_replica = if per_replica { REPLICA_SERIES } else { &[] };
    let of_replicas = of_replica
        .iter()
        .map(move |series| series.text(replica_samples(series, replicas(&of_replicas))));
    let of_supply = SUPPLY_SERIES
        .iter()
        .map(move |series| series.text(supply_samples(series, replicas(&of_supply))));
    of_replicas.chain(of_supply).chain(ALLOCATION_SERIES.iter().map(move |series| {
        let allocations = tracked.iter().flat_map(|tracked| &tracked.allocations);
        let readings = allocations.filter_map(|(_, reading)| reading.as_ref().ok());
        series.text(allocation_samples(series, readings))
    }))
}

/// The value of a series, if there is one.
type ValueOf<T> = fn(&T) -> Option<f64>;

/// The series of the collector as a whole. A snapshot that has not been written has neither an age nor a
/// size; failures are counted from 0.
const COLLECTOR_SERIES: &[Series<ValueOf<CollectorState>>] = series! {
    /// Reads answered from the cache within the ttl.
    "collector_cache_hits_total": Counter, |it| Some(it.hits as f64);
    /// Reads for which the backend was asked.
    "collector_cache_misses_total": Counter, |it| Some(it.misses as f64);
    /// Reads answered with a last known good value.
    "collector_cache_stale_serves_total": Counter, |it| Some(it.stale_serves as f64);
    /// Misses that joined a fetch under way.
    "collector_cache_coalesced_misses_total": Counter, |it| Some(it.coalesced_misses as f64);
    /// Entries removed to stay within the capacity.
    "collector_cache_evictions_total": Counter, |it| Some(it.cache.evictions as f64);
    /// Models refreshed in the background.
    "collector_background_refreshes_total": Counter, |it| Some(it.background_refreshes as f64);
    /// Cycles of the background refresh that have ended.
    "collector_background_cycles_total": Counter, |it| Some(it.cycles as f64);
    /// Panics of a cache or a directory that were caught.
    "collector_panics_total": Counter, |it| Some(it.panics as f64);
    /// Entries in the cache.
    "collector_cache_entries": Gauge, |it| Some(it.cache.entries as f64);
    /// About what they hold, in bytes.
    "collector_cache_bytes": Gauge, |it| Some(it.cache.bytes as f64);
    /// Models tracked.
    "collector_tracked_models": Gauge, |it| Some(it.tracked as f64);
    /// Models that the backends list, tracked or not; absent until one has listed them.
    "collector_known_models": Gauge, |it| Some(it.discovery?.known? as f64);
    /// Listed models that are not tracked because of server.max_tracked.
    "collector_left_out_models": Gauge, |it| Some(it.discovery?.left_out as f64);
    /// Writes of the snapshot of the readings that failed.
    "collector_cache_snapshot_failures_total": Counter,
        |it| Some(it.snapshot.as_ref().map_or(0, |it| it.failures) as f64);
    /// Time since the snapshot was written; absent until it has been.
    "collector_cache_snapshot_last_success_age_seconds": Gauge,
        |it| Some(it.snapshot.as_ref()?.last_success?.as_secs_f64());
    /// Size of the snapshot; absent until it has been written.
    "collector_cache_snapshot_bytes": Gauge, |it| Some(it.snapshot.as_ref()?.bytes? as f64);
};

/// The series of each backend.
const BACKEND_SERIES: &[Series<ValueOf<BackendState>>] = series! {
    /// Whether the backend is asked: 0 closed (asked), 1 half-open, 2 open (not asked).
    "collector_backend_breaker_state": Gauge, |it| match it.breaker {
        BreakerState::Closed => Some(0.0),
        BreakerState::HalfOpen => Some(1.0),
        BreakerState::Open => Some(2.0),
    };
    /// Requests sent to the backend.
    "collector_backend_requests_total": Counter, |it| Some(it.requests as f64);
    /// Answers that the backend pushed of its own accord and that were stored.
    "collector_backend_pushes_total": Counter, |it| Some(it.pushes as f64);
    /// Panics of the backend that were caught.
    "collector_backend_panics_total": Counter, |it| Some(it.panics as f64);
    /// Cycles of the background refresh left out because the one before them overran.
    "collector_background_cycles_skipped_total": Counter, |it| Some(it.skipped_cycles as f64);
    /// Share of the last looks that failed, which opens the breaker at 0.5; absent without any.
    "collector_backend_failure_ratio": Gauge,
        |it| (it.recent_looks > 0).then(|| it.recent_failures as f64 / it.recent_looks as f64);
    /// Time since the backend last answered; absent until it has.
    "collector_backend_last_success_age_seconds": Gauge,
        |it| Some(it.last_success?.as_secs_f64());
    /// Models of the last list of the backend; absent until it has listed them.
    "collector_backend_known_models": Gauge, |it| Some(it.listing.models? as f64);
    /// Age of that list; absent until then.
    "collector_backend_list_age_seconds": Gauge, |it| Some(it.listing.age?.as_secs_f64());
};

pub(super) fn describe_state(page: &mut Exposition, state: &CollectorState) {
    for series in COLLECTOR_SERIES {
        series.describe(page, iter::once(([], (series.value)(state))));
    }
    for series in BACKEND_SERIES {
        let backends = state.backends.iter();
        let samples = backends.map(|it| ([("backend", it.name.as_str())], (series.value)(it)));
        series.describe(page, samples);
    }
}

fn describe_program(page: &mut Exposition) {
    let mut family = page.family(
        "collector_build_info",
        Kind::Gauge,
        "Always 1; the labels are the version of the program and the commit it was built from.",
    );
    // A build of no known commit has an empty label, which is the same as none.
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("revision", env!("COLLECTOR_COMMIT"))];
    family.sample(&labels, 1.0);
}

/// What is read from files at each scrape, outside of the threads that answer requests: a file may be on a network.
/// One scrape at a time reads them, so that files that hang hold one thread.
async fn describe_files(app: &Arc<App>) -> String {
    let described = async {
        let permit = Arc::clone(&app.files).acquire_owned().await;
        let app = Arc::clone(app);
        let described = tokio::task::spawn_blocking(move || {
            let mut page = Exposition::default();
            Credentials::of(&app.loaded.config).describe(&mut page);
            drop(permit);
            page.into_text()
        });
        // A panic was logged. It costs no more than these series.
        described.await.unwrap_or_default()
    };
    timeout(FILES_TIMEOUT, described).await.unwrap_or_else(|_| {
        tracing::warn!(
            "Certificates and tokens are not on /metrics: their files take too long to read"
        );
        String::new()
    })
}

/// Whether each reading can be used, and its age. These stay when the series of its values are gone, so that an alert
/// on them holds.
fn describe_readings_up(page: &mut Exposition, tracked: &[TrackedModel]) {
    /// The age of a reading, or of what is known of one that is too old to be used.
    fn state<T: Part>(reading: &Result<Reading<T>, CollectError>) -> (bool, Option<Duration>) {
        match reading {
            Ok(reading) => (reading.freshness() != Freshness::Unavailable, Some(reading.age())),
            Err(CollectError::Unavailable { age, .. }) => (false, Some(*age)),
            Err(_) => (false, None),
        }
    }
    let mut readings = Vec::with_capacity(tracked.len());
    for TrackedModel { model, replicas, allocations, .. } in tracked {
        let (model_name, namespace) = (model.model.as_str(), model.namespace.as_str());
        let mut add = |variant, state| {
            let labels =
                [("model_name", model_name), ("namespace", namespace), ("variant_name", variant)];
            readings.push((labels, state));
        };
        add("", state(replicas));
        for (variant, reading) in allocations {
            add(variant.as_str(), state(reading));
        }
    }
    let mut family = page.family(
        "collector_reading_up",
        Kind::Gauge,
        "Whether the reading of the model, or of its variant, can be used: 1 fresh or stale, 0 otherwise.",
    );
    for (labels, (is_up, _)) in &readings {
        family.sample(labels, f64::from(u8::from(*is_up)));
    }
    let mut family = page.family(
        "collector_reading_age_seconds",
        Kind::Gauge,
        "Age of the reading, also of one that is too old to be used; absent while there has been none.",
    );
    for (labels, (_, age)) in &readings {
        if let Some(age) = age {
            family.sample(labels, age.as_secs_f64());
        }
    }
}

fn describe_pods(page: &mut Exposition, tracked: &[TrackedModel]) {
    let mut pods: BTreeMap<&str, usize> = BTreeMap::new();
    for tracked in tracked {
        // A model without a reading has an unknown number of pods, which is not 0.
        if let Ok(reading) = &tracked.replicas {
            *pods.entry(tracked.model.namespace.as_str()).or_default() +=
                reading.value().replicas.len();
        }
    }
    let mut family = page.family(
        "collector_discovered_pods",
        Kind::Gauge,
        "Pods in the readings of the tracked models.",
    );
    for (namespace, count) in pods {
        family.sample(&[("namespace", namespace)], count as f64);
    }
}

fn describe_paces(page: &mut Exposition, collector: &CachingCollector, tracked: &[TrackedModel]) {
    fn labels(model: &ModelRef) -> [(&'static str, &str); 2] {
        [("model_name", model.model.as_str()), ("namespace", model.namespace.as_str())]
    }
    let mut family = page.family(
        "collector_cache_ttl_seconds",
        Kind::Gauge,
        "How long a value of the model counts as current.",
    );
    let paces = tracked.iter().map(|tracked| (&tracked.model, collector.pace(&tracked.model)));
    let paces: Vec<(&ModelRef, Pace)> = paces.collect();
    for (model, pace) in &paces {
        family.sample(&labels(model), pace.ttl.as_secs_f64());
    }
    let mut family = page.family(
        "collector_cache_volatility_ratio",
        Kind::Gauge,
        "How far the field that moves most is expected to be off after a minute, 0.01 for a point; \
         absent where ttls do not adapt or nothing is known yet.",
    );
    for (model, pace) in &paces {
        let per_minute = match pace.reason {
            PaceReason::Moves { per_minute, .. } => per_minute,
            PaceReason::Still => 0.0,
            _ => continue,
        };
        family.sample(&labels(model), per_minute);
    }
}

/// How many readings have each status.
type Counts = BTreeMap<&'static str, u32>;

fn describe_freshness(page: &mut Exposition, tracked: &[TrackedModel]) {
    let mut counts: BTreeMap<(&str, &str), Counts> = BTreeMap::new();
    for tracked in tracked {
        let namespace = tracked.model.namespace.as_str();
        let mut count = |variant, status| {
            let counts: &mut Counts = counts.entry((variant, namespace)).or_default();
            *counts.entry(status).or_default() += 1;
        };
        for (variant, reading) in &tracked.allocations {
            count(variant.as_str(), status_of(reading));
        }
        if tracked.allocations.is_empty() {
            count("", status_of(&tracked.replicas));
        }
    }
    let mut family = page.family(
        "collector_readings",
        Kind::Gauge,
        "Readings of the variant that have this status; of no variant under an empty name.",
    );
    for ((variant, namespace), counts) in counts {
        for status in STATUSES {
            let count = counts.get(status).copied().unwrap_or_default();
            let labels = [("variant_name", variant), ("namespace", namespace), ("status", status)];
            family.sample(&labels, f64::from(count));
        }
    }
}

/// Returns one of [`STATUSES`]. A model whose backend failed before it had any value is unavailable.
fn status_of<T: Part>(reading: &Result<Reading<T>, CollectError>) -> &'static str {
    match reading {
        Ok(reading) => reading.freshness().as_str(),
        Err(CollectError::Missing { .. } | CollectError::UnknownVariant { .. }) => "missing",
        Err(_) => Freshness::Unavailable.as_str(),
    }
}
