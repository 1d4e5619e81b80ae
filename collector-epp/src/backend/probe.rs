// SPDX-License-Identifier: Apache-2.0
//! The checks of `collector check`: whether targets are found and respond, and what they report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use collector_core::text::counted;
use collector_core::{Check, CheckStatus, Field, Probe, ReplicaMetrics, Tick};
use collector_transport::Cause;

use super::pod::{Good, Pod};
use super::shared::Shared;
use crate::engines::{Exposition, Quantity};

/// Targets that are reported one by one.
const SHOWN_MAX: usize = 10;
/// Seconds by which the clocks may differ before a warning.
const SKEW_MAX: f64 = 5.0;

/// The fields that an autoscaler cannot do without.
const NEEDED: [Field; 3] = [Field::KvCacheUsage, Field::QueueLength, Field::RunningRequests];

/// Reports the last scrape of all pods.
pub(super) fn probe(shared: &Shared, not_before: Tick) -> Probe {
    let mut checks = vec![discovery(shared)];
    let pods = shared.fleet.pods(|_| true);
    let mut good = Vec::new();
    let mut failed = Vec::new();
    let mut starting_or_leaving = 0;
    for pod in &pods {
        let seen = pod.seen();
        if seen.is_out_of_service() {
            starting_or_leaving += 1;
            continue;
        }
        match seen.page(not_before) {
            Ok(page) => good.push((pod, Arc::clone(page), seen.clock_ahead)),
            Err(cause) => failed.push((pod, cause)),
        }
    }
    checks.extend(duplicates(shared));
    checks.extend(reachable(pods.len() - starting_or_leaving, &failed));
    if good.is_empty() {
        for id in ["connection.clock", "metrics.engines", "metrics.names", "metrics.fields"] {
            checks.push(Check::new(id, CheckStatus::Skip, "no target answered"));
        }
        return Probe::new(checks);
    }
    let pages: Vec<&Good> = good.iter().map(|(_, page, _)| &**page).collect();
    checks.push(clock(good.iter().map(|(pod, _, ahead)| (&***pod, *ahead))));
    checks.push(engines(&pages));
    checks.push(names(&pages));
    checks.push(fields(good.iter().map(|(pod, page, _)| (&***pod, &**page))));
    checks.extend(endpoint_pickers(&pages));
    checks.extend(malformed(&pages));
    Probe::new(checks)
}

fn discovery(shared: &Shared) -> Check {
    let id = "connection.targets";
    let state = shared.fleet.lock();
    let count: usize = state.namespaces.values().map(BTreeMap::len).sum();
    match state.unknown.first() {
        Some(error) => Check::new(id, CheckStatus::Fail, error.to_string()).with_remedy(
            "correct what the error names; targets of other sources are scraped all the same",
        ),
        None if state.not_asked_yet && count == 0 => {
            let detail = "the targets are not known yet: their source has not answered in time";
            Check::new(id, CheckStatus::Fail, detail).with_remedy(shared.sources.remedies())
        }
        None if count == 0 => Check::new(id, CheckStatus::Fail, "no target was found")
            .with_remedy(shared.sources.remedies()),
        None => Check::new(
            id,
            CheckStatus::Pass,
            format!(
                "{} in {}: {}",
                counted(count, "target", "targets"),
                counted(state.namespaces.len(), "namespace", "namespaces"),
                of_sources(&state.counts)
            ),
        ),
    }
}

/// How many targets each source has: `2 of epp.targets, 5 of epp.target_file: targets.json`.
fn of_sources(counts: &[(String, usize)]) -> String {
    let shown = counts.iter().take(SHOWN_MAX).map(|(source, count)| format!("{count} of {source}"));
    shown.collect::<Vec<_>>().join(", ")
}

/// Reports targets that are ignored because others are the same servers.
fn duplicates(shared: &Shared) -> Vec<Check> {
    let state = shared.fleet.lock();
    let mut problems: Vec<Arc<str>> =
        state.duplicates.iter().map(|duplicate| Arc::clone(&duplicate.problem)).collect();
    drop(state);
    problems.sort_unstable();
    let shown = problems.iter().take(SHOWN_MAX);
    shown
        .map(|problem| {
            Check::new("connection.duplicates", CheckStatus::Warn, problem.to_string())
                .with_remedy("name each server once")
        })
        .collect()
}

fn reachable(all: usize, failed: &[(&Arc<Pod>, Arc<Cause>)]) -> Vec<Check> {
    let id = "connection.scrape";
    if all == 0 {
        return vec![Check::new(id, CheckStatus::Skip, "there is no target")];
    }
    if failed.is_empty() {
        let detail = match all {
            1 => "the target answers".to_owned(),
            _ => format!("all {all} targets answer"),
        };
        return vec![Check::new(id, CheckStatus::Pass, detail)];
    }
    let mut checks = vec![
        Check::new(
            id,
            CheckStatus::Fail,
            match all {
                1 => "the target does not answer".to_owned(),
                _ => format!("{} of {all} targets do not answer", failed.len()),
            },
        )
        .with_remedy("their replicas are unknown until they do; see the targets that follow"),
    ];
    for (number, (pod, cause)) in failed.iter().take(SHOWN_MAX).enumerate() {
        let colon = if cause.detail.is_empty() { "" } else { ": " };
        let detail = format!("{}: {}{colon}{}", pod.target.shown(), cause.kind, cause.detail);
        let id = format!("connection.target-{}", number + 1);
        let check = Check::new(id, CheckStatus::Fail, detail);
        checks.push(match &*cause.remedy {
            "" => check,
            remedy => check.with_remedy(remedy),
        });
    }
    checks
}

