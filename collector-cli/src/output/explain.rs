// SPDX-License-Identifier: Apache-2.0
//! `collector explain`: the document, and its table for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use collector_core::{
    BackendName, BackendState, CollectError, Field, ModelRef, Reading, Replicas, Tick, TraceRow,
    duration,
};
use collector_documents::{
    BackendDocument, ErrorBody, PaceDocument, ReplicasDocument, SCHEMA_VERSION, seconds,
};
use serde::Serialize;

use super::cells::{UNKNOWN, known, optional};
use super::columns::aligned_by;
use super::documents::document;
use super::notes;
use super::printable;
use super::terminal::signs;

/// The last fetch of a model from one backend, with the trace of its values.
pub(crate) struct TracedFetch {
    pub(crate) backend: BackendName,
    pub(crate) outcome: FetchOutcome,
    pub(crate) rows: Vec<TraceRow>,
}

/// How a fetch ended.
#[derive(Clone)]
pub(crate) enum FetchOutcome {
    Found(Tick),
    Missing(Tick),
    Failed(String),
    /// The backend was not fetched from, or has not answered in time.
    NotYet,
}

document! {
    /// How the values of a reading came about.
    pub(crate) ExplainDocument<'a> of (
        model: &'a ModelRef, reading: &'a Result<Reading<Replicas>, CollectError>, fetches: &[TracedFetch],
        states: &[BackendState], pace: ExplainedPace, now: Tick, wall: SystemTime
    );
    schema_version: u32 = SCHEMA_VERSION;
    /// `explain`.
    kind: &'static str = "explain";
    model: &'a str = model.model.as_str();
    namespace: &'a str = model.namespace.as_str();
    /// The reading that is explained; null when there is none.
    reading: Option<ReplicasDocument<'a>> = {
        reading.as_ref().ok().map(|reading| ReplicasDocument::new(reading, wall))
    };
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody> = reading.as_ref().err().map(ErrorBody::of);
    /// What each backend said, in order of preference.
    backends: Vec<BackendLook> = {
        let replicas = reading.as_ref().ok().map(Reading::value);
        fetches.iter().map(|fetch| BackendLook::of(fetch, states, replicas, now)).collect()
    };
    /// How long the reading counts as current, and why.
    pace: ExplainedPace = pace;
    /// The document has these in `reading`.
    #[serde(skip)]
    notes: String = reading.as_ref().map_or_else(|_| String::new(), |reading| {
        let value = reading.value();
        let below = notes::below(&value.failed, notes::unknown_fields(value), &value.warnings);
        let lists = [notes::endpoint_picker(reading), notes::supply(reading)];
        lists.into_iter().flatten().collect::<String>() + &below
    });
}

/// How often the model is refreshed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ExplainedPace {
    #[serde(flatten)]
    pub(crate) pace: PaceDocument,
    /// The address of the running collector that said so; null when none was asked or has answered, and it
    /// is what one begins with.
    pub(crate) collector: Option<String>,
    /// Why no running collector has said so, where ttls adapt; else null.
    pub(crate) unknown: Option<String>,
}

document! {
    /// The last fetch from one backend.
    BackendLook of (fetch: &TracedFetch, states: &[BackendState], replicas: Option<&Replicas>, now: Tick);
    backend: String = fetch.backend.to_string();
    /// `found`, `missing`, `failed`, or `pending` when it was not waited for.
    outcome: &'static str = match fetch.outcome {
        FetchOutcome::Found(_) => "found",
        FetchOutcome::Missing(_) => "missing",
        FetchOutcome::Failed(_) => "failed",
        FetchOutcome::NotYet => "pending",
    };
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String> = match &fetch.outcome {
        FetchOutcome::Failed(error) => Some(error.clone()),
        _ => None,
    };
    /// Time since the fetch; null when it failed.
    look_age_seconds: Option<f64> = match fetch.outcome {
        FetchOutcome::Found(at) | FetchOutcome::Missing(at) => Some(age(at, now)),
        _ => None,
    };
    /// How the backend is doing; null when there is no such backend any more.
    health: Option<BackendDocument> = {
        states.iter().find(|state| state.name == fetch.backend).map(BackendDocument::new)
    };
    /// Where each value came from; empty for a backend without traces.
    rows: Vec<ExplainRow> = {
        let rows = fetch.rows.iter();
        rows.map(|row| ExplainRow::of(row, used(row, &fetch.backend, replicas), now)).collect()
    };
}

