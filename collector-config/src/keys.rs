//! The table of keys, which says what the types cannot: other names in the environment, which values are
//! secret, what a key does. Tests hold the table and the types together.

use crate::error::ConfigError;
use crate::key::{Key, Kind};
use crate::nearest::nearest;
use crate::text::printable;

/// Every key that can be set, except those of `[[variants]]`, in the order of the reference.
#[derive(Clone, Debug)]
pub(crate) struct Keys(Vec<&'static Key>);

impl Keys {
    /// The keys of every collector, and those of the registered backends.
    pub(crate) fn with(of_backends: impl Iterator<Item = &'static Key>) -> Self {
        Self(COMMON_KEYS.iter().chain(of_backends).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'static Key> + Clone {
        self.0.iter().copied()
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = &'static Key> {
        self.0.into_iter()
    }

    /// The key of this path.
    pub(crate) fn find(&self, path: &str) -> Option<&'static Key> {
        self.iter().find(|key| key.path == path)
    }

    /// The key that someone who wrote this path most likely meant.
    pub(crate) fn nearest(&self, path: &str) -> Option<&'static Key> {
        nearest(path, self.iter().map(|key| key.path)).and_then(|path| self.find(path))
    }

    /// Whether there are keys below this path.
    pub(crate) fn is_section(&self, path: &str) -> bool {
        self.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The error for a path that is no key, with the nearest that is.
    pub(crate) fn unknown(&self, path: &str) -> ConfigError {
        let keys = self.iter().map(|key| key.path);
        let sections = keys.clone().filter_map(|path| Some(path.rsplit_once('.')?.0));
        let message = match nearest(path, keys.chain(sections).chain(["variants"])) {
            Some(known) => format!("unknown key; did you mean {known}?"),
            None => {
                "unknown key; `collector config show --defaults` lists those there are".to_owned()
            }
        };
        ConfigError::new(message).key(printable(path))
    }
}

/// The key of users' engines.
pub(crate) const ENGINES: &str = "engines";
/// Its other names: direct scraping once was the only backend that had engines.
pub(crate) const OTHER_ENGINES: [&str; 2] = ["scrape.engines", "epp.engines"];

/// The keys of every collector, whatever its backends.
pub(crate) const COMMON_KEYS: &[Key] = &[
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
        Kind::OneOf(&["off", "error", "warn", "info", "debug", "trace"]),
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
pub(crate) const VARIANT_KEYS: &[Key] = &[
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
