// SPDX-License-Identifier: Apache-2.0
//! The environment's layers: `COLLECTOR_*`, and the variables of other tools that mean the same.
//!
//! A variable that is set to nothing counts as not set: manifests in Kubernetes often have such variables.

mod proxy;

use std::collections::{BTreeMap, HashSet};

use crate::backend::{Backends, LEFT_OUT, SCRAPE};
use crate::error::ConfigError;
use crate::key::Key;
use crate::keys::Keys;
use crate::layer::Setting;
use crate::origin::Origin;
use crate::text::printable;

/// Names the configuration file, and what to read. Read by the program that makes the [`Loader`](crate::Loader).
const OF_THE_PROGRAM: [&str; 3] = ["COLLECTOR_CONFIG", "COLLECTOR_MODEL", "COLLECTOR_NAMESPACE"];

/// Variables of the cache's keys, read where direct scraping is the only backend.
pub(crate) const EPP_ALIASES: [(&str, &str); 4] = [
    ("EPP_METRICS_CACHE_ENABLED", "cache.enabled"),
    ("EPP_METRICS_CACHE_TTL", "cache.ttl"),
    ("EPP_METRICS_CACHE_MAX_SIZE", "cache.max_entries"),
    ("EPP_METRICS_CACHE_CLEANUP_INTERVAL", "cache.cleanup_interval"),
];

/// The variables that hold something.
pub(crate) type Variables = BTreeMap<String, String>;

/// What `COLLECTOR_*` sets.
pub(crate) fn own(
    variables: &Variables,
    keys: &Keys,
    backends: &Backends,
    errors: &mut Vec<ConfigError>,
    ignored: &mut Vec<(&'static str, Origin)>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix("COLLECTOR_") else {
            continue;
        };
        if OF_THE_PROGRAM.contains(&name.as_str()) || is_service_link(rest, text) {
            continue;
        }
        let path = rest.replace("__", ".").to_lowercase();
        let section = path.split('.').next().unwrap_or_default();
        if let Some(key) = keys.iter().find(|key| key.variable() == *name) {
            collect(key, name, text, &mut settings, errors);
        } else if let Some(backend) = backends.left_out(section) {
            ignored.push((backend, Origin::Variable(printable(name))));
        } else {
            errors.push(unknown(name, &path, keys));
        }
    }
    for (backend, aliases) in LEFT_OUT {
        let set = aliases.iter().filter(|alias| variables.contains_key(**alias));
        ignored.extend(set.map(|alias| (*backend, Origin::Variable((*alias).to_owned()))));
    }
    settings
}

/// A warning for each variable that would set a key if its name were in capitals.
pub(crate) fn misspelt(variables: &Variables, keys: &Keys) -> Vec<String> {
    let ours: HashSet<String> = keys
        .iter()
        .flat_map(|key| key.aliases.iter().map(|alias| (*alias).to_owned()).chain([key.variable()]))
        .chain(EPP_ALIASES.map(|(alias, _)| alias.to_owned()))
        .chain(OF_THE_PROGRAM.map(str::to_owned))
        .collect();
    let right = |name: &String| {
        let upper = name.to_uppercase();
        if upper == *name {
            return None;
        }
        if ours.contains(&upper) {
            return Some(upper);
        }
        // A name that is near to none may be another program's.
        let path = upper.strip_prefix("COLLECTOR_")?.replace("__", ".").to_lowercase();
        Some(keys.nearest(&path)?.variable())
    };
    variables
        .keys()
        .filter_map(|name| {
            let right = right(name)?;
            Some(format!(
                "environment variable {} is ignored: names of variables are in capitals; did you \
                 mean {right}?",
                printable(name)
            ))
        })
        .collect()
}

/// What the variables of other tools set, the more particular ones last.
pub(crate) fn aliases(
    variables: &Variables,
    keys: &Keys,
    backend: &[String],
    errors: &mut Vec<ConfigError>,
    warnings: &mut Vec<String>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    for key in keys.iter() {
        for alias in key.aliases {
            if let Some(text) = variables.get(*alias) {
                collect(key, alias, text, &mut settings, errors);
            }
        }
    }
    for (alias, path) in EPP_ALIASES {
        let (Some(text), Some(key)) = (variables.get(alias), keys.find(path)) else {
            continue;
        };
        if matches!(backend, [only] if SCRAPE.contains(&only.as_str())) {
            collect(key, alias, text, &mut settings, errors);
        } else {
            warnings.push(format!(
                "environment variable {alias} is ignored: it counts only where `scrape` is the only \
                 backend; set {} instead",
                key.variable()
            ));
        }
    }
    settings
}

