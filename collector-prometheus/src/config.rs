// SPDX-License-Identifier: Apache-2.0
//! What a user sets about the server: the keys under `[prometheus]`.

mod access;
mod address;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use collector_engines::{EngineSpec, Engines, Expression, ExpressionError};
use collector_transport::ConfigError;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::SECTION;
use crate::labels::LabelsConfig;
use crate::promql::{Filter, Matcher};
use crate::shape::DiscoverySettings;

pub use self::access::SigV4Config;
pub(crate) use self::access::{check_header_value, check_password};

/// How to reach a PromQL server and how it scrapes.
///
/// Serializing it leaves the secrets out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrometheusConfig {
    /// The server's URL, including a path prefix: `https://prometheus:9090`. There is no default, because a
    /// wrong guess would look like a server that is down.
    pub url: String,
    /// Allows `http://`, and tokens over it. Default false: anyone who reads the traffic reads the token.
    pub allow_http: bool,
    /// Time for one request: DNS, connecting, TLS, head and body together. Default 5 s, a sixth of
    /// the refresh interval: three tries fit into it.
    #[serde(with = "collector_core::duration")]
    pub timeout: Duration,
    /// Sent as `Authorization: Bearer`. Takes precedence over `token_path`.
    #[serde(skip_serializing)]
    pub bearer_token: Option<SecretString>,
    /// A file that holds the token; read again whenever it changes, because service-account tokens
    /// rotate every hour.
    pub token_path: Option<PathBuf>,
    /// A program and its arguments, whose output is sent as `Authorization: Bearer`. It is run before
    /// the first request, after each `token_ttl`, and when the server answers 401.
    pub token_command: Vec<String>,
    /// How long a token of `token_command` is used. Default 10 m.
    #[serde(with = "collector_core::duration")]
    pub token_ttl: Duration,
    /// The user name of basic authentication; needs `password` or `password_path`.
    pub username: Option<String>,
    /// The password of `username`.
    #[serde(skip_serializing)]
    pub password: Option<SecretString>,
    /// A file that holds the password; read again whenever it changes.
    pub password_path: Option<PathBuf>,
    /// Signs each request for a service of AWS.
    pub sigv4: SigV4Config,
    /// Headers of each request, by name. The values may be secret, so they are never shown.
    #[serde(skip_serializing)]
    pub headers: BTreeMap<String, SecretString>,
    /// Files that hold the values of such headers, by name of the header; read again whenever they
    /// change.
    pub header_paths: BTreeMap<String, PathBuf>,
    /// Parameters in the URL of each request, by name. They are not secret, and may be shown.
    pub parameters: BTreeMap<String, String>,
    /// The HTTP proxy to the server, `http://HOST:PORT`; `None` or empty: none. The variables `HTTPS_PROXY`,
    /// `HTTP_PROXY` and `NO_PROXY` are read by `collector-config`, not here.
    #[serde(skip_serializing)]
    pub proxy: Option<SecretString>,
    /// Certificates (PEM) of the authorities that may have signed the server's; default: those of
    /// the operating system.
    pub ca_cert_path: Option<PathBuf>,
    /// The client's certificate chain (PEM), for servers that demand one.
    pub client_cert_path: Option<PathBuf>,
    /// The private key (PEM) of that certificate.
    pub client_key_path: Option<PathBuf>,
    /// The name that the server's certificate must contain; default: the host of `url`.
    pub server_name: Option<String>,
    /// Accepts any certificate. Default false: with it, anyone on the network path can read the token and
    /// forge metrics.
    pub tls_insecure_skip_verify: bool,
    /// Sent as `X-Scope-OrgID`, which Mimir, Cortex and multi-tenant gateways require.
    pub tenant: Option<String>,
    /// How often the server scrapes the pods. Default 15 s, the habit of most installations; Prometheus's own
    /// default is 1 m, for which the window must be set.
    #[serde(with = "collector_core::duration")]
    pub scrape_interval: Duration,
    /// The window of peaks and rates. Default the greater of 1 m and 4 scrape intervals: a rate needs two
    /// samples, and two scrapes may be lost.
    #[serde(with = "collector_core::duration::option")]
    pub window: Option<Duration>,
    /// Most bytes of one answer, after decompression. Default 64 MiB, far more than the answer about any
    /// group of pods.
    pub max_response_bytes: usize,
    /// Requests per second in the long run, for any caller; 0 is no limit except that of 8 in flight. Default
    /// 100. The engine enforces it, not this crate.
    ///
    /// A fetch sends up to 16 requests for each group of some 2500 pods, so a fleet of 10 000 models takes
    /// some 600 every 30 s: 20 per second, all of them at the beginning of a cycle.
    pub requests_per_second: u32,
    /// Requests that may be sent at once after a quiet time. Default 1000: more than a cycle of 10 000
    /// models, so normal operation is never slowed.
    pub request_burst: u32,
    /// The only namespaces to read; empty, the default, reads all.
    pub namespaces: Vec<String>,
    /// Part of every selector: `cluster="eu-west"` for example, on a server of several clusters.
    pub matchers: Vec<String>,
    /// The labels that name namespaces, pods, models, ranks and clusters.
    pub labels: LabelsConfig,
    /// What a scrape job or pipeline adds before the engines' own names: `kserve_` for
    /// `kserve_vllm:num_requests_running`.
    pub name_prefix: Option<String>,
    /// Models that no label names: the series that a selector matches.
    pub models: Vec<ModelSelector>,
    /// Engines besides the built-in ones, and corrections of these. All backends read them; a configuration
    /// has them next to the sections, as `[[engines]]`.
    #[serde(skip)]
    pub engines: Vec<EngineSpec>,
    /// Where `url` was set, for messages: `environment variable PROMETHEUS_BASE_URL`, for example.
    #[serde(skip)]
    pub url_origin: Option<String>,
    /// Where `proxy` was set, for messages.
    #[serde(skip)]
    pub proxy_origin: Option<String>,
}

