// SPDX-License-Identifier: Apache-2.0
//! Finds values that are valid by themselves and cannot work, or not together.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use collector_engine::{StaticDirectory, TimingError, VariantSpec};
use collector_engines::Engines;

use crate::error::ConfigError;
use crate::external_metrics::ExternalMetricsConfig;
use crate::keda::WAIT_MAX;
use crate::keys::{COMMON_KEYS, ENGINES, OTHER_ENGINES};
use crate::kubernetes::KubernetesConfig;
use crate::loaded::Loaded;
use crate::origin::{Origin, Origins};
use crate::promql::{ANSWER_BYTES_MIN, ANSWER_WITHIN_MAX, PromqlConfig};
use crate::schema::{CollectorConfig, ServerConfig};

/// Adds mistakes to `errors`, and wasteful settings to the warnings.
///
/// A key that has an error already kept its default, which nobody wrote: its relations to others
/// are not checked.
pub(crate) fn validate(loaded: &mut Loaded, errors: &mut Vec<ConfigError>) {
    // The settings of a file that cannot be read are unknown.
    if errors.iter().any(ConfigError::is_of_whole_file) {
        return;
    }
    let broken = errors.iter().filter_map(ConfigError::unread_key).map(str::to_owned).collect();
    let Loaded { config, origins, warnings, keys: _, values: _ } = loaded;
    let findings = &mut Findings { broken, origins, errors };
    check_backends(config, findings, warnings);
    check_recorded(config, findings, warnings);
    check_timings(config, findings);
    warnings.extend(config.cache.warnings());
    check_tls(config, findings);
    check_hosts(&config.server, findings);
    check_listen(config, findings);
    check_external_metrics(&config.external_metrics, findings);
    if config.keda.wait.is_zero() || config.keda.wait > WAIT_MAX {
        let message = "must be more than 0 and at most 1s: KEDA waits for ever, and a slow error can make it scale \
                       a running model to zero";
        findings.refuse(&["keda.wait"], message);
    }
    check_promql(&config.promql, findings);
    check_kubernetes(&config.kubernetes, findings);
    check_variants(&config.variants, findings);
}

/// The mistakes that were found, and which keys can have more.
struct Findings<'a> {
    /// Keys and sections that could not be read.
    broken: HashSet<String>,
    origins: &'a Origins,
    errors: &'a mut Vec<ConfigError>,
}

impl Findings<'_> {
    /// Whether all of these keys were read.
    fn are_sound(&self, keys: &[&str]) -> bool {
        let is_broken = |key: &&str| {
            self.broken.contains(*key)
                || key.split_once('.').is_some_and(|(section, _)| self.broken.contains(section))
        };
        !keys.iter().any(is_broken)
    }

    /// Adds an error of the first of these keys, if all of them were read.
    fn refuse(&mut self, keys: &[&str], message: impl Into<String>) {
        if self.are_sound(keys) {
            let key = keys[0];
            self.errors.push(ConfigError::new(message).key(key).at(self.origins.of(key)));
        }
    }

    /// Adds an error of all of these keys together, with where their values came from, if all of them were read.
    fn refuse_together(&mut self, keys: &[&str], message: String) {
        if !self.are_sound(keys) {
            return;
        }
        let set: Vec<String> = keys
            .iter()
            .filter_map(|key| match self.origins.of(key) {
                Origin::Default => None,
                origin => Some(format!("{key} is set in {origin}")),
            })
            .collect();
        self.errors.push(if set.is_empty() {
            ConfigError::new(message)
        } else {
            ConfigError::new(format!("{message} ({})", set.join(", ")))
        });
    }

    /// Adds an error of one entry of `[[variants]]`.
    fn refuse_variant(&mut self, index: usize, message: String) {
        let error = ConfigError::new(message);
        self.errors.push(match self.origins.of_variant(index) {
            Some(variant) => error.key(variant.path.as_str()).at(variant.origin.clone()),
            None => error,
        });
    }
}

/// The backends, their own settings, and the engines that all of them read.
fn check_backends(
    config: &CollectorConfig,
    findings: &mut Findings<'_>,
    warnings: &mut Vec<String>,
) {
    for message in config.backends.check_chosen(&config.backend) {
        findings.refuse(&["backend"], message);
    }
    let [scrape, epp] = OTHER_ENGINES;
    let engines = [ENGINES, scrape, epp];
    if findings.are_sound(&engines)
        && let Err(error) = Engines::new(&config.engines)
    {
        let set = |key: &&&str| !matches!(findings.origins.of(key), Origin::Default);
        let key = engines.iter().find(set).copied().unwrap_or(ENGINES);
        findings.refuse_together(&[key], format!("{key}: {error}"));
    }
    for settings in config.chosen() {
        for problem in settings.problems() {
            findings.refuse_together(&problem.keys, problem.message);
        }
        warnings.extend(settings.warnings());
    }
}

