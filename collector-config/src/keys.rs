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
/// Its name of before, when one backend alone had engines.
pub(crate) const ENGINES_BEFORE: &str = "epp.engines";

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
        "The name of this instance in its logs, where several controllers share a cluster.",
    )
    .aliases(&["CONTROLLER_INSTANCE"]),
    Key::new(
        ENGINES,
        Kind::Tables,
        "Kinds of model servers besides the built-in ones, and corrections of these, for every backend: `name`, the engine to begin with (`base`, `prefix`), the labels of model and rank, and where its metrics stand. See [engines](engines.md).",
    ),
    Key::new(
        "cache.enabled",
        Kind::Bool,
        "False: nothing is kept and every read asks the backend.",
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
        "How often entries that nobody reads any more are looked for.",
    )
    .default("1m")
    .aliases(&["PROMETHEUS_METRICS_CACHE_CLEANUP_INTERVAL"]),
    Key::new(
        "cache.fetch_interval",
        Kind::Duration,
        "How often everything tracked is refreshed in the background; 0 is never.",
    )
    .default("30s")
    .aliases(&["PROMETHEUS_METRICS_CACHE_FETCH_INTERVAL"]),
    Key::new(
        "cache.max_entries",
        Kind::Positive,
        "How many entries are kept at most.",
    )
    .default("100000"),
    Key::new(
        "cache.max_bytes",
        Kind::Positive,
        "About how many bytes the entries hold at most, their values included.",
    )
    .default("268435456"),
    Key::new(
        "cache.eviction",
        Kind::OneOf(&["sieve", "lru"]),
        "Which entry leaves when there is no room for another: the oldest that has not been read \
         lately, or the least recently read. What is not tracked leaves first in any case.",
    )
    .default("sieve"),
    Key::new(
        "cache.missing_ttl",
        Kind::Duration,
        "How long the news that a model has no series is believed.",
    )
    .default("10s"),
    Key::new(
        "cache.snapshot_path",
        Kind::Path,
        "A file that `collector serve` writes the last readings to, each minute and when it stops, and reads them from when it starts. Of its own for each collector.",
    ),
    Key::new(
        "cache.freshness.fresh_threshold",
        Kind::Duration,
        "Below this age a reading is fresh, from it on stale.",
    )
    .default("1m")
    .aliases(&["PROMETHEUS_METRICS_CACHE_FRESH_THRESHOLD"]),
    Key::new(
        "cache.freshness.stale_threshold",
        Kind::Duration,
        "From this age on a warning is logged.",
    )
    .default("2m")
    .aliases(&["PROMETHEUS_METRICS_CACHE_STALE_THRESHOLD"]),
    Key::new(
        "cache.freshness.unavailable_threshold",
        Kind::Duration,
        "From this age on a reading is unavailable: not to be used.",
    )
    .default("5m")
    .aliases(&["PROMETHEUS_METRICS_CACHE_UNAVAILABLE_THRESHOLD"]),
    Key::new(
        "cache.adaptive.enabled",
        Kind::Bool,
        "True: a model whose readings move is refreshed sooner, an idle one later, with no more looks in \
         all than by `cache.fetch_interval`. See adaptive-ttl.md.",
    )
    .default("false"),
    Key::new(
        "cache.adaptive.min_ttl",
        Kind::Duration,
        "No model is refreshed more often. A Prometheus has nothing new before it scrapes again.",
    )
    .default("15s"),
    Key::new(
        "cache.adaptive.max_ttl",
        Kind::Duration,
        "No model is refreshed more seldom.",
    )
    .default("1m"),
    Key::new(
        "server.listen",
        Kind::Address,
        "Where `collector serve` listens. The API has no log-in, hence loopback.",
    )
    .default("127.0.0.1:9464"),
    Key::new(
        "server.tls_cert_path",
        Kind::Path,
        "The server's certificate chain, PEM; needs `server.tls_key_path`.",
    ),
    Key::new(
        "server.tls_key_path",
        Kind::Path,
        "The private key of the server's certificate, PEM.",
    ),
    Key::new(
        "server.admin_token_path",
        Kind::Path,
        "A file with the token that lets others than loopback drop cache entries.",
    ),
    Key::new(
        "server.max_tracked",
        Kind::Positive,
        "How many models are tracked at most.",
    )
    .default("10000"),
    Key::new(
        "log.level",
        Kind::OneOf(&["off", "error", "warn", "info", "debug", "trace"]),
        "The least severity that is logged: off, error, warn, info, debug or trace. `RUST_LOG` beats it.",
    )
    .default("info"),
    Key::new(
        "log.format",
        Kind::OneOf(&["text", "json"]),
        "How a log line is written: text or json.",
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
        "How often its model is refreshed, which is also the ttl of its values; without it `cache.fetch_interval` and `cache.ttl`. Of the variants of a model the shortest counts.",
    ),
];