/// The proxy to the Prometheus server, where `HTTPS_PROXY` and its like name one. `settings` are all
/// others, of which the last that sets the server's URL counts.
pub(crate) fn proxy<'a>(
    variables: &Variables,
    keys: &Keys,
    settings: impl DoubleEndedIterator<Item = &'a Setting>,
) -> Option<Setting> {
    let key = keys.find("prometheus.proxy")?;
    let mut urls = settings.rev().filter(|setting| setting.key.path == "prometheus.url");
    proxy::setting(variables, urls.next()?.value.as_str()?, key)
}

/// A warning for each alias over which a variable with another value takes precedence.
pub(crate) fn beaten(aliases: &[Setting], own: &[Setting]) -> Vec<String> {
    let loses = |alias: &&Setting| {
        own.iter().any(|own| own.key.path == alias.key.path && own.value != alias.value)
    };
    aliases
        .iter()
        .filter(loses)
        .map(|alias| {
            format!(
                "{} is ignored: {} is set too, and beats it",
                alias.origin,
                alias.key.variable()
            )
        })
        .collect()
}

fn collect(
    key: &'static Key,
    name: &str,
    text: &str,
    settings: &mut Vec<Setting>,
    errors: &mut Vec<ConfigError>,
) {
    match Setting::from_text(key, text, Origin::Variable(name.to_owned())) {
        Ok(setting) => settings.push(setting),
        Err(error) => errors.push(error),
    }
}

fn unknown(name: &str, path: &str, keys: &Keys) -> ConfigError {
    let message = if path.starts_with("variants") {
        "variants can be set in a configuration file only".to_owned()
    } else {
        // The paths, not the variables, are compared: all variables begin alike.
        match keys.nearest(path) {
            Some(known) => format!("unknown variable; did you mean {}?", known.variable()),
            None => {
                "unknown variable; a key's variable is COLLECTOR_ and its path with __ between \
                     levels, such as COLLECTOR_CACHE__TTL"
                    .to_owned()
            }
        }
    };
    ConfigError::new(message).at(Origin::Variable(printable(name)))
}

/// Whether Kubernetes made the variable: in every pod it sets some for each Service of the
/// namespace, and a Service may well be called `collector` or `collector-metrics`.
/// (Kubernetes documentation, "Service", Environment variables.)
fn is_service_link(rest: &str, text: &str) -> bool {
    // A key below the top level.
    if rest.contains("__") {
        return false;
    }
    let parts: Vec<&str> = rest.split('_').collect();
    let is_port = |window: &[&str]| {
        window[0] == "PORT"
            && window[1].parse::<u16>().is_ok()
            && matches!(window[2], "TCP" | "UDP" | "SCTP")
    };
    parts.ends_with(&["SERVICE", "HOST"])
        || parts.windows(2).any(|pair| pair == ["SERVICE", "PORT"])
        || (parts.ends_with(&["PORT"]) && text.contains("://"))
        || parts.windows(3).any(is_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_kubernetes_services_are_not_settings() {
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_METRICS",
            "METRICS_SERVICE_HOST",
            "PORT",
            "METRICS_PORT",
            "PORT_9464_TCP",
            "PORT_9464_TCP_ADDR",
            "METRICS_PORT_9464_TCP_PROTO",
        ] {
            assert!(is_service_link(name, "tcp://10.0.0.1:80"), "{name}");
        }
        for key in Keys::with(Backends::default().keys()).iter() {
            let variable = key.variable();
            let rest = variable.strip_prefix("COLLECTOR_").unwrap();
            assert!(!is_service_link(rest, "tcp://h"), "{variable}");
        }
        assert!(!is_service_link("PORTS", "80"));
        assert!(!is_service_link("LISTEN_PORT", "80"));
        assert!(!is_service_link("SERVER__PORT", "tcp://10.0.0.1:80"));
    }
}
