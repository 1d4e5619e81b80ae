// SPDX-License-Identifier: Apache-2.0
//! Finds values that are valid by themselves and cannot work, or not together.

use std::collections::HashSet;
use std::time::Duration;

use collector_engine::{StaticDirectory, TimingError, VariantSpec};
use collector_engines::Engines;

use crate::error::ConfigError;
use crate::external_metrics::ExternalMetricsConfig;
use crate::keda::WAIT_MAX;
use crate::keys::{COMMON_KEYS, ENGINES, OTHER_ENGINES};
use crate::loaded::Loaded;
use crate::origin::{Origin, Origins};
use crate::promql::{ANSWER_BYTES_MIN, ANSWER_WITHIN_MAX};
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
    let broken: HashSet<String> =
        errors.iter().filter_map(ConfigError::unread_key).map(str::to_owned).collect();
    let is_broken = |key: &str| {
        broken.contains(key)
            || key.split_once('.').is_some_and(|(section, _)| broken.contains(section))
    };
    let sound = |keys: &[&str]| !keys.iter().any(|key| is_broken(key));
    let Loaded { config, origins, warnings, keys: _, values: _ } = loaded;

    if sound(&["backend"]) {
        errors.extend(
            config
                .backends
                .check_chosen(&config.backend)
                .into_iter()
                .map(|message| error_at("backend", message, origins)),
        );
    }
    let [scrape, epp] = OTHER_ENGINES;
    let engines = [ENGINES, scrape, epp];
    if sound(&engines)
        && let Err(error) = Engines::new(&config.engines)
    {
        let set = |key: &&&str| !matches!(origins.of(key), Origin::Default);
        let key = engines.iter().find(set).copied().unwrap_or(ENGINES);
        errors.push(with_origins(format!("{key}: {error}"), &[key], origins));
    }
    for settings in config.chosen() {
        for problem in settings.problems() {
            if sound(&problem.keys) {
                errors.push(with_origins(problem.message, &problem.keys, origins));
            }
        }
        warnings.extend(settings.warnings());
    }
    check_recorded(config, &sound, origins, errors, warnings);
    let timeouts: Vec<_> = config.chosen().filter_map(|settings| settings.timeout()).collect();
    for error in config.cache.validate(&timeouts).err().unwrap_or_default() {
        let keys = keys_of(&error);
        if sound(&keys) {
            errors.push(with_origins(error.to_string(), &keys, origins));
        }
    }
    let relations = ["cache.freshness.unavailable_threshold"];
    let of_timeouts = timeouts.iter().map(|(key, _)| *key);
    if of_timeouts.chain(relations).all(|key| sound(&[key])) {
        let slowest = timeouts.iter().map(|(_, timeout)| *timeout).max().unwrap_or_default();
        check_intervals(config, slowest, origins, errors);
    }
    warnings.extend(config.cache.warnings());

    let (server, keda) = (&config.server, &config.keda);
    check_tls(config, &sound, origins, errors);
    check_hosts(server, &sound, origins, errors);
    check_external_metrics(&config.external_metrics, &sound, origins, errors);
    if sound(&["keda.wait"]) && (keda.wait.is_zero() || keda.wait > WAIT_MAX) {
        let message = "must be more than 0 and at most 1s: KEDA waits for ever, and a slow error can make it scale \
                       a running model to zero";
        errors.push(error_at("keda.wait", message.to_owned(), origins));
    }
    let within = "promql.answer_within";
    if sound(&[within]) && config.promql.answer_within >= ANSWER_WITHIN_MAX {
        let message = "must be less than 1.4s: an adapter waits 3 s, for two tries";
        errors.push(error_at(within, message.to_owned(), origins));
    }
    let largest = "promql.max_answer_bytes";
    if sound(&[largest]) && config.promql.max_answer_bytes < ANSWER_BYTES_MIN {
        let message =
            format!("must be at least {ANSWER_BYTES_MIN}, which one model's answer may take");
        errors.push(error_at(largest, message, origins));
    }
    #[cfg(not(feature = "kubernetes"))]
    if sound(&["kubernetes.enabled"]) && config.kubernetes.enabled {
        let message = "this build reads no cluster: build it with the cargo feature kubernetes";
        errors.push(error_at("kubernetes.enabled", message.to_owned(), origins));
    }
    #[cfg(feature = "kubernetes")]
    if sound(&["kubernetes.scrape", "kubernetes.scrape_selector"])
        && let Err(message) = config.kubernetes.page_source()
    {
        let key = "kubernetes.scrape_selector";
        errors.push(with_origins(message, &[key], origins));
    }
    check_variants(&config.variants, origins, errors);
}