/// Series of one model, whatever their labels say: an entry of `[[prometheus.models]]`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSelector {
    /// The selector, as between braces in PromQL: `namespace="a",pod=~"llama-.*"`.
    pub selector: String,
    /// The model's id.
    pub model: String,
}

/// The scrape interval if nothing is configured or discovered.
pub(crate) const DEFAULT_SCRAPE_INTERVAL: Duration = Duration::from_secs(15);

/// Lower bound of `max_response_bytes`: an answer about one model fits.
const MAX_RESPONSE_BYTES_MIN: usize = 64 << 10;

impl Default for PrometheusConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            allow_http: false,
            timeout: Duration::from_secs(5),
            bearer_token: None,
            token_path: None,
            token_command: Vec::new(),
            token_ttl: Duration::from_secs(600),
            username: None,
            password: None,
            password_path: None,
            sigv4: SigV4Config::default(),
            headers: BTreeMap::new(),
            header_paths: BTreeMap::new(),
            parameters: BTreeMap::new(),
            proxy: None,
            ca_cert_path: None,
            client_cert_path: None,
            client_key_path: None,
            server_name: None,
            tls_insecure_skip_verify: false,
            tenant: None,
            scrape_interval: DEFAULT_SCRAPE_INTERVAL,
            window: None,
            max_response_bytes: 64 << 20,
            requests_per_second: 100,
            request_burst: 1000,
            namespaces: Vec::new(),
            matchers: Vec::new(),
            labels: LabelsConfig::default(),
            name_prefix: None,
            models: Vec::new(),
            engines: Vec::new(),
            url_origin: None,
            proxy_origin: None,
        }
    }
}

