//! `collector check`: what works and what does not, each with cause and remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Backend, Check, CheckStatus, CollectError, Freshness, MetricsCollector, ModelRef, Reading,
    ReplicaMetrics, Replicas,
};
use tokio::time::sleep;

use super::settings::{Settings, Verbosity, format};
use crate::args::{CheckArgs, Format, GlobalArgs};
use crate::exit::{Exit, Failure};
use crate::output::{CheckDocument, ErrorDocument, print, printable, to_json};

/// The pause between two rounds of `--wait`.
const PAUSE: Duration = Duration::from_secs(2);

/// Groups in the order in which they build on each other.
const GROUPS: [&str; 5] = ["configuration", "connection", "metrics", "model", "timings"];

/// The page that explains the checks.
const DOCS: &str = "docs/checks.md";

pub(super) fn run(global: &GlobalArgs, args: &CheckArgs) -> Result<Exit, Failure> {
    let format = format(global, &[Format::Table, Format::Json])?;
    let settings = Settings::load(global, Verbosity::OneShot)?;
    let checks = super::block_on(check(&settings, global.config.as_deref(), args))?;
    let text = match format {
        Format::Json => to_json(&CheckDocument::new(&checks)) + "\n",
        _ => for_people(&checks),
    };
    print(&text)?;
    Ok(if failed(&checks) { Exit::Failure } else { Exit::Success })
}

async fn check(
    settings: &Settings,
    file: Option<&Path>,
    args: &CheckArgs,
) -> Result<Vec<Check>, Failure> {
    let clock = Arc::clone(&settings.clock);
    let backends = settings.loaded.config.build_backends(clock).map_err(Failure::usage)?;
    let started = settings.clock.now();
    loop {
        // A new collector each round: the last one's breaker may be open.
        let collector = settings.collector()?;
        let checks = round(settings, file, &backends, &*collector, args.model()).await;
        let over = args.wait.is_none_or(|wait| started.age(settings.clock.now()) + PAUSE > wait);
        if over || !failed(&checks) {
            return Ok(checks);
        }
        sleep(PAUSE).await;
    }
}

fn failed(checks: &[Check]) -> bool {
    checks.iter().any(|check| check.status == CheckStatus::Fail)
}

async fn round(
    settings: &Settings,
    file: Option<&Path>,
    backends: &[Arc<dyn Backend>],
    collector: &dyn MetricsCollector,
    model: Option<ModelRef>,
) -> Vec<Check> {
    let mut checks = configuration(settings, file);
    for backend in backends {
        let probed = probe(&**backend).await;
        checks.extend(probed.into_iter().map(|mut check| {
            if backends.len() > 1 {
                check.detail = format!("{}: {}", backend.name(), check.detail);
            }
            check
        }));
    }
    let unreachable = checks
        .iter()
        .any(|check| check.status == CheckStatus::Fail && group(check) == "connection");
    match model {
        // The probe has said already what is wrong, and sooner.
        _ if unreachable => checks.push(Check::new(
            "model.available",
            CheckStatus::Skip,
            "not asked, because the connection does not work",
        )),
        Some(model) => checks.extend(of_model(collector, &model).await),
        None => checks.push(known_models(collector).await),
    }
    checks.extend(timings(settings));
    // Stable: within a group the order stays.
    checks.sort_by_key(|check| GROUPS.iter().position(|name| *name == group(check)));
    checks
}

fn group(check: &Check) -> &str {
    check.id.split('.').next().unwrap_or_default()
}

fn configuration(settings: &Settings, file: Option<&Path>) -> Vec<Check> {
    let loaded = file.map_or_else(
        || "no file: defaults, environment and flags".to_owned(),
        |file| format!("read {}", file.display()),
    );
    let timings = settings.loaded.config.cache.warnings();
    let others = settings.loaded.warnings.iter().filter(|warning| !timings.contains(warning));
    std::iter::once(Check::new("configuration.loaded", CheckStatus::Pass, loaded))
        .chain(others.map(|warning| {
            Check::new("configuration.warning", CheckStatus::Warn, warning.as_str())
        }))
        .collect()
}

fn timings(settings: &Settings) -> Vec<Check> {
    let cache = &settings.loaded.config.cache;
    let warnings = cache.warnings();
    if warnings.is_empty() {
        let detail = if cache.enabled {
            "they fit together"
        } else {
            "nothing is cached: every read asks the backend"
        };
        return vec![Check::new("timings.cache", CheckStatus::Pass, detail)];
    }
    warnings
        .into_iter()
        .map(|warning| Check::new("timings.cache", CheckStatus::Warn, warning))
        .collect()
}

async fn probe(backend: &dyn Backend) -> Vec<Check> {
    match backend.probe().await {
        Ok(probe) => probe.checks,
        Err(error) => {
            let check = Check::new("connection.probe", CheckStatus::Fail, error.to_string());
            if error.remedy().is_empty() {
                vec![check]
            } else {
                vec![check.with_remedy(error.remedy())]
            }
        }
    }
}

