// SPDX-License-Identifier: Apache-2.0
//! What a controller calls.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::backend::KnownModel;
use crate::cache::CacheStats;
use crate::error::{BackendError, ErrorKind};
use crate::metrics::{Allocation, Replicas};
use crate::model::{BackendName, ModelRef, VariantName};
use crate::nearest::Nearest;
use crate::reading::Reading;
use crate::text::{counted, shortened};

/// Reads the load of LLM-inference fleets: from memory where it can, always with the true age.
///
/// What consumers of readings use, and mock in their tests (`collector_testkit::FakeCollector`). Starting, stopping and
/// administration belong to the owner of the collector, `collector_engine::CachingCollector`.
#[async_trait]
pub trait MetricsCollector: Send + Sync + 'static {
    /// Replica metrics of `model`, from the cache when its entry is there.
    ///
    /// Past the ttl the last good value is returned with its true age while a refresh runs, until it
    /// is unavailable. Collecting tracks: a model that was found is refreshed in the background until
    /// nobody has read it for 5 minutes.
    ///
    /// # Errors
    /// [`Missing`](CollectError::Missing): the backend knows no such series.
    /// [`Unavailable`](CollectError::Unavailable): there is nothing younger than
    /// `unavailable_threshold`. [`Backend`](CollectError::Backend): asked now, and it failed.
    ///
    /// # Concurrent calls
    /// Calls for one model share one request to the backend; calls for several models within a few
    /// milliseconds share one batch.
    ///
    /// # Cancel safety
    /// Dropping the future keeps the shared request running for the other waiters and the cache.
    async fn collect_replica_metrics(
        &self,
        model: &ModelRef,
    ) -> Result<Reading<Replicas>, CollectError>;

    /// The same reading narrowed to the replicas of one variant, without another request.
    ///
    /// # Errors
    /// As [`collect_replica_metrics`](Self::collect_replica_metrics), and
    /// [`UnknownVariant`](CollectError::UnknownVariant).
    async fn collect_variant_metrics(
        &self,
        model: &ModelRef,
        variant: &VariantName,
    ) -> Result<Reading<Replicas>, CollectError>;

    /// The load of one variant of `model`, from the same fetch as its replicas.
    ///
    /// Caching, concurrency and cancellation are those of
    /// [`collect_replica_metrics`](Self::collect_replica_metrics).
    ///
    /// # Errors
    /// As there, and [`UnknownVariant`](CollectError::UnknownVariant).
    async fn collect_allocation(
        &self,
        model: &ModelRef,
        variant: &VariantName,
    ) -> Result<Reading<Allocation>, CollectError>;

    /// The replica metrics of many models, in their order: one read of the clock, one request to the
    /// backend for all that are not cached.
    ///
    /// Each is what [`collect_replica_metrics`](Self::collect_replica_metrics) would say, and so are
    /// concurrency and cancellation.
    async fn collect_many(
        &self,
        models: &[ModelRef],
    ) -> Vec<Result<Reading<Replicas>, CollectError>>;

    /// The cached replica metrics of `model`, without waiting for anything: the path of
    /// [`collect_replica_metrics`](Self::collect_replica_metrics) for what is cached, past its ttl
    /// too. It allocates nothing, and waits for nothing but a cache that is
    /// being written to at that moment.
    ///
    /// `None` says nothing about the model: it is not cached, unavailable, or known to be missing; collect
    /// it to learn which. It counts as a read. Past the ttl it starts a refresh, inside of a tokio
    /// runtime; outside of one the background worker alone refreshes.
    fn cached_replicas(&self, model: &ModelRef) -> Option<Reading<Replicas>>;

    /// The cached allocation of a variant, in the same way.
    fn cached_allocation(
        &self,
        model: &ModelRef,
        variant: &VariantName,
    ) -> Option<Reading<Allocation>>;

    /// Whether there are metrics to decide from, and if not, why and what to check.
    async fn validate_metrics_availability(&self, model: &ModelRef) -> Availability;

    /// The models the backend knows, tracked or not.
    ///
    /// # Errors
    /// When the backend cannot be asked or cannot list.
    async fn list_models(&self) -> Result<Vec<KnownModel>, CollectError>;
}

