// SPDX-License-Identifier: Apache-2.0
//! What tests of backends, caches and the engine share.
//!
//! - [`conformance`]: the promises of [`Backend`](collector_core::Backend) and of
//!   [`MetricsCache`](collector_core::MetricsCache) as suites that every implementation calls,
//! - [`FakeBackend`]: a backend that answers, fails, hangs or panics as a test scripts,
//! - [`TokioClock`] and [`ManualClock`]: time that tests move,
//! - [`FakeCollector`]: a collector that has what a test sets, for tests of what decides by readings,
//! - [`SampleRecord`]: records to put into caches,
//! - [`joined_queries`]: a query of the PromQL client in its parts, for servers that answer from a script,
//! - under `cfg(loom)`, `explore`: every interleaving of a model's threads,
//! - with the feature `real-servers`, `PrometheusServer`: a real Prometheus that scrapes a simulated
//!   fleet, or holds a `History`, as a real `VictoriaMetricsServer` does; and `promtool_or_skip`, its own checks,
//! - with the feature `kubernetes`, `kubernetes::Cluster`: an API server that holds what a test applies, and fails as
//!   it scripts.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "certificates")]
pub mod certificates;
mod clock;
pub mod conformance;
#[cfg(loom)]
mod explore;
mod fake_backend;
mod fake_collector;
mod fake_live;
#[cfg(feature = "real-servers")]
mod history;
mod joined_queries;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(feature = "real-servers")]
mod prometheus_server;
#[cfg(feature = "real-servers")]
mod promtool;
mod sample_record;
#[cfg(feature = "real-servers")]
mod victoria_metrics;

pub use clock::TokioClock;
pub use collector_core::ManualClock;
#[cfg(loom)]
pub use explore::explore;
pub use fake_backend::{Failure, FakeBackend, RecordedAsk};
pub use fake_collector::FakeCollector;
#[cfg(feature = "real-servers")]
pub use history::History;
pub use joined_queries::joined_queries;
#[cfg(feature = "real-servers")]
pub use prometheus_server::{
    PROMETHEUS_BIN, PrometheusError, PrometheusOptions, PrometheusServer, REQUIRE_REAL_SERVERS,
};
#[cfg(feature = "real-servers")]
pub use promtool::promtool_or_skip;
pub use sample_record::SampleRecord;
#[cfg(feature = "real-servers")]
pub use victoria_metrics::{VICTORIA_METRICS_BIN, VictoriaMetricsServer};
