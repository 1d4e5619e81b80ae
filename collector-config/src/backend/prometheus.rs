// SPDX-License-Identifier: Apache-2.0
//! The section `[prometheus]`.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{Backend, Clock};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};

use super::{BackendFactory, BackendSettings, BoxError, Problem};
use crate::key::{Key, keys, without_user};

/// The backend that queries a PromQL server.
pub(super) fn factory() -> BackendFactory {
    BackendFactory::new("prometheus", KEYS, |section| {
        Ok(PrometheusConfig {
            engines: section.engines()?,
            url_origin: section.origin("url"),
            proxy_origin: section.origin("proxy"),
            ..section.read()?
        })
    })
}

const TIMEOUT: &str = "prometheus.timeout";

/// Most requests of the first fetch of a few models.
const FETCH_REQUESTS: u64 = 16;

const KEYS: &[Key] = keys! {
    "prometheus.";
    /// The URL of the PromQL server, including a path prefix. Required, because a wrong guess would look like a server
    /// that is down.
    "url": Url, aliases "PROMETHEUS_BASE_URL";
    /// Allows `http://`, and tokens over it: anyone who reads the traffic reads the token.
    "allow_http": Bool = "false", aliases "PROMETHEUS_ALLOW_HTTP";
    /// Time for one request: DNS, connecting, TLS, head and body together. A call with its retries takes at most 3 times
    /// as long plus 1 s.
    "timeout": Duration = "5s";
    /// Sent as `Authorization: Bearer`. Takes precedence over `prometheus.token_path`.
    "bearer_token": Secret, aliases "PROMETHEUS_BEARER_TOKEN";
    /// A file that holds the token; read again whenever it changes.
    "token_path": Path, aliases "PROMETHEUS_TOKEN_PATH";
    /// A program and its arguments, `["gcloud", "auth", "print-access-token"]` for example, whose output is sent as
    /// `Authorization: Bearer`. Run before the first request, after each `prometheus.token_ttl`, and when the server
    /// answers 401; at most 10s. It runs without a shell. It is shown with the configuration: no secrets among the
    /// arguments.
    "token_command": Texts;
    /// How long a token of `prometheus.token_command` is used.
    "token_ttl": Duration = "10m";
    /// The user name of basic authentication; needs `prometheus.password_path` or `prometheus.password`.
    "username": Text;
    /// The password of `prometheus.username`.
    "password": Secret;
    /// A file that holds the password; read again whenever it changes.
    "password_path": Path;
    /// Signs each request for a service of AWS in this region, `eu-west-1` for example, with credentials from AWS's usual
    /// places: variables, files, the role of a pod or an instance. Needs a build with the cargo feature `sigv4`.
    "sigv4.region": Text;
    /// The service that requests are signed for: `aps` is Amazon Managed Service for Prometheus.
    "sigv4.service": Text = "aps";
    /// The profile of the AWS configuration; default: that of `AWS_PROFILE`, or `default`.
    "sigv4.profile": Text;
    /// Headers of each request, by name: `{ "X-Tenant" = "a" }`.
    "headers": NamedSecrets;
    /// Files that hold the values of such headers: `{ "X-Api-Key" = "/etc/key" }`; read again whenever they change.
    "header_paths": NamedPaths;
    /// Parameters in the URL of each request: `{ namespace = "prod" }` for a gateway that requires one. They are shown
    /// with the configuration: no secrets.
    "parameters": NamedTexts;
    /// The HTTP proxy to the server, `http://HOST:PORT`, optionally with `USER:PASSWORD@` before the host. The default is
    /// `HTTPS_PROXY` or `HTTP_PROXY`, by the scheme of `prometheus.url` and in upper or lower case, unless `NO_PROXY`
    /// names the server or it is on loopback. Empty in a file: no proxy.
    "proxy": Url;
    /// Certificates (PEM) of the authorities that may have signed the server's; default: those of the operating system.
    "ca_cert_path": Path, aliases "PROMETHEUS_CA_CERT_PATH";
    /// The client's certificate chain (PEM), for servers that require one; needs `prometheus.client_key_path`.
    "client_cert_path": Path, aliases "PROMETHEUS_CLIENT_CERT_PATH";
    /// The private key of the client's certificate (PEM).
    "client_key_path": Path, aliases "PROMETHEUS_CLIENT_KEY_PATH";
    /// The name that the server's certificate must contain; default: the host of the URL.
    "server_name": Text, aliases "PROMETHEUS_SERVER_NAME";
    /// Accepts any certificate: anyone on the network path can read the token and forge metrics.
    "tls_insecure_skip_verify": Bool = "false", aliases "PROMETHEUS_TLS_INSECURE_SKIP_VERIFY";
    /// Sent as `X-Scope-OrgID`, which Mimir, Cortex and multi-tenant gateways require.
    "tenant": Text;
    /// The scrape interval of the pods, if it cannot be discovered from the samples of one series.
    "scrape_interval": Duration = "15s";
    /// The window of peaks and rates; default: the greater of 1m and 4 scrape intervals.
    "window": Duration;
    /// Most bytes of one answer, after decompression.
    "max_response_bytes": Positive = "67108864";
    /// Requests per second in the long run, waiting callers first; 0 is no limit except that of 8 in flight. A fleet of
    /// 10 000 models takes some 20.
    "requests_per_second": Count = "100";
    /// Requests that may be sent at once after a quiet time. A cycle of 10 000 models sends some 600, and one fetch up to
    /// 16.
    "request_burst": Positive = "1000";
    /// The only namespaces to read; default: all.
    "namespaces": Texts, aliases "WATCH_NAMESPACE";
    /// Part of every selector: `cluster="eu-west"` on a server that holds several clusters.
    "matchers": Texts;
    /// The prefix that a scrape job or pipeline adds to the engines' own names: `kserve_` for
    /// `kserve_vllm:num_requests_running`. Built-in prefixes need no key.
    "name_prefix": Text;
    /// The labels that name the namespace; the first that a series has is used.
    "labels.namespace": Texts = "exported_namespace,namespace,k8s_namespace_name,kubernetes_namespace";
    /// The labels that name the pod; the first that a series has is used.
    "labels.pod": Texts = "exported_pod,pod,pod_name,k8s_pod_name,kubernetes_pod_name";
    /// The labels that name the model; default: those of each engine, then `model_name` and `model`.
    "labels.model": Texts;
    /// The labels that name data-parallel ranks; default: those of each engine.
    "labels.rank": Texts;
    /// The labels that name the cluster: a model with several values of one of them in a namespace is ambiguous until
    /// `prometheus.matchers` selects one.
    "labels.cluster": Texts = "cluster,cluster_name,k8s_cluster_name,kubernetes_cluster,location";
    /// Models that no label names: each with a `selector`, as between braces in PromQL, and the `model` of the selected
    /// series.
    "models": Tables;
};