/// Why there is no reading. Clones share the backend's error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// The backend answered and has no series of this model: neither zero nor an error.
    #[error("no metrics of {model}{}", describe_nearest(.nearest))]
    Missing {
        /// What was asked for.
        model: ModelRef,
        /// What exists instead.
        nearest: Arc<Nearest>,
    },
    /// The last known value is too old to be used.
    #[error(
        "metrics of {model} are {} old, unavailable from {} on{}",
        humantime::format_duration(Duration::from_secs(.age.as_secs())),
        humantime::format_duration(*.threshold),
        describe_cause(.cause.as_deref())
    )]
    Unavailable {
        /// What was asked for.
        model: ModelRef,
        /// The age of what is known.
        age: Duration,
        /// `unavailable_threshold`.
        threshold: Duration,
        /// Why there is nothing newer, where a fetch failed.
        cause: Option<Arc<BackendError>>,
    },
    /// The backend was asked now and failed, and nothing usable is cached.
    #[error(transparent)]
    Backend(#[from] Arc<BackendError>),
    /// No variant of that name serves the model.
    #[error("{model} has no variant {:?}{}", shortened(.variant.as_str()), describe_variants(.known))]
    UnknownVariant {
        /// The model.
        model: ModelRef,
        /// The variant asked for.
        variant: VariantName,
        /// The variants that the model does have.
        known: Vec<VariantName>,
    },
    /// The model is tracked and its first fetch has not ended yet.
    #[error("metrics of {model} have not been collected yet")]
    Pending {
        /// The model.
        model: ModelRef,
    },
    /// As many models are tracked as may be.
    #[error("{limit} models are tracked already, which is the limit: raise server.max_tracked")]
    TooManyModels {
        /// The limit.
        limit: usize,
    },
}

fn describe_nearest(nearest: &Nearest) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    if let Some(pods) = nearest.pods {
        let count = counted(pods.all(), "pod", "pods");
        let _ = write!(
            text,
            "; the cluster has {count} of it ({pods}), and no backend has series of them"
        );
    } else if let Some(ago) = nearest.last_seen {
        let ago = humantime::format_duration(Duration::from_secs(ago.as_secs()));
        let _ = write!(text, "; it was last there {ago} ago: no pod of it runs any more");
    } else if !nearest.namespaces.is_empty() {
        let _ = write!(text, "; it exists in namespace {}", listed(&nearest.namespaces));
    } else if !nearest.models.is_empty() {
        let _ = write!(text, "; did you mean {}?", listed(&nearest.models));
    } else if !nearest.in_namespace.is_empty() {
        let _ = write!(text, "; the namespace has {}", listed(&nearest.in_namespace));
    } else if nearest.known == Some(0) {
        text.push_str("; the backend knows no model at all: is it scraping the model servers?");
    }
    text
}

fn describe_cause(cause: Option<&BackendError>) -> String {
    cause.map_or_else(String::new, |cause| format!(": {cause}"))
}

fn describe_variants(known: &[VariantName]) -> String {
    if known.is_empty() {
        "; it has none: add [[variants]] to the configuration".to_owned()
    } else {
        format!("; it has {}", listed(known))
    }
}

