// SPDX-License-Identifier: Apache-2.0
//! The table of keys, which says what the types cannot: other names in the environment, which values are
//! secret, what a key does. Tests hold the table and the types together.

use crate::error::ConfigError;
use crate::key::{Key, keys};
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
pub(crate) const COMMON_KEYS: &[Key] = keys! {
    "";
    /// Where metrics come from: the name of a backend, or several in order of preference.
    "backend": Texts = "prometheus";
    /// The name of this instance in its logs, if several controllers share a cluster.
    "instance": Text, aliases "CONTROLLER_INSTANCE";
    /// Model servers besides the built-in ones, and corrections of these, for every backend: `name`, the engine to start
    /// from (`base`, `prefix`), the labels of model and rank, and the series of its metrics. See [engines](engines.md).
    "engines": Tables;
    /// False: nothing is stored, and every read fetches from the backend.
    "cache.enabled": Bool = "true", aliases "PROMETHEUS_METRICS_CACHE_ENABLED";
    /// How long a value is served without starting a refresh.
    "cache.ttl": Duration = "30s", aliases "PROMETHEUS_METRICS_CACHE_TTL";
    /// How often unread entries are removed.
    "cache.cleanup_interval": Duration = "1m", aliases "PROMETHEUS_METRICS_CACHE_CLEANUP_INTERVAL";
    /// How often tracked models are refreshed in the background; 0 is never.
    "cache.fetch_interval": Duration = "30s", aliases "PROMETHEUS_METRICS_CACHE_FETCH_INTERVAL";
    /// Most entries in the cache.
    "cache.max_entries": Positive = "100000";
    /// Approximate limit of the entries in bytes, including their values.
    "cache.max_bytes": Positive = "268435456";
    /// Which entries are evicted when there is no room for another: the least recently read, those of untracked models
    /// first. sieve is accepted and has no effect any more.
    "cache.eviction": OneOf(&["lru", "sieve"]) = "lru";
    /// How long a missing model is remembered.
    "cache.missing_ttl": Duration = "10s";
    /// A file to which `collector serve` writes the last readings, every minute and when it stops, and from which it
    /// reads them when it starts. Each collector needs its own.
    "cache.snapshot_path": Path;
    /// Readings below this age are fresh, others stale.
    "cache.freshness.fresh_threshold": Duration = "1m", aliases "PROMETHEUS_METRICS_CACHE_FRESH_THRESHOLD";
    /// Readings of at least this age are logged with a warning.
    "cache.freshness.stale_threshold": Duration = "2m", aliases "PROMETHEUS_METRICS_CACHE_STALE_THRESHOLD";
    /// Readings of at least this age are unavailable: not to be used.
    "cache.freshness.unavailable_threshold": Duration = "5m", aliases "PROMETHEUS_METRICS_CACHE_UNAVAILABLE_THRESHOLD";
    /// True: a model whose readings change is refreshed sooner than each `cache.fetch_interval`, an idle one later. See
    /// adaptive-ttl.md.
    "cache.adaptive.enabled": Bool = "false";
    /// Shortest ttl. A Prometheus has nothing new before it scrapes again.
    "cache.adaptive.min_ttl": Duration = "15s";
    /// Longest ttl.
    "cache.adaptive.max_ttl": Duration = "1m";
    /// True: `collector serve` tracks every model that its backends list, from the start and for as long as it is listed, up
    /// to `server.max_tracked`; backends are listed each minute, or each `cache.fetch_interval` if that is longer. False: a
    /// model is tracked once it is read.
    "tracking.discover": Bool = "true";
    /// The only namespaces whose models are tracked without a read, by their exact names. Empty: all.
    "tracking.namespaces": Texts;
    /// The address of `collector serve`. The default is loopback, because the API has no log-in unless
    /// `server.read_token_path` or `server.tls_client_ca_path` is set. A change takes effect after a restart.
    "server.listen": Address = "127.0.0.1:9464";
    /// The server's certificate chain (PEM); needs `server.tls_key_path`.
    "server.tls_cert_path": Path;
    /// The private key of the server's certificate (PEM).
    "server.tls_key_path": Path;
    /// Certificates (PEM) of the authorities that sign the certificates of clients; needs `server.tls_cert_path`. Without a
    /// certificate no client connects: probe the port (`tcpSocket`) instead of `/healthz`.
    "server.tls_client_ca_path": Path;
    /// A file with the token that clients need to read anything but `/healthz` and `/readyz`, as `Authorization: Bearer`.
    /// The admin token is accepted as well. The file is read again when it changes.
    "server.read_token_path": Path;
    /// A file with the token that is needed to drop cache entries. Unset, only clients on loopback may.
    "server.admin_token_path": Path;
    /// Names, besides `localhost` and addresses of loopback, that requests to a loopback address may have as their `Host`:
    /// those of port-forwards and proxies. A name has no port; others are refused, because a web page could send them.
    "server.allowed_hosts": Texts;
    /// Most tracked models.
    "server.max_tracked": Positive = "10000";
    /// How long requests are still answered after SIGTERM, while `/readyz` is 503 and no connection is kept, so that clients
    /// go elsewhere: behind a load balancer or a Service, longer than it takes to notice. See high-availability.md.
    "server.drain": Duration = "0s";
    /// True: `collector serve` has a PromQL API in front of `prometheus.url`, with its credentials: guarded for autoscalers
    /// (`/api/v1/query`), unguarded for dashboards (`/raw`). Queries over readings and scraped pods need no server. See
    /// promql-api.md.
    "promql.enabled": Bool = "false";
    /// The server of PromQL queries, if it is not `prometheus.url`: a query frontend, for example. Credentials, TLS and timeout
    /// are those of the section `[prometheus]`.
    "promql.upstream": Url;
    /// How long an answer is returned again without a request to the server; less than `promql.max_age`.
    "promql.ttl": Duration = "5s";
    /// How long a caller waits; more than 0 and less than 1.4 s. Then it gets the last answer or an error.
    "promql.answer_within": Duration = "1s";
    /// Maximum age of the newest sample of a selector.
    "promql.max_age": Duration = "2m";
    /// Maximum age of an answer that is returned while the server does not respond.
    "promql.max_stale": Duration = "2m";
    /// The answer to a query over several models of which one has no data: error (the result would be wrong), or warn.
    "promql.partial": OneOf(&["error", "warn"]) = "error";
    /// How long such a model is missed by queries that it was part of.
    "promql.vanished_after": Duration = "5m";
    /// Maximum size of a query in bytes.
    "promql.max_query_bytes": Positive = "16384";
    /// Maximum nesting depth of brackets in a query.
    "promql.max_depth": Positive = "64";
    /// Maximum number of operators in a query.
    "promql.max_operators": Positive = "256";
    /// Maximum number of remembered queries.
    "promql.max_entries": Positive = "10000";
    /// Approximate maximum size of remembered answers in bytes.
    "promql.max_bytes": Positive = "67108864";
    /// Maximum size of one answer in bytes.
    "promql.max_answer_bytes": Positive = "16777216";
    /// Headers of clients that are forwarded to the server, for example X-Scope-OrgID.
    "promql.forward_headers": Texts;
    /// Series that prove that an exporter is up, tried before the built-in ones: `name` (a regular expression for complete
    /// names of metrics), `anchor` (may use its groups, `${1}`) and `strength` (strong, or alive: the default).
    "promql.anchors": Tables;
    /// The address of the external scaler of `collector serve`, which KEDA calls; unset: there is none. See keda.md.
    "keda.listen": Address;
    /// How long a call waits for a reading that is not in memory, at most 1 s. Then it is an error.
    "keda.wait": Duration = "500ms";
    /// The scaler's certificate chain (PEM); needs `keda.tls_key_path`.
    "keda.tls_cert_path": Path;
    /// The private key of the scaler's certificate (PEM).
    "keda.tls_key_path": Path;
    /// Certificates (PEM) of the authorities that sign the certificates of clients. Without it every client is served.
    "keda.tls_client_ca_path": Path;
    /// Serve the External Metrics API of Kubernetes to HPAs. Where KEDA runs, KEDA serves it. See external-metrics.md.
    "external_metrics.enabled": Bool = "false";
    /// The address of the External Metrics API.
    "external_metrics.listen": Address = "127.0.0.1:9466";
    /// Its certificate chain (PEM); needs `external_metrics.tls_key_path`.
    "external_metrics.tls_cert_path": Path;
    /// The private key of its certificate (PEM).
    "external_metrics.tls_key_path": Path;
    /// Certificates (PEM) of the authorities that sign the API server's certificate as a client. Unset: the ConfigMap
    /// `kube-system/extension-apiserver-authentication` has them.
    "external_metrics.front_proxy_ca_path": Path;
    /// The common names that this certificate may have; empty: any. Only with `external_metrics.front_proxy_ca_path`.
    "external_metrics.front_proxy_names": Texts;
    /// True: the variants, the pods and their states are read from a Kubernetes cluster, besides what `backend` measures. See
    /// kubernetes.md for what is read and the rights that it needs. For a build with the cargo feature kubernetes.
    "kubernetes.enabled": Bool = "false";
    /// A kubeconfig. Unset: the service account of the pod that the collector runs in.
    "kubernetes.kubeconfig": Path;
    /// The context of the kubeconfig. Unset: its current one.
    "kubernetes.context": Text;
    /// The only namespaces that are read, for which Roles are enough. Empty: all, with a ClusterRole.
    "kubernetes.namespaces": Texts;
    /// What tells `backend = "scrape"` which pods to scrape: `pools` (the pods of InferencePools, and their Endpoint
    /// Pickers), `endpoint_slices` (the pods of Services, by `scrape_selector`) or `off`. Unset: `pools`, unless the
    /// section `[scrape]` names targets. Set, these are scraped as well.
    "kubernetes.scrape": OneOf(&["pools", "endpoint_slices", "off"]);
    /// The labels of the Services whose pods are scraped, as `app=vllm,tier=prod`, for `scrape = "endpoint_slices"`.
    "kubernetes.scrape_selector": Text;
    /// False: `/metrics` has no series of single replicas (`collector_replica_*`). See metrics.md.
    "metrics.per_replica": Bool = "true";
    /// False: `/metrics` has the families of the upstream autoscaler only as `collector_*`, and not as `wva_*` too.
    "metrics.upstream_names": Bool = "true";
    /// The least severity that is logged: off, error, warn, info, debug or trace. `RUST_LOG` takes precedence.
    "log.level": OneOf(&["off", "error", "warn", "info", "debug", "trace"]) = "info";
    /// The format of log lines: text or json.
    "log.format": OneOf(&["text", "json"]) = "text";
};

/// The keys of one `[[variants]]`; their paths are relative to it.
pub(crate) const VARIANT_KEYS: &[Key] = keys! {
    "";
    /// The variant's name. Required.
    "name": Text;
    /// Its namespace and that of its pods. Required.
    "namespace": Text;
    /// The model it serves. Required.
    "model": Text;
    /// What its pods run on.
    "accelerator": Text;
    /// The cost of one replica per hour.
    "cost": Number = "10";
    /// The names of its pods: `*` is any text, `?` any one character.
    "pods": Text = "*";
    /// The greatest batch of one replica.
    "max_batch": Count;
    /// The refresh interval of its model, which is also the ttl of its values; default: `cache.fetch_interval` and
    /// `cache.ttl`. Of a model's variants the shortest is used.
    "fetch_interval": Duration;
};
