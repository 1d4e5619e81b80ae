//! Everything that a user sets: the types it ends up in, and the table of its keys.
//!
//! The table holds what the types cannot say: other names in the environment, which values are
//! secret, what a key does. Tests hold the two together.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use collector_engine::{CacheConfig, VariantSpec};
use collector_engines::EngineSpec;
use serde::Deserialize;

use crate::build::{self, BackendSettings};
use crate::key::{Key, Kind};

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
    /// The HTTP server of `serve`.
    pub server: ServerConfig,
    /// What is logged.
    pub log: LogConfig,
    /// The section of each backend that is compiled in.
    pub(crate) sections: BTreeMap<&'static str, Arc<dyn BackendSettings>>,
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
    /// The token that lets others than loopback drop cache entries.
    pub admin_token_path: Option<PathBuf>,
    /// How many models may be tracked. Default 10 000.
    pub max_tracked: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            tls_cert_path: None,
            tls_key_path: None,
            admin_token_path: None,
            max_tracked: 10_000,
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

impl LogLevel {
    const WORDS: &'static [&'static str] = &["off", "error", "warn", "info", "debug", "trace"];

    /// The word in a configuration, which is also a filter directive of `tracing-subscriber`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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

/// The sections that every build has; those of the backends stand beside them.
#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct CommonSections {
    pub(crate) backend: Vec<String>,
    pub(crate) instance: Option<String>,
    pub(crate) cache: CacheConfig,
    pub(crate) engines: Vec<EngineSpec>,
    pub(crate) server: ServerConfig,
    pub(crate) log: LogConfig,
}

