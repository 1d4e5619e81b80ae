// SPDX-License-Identifier: Apache-2.0
//! Puts a collector together.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use collector_cache::{MemoryCache, NoOpCache};
use collector_core::{
    Backend, Clock, Limits, MetricsCache, NoVariants, SystemClock, VariantDirectory,
};

use crate::collector::CachingCollector;
use crate::config::{CacheConfig, TimingError};
use crate::counters::Counters;
use crate::engine::Engine;
use crate::fetch::Source;
use crate::refresh::{Discoverer, Discovery, Paces};
use crate::snapshot::Snapshot;

/// How long a batch waits for others by default: concurrent readers ask for their models within a few
/// milliseconds.
const BATCH_WINDOW: Duration = Duration::from_millis(3);

/// How many models are tracked at most by default.
pub const DEFAULT_MAX_TRACKED: usize = 10_000;

/// After how long an open circuit tries again at the latest: a server that is back is noticed within
/// this time, whatever the fetch interval.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// All settings that contradict each other.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct TimingErrors(pub Vec<TimingError>);

/// A backend with what it may do.
struct Joining {
    backend: Arc<dyn Backend>,
    limits: Limits,
}

impl Joining {
    fn new(backend: Arc<dyn Backend>) -> Self {
        Self { limits: backend.limits(), backend }
    }
}

/// Builds a [`CachingCollector`] of chosen parts.
#[must_use = "a builder does nothing until `build`"]
pub struct Builder {
    /// At least one.
    backends: Vec<Joining>,
    config: CacheConfig,
    max_tracked: usize,
    discovery: Option<Discovery>,
    batch_window: Duration,
    directory: Arc<dyn VariantDirectory>,
    cache: Option<Arc<dyn MetricsCache>>,
    clock: Arc<dyn Clock>,
}

impl Builder {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backends: vec![Joining::new(backend)],
            config: CacheConfig::default(),
            max_tracked: DEFAULT_MAX_TRACKED,
            discovery: None,
            batch_window: BATCH_WINDOW,
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

    /// Another backend, which comes after those that were given before: each field is taken from the
    /// first that has it fresh, and the others fill what is missing.
    ///
    /// The backends need names of their own.
    pub fn also(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backends.push(Joining::new(backend));
        self
    }

    /// How long a request of the backend that was given last may take, and how many it sends, whoever wants
    /// them; waiting callers come first. Default: its [own](Backend::limits).
    pub fn limits(mut self, limits: Limits) -> Self {
        if let Some(last) = self.backends.last_mut() {
            last.limits = limits;
        }
        self
    }

    /// How many models are tracked at most. Default 10 000.
    pub fn max_tracked(mut self, max_tracked: usize) -> Self {
        self.max_tracked = max_tracked;
        self
    }

    /// Lists the models of the backends once the background worker runs, at first and then every minute (or every
    /// `fetch_interval`, if that is longer), and tracks them, up to the limit. Default: a model is tracked once it is
    /// read.
    ///
    /// A model stays tracked while a backend lists it, so [`CachingCollector::stop_tracking`] lasts until the next list.
    /// Without a background refresh nothing is tracked.
    pub fn discover(mut self, discovery: Discovery) -> Self {
        self.discovery = Some(discovery);
        self
    }

    /// Asks at once for what is not cached, and waits for no others that could be asked for with it: for a
    /// program that reads once. Default: 3 ms.
    pub fn at_once(mut self) -> Self {
        self.batch_window = Duration::ZERO;
        self
    }

    /// Which pod belongs to which variant. The models of its variants are tracked from the start.
    /// Default: none.
    pub fn directory(mut self, directory: Arc<dyn VariantDirectory>) -> Self {
        self.directory = directory;
        self
    }

    /// Where records are kept. Default: a [`MemoryCache`], or a [`NoOpCache`] when caching is not enabled.
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
    ///
    /// # Panics
    /// When two backends have one name: their answers could not be distinguished.
    pub fn build(self) -> Result<CachingCollector, TimingErrors> {
        let asked = self.backends.iter().filter(|joining| joining.backend.live().is_none());
        let timeouts: Vec<_> = asked.map(|joining| ("timeout", joining.limits.timeout)).collect();
        self.config.validate(&timeouts).map_err(TimingErrors)?;
        let slowest = timeouts.iter().map(|(_, timeout)| *timeout).max().unwrap_or_default();
        let intervals: Vec<TimingError> = self
            .directory
            .variants()
            .iter()
            .filter_map(|variant| {
                let checked = self.config.check_interval(variant.fetch_interval?, slowest);
                let error = checked.err()?;
                Some(TimingError::Interval { variant: variant.name.clone(), error })
            })
            .collect();
        if !intervals.is_empty() {
            return Err(TimingErrors(intervals));
        }
        Ok(self.assemble())
    }

    fn assemble(self) -> CachingCollector {
        let Self { config, clock, .. } = self;
        let cache: Arc<dyn MetricsCache> = match self.cache {
            Some(cache) => cache,
            None if config.enabled => {
                Arc::new(MemoryCache::new(config.max_entries, config.max_bytes))
            }
            None => Arc::new(NoOpCache),
        };
        let longest_pause = if config.fetch_interval.is_zero() {
            LONGEST_PAUSE
        } else {
            LONGEST_PAUSE.min(config.fetch_interval / 2)
        };
        let source = |joining: Joining| {
            let Joining { backend, limits } = joining;
            Source::new(backend, limits, longest_pause, Arc::clone(&clock))
        };
        let sources: Vec<Source> = self.backends.into_iter().map(source).collect();
        let names: Vec<_> = sources.iter().map(|source| source.name.clone()).collect();
        let own_name = |(index, name)| !names[..index].contains(name);
        assert!(names.iter().enumerate().all(own_name), "two backends are named alike: {names:?}");
        let directory_generation = self.directory.generation();
        let snapshot = config.snapshot_path.clone().map(Snapshot::new);
        let paces = Paces::new(&config);
        let refreshes = !config.fetch_interval.is_zero() || sources.iter().any(Source::pushes);
        let refreshes = refreshes && cache.retains();
        let discoverer = self.discovery.map(|discovery| Discoverer::new(discovery, refreshes));
        let engine = Engine {
            sources,
            names,
            cache,
            directory: self.directory,
            clock,
            catch_up_at: AtomicU64::new(0),
            config,
            max_tracked: self.max_tracked,
            discoverer,
            batch_window: self.batch_window,
            paces,
            counters: Counters::default(),
            ages: std::sync::Mutex::default(),
            models: crate::state::Models::default(),
            // Read before the directory's variants are: a change in between is then followed.
            directory_generation: directory_generation.into(),
            snapshot,
            tasks: std::sync::Mutex::default(),
        };
        CachingCollector::of(engine)
    }
}