/// The times of cache, background and backends, which have to fit each other.
fn check_timings(config: &CollectorConfig, findings: &mut Findings<'_>) {
    let timeouts: Vec<_> = config.chosen().filter_map(|settings| settings.timeout()).collect();
    for error in config.cache.validate(&timeouts).err().unwrap_or_default() {
        findings.refuse_together(&keys_of(&error), error.to_string());
    }
    let of_timeouts = timeouts.iter().map(|(key, _)| *key);
    let keys: Vec<&str> = of_timeouts.chain(["cache.freshness.unavailable_threshold"]).collect();
    if findings.are_sound(&keys) {
        let slowest = timeouts.iter().map(|(_, timeout)| *timeout).max().unwrap_or_default();
        check_intervals(config, slowest, findings);
    }
}

fn check_promql(promql: &PromqlConfig, findings: &mut Findings<'_>) {
    if promql.answer_within.is_zero() || promql.answer_within >= ANSWER_WITHIN_MAX {
        let message = "must be more than 0 and less than 1.4s: an adapter waits 3 s, for two tries";
        findings.refuse(&["promql.answer_within"], message);
    }
    if promql.ttl >= promql.max_age {
        let message = "must be less than promql.max_age: an answer is returned again for so long, and its samples \
                       grow old meanwhile";
        findings.refuse(&["promql.ttl", "promql.max_age"], message);
    }
    if promql.max_answer_bytes < ANSWER_BYTES_MIN {
        let message =
            format!("must be at least {ANSWER_BYTES_MIN}, which one model's answer may take");
        findings.refuse(&["promql.max_answer_bytes"], message);
    }
}

fn check_kubernetes(kubernetes: &KubernetesConfig, findings: &mut Findings<'_>) {
    #[cfg(not(feature = "kubernetes"))]
    if kubernetes.enabled {
        let message = "this build reads no cluster: build it with the cargo feature kubernetes";
        findings.refuse(&["kubernetes.enabled"], message);
    }
    #[cfg(feature = "kubernetes")]
    if findings.are_sound(&["kubernetes.scrape"])
        && let Err(message) = kubernetes.page_source()
    {
        findings.refuse_together(&["kubernetes.scrape_selector"], message);
    }
}

/// What was recorded is mixed neither with what is measured now nor with what is restored later.
fn check_recorded(
    config: &CollectorConfig,
    findings: &mut Findings<'_>,
    warnings: &mut Vec<String>,
) {
    let is_recorded = |name: &&String| {
        config.sections.get(name.as_str()).is_some_and(|settings| settings.is_recorded())
    };
    let Some(name) = config.backend.iter().find(is_recorded) else { return };
    if config.backend.len() > 1 {
        let message = format!("{name:?} cannot be merged with other backends: name it alone");
        findings.refuse(&["backend"], message);
    }
    if config.kubernetes.enabled {
        warnings.push(
            "kubernetes.enabled is not used: what was recorded is not mixed with what a cluster says now".to_owned(),
        );
    }
    if config.cache.snapshot_path.is_some() {
        warnings.push(
            "cache.snapshot_path is not used: readings of a recording must not be restored as those of a server"
                .to_owned(),
        );
    }
}

/// Each server has its own port.
fn check_listen(config: &CollectorConfig, findings: &mut Findings<'_>) {
    let external = &config.external_metrics;
    let servers = [
        ("server.listen", Some(config.server.listen)),
        ("keda.listen", config.keda.listen),
        ("external_metrics.listen", external.enabled.then_some(external.listen)),
    ];
    for (index, (key, address)) in servers.iter().enumerate() {
        let Some(address) = address else { continue };
        for (former, other) in &servers[..index] {
            if other.is_some_and(|other| exclude_each_other(other, *address)) {
                let message =
                    format!("{key}: {address} is taken by {former}; give each its own port");
                findings.refuse_together(&[key, former], message);
            }
        }
    }
}

/// Whether one process cannot listen on both addresses. `[::]` is every address, also those of IPv4.
fn exclude_each_other(one: SocketAddr, other: SocketAddr) -> bool {
    let includes = |all: SocketAddr, one: SocketAddr| {
        all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4())
    };
    let is_one_port = one.port() == other.port() && one.port() != 0;
    is_one_port && (one.ip() == other.ip() || includes(one, other) || includes(other, one))
}