impl Default for CommonSections {
    fn default() -> Self {
        Self {
            backend: vec!["prometheus".to_owned()],
            instance: None,
            cache: CacheConfig::default(),
            engines: Vec::new(),
            server: ServerConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// The key of users' engines.
pub(crate) const ENGINES: &str = "engines";
/// Its name of before, when one backend alone had engines.
pub(crate) const ENGINES_BEFORE: &str = "epp.engines";

/// Every key of this build but those of `[[variants]]`, in the order of the reference.
pub fn keys() -> impl Iterator<Item = &'static Key> + Clone {
    let of_backends = build::BACKENDS.iter().flat_map(|backend| backend.keys);
    COMMON_KEYS.iter().chain(of_backends)
}

const COMMON_KEYS: &[Key] = &[
    Key::new(
        "backend",
        Kind::Texts,
        "Where metrics come from: the name of a backend, or several in order of preference.",
    )
    .default("prometheus"),
    Key::new(
        "instance",
        Kind::Text,
        "The name of this instance in its logs, if several controllers share a cluster.",
    )
    .aliases(&["CONTROLLER_INSTANCE"]),
    Key::new(
        ENGINES,
        Kind::Tables,
        "Model servers besides the built-in ones, and corrections of these, for every backend: `name`, the engine to start from (`base`, `prefix`), the labels of model and rank, and the series of its metrics. See [engines](engines.md).",
    ),
    Key::new(
        "cache.enabled",
        Kind::Bool,
        "False: nothing is stored, and every read fetches from the backend.",
    )
    .default("true")
    .aliases(&["PROMETHEUS_METRICS_CACHE_ENABLED"]),
    Key::new(
        "cache.ttl",
        Kind::Duration,
        "How long a value is served without starting a refresh.",
    )
    .default("30s")
    .aliases(&["PROMETHEUS_METRICS_CACHE_TTL"]),
    Key::new(
        "cache.cleanup_interval",
        Kind::Duration,
        "How often unread entries are removed.",
    )
    .default("1m")
    .aliases(&["PROMETHEUS_METRICS_CACHE_CLEANUP_INTERVAL"]),
    Key::new(
        "cache.fetch_interval",
        Kind::Duration,
        "How often tracked models are refreshed in the background; 0 is never.",
    )
    .default("30s")
    .aliases(&["PROMETHEUS_METRICS_CACHE_FETCH_INTERVAL"]),
    Key::new(
        "cache.max_entries",
        Kind::Positive,
        "Most entries in the cache.",
    )
    .default("100000"),
    Key::new(
        "cache.max_bytes",
        Kind::Positive,
        "Approximate limit of the entries in bytes, including their values.",
    )
    .default("268435456"),
    Key::new(
        "cache.eviction",
        Kind::OneOf(&["lru", "sieve"]),
        "Which entries are evicted when there is no room for another: the least recently read, those of \
         untracked models first. sieve is accepted and has no effect any more.",
    )
    .default("lru"),
    Key::new(
        "cache.missing_ttl",
        Kind::Duration,
        "How long a missing model is remembered.",
    )
    .default("10s"),
    Key::new(
        "cache.snapshot_path",
        Kind::Path,
        "A file to which `collector serve` writes the last readings, every minute and when it stops, and from which it reads them when it starts. Each collector needs its own.",
    ),
    Key::new(
        "cache.freshness.fresh_threshold",
        Kind::Duration,
        "Readings below this age are fresh, others stale.",
    )
    .default("1m")
    .aliases(&["PROMETHEUS_METRICS_CACHE_FRESH_THRESHOLD"]),
    Key::new(
        "cache.freshness.stale_threshold",
        Kind::Duration,
        "Readings of at least this age are logged with a warning.",
    )
    .default("2m")
    .aliases(&["PROMETHEUS_METRICS_CACHE_STALE_THRESHOLD"]),
    Key::new(
        "cache.freshness.unavailable_threshold",
        Kind::Duration,
        "Readings of at least this age are unavailable: not to be used.",
    )
    .default("5m")
    .aliases(&["PROMETHEUS_METRICS_CACHE_UNAVAILABLE_THRESHOLD"]),
    Key::new(
        "cache.adaptive.enabled",
        Kind::Bool,
        "True: a model whose readings change is refreshed sooner than each `cache.fetch_interval`, an idle one \
         later. See adaptive-ttl.md.",
    )
    .default("false"),
    Key::new(
        "cache.adaptive.min_ttl",
        Kind::Duration,
        "Shortest ttl. A Prometheus has nothing new before it scrapes again.",
    )
    .default("15s"),
    Key::new(
        "cache.adaptive.max_ttl",
        Kind::Duration,
        "Longest ttl.",
    )
    .default("1m"),
    Key::new(
        "server.listen",
        Kind::Address,
        "The address of `collector serve`. The default is loopback, because the API has no log-in.",
    )
    .default("127.0.0.1:9464"),
    Key::new(
        "server.tls_cert_path",
        Kind::Path,
        "The server's certificate chain (PEM); needs `server.tls_key_path`.",
    ),
    Key::new(
        "server.tls_key_path",
        Kind::Path,
        "The private key of the server's certificate (PEM).",
    ),
    Key::new(
        "server.admin_token_path",
        Kind::Path,
        "A file with the token that allows clients other than loopback to drop cache entries.",
    ),
    Key::new(
        "server.max_tracked",
        Kind::Positive,
        "Most tracked models.",
    )
    .default("10000"),
    Key::new(
        "log.level",
        Kind::OneOf(LogLevel::WORDS),
        "The least severity that is logged: off, error, warn, info, debug or trace. `RUST_LOG` takes precedence.",
    )
    .default("info"),
    Key::new(
        "log.format",
        Kind::OneOf(&["text", "json"]),
        "The format of log lines: text or json.",
    )
    .default("text"),
];

/// The keys of one `[[variants]]`; their paths are relative to it.
pub const VARIANT_KEYS: &[Key] = &[
    Key::new("name", Kind::Text, "The variant's name. Required."),
    Key::new("namespace", Kind::Text, "Its namespace and that of its pods. Required."),
    Key::new("model", Kind::Text, "The model it serves. Required."),
    Key::new("accelerator", Kind::Text, "What its pods run on."),
    Key::new("cost", Kind::Number, "The cost of one replica per hour.").default("10"),
    Key::new("pods", Kind::Text, "The names of its pods: `*` is any text, `?` any one character.")
        .default("*"),
    Key::new("max_batch", Kind::Count, "The greatest batch of one replica."),
    Key::new(
        "fetch_interval",
        Kind::Duration,
        "The refresh interval of its model, which is also the ttl of its values; default: `cache.fetch_interval` and `cache.ttl`. Of a model's variants the shortest is used.",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use figment::error::Kind as Refused;
    use figment::{Figment, providers::Serialized};
    use serde::de::DeserializeOwned;

    use super::*;

    /// The fields that a type has for serde: it lists them when it refuses one.
    fn fields<T: DeserializeOwned + fmt::Debug>() -> BTreeSet<String> {
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
        let CommonSections { backend: _, instance: _, cache: _, engines: _, server: _, log: _ } =
            CommonSections::default();
        let common = ["backend", "instance", "cache", "engines", "server", "log"];
        let common = common.map(str::to_owned);
        assert_eq!(BTreeSet::from(common), names(COMMON_KEYS.iter(), ""));
        assert_eq!(fields::<CacheConfig>(), names(keys(), "cache."));
        let thresholds = fields::<collector_core::FreshnessThresholds>();
        assert_eq!(thresholds, names(keys(), "cache.freshness."));
        let adaptive = fields::<collector_engine::adaptive::AdaptiveConfig>();
        assert_eq!(adaptive, names(keys(), "cache.adaptive."));
        assert_eq!(fields::<ServerConfig>(), names(keys(), "server."));
        assert_eq!(fields::<LogConfig>(), names(keys(), "log."));
        assert_eq!(fields::<VariantSpec>(), names(VARIANT_KEYS.iter(), ""));
        #[cfg(feature = "epp")]
        assert_eq!(fields::<collector_epp::EppConfig>(), names(keys(), "epp."));
        #[cfg(feature = "prometheus")]
        assert_eq!(
            fields::<collector_prometheus::PrometheusConfig>(),
            names(keys(), "prometheus.")
        );
    }
}
