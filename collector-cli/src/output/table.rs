// SPDX-License-Identifier: Apache-2.0
//! Tables for people, in the way of kubectl: aligned columns, no borders.

use std::io;

use collector_core::{Allocation, Freshness, Part, Reading, ReplicaMetrics, Replicas};
use collector_documents::ModelItem;

use super::cells::{age, name, optional, percent, tenths, unit, whole};
use super::columns::{aligned, aligned_by};
use super::notes;
use super::printable;
use super::terminal::{Colour, painted};

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
const IMPORTANCE: [&str; 12] = [
    "POD",
    "QUEUE",
    "MODEL",
    "VARIANT",
    "REPLICAS",
    "KV",
    "RUNNING",
    "STATUS",
    "AGE",
    "ACCELERATOR",
    "NAMESPACE",
    "ENGINE",
];

/// A model's replicas in this order, under a line about the reading as a whole. Without headers, the rows alone.
pub(crate) fn replicas_table<'a>(
    reading: &Reading<Replicas>,
    replicas: impl ExactSizeIterator<Item = &'a ReplicaMetrics>,
    wide: bool,
    no_headers: bool,
) -> String {
    let value = reading.value();
    let columns = columns(wide);
    let header: Vec<&str> = columns.iter().map(|(title, _)| *title).chain(["AGE"]).collect();
    let empty = replicas.len() == 0;
    let rows = replicas.map(|replica| cells(&columns, reading, replica).collect());
    if no_headers {
        return aligned([], rows);
    }
    let mut text =
        heading(reading, &value.model.to_string(), value.backend.as_str(), value.partial);
    if empty {
        text.push_str("no live replicas\n");
        text.extend(notes::endpoint_picker(reading));
        text.extend(notes::supply(reading));
        text.push_str(&notes::below(&value.failed, Vec::new(), &value.warnings));
        return text;
    }
    text.push_str(&titled(&header, rows, false));
    text.extend(notes::endpoint_picker(reading));
    text.extend(notes::supply(reading));
    text.push_str(&notes::below(&value.failed, notes::unknown_fields(value), &value.warnings));
    text
}

fn columns(wide: bool) -> Vec<Column> {
    if wide { COLUMNS.into_iter().chain(WIDE_COLUMNS).collect() } else { COLUMNS.to_vec() }
}

fn cells(
    columns: &[Column],
    reading: &Reading<Replicas>,
    replica: &ReplicaMetrics,
) -> impl Iterator<Item = String> {
    let age = age(reading.age_of(replica.sampled_at));
    columns.iter().map(|(_, show)| show(replica)).chain([age])
}

/// Rows under their titles, from the most important columns on.
pub(super) fn titled(
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
    no_headers: bool,
) -> String {
    if no_headers { aligned([], rows) } else { aligned_by(header, rows, &IMPORTANCE) }
}

/// The replicas of several models, each in a row with its model.
pub(crate) fn list_table<'a>(
    rows: impl Iterator<Item = (&'a Reading<Replicas>, &'a ReplicaMetrics)>,
    wide: bool,
    no_headers: bool,
) -> String {
    let columns = columns(wide);
    let header = ["NAMESPACE", "MODEL"].into_iter();
    let header = header.chain(columns.iter().map(|(title, _)| *title)).chain(["AGE", "STATUS"]);
    let rows = rows.map(|(reading, replica)| {
        let model = &reading.value().model;
        let of_model = [name(&model.namespace), name(&model.model)];
        let status = status(reading, reading.value().partial);
        of_model.into_iter().chain(cells(&columns, reading, replica)).chain([status]).collect()
    });
    titled(&header.collect::<Vec<_>>(), rows, no_headers)
}

/// How far a reading can be relied on, in a word or two.
fn status<T: Part>(reading: &Reading<T>, partial: bool) -> String {
    let freshness = reading.freshness();
    if partial { format!("{freshness}, partial") } else { freshness.to_string() }
}

/// Several allocations, a row each.
pub(crate) fn allocations_table<'a>(
    readings: impl Iterator<Item = &'a Reading<Allocation>>,
    no_headers: bool,
) -> String {
    let header = [
        "NAMESPACE",
        "MODEL",
        "VARIANT",
        "ACCELERATOR",
        "REPLICAS",
        "REQ/MIN",
        "INPUT",
        "OUTPUT",
        "TTFT ms",
        "ITL ms",
        "AGE",
        "STATUS",
    ];
    let rows = readings.map(|reading| {
        let value = reading.value();
        vec![
            name(&value.model.namespace),
            name(&value.model.model),
            name(&value.variant),
            optional(value.accelerator.as_ref()),
            value.num_replicas.to_string(),
            tenths(value.load.arrival_rate),
            tenths(value.load.avg_input_tokens),
            tenths(value.load.avg_output_tokens),
            tenths(value.ttft_average),
            tenths(value.itl_average),
            age(reading.age()),
            status(reading, value.partial),
        ]
    });
    titled(&header, rows, no_headers)
}

/// A variant's allocation, a line each value.
pub(crate) fn allocation_table(reading: &Reading<Allocation>) -> String {
    let value = reading.value();
    let subject = format!("variant {:?} of {}", value.variant, value.model);
    let mut text = heading(reading, &subject, value.backend.as_str(), value.partial);
    let mut replicas = match value.num_sleeping {
        0 => value.num_replicas.to_string(),
        sleeping => format!("{} and {sleeping} asleep", value.num_replicas),
    };
    if let Some(supplied) = reading.model().replicas.supplied(Some(&value.variant)) {
        replicas = format!(
            "{replicas} (cluster, {} ago: {supplied})",
            age(reading.age_of(supplied.as_of()))
        );
    }
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
pub(crate) fn models_table<'a>(
    models: impl Iterator<Item = &'a ModelItem>,
    no_headers: bool,
) -> String {
    let rows = models.map(|item| {
        vec![name(&item.namespace), name(&item.model), whole(item.replicas.map(u64::from))]
    });
    titled(&["NAMESPACE", "MODEL", "REPLICAS"], rows, no_headers)
}

fn heading<T: Part>(reading: &Reading<T>, subject: &str, backend: &str, partial: bool) -> String {
    let mut line = format!(
        "{}: {}, {} old, from {} ({})",
        printable(subject),
        painted(reading.freshness().as_str(), freshness_colour(reading.freshness()), &io::stdout()),
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

/// The colour of a freshness.
pub(crate) fn freshness_colour(freshness: Freshness) -> Colour {
    match freshness {
        Freshness::Fresh => Colour::Green,
        Freshness::Stale => Colour::Yellow,
        Freshness::Unavailable => Colour::Red,
    }
}