impl PrometheusConfig {
    /// Validates the settings without touching files or the network, and reports every problem, not just the
    /// first.
    ///
    /// # Errors
    /// One error for each invalid key.
    pub fn validate(&self) -> Result<(), Vec<ConfigError>> {
        let mut errors = Vec::new();
        errors.extend(self.base_url().err());
        errors.extend(self.proxy_url().err());
        errors.extend(SECTION.check_server_name(self.server_name.as_deref()));
        let mut refuse = |key, problem: String| errors.push(SECTION.error(key, problem));
        for (key, value, example) in
            [("timeout", self.timeout, "5s"), ("scrape_interval", self.scrape_interval, "15s")]
        {
            if value.is_zero() {
                refuse(key, format!("0 cannot work; set it to {example} for example"));
            }
        }
        if let Some(window) = self.window
            && window < self.scrape_interval * 2
        {
            let show = collector_core::duration::format;
            refuse(
                "window",
                format!(
                    "{} is shorter than two scrapes (prometheus.scrape_interval is {}), so that no \
                     rate could be taken; set it to {} or leave it out",
                    show(window),
                    show(self.scrape_interval),
                    show(self.scrape_interval * 4),
                ),
            );
        }
        if self.max_response_bytes < MAX_RESPONSE_BYTES_MIN {
            refuse(
                "max_response_bytes",
                format!(
                    "{} is less than {MAX_RESPONSE_BYTES_MIN}, which one model's answer may take; \
                     the default is 67108864",
                    self.max_response_bytes
                ),
            );
        }
        match (&self.client_cert_path, &self.client_key_path) {
            (Some(_), None) => refuse(
                "client_key_path",
                "not set, and prometheus.client_cert_path is: set both or neither \
                 (PROMETHEUS_CLIENT_KEY_PATH)"
                    .into(),
            ),
            (None, Some(_)) => refuse(
                "client_cert_path",
                "not set, and prometheus.client_key_path is: set both or neither \
                 (PROMETHEUS_CLIENT_CERT_PATH)"
                    .into(),
            ),
            _ => {}
        }
        if self.namespaces.iter().any(String::is_empty) {
            refuse("namespaces", "an entry is empty; leave it out".into());
        }
        self.check_access(&mut errors);
        self.check_what_is_read(&mut errors);
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn check_what_is_read(&self, errors: &mut Vec<ConfigError>) {
        let mut refuse = |key, problem: String| errors.push(SECTION.error(key, problem));
        if let Err(error) = selector(&self.matchers.join(",")) {
            refuse("matchers", format!("{error}; write each as label=\"value\""));
        }
        for (number, entry) in self.models.iter().enumerate() {
            let place = number + 1;
            match selector(&entry.selector) {
                Err(error) => refuse("models", format!("entry {place}, selector: {error}")),
                Ok(filter) if filter.0.is_empty() => {
                    refuse("models", format!("entry {place}: its selector is empty"));
                }
                Ok(_) => {}
            }
            if entry.model.is_empty() {
                refuse("models", format!("entry {place}: its model is empty"));
            }
            let same = |other: &&ModelSelector| {
                other.selector == entry.selector && other.model != entry.model
            };
            if let Some(other) = self.models[..number].iter().find(same) {
                refuse(
                    "models",
                    format!(
                        "entry {place}: its selector is that of {:?} and of {:?}",
                        other.model, entry.model
                    ),
                );
            }
        }
        for (key, names, required) in [
            ("labels.namespace", &self.labels.namespace, true),
            ("labels.pod", &self.labels.pod, true),
            ("labels.model", &self.labels.model, false),
            ("labels.rank", &self.labels.rank, false),
            ("labels.cluster", &self.labels.cluster, false),
        ] {
            if let Some(name) = names.iter().find(|name| !is_name(name, "_")) {
                refuse(key, format!("{name:?} is not the name of a label"));
            }
            if required && names.is_empty() {
                refuse(key, "it is empty; leave it out for the usual labels".into());
            }
        }
        if let Some(prefix) = &self.name_prefix
            && !is_name(prefix, "_:")
        {
            refuse("name_prefix", format!("{prefix:?} cannot begin the name of a series"));
        }
        if let Err(error) = Engines::new(&self.engines) {
            refuse("engines", error.to_string());
        }
    }

    /// Returns the settings that discovery depends on. Call it on validated settings.
    pub(crate) fn terms(&self) -> Result<DiscoverySettings, ConfigError> {
        let refuse = |key, error: String| SECTION.error(key, error);
        Ok(DiscoverySettings {
            engines: Engines::new(&self.engines)
                .map_err(|error| refuse("engines", error.to_string()))?,
            labels: self.labels.clone(),
            name_prefix: self.name_prefix.clone(),
            matchers: selector(&self.matchers.join(","))
                .map_err(|error| refuse("matchers", error))?,
            has_model_selectors: !self.models.is_empty(),
            window: self.window,
            scrape_interval: self.scrape_interval,
        })
    }
}

/// Parses the conditions of a selector, as a user writes them between braces.
pub(crate) fn selector(text: &str) -> Result<Filter, String> {
    let expression: Expression =
        format!("x{{{text}}}").parse().map_err(|error: ExpressionError| {
            let found = error.found.filter(|found| *found != '}');
            let found = found.map_or_else(|| "the end".to_owned(), |found| format!("{found:?}"));
            // The parsed text has two more characters at its start.
            let position = error.position.saturating_sub(2);
            format!("{text:?}: at character {position}: expected {}, found {found}", error.expected)
        })?;
    match expression {
        Expression::Series { series, optional: false } if series.number_in.is_none() => {
            Ok(Filter(series.matchers.iter().map(Matcher::from_engine).collect()))
        }
        _ => Err(format!("{text:?} is not a list of matchers")),
    }
}

/// Returns whether a name consists of letters, digits and `others`, and does not start with a digit.
fn is_name(name: &str, others: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn config(url: &str) -> PrometheusConfig {
        PrometheusConfig { url: url.into(), ..PrometheusConfig::default() }
    }

    #[track_caller]
    pub(super) fn refused(config: &PrometheusConfig, parts: &[&str]) {
        let errors = config.validate().unwrap_err();
        let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        for part in parts {
            assert!(text.contains(part), "{text:?} lacks {part:?}");
        }
        assert!(!text.contains("hunter2"), "{text:?} shows a secret");
    }

    #[test]
    fn every_broken_key_is_named() {
        let broken = PrometheusConfig {
            timeout: Duration::ZERO,
            window: Some(Duration::from_secs(20)),
            client_cert_path: Some("cert.pem".into()),
            server_name: Some("not a name".into()),
            bearer_token: Some("hunter2 with blanks".into()),
            tenant: Some("a\nb".into()),
            max_response_bytes: 10,
            ..config("https://h")
        };
        refused(
            &broken,
            &[
                "prometheus.timeout",
                "prometheus.window: 20s",
                "set it to 1m",
                "prometheus.client_key_path",
                "prometheus.server_name",
                "prometheus.bearer_token",
                "prometheus.tenant",
                "prometheus.max_response_bytes",
            ],
        );
    }

    #[test]
    fn no_secret_is_serialized_or_shown() {
        let config = PrometheusConfig {
            bearer_token: Some("hunter2".into()),
            password: Some("hunter2".into()),
            headers: [("X-Key".to_owned(), "hunter2".into())].into(),
            proxy: Some("http://me:hunter2@proxy".into()),
            ..config("https://h")
        };
        assert!(!serde_json::to_string(&config).unwrap().contains("hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn unknown_keys_are_refused_and_durations_are_text() {
        let read = serde_json::from_str::<PrometheusConfig>;
        let config = read(r#"{"url":"https://h","timeout":"2s","window":"1m30s"}"#).unwrap();
        assert_eq!(config.timeout, Duration::from_secs(2));
        assert_eq!(config.window, Some(Duration::from_secs(90)));
        assert!(read(r#"{"urll":"https://h"}"#).is_err());
    }

    #[test]
    fn an_invalid_selector_is_quoted_with_position_and_expectation() {
        let models = |selector: &str| PrometheusConfig {
            models: vec![ModelSelector { selector: selector.into(), model: "m".into() }],
            ..config("https://h")
        };
        refused(
            &models(r#"namespace="a",pod"#),
            &["prometheus.models: entry 1, selector", "at character 18: expected", "the end"],
        );
        refused(&models(r#"namespace="a"}"#), &["entry 1, selector", "at character 15"]);
        refused(&models(r#"pod=~"(""#), &["entry 1, selector", "at character"]);
        refused(&models(""), &["entry 1: its selector is empty"]);
        let matchers = PrometheusConfig {
            matchers: vec![r#"cluster="a""#.into(), "eu".into()],
            ..config("https://h")
        };
        refused(&matchers, &["prometheus.matchers", "at character", "label=\"value\""]);
    }

    #[test]
    fn a_selector_is_read_as_promql_writes_it() {
        let read = |text: &str| selector(text).unwrap().to_string();
        assert_eq!(
            read(r#"namespace="a",pod=~"llama-.*",job!="x",zone!~"b|c""#),
            r#"{namespace="a",pod=~"llama-.*",job!="x",zone!~"b|c"}"#
        );
        assert_eq!(read(""), "");
    }

    #[test]
    fn given_models_have_a_name_and_a_selector_of_their_own() {
        let given = |selector: &str, model: &str| ModelSelector {
            selector: selector.into(),
            model: model.into(),
        };
        let models = |models| PrometheusConfig { models, ..config("https://h") };
        let first = given(r#"pod="a""#, "m");
        refused(&models(vec![given(r#"pod="a""#, "")]), &["entry 1: its model is empty"]);
        refused(
            &models(vec![first.clone(), given(r#"pod="a""#, "n")]),
            &["entry 2: its selector is that of \"m\" and of \"n\""],
        );
        let several = models(vec![first, given(r#"pod="b""#, "m")]);
        assert!(several.validate().is_ok(), "one model may have several selectors");
    }

    #[test]
    fn labels_and_prefixes_that_no_series_can_have_are_refused() {
        let mut broken = config("https://h");
        broken.labels.pod = vec!["pod-name".into()];
        broken.labels.namespace = Vec::new();
        broken.labels.rank = vec!["0rank".into()];
        broken.name_prefix = Some("9team_".into());
        refused(
            &broken,
            &[
                "prometheus.labels.pod: \"pod-name\" is not the name of a label",
                "prometheus.labels.namespace: it is empty",
                "prometheus.labels.rank",
                "prometheus.name_prefix: \"9team_\" cannot begin the name of a series",
            ],
        );
        let mut fine = config("https://h");
        fine.labels.pod = vec!["workload".into()];
        fine.name_prefix = Some("team_a:".into());
        assert!(fine.validate().is_ok());
    }
}
