//! Puts a collector together.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use collector_cache::{MemoryCache, NoOpCache};
use collector_core::{Backend, Clock, MetricsCache, NoVariants, SystemClock, VariantDirectory};

use crate::collector::CachingCollector;
use crate::config::{CacheConfig, TimingError};
use crate::engine::{Counters, Engine};
use crate::source::Source;

/// What a backend is given for one request unless it is told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many models are tracked at most unless told otherwise.
pub const DEFAULT_MAX_TRACKED: usize = 10_000;

/// After how long an open circuit looks again at the latest: a server that is back is noticed within
/// this time, whatever the fetch interval.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Settings that cannot work together; says all of them.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct TimingErrors(pub Vec<TimingError>);

/// Builds a [`CachingCollector`] of chosen parts.
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    backend: Arc<dyn Backend>,
    config: CacheConfig,
    timeout: Duration,
    max_tracked: usize,
    directory: Arc<dyn VariantDirectory>,
    cache: Option<Arc<dyn MetricsCache>>,
    clock: Arc<dyn Clock>,
}

impl Builder {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            config: CacheConfig::default(),
            timeout: DEFAULT_TIMEOUT,
            max_tracked: DEFAULT_MAX_TRACKED,
            directory: Arc::new(NoVariants),
            cache: None,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// How to cache and refresh. Default: [`CacheConfig::default`].
    pub fn config(mut self, config: CacheConfig) -> Self {
        self.config = config;
        self
    }

    /// What the backend gives one request to its server. A whole call, with its retries, takes at
    /// most 3 times as long and 1 s. Default 5 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How many models are tracked at most. Default 10 000.
    pub fn max_tracked(mut self, max_tracked: usize) -> Self {
        self.max_tracked = max_tracked;
        self
    }

    /// Which pod belongs to which variant. The models of its variants are tracked from the start.
    /// Default: none.
    pub fn directory(mut self, directory: Arc<dyn VariantDirectory>) -> Self {
        self.directory = directory;
        self
    }

    /// Where entries are kept. Default: a [`MemoryCache`], or a [`NoOpCache`] when caching is not
    /// enabled.
    pub fn cache(mut self, cache: Arc<dyn MetricsCache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// What time it is. Default: a [`SystemClock`].
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The collector.
    ///
    /// # Errors
    /// When the timings contradict each other.
    pub fn build(self) -> Result<CachingCollector, TimingErrors> {
        self.config.validate("timeout", self.timeout).map_err(TimingErrors)?;
        Ok(self.assemble())
    }

    pub(crate) fn assemble(self) -> CachingCollector {
        let Self { config, clock, .. } = self;
        let cache = self.cache.unwrap_or_else(|| {
            if config.enabled {
                Arc::new(MemoryCache::new(config.max_entries))
            } else {
                Arc::new(NoOpCache)
            }
        });
        let longest_pause = if config.fetch_interval.is_zero() {
            LONGEST_PAUSE
        } else {
            LONGEST_PAUSE.min(config.fetch_interval / 2)
        };
        let directory_generation = self.directory.generation();
        let engine = Engine {
            source: Source::new(self.backend, longest_pause, Arc::clone(&clock)),
            cache,
            directory: self.directory,
            clock,
            config,
            call_limit: self.timeout * 3 + Duration::from_secs(1),
            max_tracked: self.max_tracked,
            flights: crate::flight::Flights::default(),
            gate: crate::gate::Gate::default(),
            tracker: crate::tracker::Tracker::default(),
            known: crate::known::Known::default(),
            counters: Counters::default(),
            refresh_failing: AtomicBool::new(false),
            // Read before the directory's variants are: a change in between is then followed.
            directory_generation: directory_generation.into(),
            shift: std::sync::Mutex::default(),
        };
        CachingCollector::of(engine)
    }
}