impl BackendSettings for PrometheusConfig {
    fn build(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, BoxError> {
        Ok(Arc::new(PrometheusBackend::new(self.clone(), clock)?))
    }

    fn timeout(&self) -> Option<(&'static str, Duration)> {
        Some((TIMEOUT, self.timeout))
    }

    fn only_namespaces(&self) -> Option<(&'static str, &[String])> {
        Some(("prometheus.namespaces", &self.namespaces))
    }

    fn problems(&self) -> Vec<Problem> {
        let errors = self.validate().err().unwrap_or_default();
        errors
            .into_iter()
            // Engines are every backend's, and were checked before.
            .filter(|error| error.keys().all(|key| key != "engines"))
            .map(|error| Problem {
                keys: error
                    .keys()
                    .filter_map(|key| {
                        let paths = KEYS.iter().map(|known| known.path);
                        paths.into_iter().find(|path| path.strip_prefix("prometheus.") == Some(key))
                    })
                    .collect(),
                // What is no URL yet may hold a password, and the message quote it.
                message: error.to_string().replace(self.url.trim(), &without_user(self.url.trim())),
            })
            .collect()
    }

    /// Of unencrypted tokens and unverified certificates the backend itself warns when it is built.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.bearer_token.is_some() && self.token_path.is_some() {
            warnings.push(
                "prometheus.token_path is ignored: prometheus.bearer_token is set and beats it"
                    .to_owned(),
            );
        }
        let in_a_call = u64::from(self.request_burst)
            + u64::from(self.requests_per_second) * self.timeout.as_secs();
        if self.requests_per_second > 0 && in_a_call < FETCH_REQUESTS {
            warnings.push(format!(
                "prometheus.requests_per_second ({}) and prometheus.request_burst ({}) leave a fetch \
                 too few requests within prometheus.timeout: it may take {FETCH_REQUESTS}; set \
                 prometheus.request_burst to {FETCH_REQUESTS} or more",
                self.requests_per_second, self.request_burst
            ));
        }
        warnings
    }
}
