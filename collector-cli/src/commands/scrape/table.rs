// SPDX-License-Identifier: Apache-2.0
//! What is taken from a page, for people.

use std::fmt::Write as _;

use collector_epp::endpoint_picker::{
    EndpointPickerEndpoint, EndpointPickerMetrics, EndpointPickerModel, EndpointPickerPool, Numbers,
};
use collector_epp::engines::{
    ENDPOINT_PICKER, EngineRow, Exposition, LoraAdapters, Quantity, ServerExposition,
};

use super::shorten::shorten;
use super::{Read, malformed_lines};
use crate::output::cells::{UNKNOWN, known};
use crate::output::{aligned, printable};

/// From here on, and below its inverse, numbers are shown with an exponent.
const DIGITS_MAX: f64 = 1e15;

type Column<Row> = (&'static str, fn(&Row) -> String);

const ROW: [Column<EngineRow>; 14] = [
    ("MODEL", |row| name(row.model.as_ref().map(AsRef::as_ref))),
    ("ENGINE", |row| name(row.rank.as_deref())),
    ("WAITING", |row| number(row.numbers[Quantity::Waiting])),
    ("RUNNING", |row| number(row.numbers[Quantity::Running])),
    ("KV", |row| percent(row.numbers[Quantity::KvCacheUsage])),
    ("BLOCKS", |row| number(row.numbers[Quantity::NumGpuBlocks])),
    ("BLOCK SIZE", |row| number(row.numbers[Quantity::BlockSize])),
    ("CAPACITY", |row| number(row.capacity())),
    ("HIT RATE", |row| percent(row.hit_rate_since_start())),
    ("REQUESTS", |row| first(row, [Quantity::RequestSuccessTotal, Quantity::RequestsTotal])),
    ("PROMPT TOKENS", |row| first(row, [Quantity::PromptTokensTotal, Quantity::PromptTokensSum])),
    ("GENERATED", |row| {
        first(row, [Quantity::GenerationTokensTotal, Quantity::GenerationTokensSum])
    }),
    ("TTFT", |row| mean(row, Quantity::TtftSum)),
    ("ITL", |row| mean(row, Quantity::ItlSum)),
];

const SOMETIMES: [Column<EngineRow>; 6] = [
    ("REPLICA", |row| name(row.replica.as_deref())),
    ("ROLE", |row| name(row.role.as_ref().map(AsRef::as_ref))),
    ("STATE", |row| name(super::document::state(row))),
    ("QUEUE TIME", |row| mean(row, Quantity::QueueTimeSum)),
    ("PREFILL TIME", |row| mean(row, Quantity::PrefillTimeSum)),
    ("DECODE TIME", |row| mean(row, Quantity::DecodeTimeSum)),
];

const MODEL: [Column<EndpointPickerModel>; 10] = [
    ("MODEL", |row| name(row.model.as_ref().map(AsRef::as_ref))),
    ("TARGET", |row| name(row.target.as_ref().map(AsRef::as_ref))),
    ("QUEUED", |row| number(value(&row.numbers, "flow_control_queue_size"))),
    ("QUEUED BYTES", |row| number(value(&row.numbers, "flow_control_queue_bytes"))),
    ("RUNNING", |row| number(value(&row.numbers, "running"))),
    ("REQUESTS", |row| number(value(&row.numbers, "requests_total"))),
    ("ERRORS", |row| number(value(&row.numbers, "errors_total"))),
    ("INPUT TOKENS", |row| number(value(&row.numbers, "input_tokens_sum"))),
    ("OUTPUT TOKENS", |row| number(value(&row.numbers, "output_tokens_sum"))),
    ("DURATION", |row| {
        milliseconds(value(&row.numbers, "duration_sum"), value(&row.numbers, "duration_count"))
    }),
];

const POOL: [Column<EndpointPickerPool>; 8] = [
    ("POOL", |pool| name(pool.name.as_deref())),
    ("READY", |pool| number(value(&pool.numbers, "ready"))),
    ("AVG KV", |pool| percent(value(&pool.numbers, "avg_kv"))),
    ("AVG QUEUE", |pool| number(value(&pool.numbers, "avg_queue"))),
    ("AVG RUNNING", |pool| number(value(&pool.numbers, "avg_running"))),
    ("SATURATION", |pool| percent(value(&pool.numbers, "saturation_effective"))),
    ("STALE", |pool| number(value(&pool.numbers, "stale_endpoints"))),
    ("REJECTED", |pool| number(value(&pool.numbers, "rejected"))),
];

const ENDPOINT: [Column<EndpointPickerEndpoint>; 4] = [
    ("ENDPOINT", |endpoint| name(Some(&endpoint.name))),
    ("PRODUCER", |endpoint| name(endpoint.producer.as_deref())),
    ("IN FLIGHT", |endpoint| number(value(&endpoint.numbers, "in_flight_requests"))),
    ("TOKENS", |endpoint| number(value(&endpoint.numbers, "in_flight_tokens"))),
];

fn value(numbers: &Numbers, key: &str) -> Option<f64> {
    numbers.get(key).copied()
}

/// What is taken from the page, and from which of its series.
pub(super) fn of(page: &Exposition, read: &Read) -> String {
    match page {
        Exposition::Server(page) => server(page, read),
        Exposition::EndpointPicker(page) => endpoint_picker(page, read),
    }
}

fn server(page: &ServerExposition, read: &Read) -> String {
    let mut text = heading(page.engine.as_str(), read);
    // Columns that few servers have are shown where one has.
    let mut columns = ROW.to_vec();
    columns.extend(
        SOMETIMES.into_iter().filter(|(_, show)| page.rows.iter().any(|row| show(row) != UNKNOWN)),
    );
    text.push_str(&table(&columns, &page.rows));
    text.push_str(&reasons(page));
    if let Some(LoraAdapters { running, waiting, max }) = &page.lora {
        let max = known(*max, |max| max.to_string());
        let _ = writeln!(
            text,
            "\nLoRA adapters running: {}; waiting: {}; at most: {max}",
            names(running),
            names(waiting)
        );
    }
    let matched = page.matched.iter().map(|it| (it.quantity.key(), it.spec.to_string()));
    text.push_str(&read_from(matched));
    text.push_str(&malformed_lines(&read.summary));
    text
}

fn endpoint_picker(page: &EndpointPickerMetrics, read: &Read) -> String {
    let mut text = heading(ENDPOINT_PICKER, read);
    text.push_str(&table(&POOL, &page.pools));
    for pool in page.pools.iter().filter(|pool| !pool.per_pod_queue.is_empty()) {
        text.push('\n');
        let rows = pool.per_pod_queue.iter();
        let rows = rows.map(|(pod, queue)| vec![name(Some(pod.as_str())), number(Some(*queue))]);
        text.push_str(&aligned(["POD", "QUEUE"], rows));
    }
    if !page.endpoints.is_empty() {
        text.push('\n');
        text.push_str(&table(&ENDPOINT, &page.endpoints));
    }
    text.push('\n');
    text.push_str(&table(&MODEL, &page.models));
    text.push_str(&read_from(page.matched.iter().map(|(key, series)| (*key, series.to_string()))));
    text.push_str(&malformed_lines(&read.summary));
    text
}

fn heading(engine: &str, read: &Read) -> String {
    format!(
        "{}: {} samples, of which {} are read; times are means since the server started\n",
        printable(engine),
        read.samples,
        read.summary.samples
    )
}

fn table<Row>(columns: &[Column<Row>], rows: &[Row]) -> String {
    let header = columns.iter().map(|(title, _)| *title);
    let rows = rows.iter().map(|row| columns.iter().map(|(_, show)| show(row)).collect());
    aligned(header, rows)
}

/// Why values are unknown.
fn reasons(page: &ServerExposition) -> String {
    let all = page.reasons.iter().chain(page.rows.iter().flat_map(|row| &row.reasons));
    let mut lines: Vec<String> = all
        .map(|(quantity, reason)| format!("{}: {}\n", quantity.key(), printable(reason)))
        .collect();
    lines.dedup();
    if lines.is_empty() { String::new() } else { format!("\n{}", lines.concat()) }
}

/// Which series each value was read from.
fn read_from(matched: impl Iterator<Item = (&'static str, String)>) -> String {
    let rows = matched.map(|(key, series)| vec![key.to_owned(), printable(&series).to_string()]);
    format!("\n{}", aligned(["VALUE", "READ FROM"], rows))
}

fn names(names: &[Box<str>]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<String> =
        names.iter().map(|name| printable(&shorten(name)).to_string()).collect();
    names.join(", ")
}

fn name(name: Option<&str>) -> String {
    known(name, |name| printable(&shorten(name)).to_string())
}

/// Whole numbers as such, others to the hundredth.
fn number(value: Option<f64>) -> String {
    known(value, |value| {
        let fits = value.is_finite() && value.abs() < DIGITS_MAX && value.fract() != 0.0;
        if fits { format!("{value:.2}") } else { exact(value) }
    })
}

/// A number as it stands on a page, in no more digits than it needs.
pub(super) fn exact(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value if value == 0.0 || (1.0 / DIGITS_MAX..DIGITS_MAX).contains(&value.abs()) => {
            value.to_string()
        }
        value => format!("{value:e}"),
    }
}

fn percent(ratio: Option<f64>) -> String {
    match ratio {
        Some(ratio) if ratio.is_finite() && ratio.abs() < DIGITS_MAX => {
            format!("{:.1}%", ratio * 100.0)
        }
        ratio => number(ratio),
    }
}

/// The first of these that is on the page.
fn first(row: &EngineRow, quantities: [Quantity; 2]) -> String {
    number(quantities.iter().find_map(|quantity| row.numbers[*quantity]))
}

/// The mean of a sum of seconds.
fn mean(row: &EngineRow, sum: Quantity) -> String {
    milliseconds(row.numbers[sum], sum.partner().and_then(|count| row.numbers[count]))
}

/// The mean of seconds, of none of which there is no mean.
fn milliseconds(sum: Option<f64>, count: Option<f64>) -> String {
    match (sum, count) {
        (Some(sum), Some(count)) if count > 0.0 => format!("{:.1} ms", sum / count * 1000.0),
        _ => UNKNOWN.to_owned(),
    }
}
