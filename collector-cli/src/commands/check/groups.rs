// SPDX-License-Identifier: Apache-2.0
//! The checks of each group.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use collector_core::text::counted;
use collector_core::{
    Backend, Check, CheckStatus, CollectError, Freshness, MetricsCollector, ModelRef, ProbeAsk,
    Reading, ReplicaMetrics, Replicas, SystemClock,
};

use crate::commands::settings::Settings;
use crate::output::{ErrorDocument, failed_fields, printable, unknown_fields};

pub(super) fn pass(id: &str, detail: impl Into<String>) -> Check {
    Check::new(id, CheckStatus::Pass, detail)
}

#[cfg(feature = "kubernetes")]
pub(super) fn skip(id: &str, detail: &str) -> Check {
    Check::new(id, CheckStatus::Skip, detail)
}

pub(super) fn warn(id: &str, detail: impl Into<String>) -> Check {
    Check::new(id, CheckStatus::Warn, detail)
}

pub(super) fn fail(id: &str, detail: impl Into<String>) -> Check {
    Check::new(id, CheckStatus::Fail, detail)
}

/// Returns the checks of the configuration: what was read, and its warnings.
pub(super) fn configuration(settings: &Settings, file: Option<&Path>) -> Vec<Check> {
    let loaded = file.map_or_else(
        || "no file: defaults, environment and flags".to_owned(),
        |file| format!("read {}", file.display()),
    );
    let timings = settings.loaded.config.cache.warnings();
    let others = settings.loaded.warnings.iter().filter(|warning| !timings.contains(warning));
    std::iter::once(pass("configuration.loaded", loaded))
        .chain(proxy(settings))
        .chain(others.map(|warning| warn("configuration.warning", warning.as_str())))
        .collect()
}

/// The proxy to the Prometheus server, which an environment variable may have set.
fn proxy(settings: &Settings) -> Option<Check> {
    if !settings.loaded.config.backend.iter().any(|backend| backend == "prometheus") {
        return None;
    }
    let mut entries = settings.loaded.entries().into_iter();
    let proxy = entries.find(|it| it.key == "prometheus.proxy" && !it.value.trim().is_empty())?;
    let detail =
        format!("prometheus is asked through the proxy {} ({})", proxy.value, proxy.origin);
    Some(pass("configuration.proxy", detail))
}

/// Returns whether the timings fit together.
pub(super) fn timings(settings: &Settings) -> Vec<Check> {
    let cache = &settings.loaded.config.cache;
    let warnings = cache.warnings();
    if warnings.is_empty() {
        let detail = if cache.enabled {
            "they fit together"
        } else {
            "nothing is cached: every read asks the backend"
        };
        return vec![pass("timings.cache", detail)];
    }
    warnings.into_iter().map(|warning| warn("timings.cache", warning)).collect()
}

/// Returns the checks that a backend makes of its server.
pub(super) async fn probe(backend: &dyn Backend) -> Vec<Check> {
    let clock = SystemClock::new();
    let mut ask = ProbeAsk::new(&clock);
    ask.time_left = backend.limits().timeout * 3 + Duration::from_secs(1);
    match backend.probe(ask).await {
        Ok(probe) => probe.checks,
        Err(error) => {
            let check = fail("connection.probe", error.to_string());
            if error.remedy().is_empty() {
                vec![check]
            } else {
                vec![check.with_remedy(error.remedy())]
            }
        }
    }
}

/// Checks whether the backend knows any model.
pub(super) async fn known_models(settings: &Settings, collector: &dyn MetricsCollector) -> Check {
    const ID: &str = "model.known";
    match collector.list_models().await {
        Ok(known) if known.is_empty() => {
            let check = fail(ID, "the backend knows no model");
            check.with_remedy(settings.loaded.limited().unwrap_or_else(|| {
                "let it scrape the model servers, under the labels pod and namespace".to_owned()
            }))
        }
        Ok(known) => pass(
            ID,
            format!(
                "the backend knows {}; -m and -n check for one of them",
                counted(known.len(), "model", "models")
            ),
        ),
        Err(error) => failure(ID, &error),
    }
}

