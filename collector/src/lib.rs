// SPDX-License-Identifier: Apache-2.0
//! A metrics collector under autoscalers of LLM-inference fleets, as one dependency.
//!
//! It reads what the replicas of a model and their load are, from a Prometheus, from the pods themselves or
//! from a backend of your own, keeps it in memory, refreshes it in the background, and says of each reading
//! how old it is. Missing, zero and error are three different things everywhere.
//!
//! ```no_run
//! # #[cfg(feature = "prometheus")]
//! # async fn read() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use collector::prelude::*;
//! use collector::prometheus::{PrometheusBackend, PrometheusConfig};
//!
//! let server = PrometheusConfig { url: "https://prometheus:9090".into(), ..Default::default() };
//! let backend = PrometheusBackend::new(server, Arc::new(SystemClock::new()))?;
//! let collector = CachingCollector::new(backend)?;
//! collector.start_background_worker().await?;
//!
//! // From memory where it has the model, else from the server.
//! let model = ModelRef::new("meta-llama/Llama-3.1-8B", "prod");
//! let reading = collector.collect_replica_metrics(&model).await?;
//! println!("{}, {:?} old", reading.freshness(), reading.age());
//! # Ok(()) }
//! ```
//!
//! With settings of your own, which are checked against each other:
//!
//! ```
//! # #[cfg(feature = "prometheus")] {
//! # use std::sync::Arc;
//! use std::time::Duration;
//!
//! use collector::core::FreshnessThresholds;
//! use collector::prelude::*;
//! # use collector::prometheus::{PrometheusBackend, PrometheusConfig};
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
//! With `CacheConfig { enabled: false, .. }` nothing is kept: every read asks the server, and reads of one
//! model at the same time share its answer.
//!
//! Managing the cache by hand:
//!
//! ```
//! # #[cfg(feature = "prometheus")] {
//! # use std::sync::Arc;
//! # use collector::prelude::*;
//! # use collector::prometheus::{PrometheusBackend, PrometheusConfig};
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
//!
//! # Where to go on
//! - [`CachingCollector`](engine::CachingCollector) reads; its builder takes a cache, a clock and a directory
//!   of variants of your own, and [`CacheConfig`](engine::CacheConfig) says how long values are kept;
//! - [`Backend`](core::Backend) is what you write to collect from somewhere new, and `testkit` shows that it
//!   keeps its promises;
//! - `config` reads files and variables, and lets them choose your backend; with `cli`, a `main` of three
//!   lines has every command of `collector`;
//! - `documents` has the types of the JSON that the command line prints and the HTTP API answers;
//! - the [examples](https://github.com/inference-collector/collector/tree/main/examples) run as they are.
//!
//! # Features
//! `prometheus` (default), `epp`, `promql`, `keda`, `record`, `kubernetes`, `sigv4`, `config`, `cli`, `documents` and
//! `testkit`; each adds the module of its name, but for `sigv4`, which lets the Prometheus backend sign its requests for AWS;
//! `kubernetes` also adds `external_metrics`.
#![cfg_attr(docsrs, feature(doc_cfg))]

/// For implementations of [`Backend`](core::Backend), whose calls are asynchronous.
pub use async_trait::async_trait;
pub use collector_cache as cache;
#[cfg(feature = "cli")]
pub use collector_cli as cli;
#[cfg(feature = "config")]
pub use collector_config as config;
pub use collector_core as core;
#[cfg(feature = "documents")]
pub use collector_documents as documents;
pub use collector_engine as engine;
#[cfg(feature = "epp")]
pub use collector_epp as epp;
#[cfg(feature = "kubernetes")]
pub use collector_external_metrics as external_metrics;
#[cfg(feature = "keda")]
pub use collector_keda as keda;
#[cfg(feature = "kubernetes")]
pub use collector_kubernetes as kubernetes;
#[cfg(feature = "prometheus")]
pub use collector_prometheus as prometheus;
#[cfg(feature = "promql")]
pub use collector_promql as promql;
#[cfg(feature = "record")]
pub use collector_record as record;
#[cfg(feature = "testkit")]
pub use collector_testkit as testkit;

/// What a program that reads metrics needs: `use collector::prelude::*`.
pub mod prelude {
    pub use collector_core::{
        Clock, CollectError, Freshness, MetricsCollector, ModelRef, Reading, SystemClock,
        VariantRef,
    };
    pub use collector_engine::{CacheConfig, CachingCollector};
}

/// The code in the README, compiled as a doc test.
#[cfg(all(doctest, feature = "prometheus"))]
#[doc = include_str!("../../README.md")]
struct Readme;
