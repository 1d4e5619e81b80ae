//! A backend that asks a PromQL server: Prometheus, Thanos, Mimir, VictoriaMetrics.
//!
//! [`PrometheusBackend`] implements [`collector_core::Backend`]; [`PrometheusConfig`] is what a user
//! sets. On the way of a look: `learn` finds out how this server is to be asked, `shard` groups the
//! models, `plan` writes the queries, `client` sends them, `body` unpacks what comes, `answer` reads
//! it, `assemble` makes of it what is known about each model.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod answer;
mod assemble;
mod backend;
mod body;
mod client;
mod command;
mod config;
mod credentials;
mod failure;
mod finish;
mod labels;
mod learn;
mod load;
mod look;
mod memory;
mod plan;
mod probe;
mod promql;
mod proxy;
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
mod why;

pub use backend::PrometheusBackend;
pub use collector_transport::ConfigError;
pub use config::{GivenModel, PrometheusConfig, SigV4Config};
pub use labels::LabelsConfig;
pub use plan::asked_for;

/// The backend's name in readings, errors, logs and metrics.
const NAME: &str = "prometheus";

/// The section of its keys.
const SECTION: collector_transport::Section =
    collector_transport::Section { name: NAME, variables: Some("PROMETHEUS") };