/// What a reader of this model would get.
pub(super) async fn of_model(collector: &dyn MetricsCollector, model: &ModelRef) -> Vec<Check> {
    const ID: &str = "model.available";
    let availability = collector.validate_metrics_availability(model).await;
    let reason = availability.reason_name();
    if availability.available {
        let mut checks = vec![pass(ID, format!("{reason}: {}", availability.message))];
        match collector.collect_replica_metrics(model).await {
            Ok(reading) => checks.extend(of_reading(&reading)),
            Err(error) => checks.push(failure("model.reading", &error)),
        }
        return checks;
    }
    // The error has the remedies one by one; the availability only as one text.
    match collector.collect_replica_metrics(model).await {
        Err(error) => vec![failure(ID, &error)],
        Ok(_) => {
            vec![fail(ID, format!("{reason}: {}", availability.message))]
        }
    }
}

fn failure(id: &str, error: &CollectError) -> Check {
    let document = ErrorDocument::of(error);
    let check = fail(id, format!("{}: {}", error.reason_name(), document.message()));
    match document.hints() {
        [] => check,
        hints => check.with_remedy(hints.join("; ")),
    }
}

/// The checks of a reading: its age, its variants, its warnings and its unknown fields.
fn of_reading(reading: &Reading<Replicas>) -> Vec<Check> {
    let replicas = &reading.value().replicas;
    let mut checks = vec![age(reading)];
    if replicas.is_empty() {
        checks.push(
            warn("model.replicas", "the model is known and has no live pod")
                .with_remedy("if it should have: are its pods up, and scraped?"),
        );
        return checks;
    }
    let without = replicas.iter().filter(|replica| replica.variant_name.is_none()).count();
    checks.push(if without == 0 {
        pass(
            "model.variants",
            match replicas.len() {
                1 => "1 replica, of a variant".to_owned(),
                count => format!("{count} replicas, each of a variant"),
            },
        )
    } else {
        warn(
            "model.variants",
            format!(
                "{without} of {} {} to no variant",
                counted(replicas.len(), "replica", "replicas"),
                if without == 1 { "belongs" } else { "belong" }
            ),
        )
        .with_remedy("add [[variants]] whose `pods` pattern fits their names")
    });
    checks.extend(roles(replicas));
    checks.extend(
        reading.value().warnings.iter().map(|warning| warn("model.warnings", warning.to_string())),
    );
    let failed = failed_fields(&reading.value().failed);
    checks.extend(failed.into_iter().map(|failed| {
        fail("model.failed", failed).with_remedy("`collector explain` shows the query")
    }));
    let unknown = unknown_fields(reading.value());
    checks.extend(unknown.into_iter().map(|unknown| warn("model.unknown", unknown)));
    let unmeasured: Vec<&str> = collector_core::Field::OF_REPLICA
        .iter()
        .copied()
        .filter(|field| !replicas.iter().any(|replica| replica.has(*field)))
        .map(collector_core::Field::as_str)
        .collect();
    checks.push(if unmeasured.is_empty() {
        pass("model.fields", "every field is measured")
    } else {
        warn("model.fields", format!("not measured of any replica: {}", unmeasured.join(", ")))
            .with_remedy(
                "do the model servers expose these series, and does the backend keep them?",
            )
    });
    checks
}

/// Variants of which some pods prefill and others decode: their load is put together from both sides.
fn roles(replicas: &[ReplicaMetrics]) -> Vec<Check> {
    let mut roles: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for replica in replicas {
        if let (Some(variant), Some(role)) = (&replica.variant_name, &replica.role) {
            roles.entry(variant.as_str()).or_default().insert(role.as_str());
        }
    }
    let mixed = roles.into_iter().filter(|(_, roles)| roles.len() > 1);
    let check = |(variant, roles): (&str, BTreeSet<&str>)| {
        let roles: Vec<String> = roles.iter().map(|role| printable(role).to_string()).collect();
        let variant = printable(variant);
        let detail =
            format!("the variant {variant} has pods of several roles: {}", roles.join(", "));
        warn("model.roles", detail).with_remedy(
            "give each role a variant of its own: they are scaled for different reasons",
        )
    };
    mixed.map(check).collect()
}

fn age(reading: &Reading<Replicas>) -> Check {
    let detail = format!("{}, {:.1} s old", reading.freshness(), reading.age().as_secs_f64());
    match reading.freshness() {
        Freshness::Fresh => pass("model.age", detail),
        Freshness::Stale | Freshness::Unavailable => warn("model.age", detail).with_remedy(
            "does the server scrape the pods more often than cache.freshness.fresh_threshold?",
        ),
    }
}
