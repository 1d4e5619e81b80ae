// SPDX-License-Identifier: Apache-2.0
//! The configuration of the metrics collector, and its composition from the parts.
//!
//! A [`Loader`] merges the layers (defaults < file < environment < flags), validates the result and reports
//! every mistake; [`CollectorConfig::build`] makes the collector:
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
#![cfg_attr(docsrs, feature(doc_cfg))]

mod backend;
mod changes;
mod cluster;
mod compose;
mod directory;
mod document;
mod environment;
mod error;
mod external_metrics;
mod extract;
mod file;
mod keda;
mod key;
mod keys;
mod kubernetes;
mod layer;
mod load;
mod loaded;
mod metrics;
mod nearest;
mod origin;
mod promql;
mod reference;
mod schema;
mod text;
mod validate;

pub use backend::{BackendFactory, BackendSettings, BoxError, Problem, Section, SectionError};
pub use collector_engine::{CacheConfig, VariantSpec};
pub use compose::NamedBackend;
pub use error::{ConfigError, ConfigErrors};
pub use external_metrics::ExternalMetricsConfig;
pub use keda::KedaConfig;
pub use key::{Key, Kind, address};
pub use kubernetes::KubernetesConfig;
pub use load::Loader;
pub use loaded::{LeftOut, Loaded};
pub use metrics::MetricsConfig;
pub use origin::{Entry, Origin, Origins};
pub use promql::{AnchorSpec, AnchorStrength, PartialAnswers, PromqlConfig};
pub use schema::{CollectorConfig, LogConfig, LogFormat, LogLevel, ServerConfig, TrackingConfig};