fn listed<T: AsRef<str>>(names: &[T]) -> String {
    names
        .iter()
        .map(|name| format!("{:?}", shortened(name.as_ref())))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The reason of an [`Availability`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AvailabilityReason {
    /// There are metrics, fresh or stale.
    MetricsFound,
    /// The model has no series.
    MetricsMissing,
    /// What there is, is too old.
    MetricsStale,
    /// The backend failed.
    BackendError,
    /// Nothing has been collected yet, or it is no longer wanted.
    MetricsPending,
    /// As many models are tracked as may be, and this is none of them.
    TooManyModels,
}

/// The answer of [`MetricsCollector::validate_metrics_availability`]; the condition
/// `MetricsAvailable` of a VariantAutoscaling object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Availability {
    /// Whether to decide from the metrics.
    pub available: bool,
    /// Why.
    pub reason: AvailabilityReason,
    /// The backend the answer is about.
    pub backend: BackendName,
    /// Why in words, with what to check.
    pub message: String,
}

impl Availability {
    /// The reason as conditions name it: `MetricsFound`, `MetricsMissing`, `MetricsStale`,
    /// `MetricsPending`, `TooManyModels`, or the backend's own, `PrometheusError` for the backend
    /// `prometheus`.
    pub fn reason_name(&self) -> String {
        match self.reason {
            AvailabilityReason::MetricsFound => "MetricsFound".to_owned(),
            AvailabilityReason::MetricsMissing => "MetricsMissing".to_owned(),
            AvailabilityReason::MetricsStale => "MetricsStale".to_owned(),
            AvailabilityReason::BackendError => backend_error_reason(&self.backend),
            AvailabilityReason::MetricsPending => "MetricsPending".to_owned(),
            AvailabilityReason::TooManyModels => "TooManyModels".to_owned(),
        }
    }
}

/// `PrometheusError` for `prometheus`, `StaticJsonError` for `static-json`.
fn backend_error_reason(backend: &BackendName) -> String {
    let mut reason = String::new();
    for word in backend.as_str().split(|c: char| !c.is_alphanumeric()) {
        let mut letters = word.chars();
        reason.extend(letters.next().into_iter().flat_map(char::to_uppercase));
        reason.push_str(letters.as_str());
    }
    reason.push_str("Error");
    reason
}

impl CollectError {
    /// The reason in error documents: `MetricsMissing`, `MetricsStale`, the backend's own
    /// (`PrometheusError`), `MetricsPending` or `TooManyModels`.
    pub fn reason_name(&self) -> String {
        match self {
            Self::Missing { .. } | Self::UnknownVariant { .. } => "MetricsMissing".to_owned(),
            Self::Unavailable { .. } => "MetricsStale".to_owned(),
            Self::Pending { .. } => "MetricsPending".to_owned(),
            Self::Backend(error) if error.kind() == ErrorKind::Ambiguous => "Ambiguous".to_owned(),
            Self::Backend(error) => backend_error_reason(error.backend()),
            Self::TooManyModels { .. } => "TooManyModels".to_owned(),
        }
    }
}

/// One tracked model.
#[derive(Clone, Debug)]
pub struct TrackedModel {
    /// The model.
    pub model: ModelRef,
    /// The reading as it stands, or why there is none. A value past `unavailable_threshold` is
    /// [`CollectError::Unavailable`].
    pub replicas: Result<Reading<Replicas>, CollectError>,
    /// The same for each tracked variant.
    pub allocations: Vec<(VariantName, Result<Reading<Allocation>, CollectError>)>,
}

/// Whether a backend is asked at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerState {
    /// Asked.
    Closed,
    /// One fetch is in flight to see whether the backend is back.
    HalfOpen,
    /// Not asked for now.
    Open,
}

impl BreakerState {
    /// The word used in JSON and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half-open",
            Self::Open => "open",
        }
    }
}

/// How one backend is doing.
#[derive(Clone, Debug)]
pub struct BackendState {
    /// The backend.
    pub name: BackendName,
    /// Whether it is asked.
    pub breaker: BreakerState,
    /// Fetches from it that the breaker judges by: the last 20, of the last minute, since it was closed.
    pub recent_looks: usize,
    /// How many of them failed; the breaker opens when it is half of them.
    pub recent_failures: usize,
    /// For how long the breaker has not been closed; `None` when it is.
    pub open_for: Option<Duration>,
    /// In how long it is tried whether the backend is back; `None` unless the breaker is open.
    pub retry_in: Option<Duration>,
    /// How long ago a fetch from it was last answered; `None` when none has been.
    pub last_success: Option<Duration>,
    /// Why the last fetch failed; `None` when it did not.
    pub last_error: Option<Arc<BackendError>>,
    /// Of a fetch that was answered: the fields of a model that could not be asked for, and why. `None`
    /// once all fields of that model are answered.
    pub failed_fields: Option<Arc<BackendError>>,
    /// Panics of it that were caught.
    pub panics: u64,
    /// Requests sent to it.
    pub requests: u64,
    /// The requests that may be sent to it now.
    pub budget: BudgetState,
    /// Cycles of its background refresh, or of its own, that have ended, well or badly.
    pub cycles: u64,
    /// Cycles of its background refresh that were left out, because the one before them took longer
    /// than the interval.
    pub skipped_cycles: u64,
    /// Answers that it has pushed and that were stored.
    pub pushes: u64,
    /// What it said when it was last asked for its models.
    pub listing: ListingState,
}

/// The requests that may be sent to a backend now. Scrapes of pods have deadlines of their own and are not counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BudgetState {
    /// Requests in flight.
    pub in_flight: usize,
    /// How many may be in flight at once.
    pub max_in_flight: usize,
    /// How many may be sent a second in the long run; 0 is no limit.
    pub per_second: u32,
    /// How many may be sent at once now, as far as the limit a second goes; `None` without one.
    pub burst_left: Option<u32>,
}