document! {
    /// One value.
    ExplainRow of (row: &TraceRow, used: Option<bool>, now: Tick);
    /// Null for what is of the model as a whole, or when no pod has it.
    pod: Option<String> = row.pod.as_ref().map(ToString::to_string);
    /// The field of the reading, or of the allocation.
    field: &'static str = row.field.as_str();
    /// The query that was sent, or the series that was looked for.
    asked: String = row.asked.to_string();
    /// Of the names that were looked for, the one that was there.
    matched: Option<String> = row.matched.as_ref().map(ToString::to_string);
    /// What the server wrote; null when it wrote nothing, or no number.
    raw: Option<f64> = row.raw.filter(|raw| raw.is_finite());
    /// Whether the reading has this field of this pod from this backend; null for the load, which is
    /// summed and divided before it is shown.
    used: Option<bool> = used;
    /// Age of the sample.
    sampled_age_seconds: Option<f64> = row.sampled_at.map(|at| age(at, now));
    /// How long ago it was asked for.
    asked_age_seconds: f64 = age(row.asked_at, now);
    /// How long ago the answer had arrived.
    answered_age_seconds: f64 = age(row.answered_at, now);
}

fn age(at: Tick, now: Tick) -> f64 {
    seconds(at.age(now))
}

/// Whether the reading has the value of a row.
fn used(row: &TraceRow, backend: &BackendName, replicas: Option<&Replicas>) -> Option<bool> {
    if !Field::OF_REPLICA.contains(&row.field) {
        return None;
    }
    let (replicas, pod) = (replicas?, row.pod.as_ref()?);
    let replica = replicas.replicas.iter().find(|replica| replica.pod_name == *pod);
    Some(replica.is_some_and(|replica| {
        let marked = replica.marks.iter().find(|mark| mark.field == row.field);
        let source = marked.map_or(&replicas.backend, |mark| &mark.backend);
        replica.has(row.field) && source == backend
    }))
}

/// The table for people: what each backend returned, and the queries or series behind it.
pub(crate) fn explain_table(document: &ExplainDocument<'_>, wide: bool) -> String {
    let mut text = String::new();
    for (index, fetch) in document.backends.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        let fetched =
            fetch.look_age_seconds.map_or_else(String::new, |age| format!(" {age:.1}s ago"));
        let _ = writeln!(text, "{}: {}{fetched}", printable(&fetch.backend), fetch.outcome);
        if let Some(error) = &fetch.error {
            let _ = writeln!(text, "  {}", printable(error));
        }
        if let Some(trouble) = fetch.health.as_ref().and_then(BackendDocument::trouble) {
            let _ = writeln!(text, "  {trouble}");
        }
        if fetch.rows.is_empty() {
            continue;
        }
        let header = ["FIELD", "POD", "RAW", "SERIES", "SAMPLED", "ASKED", "ANSWERED", "USED"];
        let importance = ["FIELD", "RAW", "POD", "USED", "SERIES", "SAMPLED"];
        let rows = fetch.rows.iter().map(ExplainRow::columns);
        text.push_str(&aligned_by(&header, rows, &importance));
        text.push_str(&legend(&fetch.rows, wide));
    }
    text.push('\n');
    text.push_str(&document.notes);
    text.push_str(&pace_line(&document.pace.pace));
    if let Some(collector) = &document.pace.collector {
        let _ = write!(text, " (says the collector at {collector})");
    }
    text.push('\n');
    if let Some(unknown) = &document.pace.unknown {
        let _ = writeln!(text, "  to begin with: {}", printable(unknown));
    }
    text
}

impl ExplainRow {
    fn columns(&self) -> Vec<String> {
        let used = match self.used {
            Some(true) => "yes",
            Some(false) => "no",
            None => UNKNOWN,
        };
        vec![
            self.field.to_owned(),
            optional(self.pod.as_ref()),
            known(self.raw, |raw| raw.to_string()),
            optional(self.matched.as_ref()),
            known(self.sampled_age_seconds, |age| format!("{age:.2}s")),
            format!("{:.2}s", self.asked_age_seconds),
            format!("{:.2}s", self.answered_age_seconds),
            used.to_owned(),
        ]
    }
}

/// The queries of each field. They are long: the narrow form has their beginnings only.
fn legend(rows: &[ExplainRow], wide: bool) -> String {
    const NARROW: usize = 90;
    let mut asked: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        let of_field = asked.entry(row.field).or_default();
        if !of_field.contains(&row.asked.as_str()) {
            of_field.push(&row.asked);
        }
    }
    let mut text = String::from("asked\n");
    for (field, queries) in asked {
        for query in queries {
            let query = printable(query).to_string();
            let cut = query.char_indices().nth(NARROW).filter(|_| !wide);
            let query = cut.map_or_else(
                || query.clone(),
                |(end, _)| format!("{}{}", &query[..end], signs().ellipsis),
            );
            let _ = writeln!(text, "  {field}: {query}");
        }
    }
    text
}

/// `ttl 15s: kvCacheUsage moves 4.1 points in a minute`.
fn pace_line(pace: &PaceDocument) -> String {
    let ttl = Duration::try_from_secs_f64(pace.ttl_seconds).unwrap_or_default();
    format!("ttl {}: {}", duration::format(ttl), printable(&pace.because))
}
