// SPDX-License-Identifier: Apache-2.0
//! The fields of a pod, each with the backend, the age and the series of its value.

use collector_core::{BackendName, Field, Reading, ReplicaMetrics, Replicas, TraceRow};

use crate::output::cells::{UNKNOWN, age, name, optional, whole_percent};
use crate::output::{TracedFetch, printable};

/// The fields that are shown.
pub(super) const FIELDS: [Field; 7] = [
    Field::QueueLength,
    Field::KvCacheUsage,
    Field::RunningRequests,
    Field::CacheConfig,
    Field::PrefixCacheHitRate,
    Field::AvgInputTokens,
    Field::AvgOutputTokens,
];

/// A field as it is shown.
pub(super) struct FieldRow {
    /// Name, value, backend, age, and series.
    pub(super) cells: [String; 5],
    /// Where exactly the value came from, or why there is none.
    pub(super) about: String,
}

/// Describes the fields of a pod. `fetches` are those behind it, as far as they are known.
pub(super) fn fields(
    reading: &Reading<Replicas>,
    pod: &ReplicaMetrics,
    fetches: Option<&Result<Vec<TracedFetch>, String>>,
) -> Vec<FieldRow> {
    FIELDS.iter().map(|field| row(*field, reading, pod, fetches)).collect()
}

fn row(
    field: Field,
    reading: &Reading<Replicas>,
    pod: &ReplicaMetrics,
    fetches: Option<&Result<Vec<TracedFetch>, String>>,
) -> FieldRow {
    let (title, value) = shown(field, pod);
    let mark = pod.marks.iter().find(|mark| mark.field == field);
    let backend = mark.map_or(&reading.value().backend, |mark| &mark.backend);
    let sampled_at = mark.map_or(pod.sampled_at, |mark| mark.sampled_at);
    let Some(value) = value else {
        let failed = &reading.value().failed;
        let reason = pod.reasons.get(field).or_else(|| failed.get(field));
        let reason = reason.map_or("it was not measured", |reason| reason.as_ref());
        let unknown = || UNKNOWN.to_owned();
        let cells = [title.to_owned(), unknown(), unknown(), unknown(), unknown()];
        return FieldRow { cells, about: format!("{title}: {}", printable(reason)) };
    };
    let (series, about) = match fetches {
        None => (UNKNOWN.to_owned(), "its series is being looked for".to_owned()),
        Some(Err(why)) => (UNKNOWN.to_owned(), printable(why).to_string()),
        Some(Ok(fetches)) => match source(field, pod, backend, fetches) {
            Some(trace) => source_text(trace),
            None => (UNKNOWN.to_owned(), "its backend does not tell the series".to_owned()),
        },
    };
    let age = age(reading.age_of(sampled_at));
    let cells = [title.to_owned(), value, name(backend), age, series];
    FieldRow { cells, about: format!("{title}: {about}") }
}

/// The name of a field, and its value if it is known.
fn shown(field: Field, pod: &ReplicaMetrics) -> (&'static str, Option<String>) {
    let whole = |count: Option<u64>| count.map(|count| count.to_string());
    let tenths = |value: Option<f64>| value.map(|value| format!("{value:.1}"));
    let share = |share: Option<f64>| share.map(whole_percent);
    match field {
        Field::CacheConfig => ("totalKvCapacityTokens", whole(pod.total_kv_capacity_tokens())),
        field => {
            let value = match field {
                Field::KvCacheUsage => share(pod.kv_cache_usage),
                Field::QueueLength => whole(pod.queue_length),
                Field::RunningRequests => whole(pod.running_requests),
                Field::PrefixCacheHitRate => share(pod.prefix_cache_hit_rate),
                Field::AvgInputTokens => tenths(pod.avg_input_tokens),
                Field::AvgOutputTokens => tenths(pod.avg_output_tokens),
                _ => None,
            };
            (field.as_str(), value)
        }
    }
}

/// The value's own trace, else that of the model as a whole.
fn source<'a>(
    field: Field,
    pod: &ReplicaMetrics,
    backend: &BackendName,
    fetches: &'a [TracedFetch],
) -> Option<&'a TraceRow> {
    let rows = &fetches.iter().find(|fetch| fetch.backend == *backend)?.rows;
    let of = |name| rows.iter().find(move |row| row.field == field && row.pod.as_ref() == name);
    of(Some(&pod.pod_name)).or_else(|| of(None))
}

fn source_text(trace: &TraceRow) -> (String, String) {
    let asked = printable(&trace.asked);
    let raw = trace.raw.map_or_else(|| "no number".to_owned(), |raw| raw.to_string());
    (
        optional(trace.matched.as_ref()),
        format!("when this was opened, the server wrote {raw}; asked: {asked}"),
    )
}
