// SPDX-License-Identifier: Apache-2.0
//! Why values are unknown, in lines: below tables, and in the checks.

use std::collections::BTreeMap;
use std::sync::Arc;

use collector_core::text::counted;
use collector_core::{Allocation, EndpointPicker, FieldReasons, Reading, Replicas};

use super::cells::age;
use super::printable;

/// Of pods that lack a field for one reason, as many are named.
const NAMED_PODS: usize = 3;

/// What could not be asked for: "kvCacheUsage could not be asked for: 422 …".
pub(crate) fn failed_fields(failed: &FieldReasons) -> Vec<String> {
    let all = by_reason(failed).into_iter();
    all.map(|(reason, fields)| format!("{fields} could not be asked for: {reason}")).collect()
}

/// Why fields of an allocation are unknown: "ttftAverageMs: no two samples of …".
pub(super) fn unknown_load(allocation: &Allocation) -> Vec<String> {
    let all = by_reason(&allocation.reasons).into_iter();
    all.map(|(reason, fields)| format!("{fields}: {reason}")).collect()
}

/// The fields of each reason, in a line, and the reason as it can be printed.
fn by_reason(reasons: &FieldReasons) -> Vec<(String, String)> {
    let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (field, reason) in reasons.iter() {
        all.entry(reason).or_default().push(field.as_str());
    }
    let shown =
        |(reason, fields): (&str, Vec<&str>)| (printable(reason).to_string(), fields.join(", "));
    all.into_iter().map(shown).collect()
}

/// Why fields of replicas are unknown, those of one reason together: "kvCacheUsage of llama-1: …".
pub(crate) fn unknown_fields(replicas: &Replicas) -> Vec<String> {
    let mut all: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for replica in &replicas.replicas {
        for reason_and_fields in by_reason(&replica.reasons) {
            all.entry(reason_and_fields).or_default().push(replica.pod_name.as_str());
        }
    }
    all.into_iter()
        .map(|((reason, fields), pods)| {
            let more = match pods.len().saturating_sub(NAMED_PODS) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let named = &pods[..pods.len().min(NAMED_PODS)];
            let named: Vec<_> = named.iter().map(|pod| printable(pod).to_string()).collect();
            format!("{fields} of {}{more}: {reason}", named.join(", "))
        })
        .collect()
}

/// What the endpoint picker of the model reports: "endpoint picker, 0.8s ago: 2 held back, 40 running, saturation 50%".
pub(super) fn endpoint_picker(reading: &Reading<Replicas>) -> Option<String> {
    let EndpointPicker::Responding(load) = &reading.value().endpoint_picker else { return None };
    let counts = [
        (load.queued_requests, "held back"),
        (load.running_requests, "running"),
        (load.in_flight_requests, "in flight"),
        (load.in_flight_tokens, "tokens in flight"),
        (load.stale_endpoints.filter(|count| *count > 0), "pods without recent metrics"),
        (load.rejected_requests.filter(|count| *count > 0), "rejected since it started"),
    ];
    let counts = counts.into_iter().filter_map(|(count, what)| Some(format!("{} {what}", count?)));
    let saturation = load.saturation.effective;
    let saturation = saturation.map(|share| format!("saturation {:.0}%", share * 100.0));
    let off = (!load.flow_control).then(|| "flow control is off".to_owned());
    let shown: Vec<String> = off.into_iter().chain(counts).chain(saturation).collect();
    let age = age(reading.age_of(load.sampled_at));
    Some(format!("endpoint picker, {age} ago: {}\n", shown.join(", ")))
}

/// What the cluster lists of the model: "cluster, 0.8s ago: 3 of 4 ready, 1 starting; 1 pod without metrics".
pub(super) fn supply(reading: &Reading<Replicas>) -> Option<String> {
    let supplied = reading.value().supplied(None)?;
    let age = age(reading.age_of(supplied.as_of()));
    let silent = match supplied.silent().count() {
        0 => String::new(),
        count => format!("; {} without metrics", counted(count, "ready pod", "ready pods")),
    };
    Some(format!("cluster, {age} ago: {supplied}{silent}\n"))
}

/// Everything that is to be said below a table of these values.
pub(super) fn below(failed: &FieldReasons, unknown: Vec<String>, warnings: &[Arc<str>]) -> String {
    let warnings = warnings.iter().map(|warning| format!("warning: {}", printable(warning)));
    failed_fields(failed)
        .into_iter()
        .chain(unknown)
        .chain(warnings)
        .fold(String::new(), |text, line| text + &line + "\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use collector_core::supply::{Pod, PodState, Workload};
    use collector_core::{
        BackendName, Field, FreshnessThresholds, ModelRef, ReplicaMetrics, Source, Supply, Tick,
    };

    use super::*;

    #[test]
    fn pods_that_lack_the_same_for_one_reason_share_a_line() {
        let rows = (1..=5).map(|number| {
            let mut row = ReplicaMetrics::new(format!("llama-{number}"), Tick::from_nanos(0));
            row.reasons.insert(Field::KvCacheUsage, "it was not scraped");
            if number == 5 {
                row.reasons.insert(Field::QueueLength, "two values\u{1b}");
            }
            row
        });
        let replicas = Replicas::new(
            ModelRef::new("m", "n"),
            rows.collect(),
            BackendName::from("epp"),
            Tick::from_nanos(0),
        );
        assert_eq!(
            unknown_fields(&replicas),
            [
                "kvCacheUsage of llama-1, llama-2, llama-3 and 2 more: it was not scraped",
                "queueLength of llama-5: two values\\u{1b}",
            ]
        );
    }

    #[test]
    fn a_supply_is_a_line_with_its_age() {
        let now = Tick::from_nanos(60_000_000_000);
        let pods =
            [("m-0", PodState::Ready), ("m-1", PodState::Ready), ("m-2", PodState::Starting)];
        let pods = pods.map(|(name, state)| Pod::new(name.into(), state, now)).to_vec();
        let workload = Workload::new(Some("v".into()), Some(4), pods);
        let rows = vec![ReplicaMetrics::new("m-0", now)];
        let mut replicas = Replicas::new(ModelRef::new("m", "n"), rows, "epp".into(), now);
        let line = |replicas: &Replicas| {
            let thresholds = FreshnessThresholds::default();
            supply(&Reading::new(replicas.clone(), now, &thresholds, Source::Backend))
        };
        assert_eq!(line(&replicas), None);
        let as_of = now - Duration::from_millis(800);
        replicas.supply = Some(Arc::new(Supply::new(as_of, vec![workload])));
        let expected = "cluster, 0.8s ago: 2 of 4 ready, 1 starting; 1 ready pod without metrics\n";
        assert_eq!(line(&replicas).as_deref(), Some(expected));
    }

    #[test]
    fn fields_that_failed_alike_share_a_line() {
        let mut failed = FieldReasons::NONE;
        failed.insert(Field::KvCacheUsage, "422 too many samples");
        failed.insert(Field::AvgInputTokens, "422 too many samples");
        failed.insert(Field::QueueLength, "503");
        assert_eq!(
            below(&failed, Vec::new(), &[Arc::from("samples arrive 40 s late")]),
            "kvCacheUsage, avgInputTokens could not be asked for: 422 too many samples\n\
             queueLength could not be asked for: 503\n\
             warning: samples arrive 40 s late\n"
        );
    }
}
