// SPDX-License-Identifier: Apache-2.0
//! What has changed between two readings of a model. Pure functions.

use std::collections::BTreeMap;
use std::time::SystemTime;

use collector_core::text::counted;
use collector_core::{CollectError, ModelRef, Reading, ReplicaMetrics, Replicas};
use serde_json::Value;

use crate::commands::totals::{mean_usage, total_queue, total_running};
use crate::output::cells::{optional, percent, whole};
use crate::output::{ErrorDocument, printable, signs};

/// How many pods a line names.
const NAMED: usize = 8;

/// A value: its title, and how it is shown.
type Shown = (&'static str, fn(&ReplicaMetrics) -> String);

/// The values of a pod that a line is about, as they are shown.
const VALUES: [Shown; 5] = [
    ("queue", |replica| whole(replica.queue_length)),
    ("KV", |replica| percent(replica.kv_cache_usage)),
    ("running", |replica| whole(replica.running_requests)),
    ("state", |replica| replica.state.as_str().to_owned()),
    ("variant", |replica| optional(replica.variant_name.as_ref())),
];

/// What a line shows of a model. Ages are left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    status: &'static str,
    /// There is a reading. What is too old has none, and neither has what is missing.
    is_reading: bool,
    /// Why there is no reading, or what the reading is as a whole.
    summary: String,
    partial: bool,
    /// The pods that the cluster lists, by state.
    supply: Option<String>,
    pods: BTreeMap<String, [String; VALUES.len()]>,
}

/// A status and what is new about it.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Change {
    status: &'static str,
    what: String,
}

impl Seen {
    pub(super) fn of(reading: &Result<Reading<Replicas>, CollectError>) -> Self {
        match reading {
            Ok(reading) => Self::of_reading(reading),
            Err(error) => {
                let status = match error {
                    CollectError::Missing { .. } => "missing",
                    CollectError::Unavailable { .. } => "unavailable",
                    CollectError::Pending { .. } => "pending",
                    _ => "error",
                };
                let summary = printable(ErrorDocument::of(error).message()).to_string();
                let pods = BTreeMap::new();
                Self { status, is_reading: false, summary, partial: false, supply: None, pods }
            }
        }
    }

    fn of_reading(reading: &Reading<Replicas>) -> Self {
        let Replicas { replicas, partial, .. } = reading.value();
        let supply = reading.value().supplied(None).map(|supplied| supplied.to_string());
        let summary = format!(
            "{}{}, queue {}, running {}, KV {}",
            counted(replicas.len(), "pod", "pods"),
            supply.as_ref().map_or_else(String::new, |supply| format!(" ({supply})")),
            whole(total_queue(replicas)),
            whole(total_running(replicas)),
            percent(mean_usage(replicas)),
        );
        let pods = replicas.iter().map(|replica| {
            let name = printable(replica.pod_name.as_str()).to_string();
            (name, VALUES.map(|(_, value)| value(replica)))
        });
        let status = reading.freshness().as_str();
        let pods = pods.collect();
        Self { status, is_reading: true, summary, partial: *partial, supply, pods }
    }

    /// What is new since the last line; `None` when nothing is.
    pub(super) fn changes_since(&self, before: Option<&Self>) -> Option<Change> {
        let change = |what| Some(Change { status: self.status, what });
        let partly = if self.partial { ", and perhaps more" } else { "" };
        let Some(before) = before else {
            return change(format!("{}{partly}", self.summary));
        };
        let mut what = Vec::new();
        if self.status != before.status {
            what.push(format!("was {}", before.status));
        }
        // The text of an error has ages and attempts, which change all the time.
        if self.pods.is_empty() != before.pods.is_empty() || self.is_reading != before.is_reading {
            what.push(format!("{}{partly}", self.summary));
        } else {
            if self.partial != before.partial {
                let partial =
                    if self.partial { "some pods may be absent" } else { "no pod is absent" };
                what.push(partial.to_owned());
            }
            if !self.is_reading && self.status != before.status {
                what.push(self.summary.clone());
            }
            if let Some(supply) = self.supply.as_ref().filter(|_| self.supply != before.supply) {
                what.push(format!("the cluster has {supply}"));
            }
            let pods = self.pods_changed_since(before);
            let more = pods.len().saturating_sub(NAMED);
            what.extend(pods.into_iter().take(NAMED));
            if more > 0 {
                what.push(format!("{} changed", counted(more, "more pod", "more pods")));
            }
        }
        if what.is_empty() { None } else { change(what.join("; ")) }
    }

