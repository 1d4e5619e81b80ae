// SPDX-License-Identifier: Apache-2.0
//! The types of the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use collector_core::Namespace;
use collector_engine::{CacheConfig, Discovery, VariantSpec};
use collector_engines::EngineSpec;
use serde::Deserialize;

use crate::backend::{BackendSettings, Backends};
use crate::external_metrics::ExternalMetricsConfig;
use crate::keda::KedaConfig;
use crate::kubernetes::KubernetesConfig;
use crate::metrics::MetricsConfig;
use crate::promql::PromqlConfig;

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct CollectorConfig {
    /// The backends by name, in order of preference. Default `prometheus`.
    pub backend: Vec<String>,
    /// The name of this instance, where several controllers share a cluster.
    pub instance: Option<String>,
    /// How values are cached, refreshed and labelled.
    pub cache: CacheConfig,
    /// The variants whose pods are known by a glob on their names.
    pub variants: Vec<VariantSpec>,
    /// Kinds of model servers besides the built-in ones, and corrections of these, for every backend.
    pub engines: Vec<EngineSpec>,
    /// Which models `serve` tracks without a read.
    pub tracking: TrackingConfig,
    /// The HTTP server of `serve`.
    pub server: ServerConfig,
    /// The PromQL API of `serve`.
    pub promql: PromqlConfig,
    /// The external scaler of `serve`.
    pub keda: KedaConfig,
    /// The External Metrics API of `serve`.
    pub external_metrics: ExternalMetricsConfig,
    /// The cluster whose variants and pods are read.
    pub kubernetes: KubernetesConfig,
    /// What is on `/metrics` of `serve`.
    pub metrics: MetricsConfig,
    /// What is logged.
    pub log: LogConfig,
    /// The section of each registered backend.
    pub(crate) sections: BTreeMap<&'static str, Arc<dyn BackendSettings>>,
    /// What `backend` can name.
    pub(crate) backends: Backends,
}

/// Which models `serve` tracks without a read.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackingConfig {
    /// Whether the models that the backends list are tracked. Default true.
    pub discover: bool,
    /// The namespaces whose models are. Default all.
    pub namespaces: BTreeSet<Namespace>,
}

impl Default for TrackingConfig {
    fn default() -> Self {
        Self { discover: true, namespaces: BTreeSet::new() }
    }
}

impl TrackingConfig {
    /// The same, for [`Builder::discover`](collector_engine::Builder::discover).
    pub fn discovery(&self) -> Discovery {
        Discovery {
            track: self.discover,
            namespaces: self.namespaces.clone(),
            ..Discovery::default()
        }
    }
}

/// The HTTP server of `serve`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerConfig {
    /// Where it listens. Default 127.0.0.1:9464: loopback, because the API has no log-in.
    pub listen: SocketAddr,
    /// The certificate chain, PEM. With it the server speaks TLS.
    pub tls_cert_path: Option<PathBuf>,
    /// The certificate's private key, PEM.
    pub tls_key_path: Option<PathBuf>,
    /// Authorities that sign the certificates of clients, PEM. With it every client needs one.
    pub tls_client_ca_path: Option<PathBuf>,
    /// The token that clients need to read.
    pub read_token_path: Option<PathBuf>,
    /// The token that clients need to drop cache entries; without it only those on loopback may.
    pub admin_token_path: Option<PathBuf>,
    /// Names besides those of loopback that requests to a loopback address may have as their host.
    pub allowed_hosts: Vec<String>,
    /// How many models may be tracked. Default 10 000.
    pub max_tracked: usize,
    /// How long requests are still answered after SIGTERM. Default 0.
    #[serde(with = "collector_core::duration")]
    pub drain: Duration,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            tls_cert_path: None,
            tls_key_path: None,
            tls_client_ca_path: None,
            read_token_path: None,
            admin_token_path: None,
            allowed_hosts: Vec::new(),
            max_tracked: 10_000,
            drain: Duration::ZERO,
        }
    }
}

/// What is logged, and how.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The least severity that is logged. Default info.
    pub level: LogLevel,
    /// Default text.
    pub format: LogFormat,
}

/// The least severity that is logged.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Nothing at all.
    Off,
    /// What failed.
    Error,
    /// What is about to fail, or is wasteful.
    Warn,
    /// What changed.
    #[default]
    Info,
    /// What was done.
    Debug,
    /// Everything.
    Trace,
}