async fn known_models(collector: &dyn MetricsCollector) -> Check {
    const ID: &str = "model.known";
    match collector.list_models().await {
        Ok(known) if known.is_empty() => {
            Check::new(ID, CheckStatus::Fail, "the backend knows no model")
                .with_remedy("let it scrape the model servers, under the labels pod and namespace")
        }
        Ok(known) => Check::new(
            ID,
            CheckStatus::Pass,
            format!("the backend knows {} models; -m and -n check for one of them", known.len()),
        ),
        Err(error) => failure(ID, &error),
    }
}

/// What a reader of this model would get.
async fn of_model(collector: &dyn MetricsCollector, model: &ModelRef) -> Vec<Check> {
    const ID: &str = "model.available";
    let availability = collector.validate_metrics_availability(model).await;
    let reason = availability.reason_name();
    if availability.available {
        let mut checks =
            vec![Check::new(ID, CheckStatus::Pass, format!("{reason}: {}", availability.message))];
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
            vec![Check::new(ID, CheckStatus::Fail, format!("{reason}: {}", availability.message))]
        }
    }
}

fn failure(id: &str, error: &CollectError) -> Check {
    let document = ErrorDocument::of(error);
    let check = Check::new(
        id,
        CheckStatus::Fail,
        format!("{}: {}", error.reason_name(), document.message()),
    );
    match document.hints() {
        [] => check,
        hints => check.with_remedy(hints.join("; ")),
    }
}

/// What is worth a look in a reading that there is.
fn of_reading(reading: &Reading<Replicas>) -> Vec<Check> {
    let replicas = &reading.value().replicas;
    let mut checks = vec![age(reading)];
    if replicas.is_empty() {
        checks.push(
            Check::new(
                "model.replicas",
                CheckStatus::Warn,
                "the model is known and has no live pod",
            )
            .with_remedy("if it should have: are its pods up, and scraped?"),
        );
        return checks;
    }
    let without = replicas.iter().filter(|replica| replica.variant_name.is_none()).count();
    checks.push(if without == 0 {
        Check::new(
            "model.variants",
            CheckStatus::Pass,
            format!("{} replicas, each of a variant", replicas.len()),
        )
    } else {
        Check::new(
            "model.variants",
            CheckStatus::Warn,
            format!("{without} of {} replicas belong to no variant", replicas.len()),
        )
        .with_remedy("add [[variants]] whose `pods` pattern fits their names")
    });
    checks.extend(roles(replicas));
    checks.extend(
        reading
            .value()
            .warnings
            .iter()
            .map(|warning| Check::new("model.warnings", CheckStatus::Warn, warning.to_string())),
    );
    let unmeasured: Vec<&str> = collector_core::Field::OF_REPLICA
        .into_iter()
        .filter(|field| !replicas.iter().any(|replica| replica.has(*field)))
        .map(collector_core::Field::as_str)
        .collect();
    checks.push(if unmeasured.is_empty() {
        Check::new("model.fields", CheckStatus::Pass, "every field is measured")
    } else {
        Check::new(
            "model.fields",
            CheckStatus::Warn,
            format!("not measured of any replica: {}", unmeasured.join(", ")),
        )
        .with_remedy("do the model servers expose these series, and does the backend keep them?")
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
        Check::new("model.roles", CheckStatus::Warn, detail).with_remedy(
            "give each role a variant of its own: they are scaled for different reasons",
        )
    };
    mixed.map(check).collect()
}

fn age(reading: &Reading<Replicas>) -> Check {
    let detail = format!("{}, {:.1} s old", reading.freshness(), reading.age().as_secs_f64());
    match reading.freshness() {
        Freshness::Fresh => Check::new("model.age", CheckStatus::Pass, detail),
        Freshness::Stale | Freshness::Unavailable => {
            Check::new("model.age", CheckStatus::Warn, detail).with_remedy(
                "does the server scrape the pods more often than cache.freshness.fresh_threshold?",
            )
        }
    }
}

fn for_people(checks: &[Check]) -> String {
    let mut text = String::new();
    let mut last = "";
    for check in checks {
        let group = group(check);
        if group != last {
            let _ = writeln!(text, "{}", printable(group));
            last = group;
        }
        let sign = match check.status {
            CheckStatus::Pass => '✓',
            CheckStatus::Warn => '‼',
            CheckStatus::Fail => '×',
            CheckStatus::Skip => '-',
        };
        let name = check.id.strip_prefix(group).unwrap_or(&check.id);
        let name = name.trim_start_matches('.');
        let _ = writeln!(text, "  {sign} {}: {}", printable(name), printable(&check.detail));
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(text, "      {}", printable(remedy));
        }
        if matches!(check.status, CheckStatus::Warn | CheckStatus::Fail) {
            let _ = writeln!(text, "      see {DOCS}#{}", printable(group));
        }
    }
    text
}