    fn pods_changed_since(&self, before: &Self) -> Vec<String> {
        let arrow = signs().arrow;
        let now = self.pods.iter().filter_map(|(pod, values)| {
            let Some(old) = before.pods.get(pod) else {
                let values = VALUES.iter().zip(values).take(3);
                let values: Vec<String> =
                    values.map(|((title, _), value)| format!("{title} {value}")).collect();
                return Some(format!("{pod} appeared: {}", values.join(", ")));
            };
            let changed = VALUES.iter().zip(old.iter().zip(values)).filter(|(_, (a, b))| a != b);
            let changed: Vec<String> =
                changed.map(|((title, _), (a, b))| format!("{title} {a} {arrow} {b}")).collect();
            (!changed.is_empty()).then(|| format!("{pod} {}", changed.join(", ")))
        });
        let gone = before.pods.keys().filter(|pod| !self.pods.contains_key(*pod));
        now.chain(gone.map(|pod| format!("{pod} is gone"))).collect()
    }
}

/// The line: the time, the namespace, the model, the status, and what is new.
pub(super) fn line(model: &ModelRef, change: &Change, wall: SystemTime) -> String {
    let time = jiff::Timestamp::try_from(wall).unwrap_or_default();
    format!(
        "{time:.0} {} {} {} {}",
        printable(model.namespace.as_str()),
        printable(model.model.as_str()),
        change.status,
        change.what
    )
}