/// What a backend said when it was last asked for its models.
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct ListingState {
    /// Models of its last list; `None` when it has never returned one.
    pub models: Option<usize>,
    /// How long ago that was.
    pub age: Option<Duration>,
    /// Why it could not be listed since; [`Unsupported`](ErrorKind::Unsupported) if it never can. `None` when it was
    /// listed, or not asked yet.
    pub error: Option<Arc<BackendError>>,
}

/// What the backends list, and what of it is tracked without a read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct DiscoveryState {
    /// Whether listed models are tracked.
    pub tracks: bool,
    /// Models are to be tracked, and a backend has not been asked for them yet.
    pub pending: bool,
    /// Models that the backends listed, each in its last list; `None` when no backend has listed any yet, which is not 0.
    pub known: Option<usize>,
    /// Of these, how many are in namespaces that discovery leaves out.
    pub excluded: usize,
    /// Of these, how many are not tracked because as many are tracked as may be.
    pub left_out: usize,
}

/// How the file with the last readings is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotState {
    /// How long ago it was written; `None` when this process has not written it yet.
    pub last_success: Option<Duration>,
    /// How many bytes that was.
    pub bytes: Option<u64>,
    /// Writes that failed.
    pub failures: u64,
}

/// Counters of a collector since it was made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CollectorState {
    /// Its backends, in order of preference.
    pub backends: Vec<BackendState>,
    /// Its cache.
    pub cache: CacheStats,
    /// Reads answered from the cache within the ttl.
    pub hits: u64,
    /// Reads for which the backend had to be asked.
    pub misses: u64,
    /// Reads answered with a last known good value.
    pub stale_serves: u64,
    /// Of the misses, those that joined a fetch under way.
    pub coalesced_misses: u64,
    /// Models refreshed in the background.
    pub background_refreshes: u64,
    /// Cycles of the background refresh that have ended at every backend, well or badly.
    pub cycles: u64,
    /// Panics of outside code other than backends, a cache or a directory, that were caught.
    pub panics: u64,
    /// Models tracked now.
    pub tracked: usize,
    /// What the backends list; `None` where they are only asked on demand.
    pub discovery: Option<DiscoveryState>,
    /// The snapshot, where one is kept.
    pub snapshot: Option<SnapshotState>,
}

impl CollectorState {
    /// The state of a collector that has done nothing yet.
    pub fn new(backends: Vec<BackendState>, cache: CacheStats) -> Self {
        Self {
            backends,
            cache,
            hits: 0,
            misses: 0,
            stale_serves: 0,
            coalesced_misses: 0,
            background_refreshes: 0,
            cycles: 0,
            panics: 0,
            tracked: 0,
            discovery: None,
            snapshot: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supply::PodCounts;

    #[test]
    fn the_reason_of_a_backend_error_names_the_backend() {
        assert_eq!(backend_error_reason(&"prometheus".into()), "PrometheusError");
        assert_eq!(backend_error_reason(&"static-json".into()), "StaticJsonError");
    }

    #[test]
    fn a_missing_model_names_what_exists() {
        let model = ModelRef::new("llama", "prod");
        let missing =
            |nearest| CollectError::Missing { model: model.clone(), nearest: Arc::new(nearest) };
        let near = Nearest { models: vec!["llama-8b".into()], ..Nearest::default() };
        assert_eq!(
            missing(near).to_string(),
            r#"no metrics of model "llama" in namespace "prod"; did you mean "llama-8b"?"#
        );
        let elsewhere = Nearest { namespaces: vec!["dev".into()], ..Nearest::default() };
        assert!(missing(elsewhere).to_string().ends_with(r#"it exists in namespace "dev""#));
        let pods = PodCounts { ready: 2, starting: 1, ..PodCounts::default() };
        let listed = Nearest { pods: Some(pods), known: Some(0), ..Nearest::default() };
        assert!(missing(listed).to_string().ends_with(
            "; the cluster has 3 pods of it (2 ready, 1 starting), and no backend has series of them"
        ));
        let empty = Nearest { known: Some(0), ..Nearest::default() };
        assert!(missing(empty).to_string().contains("knows no model at all"));
    }
}
