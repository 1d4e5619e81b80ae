//! Everything that a user sets, and the composition of the parts.
//!
//! A [`Loader`] puts the layers over each other (defaults < file < environment < flags), checks the
//! whole and tells everything that is wrong with it; [`CollectorConfig::build`] makes the collector:
//!
//! ```
//! # #[cfg(feature = "prometheus")] {
//! use std::sync::Arc;
//! use collector_config::Loader;
//! use collector_core::{MetricsCollector, SystemClock};
//!
//! let loaded = Loader::new()
//!     .env([("PROMETHEUS_BASE_URL".to_owned(), "https://prometheus:9090".to_owned())])
//!     .flag("cache.ttl", "45s", "--cache-ttl")
//!     .load()?;
//! assert_eq!(loaded.origins.of("cache.ttl").to_string(), "--cache-ttl");
//! let collector = loaded.config.build(Arc::new(SystemClock::new()))?;
//! # assert_eq!(collector.cache_size(), 0);
//! # }
//! # Ok::<(), collector_config::ConfigErrors>(())
//! ```
//!
//! # In code, without a file
//!
//! With the defaults: what is read is cached, tracked and refreshed every 30 s.
//!
//! ```no_run
//! # #[cfg(feature = "prometheus")] {
//! use std::sync::Arc;
//! use collector_core::{MetricsCollector, ModelRef, SystemClock};
//! use collector_engine::CachingCollector;
//! use collector_prometheus::{PrometheusBackend, PrometheusConfig};
//!
//! # async fn read() -> Result<(), Box<dyn std::error::Error>> {
//! let server = PrometheusConfig { url: "https://prometheus:9090".into(), ..Default::default() };
//! let collector =
//!     CachingCollector::new(PrometheusBackend::new(server, Arc::new(SystemClock::new()))?)?;
//! collector.start_background_worker();
//!
//! // From the cache where it has the model, else from the server.
//! let model = ModelRef::new("meta-llama/Llama-3.1-8B", "prod");
//! let reading = collector.collect_replica_metrics(&model).await?;
//! # Ok(()) }
//! # }
//! ```
//!
//! With settings of one's own, which are checked against each other:
//!
//! ```
//! # #[cfg(feature = "prometheus")] {
//! # use std::sync::Arc;
//! use std::time::Duration;
//! use collector_core::FreshnessThresholds;
//! # use collector_core::{MetricsCollector, SystemClock};
//! use collector_engine::{CacheConfig, CachingCollector};
//! # use collector_prometheus::{PrometheusBackend, PrometheusConfig};
//!
//! # let server = PrometheusConfig { url: "https://prometheus:9090".into(), ..Default::default() };
//! # let backend = PrometheusBackend::new(server, Arc::new(SystemClock::new()))?;
//! let config = CacheConfig {
//!     ttl: Duration::from_secs(60),
//!     cleanup_interval: Duration::from_secs(120),
//!     fetch_interval: Duration::from_secs(45),
//!     freshness: FreshnessThresholds {
//!         fresh_threshold: Duration::from_secs(90),
//!         stale_threshold: Duration::from_secs(180),
//!         unavailable_threshold: Duration::from_secs(600),
//!     },
//!     ..CacheConfig::default()
//! };
//! let collector = CachingCollector::with_config(backend, config)?;
//! # assert_eq!(collector.determine_status(Duration::from_secs(89)).as_str(), "fresh");
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Without caching: every read asks the server, and reads of one model at one time share an answer.
//!
//! ```
//! # #[cfg(feature = "prometheus")] {
//! # use std::sync::Arc;
//! # use collector_core::{MetricsCollector, SystemClock};
//! # use collector_engine::{CacheConfig, CachingCollector};
//! # use collector_prometheus::{PrometheusBackend, PrometheusConfig};
//! # let server = PrometheusConfig { url: "https://prometheus:9090".into(), ..Default::default() };
//! # let backend = PrometheusBackend::new(server, Arc::new(SystemClock::new()))?;
//! let config = CacheConfig { enabled: false, ..CacheConfig::default() };
//! let collector = CachingCollector::with_config(backend, config)?;
//! # assert_eq!(collector.cache_size(), 0);
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Managing the cache by hand:
//!
//! ```
//! # #[cfg(feature = "prometheus")] {
//! # use std::sync::Arc;
//! use collector_core::{MetricsCollector, ModelRef, VariantRef};
//! # use collector_core::SystemClock;
//! # use collector_engine::CachingCollector;
//! # use collector_prometheus::{PrometheusBackend, PrometheusConfig};
//!
//! # let server = PrometheusConfig { url: "https://prometheus:9090".into(), ..Default::default() };
//! # let backend = PrometheusBackend::new(server, Arc::new(SystemClock::new()))?;
//! # let collector = CachingCollector::new(backend)?;
//! // Drop what is cached of one model; the next read asks the server.
//! let dropped = collector.invalidate_cache(&ModelRef::new("meta-llama/Llama-3.1-8B", "prod"));
//!
//! // A variant was deleted: refresh it no longer, and drop what is cached of it.
//! collector.stop_tracking(&VariantRef::new("llama-h100", "prod"));
//!
//! let entries = collector.cache_size();
//! # assert_eq!((dropped, entries), (0, 0));
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod backend;
mod compose;
mod document;
mod environment;
mod error;
mod extract;
mod file;
mod key;
mod keys;
mod layer;
mod load;
mod loaded;
mod nearest;
mod origin;
mod reference;
mod schema;
mod text;
mod validate;

pub use backend::{BackendFactory, BackendSettings, Problem, Section, SectionError};
pub use collector_engine::{CacheConfig, VariantSpec};
pub use error::{ConfigError, ConfigErrors};
pub use key::{Key, Kind, address};
pub use keys::VARIANT_KEYS;
pub use load::Loader;
pub use loaded::{LeftOut, Loaded};
pub use origin::{Entry, Origin, Origins};
pub use schema::{CollectorConfig, LogConfig, LogFormat, LogLevel, ServerConfig};

/// The code in the README, compiled as a doc test: this crate has all that it uses.
#[cfg(all(doctest, feature = "prometheus"))]
#[doc = include_str!("../../README.md")]
struct Readme;