/// Removes what changes although no value does.
pub(super) fn without_ages(document: &mut Value) {
    match document {
        Value::Object(fields) => {
            fields.retain(|name, _| {
                let times = ["ageSeconds", "collectedAt", "generation", "sampledAt"];
                let names = times.into_iter().chain(["source", "message", "hints"]);
                names.into_iter().all(|changing| name != changing)
            });
            fields.values_mut().for_each(without_ages);
        }
        Value::Array(items) => items.iter_mut().for_each(without_ages),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use collector_core::supply::{self, PodState, Workload};
    use collector_core::{FreshnessThresholds, Nearest, Source, Supply, Tick};
    use serde_json::json;

    use super::*;

    type Read = Result<Reading<Replicas>, CollectError>;
    type Pod = (&'static str, Option<u64>);

    #[expect(clippy::unnecessary_wraps, reason = "what is read may be an error")]
    fn reading(pods: &[Pod], age: u64) -> Read {
        let read_at = Tick::from_nanos(1_000_000_000_000);
        let sampled = read_at - Duration::from_secs(age);
        let rows = pods.iter().map(|(name, queue)| {
            let mut row = ReplicaMetrics::new(*name, sampled);
            row.queue_length = *queue;
            row
        });
        let model = ModelRef::new("m", "n");
        let value = Replicas::new(model, rows.collect(), "prometheus".into(), sampled);
        Ok(Reading::new(value, read_at, &FreshnessThresholds::default(), Source::Cache))
    }

    fn unavailable() -> Read {
        Err(CollectError::Unavailable {
            model: ModelRef::new("m", "n"),
            age: Duration::from_secs(301),
            threshold: Duration::from_secs(300),
            cause: None,
        })
    }

    fn missing() -> Read {
        let nearest = Arc::new(Nearest::default());
        Err(CollectError::Missing { model: ModelRef::new("m", "n"), nearest })
    }

    #[track_caller]
    fn check(before: &Read, now: &Read, expected: Option<&str>) {
        let change = Seen::of(now).changes_since(Some(&Seen::of(before)));
        let shown = change.map(|change| format!("{} {}", change.status, change.what));
        assert_eq!(shown.as_deref(), expected);
    }

    #[test]
    fn only_what_has_changed_is_shown() {
        let first = Seen::of(&reading(&[("a", Some(3)), ("b", Some(0))], 1)).changes_since(None);
        assert_eq!(first.unwrap().what, "2 pods, queue 3, running -, KV -");
        let now = reading(&[("a", Some(3)), ("b", Some(0))], 1);
        check(&now, &reading(&[("a", Some(3)), ("b", Some(0))], 9), None);
        let more = reading(&[("a", Some(5)), ("b", Some(0))], 1);
        check(&now, &more, Some("fresh a queue 3 → 5"));
        let other = reading(&[("a", Some(3)), ("c", Some(1))], 1);
        check(&now, &other, Some("fresh c appeared: queue 1, KV -, running -; b is gone"));
    }

    #[test]
    fn a_change_of_the_supply_is_shown() {
        let supplied = |starting: bool| {
            let read_at = Tick::from_nanos(1_000_000_000_000);
            let state = if starting { PodState::Starting } else { PodState::Ready };
            let pods = vec![supply::Pod::new("a".into(), state, read_at)];
            let workload = Workload::new(Some("v".into()), Some(1), pods);
            let rows = vec![ReplicaMetrics::new("a", read_at)];
            let mut value = Replicas::new(ModelRef::new("m", "n"), rows, "x".into(), read_at);
            value.supply = Some(Arc::new(Supply::new(read_at, vec![workload])));
            Ok(Reading::new(value, read_at, &FreshnessThresholds::default(), Source::Cache))
        };
        let first = Seen::of(&supplied(true)).changes_since(None).unwrap().what;
        let expected = "1 pod (0 of 1 ready, 1 starting), queue -, running -, KV -";
        assert_eq!(first, expected);
        check(&supplied(true), &supplied(true), None);
        check(&supplied(true), &supplied(false), Some("fresh the cluster has 1 of 1 ready"));
    }

    #[test]
    fn unknown_zero_missing_and_old_are_told_apart() {
        let zero = reading(&[("a", Some(0))], 1);
        let unknown = reading(&[("a", None)], 1);
        check(&zero, &unknown, Some("fresh a queue 0 → -"));
        check(&unknown, &zero, Some("fresh a queue - → 0"));
        check(&zero, &reading(&[("a", Some(0))], 90), Some("stale was fresh"));
        let none = reading(&[], 1);
        check(&zero, &none, Some("fresh 0 pods, queue -, running -, KV -"));
        check(
            &zero,
            &missing(),
            Some("missing was fresh; no metrics of model \"m\" in namespace \"n\""),
        );
        check(
            &none,
            &missing(),
            Some("missing was fresh; no metrics of model \"m\" in namespace \"n\""),
        );
        check(&missing(), &missing(), None);
        let old = "metrics of model \"m\" in namespace \"n\" are 5m 1s old";
        let shown = |before: &Read| Seen::of(&unavailable()).changes_since(Some(&Seen::of(before)));
        for before in [&none, &zero, &missing()] {
            let change = shown(before).unwrap();
            assert!(change.what.contains("; ") && change.what.contains(old), "{}", change.what);
        }
        assert_eq!(shown(&unavailable()), None);
        check(&missing(), &none, Some("fresh was missing; 0 pods, queue -, running -, KV -"));
    }

    #[test]
    fn a_line_names_a_few_pods_and_counts_the_others() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        let with = |queue| reading(&names.map(|name| (name, Some(queue))), 1);
        let change = Seen::of(&with(2)).changes_since(Some(&Seen::of(&with(1)))).unwrap();
        assert!(change.what.ends_with("h queue 1 → 2; 2 more pods changed"), "{}", change.what);
    }

    #[test]
    fn hostile_names_are_escaped() {
        let change = Change { status: "fresh", what: String::new() };
        let model = ModelRef::new("m\u{1b}[2J\n", "n\u{9b}");
        let line = line(&model, &change, SystemTime::UNIX_EPOCH);
        assert!(
            line.starts_with("1970-01-01T00:00:00Z n\\u{9b} m\\u{1b}[2J\\u{a} fresh"),
            "{line}"
        );
    }

    #[test]
    fn ages_are_no_change_of_a_document() {
        let mut a = json!({"ageSeconds": 1.0, "generation": 7, "sampledAt": "2026-11-30T00:00:00Z",
            "replicas": [{"queueLength": 0, "ageSeconds": 2.0}]});
        without_ages(&mut a);
        assert_eq!(a, json!({"replicas": [{"queueLength": 0}]}));
    }
}