/// What was recorded is mixed neither with what is measured now nor with what is restored later.
fn check_recorded(
    config: &CollectorConfig,
    sound: &dyn Fn(&[&str]) -> bool,
    origins: &Origins,
    errors: &mut Vec<ConfigError>,
    warnings: &mut Vec<String>,
) {
    let is_recorded = |name: &&String| {
        config.sections.get(name.as_str()).is_some_and(|settings| settings.is_recorded())
    };
    let Some(name) = config.backend.iter().find(is_recorded) else { return };
    if sound(&["backend"]) && config.backend.len() > 1 {
        let message = format!("{name:?} cannot be merged with other backends: name it alone");
        errors.push(error_at("backend", message, origins));
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

/// The files of TLS that go together.
fn check_tls(
    config: &CollectorConfig,
    sound: &dyn Fn(&[&str]) -> bool,
    origins: &Origins,
    errors: &mut Vec<ConfigError>,
) {
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
        if sound(&pair) {
            let message = format!("set without {other}: set both, or neither");
            errors.push(error_at(set, message, origins));
        }
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
        if sound(&pair) && client_ca.is_some() && cert.is_none() {
            let message =
                format!("set without {}: only a server with TLS can ask for certificates", pair[1]);
            errors.push(error_at(pair[0], message, origins));
        }
    }
}

/// The API server speaks TLS with its extensions, and nothing else.
fn check_external_metrics(
    external: &ExternalMetricsConfig,
    sound: &dyn Fn(&[&str]) -> bool,
    origins: &Origins,
    errors: &mut Vec<ConfigError>,
) {
    let keys = [
        "external_metrics.enabled",
        "external_metrics.tls_cert_path",
        "external_metrics.tls_key_path",
    ];
    let has_none = external.tls_cert_path.is_none() && external.tls_key_path.is_none();
    if sound(&keys) && external.enabled && has_none {
        let message = format!("needs {} and {}: the API server speaks TLS only", keys[1], keys[2]);
        errors.push(error_at(keys[0], message, origins));
    }
    let names = ["external_metrics.front_proxy_names", "external_metrics.front_proxy_ca_path"];
    let are_unused =
        !external.front_proxy_names.is_empty() && external.front_proxy_ca_path.is_none();
    if sound(&names) && are_unused {
        let message =
            format!("set without {}: otherwise the cluster says which names there are", names[1]);
        errors.push(error_at(names[0], message, origins));
    }
}

fn check_hosts(
    server: &ServerConfig,
    sound: &dyn Fn(&[&str]) -> bool,
    origins: &Origins,
    errors: &mut Vec<ConfigError>,
) {
    let hosts = "server.allowed_hosts";
    if sound(&[hosts])
        && let Some(host) = server.allowed_hosts.iter().find(|host| !is_host_name(host))
    {
        let message = format!(
            "{host:?} is not a name: write it as in the header Host, without scheme, port or wildcard"
        );
        errors.push(error_at(hosts, message, origins));
    }
}

/// Whether this can be the host of a request, without a port.
fn is_host_name(host: &str) -> bool {
    let is_address = host.parse::<std::net::IpAddr>().is_ok();
    let is_name = |it: char| it.is_ascii_alphanumeric() || matches!(it, '.' | '-' | '_');
    is_address || (!host.is_empty() && host.chars().all(is_name))
}

fn error_at(key: &str, message: String, origins: &Origins) -> ConfigError {
    ConfigError::new(message).key(key).at(origins.of(key))
}

/// The message with where the values of its keys came from.
fn with_origins(message: String, keys: &[&str], origins: &Origins) -> ConfigError {
    let set: Vec<String> = keys
        .iter()
        .filter_map(|key| match origins.of(key) {
            Origin::Default => None,
            origin => Some(format!("{key} is set in {origin}")),
        })
        .collect();
    if set.is_empty() {
        ConfigError::new(message)
    } else {
        ConfigError::new(format!("{message} ({})", set.join(", ")))
    }
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
fn check_intervals(
    config: &CollectorConfig,
    timeout: Duration,
    origins: &Origins,
    errors: &mut Vec<ConfigError>,
) {
    for (index, spec) in config.variants.iter().enumerate() {
        let Some(interval) = spec.fetch_interval else { continue };
        if let Err(error) = config.cache.check_interval(interval, timeout) {
            errors.push(of_variant(index, format!("{:?}: {error}", spec.name), origins));
        }
    }
}

fn of_variant(index: usize, message: String, origins: &Origins) -> ConfigError {
    let error = ConfigError::new(message);
    match origins.of_variant(index) {
        Some(variant) => error.key(variant.path.as_str()).at(variant.origin.clone()),
        None => error,
    }
}

/// The directory reports one wrong variant at a time: without it the next is found.
fn check_variants(variants: &[VariantSpec], origins: &Origins, errors: &mut Vec<ConfigError>) {
    let mut left: Vec<(usize, &VariantSpec)> = variants.iter().enumerate().collect();
    while let Err(error) =
        StaticDirectory::new(left.iter().map(|(_, spec)| (*spec).clone()).collect())
    {
        let (index, _) = left.remove(error.index);
        errors.push(of_variant(index, format!("{:?}: {}", error.name, error.reason), origins));
    }
}
