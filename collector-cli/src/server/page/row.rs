// SPDX-License-Identifier: Apache-2.0
//! What the list of the page shows of a model.

use std::collections::BTreeMap;
use std::time::Duration;

use collector_core::text::counted;
use collector_core::{
    Allocation, CollectError, Field, Reading, ReplicaMetrics, Replicas, Tick, TrackedModel,
};
use serde::Serialize;

use crate::output::status_without_reading;

/// The row of a model, without its age. It differs from the one before only if something that is shown has changed.
#[derive(Serialize, Default, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    /// `fresh`, `stale`, `unavailable`, `missing`, `pending` or `failed`.
    status: &'static str,
    /// Some replicas may be absent.
    partial: bool,
    /// Why there is no reading.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    replicas: Option<usize>,
    /// The pods that the cluster lists, by state.
    #[serde(skip_serializing_if = "Option::is_none")]
    supply: Option<String>,
    /// Requests waiting, over all replicas.
    queue: Option<u64>,
    /// Mean over the replicas that serve, 0.0 to 1.0, to a tenth of a percent.
    kv: Option<f64>,
    /// Requests a minute over all variants, to a tenth.
    rate: Option<f64>,
    /// Why one of these is null.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    why: BTreeMap<&'static str, String>,
}

/// A number, or why it is not known.
type Known<T> = Result<T, String>;

impl Row {
    pub(super) fn new(tracked: &TrackedModel) -> Self {
        let reading = match &tracked.replicas {
            Ok(reading) => reading,
            Err(error) => {
                let (status, error) = (status_without_reading(error), Some(reason_of(error)));
                return Self { status, error, ..Self::default() };
            }
        };
        let value = reading.value();
        let mut row = Self {
            status: reading.freshness().as_str(),
            partial: value.partial,
            replicas: Some(value.replicas.len()),
            supply: value.supplied(None).map(|supplied| supplied.to_string()),
            ..Self::default()
        };
        row.queue = row.or_why("queue", queue(value));
        row.kv = row.or_why("kv", kv_cache_usage(value));
        row.rate = row.or_why("rate", arrival_rate(&tracked.allocations));
        row
    }

    fn or_why<T>(&mut self, name: &'static str, value: Known<T>) -> Option<T> {
        value.map_err(|why| self.why.insert(name, why)).ok()
    }
}

/// When the oldest sample that is known of the model was taken.
pub(super) fn sampled_at(tracked: &TrackedModel, now: Tick) -> Option<Tick> {
    match &tracked.replicas {
        Ok(reading) => Some(reading.value().oldest),
        Err(CollectError::Unavailable { age, .. }) => Some(now - *age),
        Err(_) => None,
    }
}

/// The message of an error without times that pass: the age is shown next to it.
fn reason_of(error: &CollectError) -> String {
    match error {
        CollectError::Unavailable { threshold, cause, .. } => {
            let seconds = threshold.as_secs_f64();
            let cause = cause.as_ref().map_or_else(String::new, |cause| format!(": {cause}"));
            format!("no sample of the last {seconds} s{cause}")
        }
        CollectError::Missing { nearest, .. }
            if nearest.last_seen.is_some() && nearest.pods.is_none() =>
        {
            "no pod of it runs any more".to_owned()
        }
        error => error.to_string(),
    }
}

fn queue(value: &Replicas) -> Known<u64> {
    let each = of_each(value, value.replicas.iter(), Field::QueueLength, |it| it.queue_length)?;
    Ok(each.into_iter().fold(0, u64::saturating_add))
}

fn kv_cache_usage(value: &Replicas) -> Known<f64> {
    let serving = value.replicas.iter().filter(|it| it.state.serves());
    let each = of_each(value, serving, Field::KvCacheUsage, |it| it.kv_cache_usage)?;
    Ok(rounded(each.iter().sum::<f64>() / each.len() as f64, 1000.0))
}

/// A value of each replica. It is unknown as soon as one is: a total without it would be a wrong number.
fn of_each<'a, T>(
    value: &'a Replicas,
    replicas: impl Iterator<Item = &'a ReplicaMetrics>,
    field: Field,
    get: impl Fn(&ReplicaMetrics) -> Option<T>,
) -> Known<Vec<T>> {
    let mut known = Vec::new();
    let mut without = Vec::new();
    for replica in replicas {
        match get(replica) {
            Some(value) => known.push(value),
            None => without.push(replica),
        }
    }
    let Some(first) = without.first() else {
        return if known.is_empty() { Err("no live replica".to_owned()) } else { Ok(known) };
    };
    let all = counted(known.len() + without.len(), "replica", "replicas");
    let reason = value.failed.get(field).or_else(|| first.reasons.get(field));
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    Err(format!("{} of {all} without it{reason}", without.len()))
}

fn arrival_rate<N>(allocations: &[(N, Result<Reading<Allocation>, CollectError>)]) -> Known<f64> {
    if allocations.is_empty() {
        return Err(
            "no variant of the model is tracked, and rates are those of variants".to_owned()
        );
    }
    let mut sum = 0.0;
    for (_, reading) in allocations {
        let value = reading.as_ref().map_err(reason_of)?.value();
        sum += value.load.arrival_rate.ok_or_else(|| {
            let field = Field::ArrivalRate;
            let reason = value.failed.get(field).or_else(|| value.reasons.get(field));
            reason.map_or_else(|| "unknown for a variant".to_owned(), ToString::to_string)
        })?;
    }
    Ok(rounded(sum, 10.0))
}

fn rounded(value: f64, steps: f64) -> f64 {
    (value * steps).round() / steps
}

/// Whether a sample is newer or older by more than what is shown.
pub(super) fn moved(former: Option<Tick>, latter: Option<Tick>) -> bool {
    const SHOWN: Duration = Duration::from_millis(100);
    match (former, latter) {
        (Some(former), Some(latter)) => former.age(latter).max(latter.age(former)) >= SHOWN,
        (former, latter) => former.is_some() != latter.is_some(),
    }
}