/// How a log line is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The sections that every build has; each backend has one more.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct CommonSections {
    pub(crate) backend: Vec<String>,
    pub(crate) instance: Option<String>,
    pub(crate) cache: CacheConfig,
    pub(crate) engines: Vec<EngineSpec>,
    pub(crate) tracking: TrackingConfig,
    pub(crate) server: ServerConfig,
    pub(crate) promql: PromqlConfig,
    pub(crate) keda: KedaConfig,
    pub(crate) external_metrics: ExternalMetricsConfig,
    pub(crate) kubernetes: KubernetesConfig,
    pub(crate) metrics: MetricsConfig,
    pub(crate) log: LogConfig,
}

impl Default for CommonSections {
    fn default() -> Self {
        Self {
            backend: vec!["prometheus".to_owned()],
            instance: None,
            cache: CacheConfig::default(),
            engines: Vec::new(),
            tracking: TrackingConfig::default(),
            server: ServerConfig::default(),
            promql: PromqlConfig::default(),
            keda: KedaConfig::default(),
            external_metrics: ExternalMetricsConfig::default(),
            kubernetes: KubernetesConfig::default(),
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use figment::error::Kind as Refused;
    use figment::{Figment, providers::Serialized};
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::key::Key;
    use crate::keys::{COMMON_KEYS, Keys, VARIANT_KEYS};

    /// The fields that a type has for serde: it lists them when it refuses one.
    fn fields<T: DeserializeOwned + std::fmt::Debug>() -> BTreeSet<String> {
        let figment = Figment::from(Serialized::default("no such field", 0));
        match figment.extract::<T>().unwrap_err().kind {
            Refused::UnknownField(_, fields) => fields.iter().map(ToString::to_string).collect(),
            kind => panic!("{kind}"),
        }
    }

    fn names<'a>(keys: impl Iterator<Item = &'a Key>, section: &str) -> BTreeSet<String> {
        keys.filter_map(|key| key.path.strip_prefix(section))
            .map(|rest| rest.split('.').next().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn every_field_of_the_types_is_a_key_of_the_table_and_the_reverse() {
        let keys = Keys::with(Backends::default().keys());
        let keys = || keys.iter();
        let CommonSections {
            backend: _,
            instance: _,
            cache: _,
            engines: _,
            tracking: _,
            server: _,
            promql: _,
            keda: _,
            external_metrics: _,
            kubernetes: _,
            metrics: _,
            log: _,
        } = CommonSections::default();
        let common = [
            "backend",
            "instance",
            "cache",
            "engines",
            "tracking",
            "server",
            "promql",
            "keda",
            "external_metrics",
            "kubernetes",
            "metrics",
            "log",
        ];
        let common = common.map(str::to_owned);
        assert_eq!(BTreeSet::from(common), names(COMMON_KEYS.iter(), ""));
        assert_eq!(fields::<CacheConfig>(), names(keys(), "cache."));
        let thresholds = fields::<collector_core::FreshnessThresholds>();
        assert_eq!(thresholds, names(keys(), "cache.freshness."));
        let adaptive = fields::<collector_engine::adaptive::AdaptiveConfig>();
        assert_eq!(adaptive, names(keys(), "cache.adaptive."));
        assert_eq!(fields::<TrackingConfig>(), names(keys(), "tracking."));
        assert_eq!(fields::<ServerConfig>(), names(keys(), "server."));
        assert_eq!(fields::<PromqlConfig>(), names(keys(), "promql."));
        assert_eq!(fields::<KedaConfig>(), names(keys(), "keda."));
        assert_eq!(fields::<ExternalMetricsConfig>(), names(keys(), "external_metrics."));
        assert_eq!(fields::<KubernetesConfig>(), names(keys(), "kubernetes."));
        assert_eq!(fields::<MetricsConfig>(), names(keys(), "metrics."));
        assert_eq!(fields::<LogConfig>(), names(keys(), "log."));
        assert_eq!(fields::<VariantSpec>(), names(VARIANT_KEYS.iter(), ""));
        #[cfg(feature = "epp")]
        for section in ["scrape.", "epp."] {
            assert_eq!(fields::<collector_epp::EppConfig>(), names(keys(), section));
        }
        #[cfg(feature = "prometheus")]
        assert_eq!(
            fields::<collector_prometheus::PrometheusConfig>(),
            names(keys(), "prometheus.")
        );
    }
}