/// The files of TLS that go together.
fn check_tls(config: &CollectorConfig, findings: &mut Findings<'_>) {
    let (server, keda, external) = (&config.server, &config.keda, &config.external_metrics);
    let pairs = [
        (
            ["server.tls_cert_path", "server.tls_key_path"],
            &server.tls_cert_path,
            &server.tls_key_path,
        ),
        (["keda.tls_cert_path", "keda.tls_key_path"], &keda.tls_cert_path, &keda.tls_key_path),
        (
            ["external_metrics.tls_cert_path", "external_metrics.tls_key_path"],
            &external.tls_cert_path,
            &external.tls_key_path,
        ),
    ];
    for (pair, cert, key) in pairs {
        let (set, other) = match (cert, key) {
            (Some(_), None) => (pair[0], pair[1]),
            (None, Some(_)) => (pair[1], pair[0]),
            _ => continue,
        };
        findings.refuse(&[set, other], format!("set without {other}: set both, or neither"));
    }
    let client_cas = [
        (
            ["server.tls_client_ca_path", "server.tls_cert_path"],
            &server.tls_client_ca_path,
            &server.tls_cert_path,
        ),
        (
            ["keda.tls_client_ca_path", "keda.tls_cert_path"],
            &keda.tls_client_ca_path,
            &keda.tls_cert_path,
        ),
    ];
    for (pair, client_ca, cert) in client_cas {
        if client_ca.is_some() && cert.is_none() {
            let message =
                format!("set without {}: only a server with TLS can ask for certificates", pair[1]);
            findings.refuse(&pair, message);
        }
    }
}

/// The API server speaks TLS with its extensions, and nothing else.
fn check_external_metrics(external: &ExternalMetricsConfig, findings: &mut Findings<'_>) {
    let keys = [
        "external_metrics.enabled",
        "external_metrics.tls_cert_path",
        "external_metrics.tls_key_path",
    ];
    let has_none = external.tls_cert_path.is_none() && external.tls_key_path.is_none();
    if external.enabled && has_none {
        let message = format!("needs {} and {}: the API server speaks TLS only", keys[1], keys[2]);
        findings.refuse(&keys, message);
    }
    let names = ["external_metrics.front_proxy_names", "external_metrics.front_proxy_ca_path"];
    let are_unused =
        !external.front_proxy_names.is_empty() && external.front_proxy_ca_path.is_none();
    if are_unused {
        let message =
            format!("set without {}: otherwise the cluster says which names there are", names[1]);
        findings.refuse(&names, message);
    }
}

fn check_hosts(server: &ServerConfig, findings: &mut Findings<'_>) {
    if let Some(host) = server.allowed_hosts.iter().find(|host| !is_host_name(host)) {
        let message = format!(
            "{host:?} is not a name: write it as in the header Host, without scheme, port or wildcard"
        );
        findings.refuse(&["server.allowed_hosts"], message);
    }
}

/// Whether this can be the host of a request, without a port.
fn is_host_name(host: &str) -> bool {
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_');
    is_address || (!host.is_empty() && host.chars().all(is_name))
}

/// The paths of the keys in a relation.
fn keys_of(error: &TimingError) -> Vec<&'static str> {
    match error {
        TimingError::Order { lower, upper, .. } => vec![lower, upper],
        TimingError::Zero { key, .. } | TimingError::NoFile { key, .. } => vec![key],
        // Checked with the other settings of a variant.
        TimingError::Interval { .. } => Vec::new(),
        TimingError::Thresholds(error) => {
            [error.lower, error.upper].into_iter().filter_map(threshold_path).collect()
        }
    }
}

/// The path of a threshold, which the engine calls by its field.
fn threshold_path(field: &str) -> Option<&'static str> {
    COMMON_KEYS
        .iter()
        .map(|key| key.path)
        .find(|path| path.strip_prefix("cache.freshness.") == Some(field))
}

/// The intervals that variants have of their own, against the greatest time-out of a request.
fn check_intervals(config: &CollectorConfig, timeout: Duration, findings: &mut Findings<'_>) {
    for (index, spec) in config.variants.iter().enumerate() {
        let Some(interval) = spec.fetch_interval else { continue };
        if let Err(error) = config.cache.check_interval(interval, timeout) {
            findings.refuse_variant(index, format!("{:?}: {error}", spec.name));
        }
    }
}

/// The directory reports one wrong variant at a time: without it the next is found.
fn check_variants(variants: &[VariantSpec], findings: &mut Findings<'_>) {
    let mut left: Vec<(usize, &VariantSpec)> = variants.iter().enumerate().collect();
    while let Err(error) =
        StaticDirectory::new(left.iter().map(|(_, spec)| (*spec).clone()).collect())
    {
        let (index, _) = left.remove(error.index);
        findings.refuse_variant(index, format!("{:?}: {}", error.name, error.reason));
    }
}
