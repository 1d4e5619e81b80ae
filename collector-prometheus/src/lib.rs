// SPDX-License-Identifier: Apache-2.0
//! A backend that asks a PromQL server: Prometheus, Thanos, Mimir, VictoriaMetrics.
//!
//! [`PrometheusBackend`] implements [`collector_core::Backend`]; [`PrometheusConfig`] holds its settings. In
//! a fetch, `discovery` finds out what the server holds, `shard` groups the models, `plan` writes the
//! queries, `client` sends them, `body` unpacks the answers, `answer` reads them, `assemble` groups their
//! rows by model, and `finish` makes the answers.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod assemble;
mod backend;
mod body;
mod client;
mod command;
mod config;
mod credentials;
mod discovery;
mod endpoint_picker;
mod failure;
mod fetch;
mod finish;
mod labels;
mod load;
mod memory;
mod plan;
mod probe;
mod promql;
mod proxy;
mod reasons;
mod reply;
mod resolve;
mod resolver;
mod rows;
mod selfmetrics;
mod server_clock;
mod servers;
mod shape;
mod shard;
#[cfg(feature = "sigv4")]
mod sigv4;
mod trace;

pub use backend::PrometheusBackend;
pub use client::{PassedAnswer, PassedRequest};
pub use collector_transport::ConfigError;
pub use config::{ModelSelector, PrometheusConfig, SigV4Config};
pub use labels::LabelsConfig;
pub use plan::queried_quantities;

/// The backend's name in readings, errors, logs and metrics.
const NAME: &str = "prometheus";

/// The section of its configuration keys.
const SECTION: collector_transport::Section =
    collector_transport::Section { name: NAME, variables: Some("PROMETHEUS") };
