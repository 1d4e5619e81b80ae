//! Tables for people, in the way of kubectl: aligned columns, no borders.

use std::time::Duration;

use collector_core::{Allocation, Part, Reading, ReplicaMetrics, Replicas};
use collector_documents::ModelItem;

use super::columns::{aligned, aligned_by};
use super::notes;
use super::printable;

/// What stands where nothing was measured.
pub(crate) const UNKNOWN: &str = "-";

type Column = (&'static str, fn(&ReplicaMetrics) -> String);

const COLUMNS: [Column; 6] = [
    ("POD", |replica| name(&replica.pod_name)),
    ("VARIANT", |replica| optional(replica.variant_name.as_ref())),
    ("ACCELERATOR", |replica| optional(replica.accelerator_name.as_ref())),
    ("KV", |replica| percent(replica.kv_cache_usage)),
    ("QUEUE", |replica| whole(replica.queue_length)),
    ("RUNNING", |replica| whole(replica.running_requests)),
];

const WIDE_COLUMNS: [Column; 10] = [
    ("STATE", |replica| replica.state.as_str().to_owned()),
    ("COST", |replica| tenths(replica.cost)),
    ("ENGINE", |replica| optional(replica.engine.as_ref())),
    ("BLOCKS", |replica| whole(replica.num_gpu_blocks)),
    ("BLOCK SIZE", |replica| whole(replica.block_size)),
    ("KV TOKENS", |replica| whole(replica.total_kv_capacity_tokens())),
    ("IN USE", |replica| whole(replica.tokens_in_use())),
    ("INPUT", |replica| tenths(replica.avg_input_tokens)),
    ("OUTPUT", |replica| tenths(replica.avg_output_tokens)),
    ("PREFIX HITS", |replica| percent(replica.prefix_cache_hit_rate)),
];

/// The columns from the most important on; those that are not listed are left out first.
const IMPORTANCE: [&str; 8] =
    ["POD", "QUEUE", "KV", "RUNNING", "AGE", "VARIANT", "ACCELERATOR", "ENGINE"];

/// A model's replicas, under a line about the reading as a whole.
pub(crate) fn replicas_table(reading: &Reading<Replicas>, wide: bool) -> String {
    let value = reading.value();
    let columns: Vec<Column> =
        if wide { COLUMNS.into_iter().chain(WIDE_COLUMNS).collect() } else { COLUMNS.to_vec() };
    let mut text =
        heading(reading, &value.model.to_string(), value.backend.as_str(), value.partial);
    if value.replicas.is_empty() {
        text.push_str("no live replicas\n");
        text.extend(notes::endpoint_picker(reading));
        text.push_str(&notes::below(&value.failed, Vec::new(), &value.warnings));
        return text;
    }
    let header: Vec<&str> = columns.iter().map(|(title, _)| *title).chain(["AGE"]).collect();
    let rows = value.replicas.iter().map(|replica| {
        columns
            .iter()
            .map(|(_, show)| show(replica))
            .chain([age(reading.age_of(replica.sampled_at))])
            .collect()
    });
    text.push_str(&aligned_by(&header, rows, &IMPORTANCE));
    text.extend(notes::endpoint_picker(reading));
    text.push_str(&notes::below(&value.failed, notes::unknown_fields(value), &value.warnings));
    text
}

/// A variant's allocation, a line each value.
pub(crate) fn allocation_table(reading: &Reading<Allocation>) -> String {
    let value = reading.value();
    let subject = format!("variant {:?} of {}", value.variant, value.model);
    let mut text = heading(reading, &subject, value.backend.as_str(), value.partial);
    let replicas = match value.num_sleeping {
        0 => value.num_replicas.to_string(),
        sleeping => format!("{} and {sleeping} asleep", value.num_replicas),
    };
    let rows = [
        ("accelerator", optional(value.accelerator.as_ref())),
        ("replicas", replicas),
        ("max batch", whole(value.max_batch.map(u64::from))),
        ("arrival rate", unit(value.load.arrival_rate, " /min")),
        ("input tokens", tenths(value.load.avg_input_tokens)),
        ("output tokens", tenths(value.load.avg_output_tokens)),
        ("time to first token", unit(value.ttft_average, " ms")),
        ("inter-token latency", unit(value.itl_average, " ms")),
    ];
    let rows = rows.map(|(title, shown)| vec![title.to_owned(), shown]);
    text.push_str(&aligned([], rows.into_iter()));
    text.push_str(&notes::below(&value.failed, notes::unknown_load(value), &value.warnings));
    text
}

/// The models that are known.
pub(crate) fn models_table(models: &[ModelItem]) -> String {
    let rows = models.iter().map(|item| {
        vec![
            printable(&item.namespace).to_string(),
            printable(&item.model).to_string(),
            whole(item.replicas.map(u64::from)),
        ]
    });
    aligned_by(&["NAMESPACE", "MODEL", "REPLICAS"], rows, &["MODEL", "NAMESPACE"])
}

fn heading<T: Part>(reading: &Reading<T>, subject: &str, backend: &str, partial: bool) -> String {
    let mut line = format!(
        "{}: {}, {} old, from {} ({})",
        printable(subject),
        reading.freshness(),
        age(reading.age()),
        printable(backend),
        reading.source(),
    );
    if partial {
        line.push_str(", partial: some replicas may be absent");
    }
    line.push('\n');
    line
}

fn name(name: &impl AsRef<str>) -> String {
    printable(name.as_ref()).to_string()
}

fn optional(name: Option<&impl AsRef<str>>) -> String {
    name.map_or_else(|| UNKNOWN.to_owned(), |name| printable(name.as_ref()).to_string())
}

fn whole(count: Option<u64>) -> String {
    count.map_or_else(|| UNKNOWN.to_owned(), |count| count.to_string())
}

fn tenths(value: Option<f64>) -> String {
    unit(value, "")
}

fn unit(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| format!("{value:.1}{unit}"))
}

fn percent(ratio: Option<f64>) -> String {
    unit(ratio.map(|ratio| ratio * 100.0), "%")
}

pub(super) fn age(age: Duration) -> String {
    format!("{:.1}s", age.as_secs_f64())
}