fn clock<'a>(pods: impl Iterator<Item = (&'a Pod, Option<f64>)>) -> Check {
    let id = "connection.clock";
    let skewed: Vec<_> = pods
        .filter_map(|(pod, ahead)| ahead.map(|ahead| (pod, ahead)))
        .filter(|(_, ahead)| ahead.abs() > SKEW_MAX)
        .collect();
    let worst = skewed.iter().max_by(|(_, a), (_, b)| a.abs().total_cmp(&b.abs()));
    match worst {
        None => Check::new(id, CheckStatus::Pass, "no target's clock is far from ours"),
        Some((pod, ahead)) => {
            let direction = if *ahead > 0.0 { "ahead of" } else { "behind" };
            let detail = format!(
                "the clocks of {} targets differ, that of {} is {:.0} s {direction} ours",
                skewed.len(),
                pod.target.shown(),
                ahead.abs()
            );
            Check::new(id, CheckStatus::Warn, detail).with_remedy(
                "ages are right in spite of it, as they are counted from the scrape; set the clocks by \
                 NTP",
            )
        }
    }
}

fn engines(pages: &[&Good]) -> Check {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for good in pages {
        let engine = match &good.page {
            Exposition::Server(page) => page.engine.as_str(),
            Exposition::EndpointPicker(_) => crate::engines::ENDPOINT_PICKER,
        };
        *counts.entry(engine).or_default() += 1;
    }
    let id = "metrics.engines";
    if !pages.iter().any(|good| matches!(good.page, Exposition::Server(_))) {
        return Check::new(id, CheckStatus::Fail, "no target is a model server")
            .with_remedy("name the model servers as targets, not the Endpoint Picker alone");
    }
    let counts: Vec<_> = counts.iter().map(|(engine, count)| format!("{count} {engine}")).collect();
    Check::new(id, CheckStatus::Pass, counts.join(", "))
}

/// Reports the series that each quantity was read from.
fn names(pages: &[&Good]) -> Check {
    let mut names: BTreeMap<Quantity, BTreeSet<String>> = BTreeMap::new();
    for good in pages {
        let matched = match &good.page {
            Exposition::Server(page) => &page.matched,
            Exposition::EndpointPicker(_) => continue,
        };
        for matched in &**matched {
            names.entry(matched.quantity).or_default().insert(matched.spec.to_string());
        }
    }
    let mut detail = String::new();
    for quantity in [Quantity::Waiting, Quantity::Running, Quantity::KvCacheUsage] {
        let Some(names) = names.get(&quantity) else { continue };
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let comma = if detail.is_empty() { "" } else { "; " };
        let _ = write!(detail, "{comma}{} from {}", quantity.key(), names.join(" and "));
    }
    Check::new("metrics.names", CheckStatus::Pass, detail)
}

/// Checks that every model server reports what an autoscaler needs.
fn fields<'a>(pods: impl Iterator<Item = (&'a Pod, &'a Good)>) -> Check {
    let id = "metrics.fields";
    let lacks = |replica: &ReplicaMetrics| NEEDED.iter().find(|field| !replica.has(**field));
    let mut lacking = pods.filter_map(|(pod, good)| {
        let field = good.models.iter().find_map(|served| lacks(&served.replica))?;
        Some((pod, field))
    });
    match lacking.next() {
        None => {
            Check::new(id, CheckStatus::Pass, "every model server tells queue, batch and KV cache")
        }
        Some((pod, field)) => {
            let mut detail = format!("{} does not tell {}", pod.target.shown(), field.as_str());
            let others = lacking.count();
            if others > 0 {
                let others = counted(others, "other lacks a field", "others lack a field");
                detail = format!("{detail}, and {others}");
            }
            Check::new(id, CheckStatus::Warn, detail).with_remedy(
                "`collector scrape URL` shows what is read of a page; a series of another name is \
                 added in [[engines]]",
            )
        }
    }
}

/// Reports the pools of the endpoint pickers.
fn endpoint_pickers(pages: &[&Good]) -> Option<Check> {
    let pools = pages.iter().filter_map(|good| match &good.page {
        Exposition::EndpointPicker(metrics) => Some(&metrics.pools),
        Exposition::Server(_) => None,
    });
    let mut told = Vec::new();
    let mut seen = false;
    for pool in pools.inspect(|_| seen = true).flatten().take(SHOWN_MAX) {
        let name = collector_transport::quote(pool.name.as_deref().unwrap_or("without a name"));
        told.push(match pool.numbers.get("ready") {
            Some(ready) => format!("pool {name} has {ready} ready pods"),
            None => format!("pool {name}"),
        });
    }
    seen.then(|| Check::new("metrics.picker", CheckStatus::Pass, told.join(", ")))
}

fn malformed(pages: &[&Good]) -> Option<Check> {
    let lines: u64 = pages.iter().map(|good| good.malformed).sum();
    (lines > 0).then(|| {
        Check::new(
            "metrics.malformed",
            CheckStatus::Warn,
            format!("{lines} lines of wanted series cannot be read and are left out"),
        )
        .with_remedy("`collector scrape URL` shows them with their numbers")
    })
}
