// SPDX-License-Identifier: Apache-2.0
//! Rows with named fields: for forms that programs read, and for the order of rows.

use std::cmp::Ordering;
use std::time::SystemTime;

use collector_core::text::shortened;
use collector_core::{Allocation, Reading, ReplicaMetrics, Replicas};
use collector_documents::{AllocationDocument, ModelItem, ReplicasDocument};
use serde_json::Value;

use super::cells::UNKNOWN;
use super::columns::aligned_in_full;
#[cfg(feature = "kubernetes")]
use super::pods::PodItem;
use super::variants::VariantItem;
use super::{nearest_first, printable, quoted};
use crate::args::{Form, Format};
use crate::exit::Failure;

/// A replica, with the reading that has it.
pub(crate) type ReplicaRow<'a> = (&'a Reading<Replicas>, &'a ReplicaMetrics);

/// Rows of one kind, each with its document and with what it was made of.
pub(crate) struct Rows<T> {
    list: Vec<(T, Value)>,
    /// The fields in the order of columns, as JSON names them; those of a nested object behind a dot.
    fields: &'static [&'static str],
    /// The field that names a row.
    name: &'static str,
}

impl<'a> Rows<ReplicaRow<'a>> {
    /// The replicas of some readings.
    pub(crate) fn of_replicas(
        readings: impl Iterator<Item = &'a Reading<Replicas>>,
        wall: SystemTime,
    ) -> Self {
        let rows = readings.flat_map(|reading| {
            let mut document = value(&ReplicasDocument::new(reading, wall));
            let rows = document["replicas"].take();
            let Value::Array(rows) = rows else { unreachable!("it is a list") };
            reading.value().replicas.iter().zip(rows).map(move |(replica, mut row)| {
                for field in ["model", "namespace", "status", "source", "backend", "partial"] {
                    row[field] = document[field].clone();
                }
                ((reading, replica), row)
            })
        });
        Self { list: rows.collect(), fields: &REPLICA, name: "podName" }
    }
}

impl<'a> Rows<&'a Reading<Allocation>> {
    /// Allocations.
    pub(crate) fn of_allocations(
        readings: impl Iterator<Item = &'a Reading<Allocation>>,
        wall: SystemTime,
    ) -> Self {
        let rows =
            readings.map(|reading| (reading, value(&AllocationDocument::new(reading, wall))));
        Self { list: rows.collect(), fields: &ALLOCATION, name: "variant" }
    }
}

impl<'a> Rows<&'a ModelItem> {
    /// Models that are known.
    pub(crate) fn of_models(models: &'a [ModelItem]) -> Self {
        let rows = models.iter().map(|model| (model, value(model)));
        Self { list: rows.collect(), fields: &["namespace", "model", "replicas"], name: "model" }
    }
}

impl<'a> Rows<&'a VariantItem> {
    /// Variants.
    pub(crate) fn of_variants(items: &'a [VariantItem]) -> Self {
        let rows = items.iter().map(|item| (item, value(item)));
        Self { list: rows.collect(), fields: &VARIANT, name: "name" }
    }
}

#[cfg(feature = "kubernetes")]
impl<'a> Rows<&'a PodItem> {
    /// Pods.
    pub(crate) fn of_pods(items: &'a [PodItem]) -> Self {
        let rows = items.iter().map(|item| (item, value(item)));
        Self { list: rows.collect(), fields: &POD, name: "podName" }
    }
}

impl<T> Rows<T> {
    /// What the rows were made of, in their order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.list.iter().map(|(of, _)| of)
    }

    /// Orders the rows by a field; behind a `-` from the greatest value on. What was not measured comes last in
    /// either order, and equal rows stay in theirs.
    pub(crate) fn sort_by(&mut self, field: &str) -> Result<(), Failure> {
        let (field, descending) = match field.strip_prefix('-') {
            Some(field) => (field, true),
            None => (field, false),
        };
        let field = self.known("--sort-by", field.strip_prefix('.').unwrap_or(field))?;
        self.list.sort_by(|(_, a), (_, b)| {
            let (a, b) = (part(a, &field), part(b, &field));
            let order = ordered(a, b);
            let is_known = !a.is_null() && !b.is_null();
            if descending && is_known { order.reverse() } else { order }
        });
        Ok(())
    }

    /// The rows in a form for programs.
    pub(crate) fn shown(&self, form: &Form, no_headers: bool) -> Result<String, Failure> {
        let mut columns = Vec::new();
        for (title, field) in &form.columns {
            columns.push((title.as_str(), self.known("--output custom-columns", field)?));
        }
        Ok(match form.format {
            Format::Name => {
                let name = |(_, row): &(T, Value)| cell(part(row, self.name), UNKNOWN) + "\n";
                self.list.iter().map(name).collect()
            }
            Format::Csv => {
                let titles = (!no_headers).then(|| self.fields.join(",") + "\n");
                let line = |(_, row): &(T, Value)| {
                    let cells = self.fields.iter().map(|field| quoted_cell(part(row, field)));
                    cells.collect::<Vec<_>>().join(",") + "\n"
                };
                titles.into_iter().chain(self.list.iter().map(line)).collect()
            }
            _ => {
                let titles = columns.iter().map(|(title, _)| printable(title).to_string());
                let titles = (!no_headers).then(|| titles.collect());
                let cells = self.list.iter().map(|(_, row)| {
                    columns.iter().map(|(_, field)| cell(part(row, field), UNKNOWN)).collect()
                });
                aligned_in_full(titles.into_iter().chain(cells).collect())
            }
        })
    }

    /// The field, if there is such a one: a misspelt field would look as if it was not measured.
    fn known(&self, flag: &str, field: &str) -> Result<String, Failure> {
        let of_reason = field.strip_prefix("reasons.").unwrap_or(field);
        if self.fields.contains(&field) || self.fields.contains(&of_reason) {
            return Ok(field.to_owned());
        }
        let known = nearest_first(field, self.fields.iter().copied());
        Err(Failure::usage(format!(
            "{flag}: there is no field {:?}; there are {}",
            shortened(field),
            quoted(known)
        )))
    }
}

/// The fields of a replica.
const REPLICA: [&str; 35] = [
    "namespace",
    "model",
    "podName",
    "variantName",
    "acceleratorName",
    "engine",
    "role",
    "state",
    "servers",
    "kvCacheUsage",
    "queueLength",
    "runningRequests",
    "cost",
    "numGpuBlocks",
    "blockSize",
    "totalKvCapacityTokens",
    "tokensInUse",
    "avgInputTokens",
    "avgOutputTokens",
    "prefixCacheHitRate",
    "latencies.ttft.count",
    "latencies.ttft.p50Ms",
    "latencies.ttft.p90Ms",
    "latencies.ttft.p99Ms",
    "latencies.itl.count",
    "latencies.itl.p50Ms",
    "latencies.itl.p90Ms",
    "latencies.itl.p99Ms",
    "latencies.ageSeconds",
    "ageSeconds",
    "status",
    "source",
    "backend",
    "partial",
    "loraAdapters.max",
];

/// The fields of an allocation.
const ALLOCATION: [&str; 17] = [
    "namespace",
    "model",
    "variant",
    "accelerator",
    "numReplicas",
    "numSleeping",
    "maxBatch",
    "itlAverageMs",
    "ttftAverageMs",
    "load.arrivalRatePerMinute",
    "load.avgInputTokens",
    "load.avgOutputTokens",
    "ageSeconds",
    "status",
    "source",
    "backend",
    "partial",
];

/// The fields of a variant.
const VARIANT: [&str; 14] = [
    "namespace",
    "name",
    "model",
    "accelerator",
    "cost",
    "role",
    "targetKind",
    "targetName",
    "wanted",
    "ready",
    "starting",
    "notReady",
    "terminating",
    "source",
];

/// The fields of a pod.
#[cfg(feature = "kubernetes")]
const POD: [&str; 8] = [
    "namespace",
    "podName",
    "model",
    "variantName",
    "state",
    "since",
    "answers",
    "answerAgeSeconds",
];

fn value(document: &impl serde::Serialize) -> Value {
    serde_json::to_value(document).expect("documents have text keys and no failing serializers")
}

/// A field of a row; null where the row does not have it.
fn part<'a>(row: &'a Value, field: &str) -> &'a Value {
    static NULL: Value = Value::Null;
    // A field of `reasons` may itself have a dot.
    if let Some(("reasons", field)) = field.split_once('.') {
        let field = field.rsplit('.').next().unwrap_or(field);
        return row.get("reasons").and_then(|reasons| reasons.get(field)).unwrap_or(&NULL);
    }
    field.split('.').try_fold(row, |value, name| value.get(name)).unwrap_or(&NULL)
}

fn ordered(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Greater,
        (_, Value::Null) => Ordering::Less,
        (Value::Number(a), Value::Number(b)) => {
            a.as_f64().unwrap_or(0.0).total_cmp(&b.as_f64().unwrap_or(0.0))
        }
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (a, b) => a.as_bool().cmp(&b.as_bool()),
    }
}

/// A value as text; names are hostile.
fn cell(value: &Value, unknown: &str) -> String {
    match value {
        Value::Null => unknown.to_owned(),
        Value::String(text) => printable(text).to_string(),
        other => other.to_string(),
    }
}

/// A value as a cell of comma-separated values; what was not measured is empty.
fn quoted_cell(value: &Value) -> String {
    let text = cell(value, "");
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(rows: Vec<Value>) -> Rows<usize> {
        let rows = rows.into_iter().enumerate().collect();
        Rows { list: rows, fields: &["podName", "queueLength", "load.rate"], name: "podName" }
    }

    fn some() -> Rows<usize> {
        rows(vec![
            json!({"podName": "a,\"b\u{1b}", "queueLength": 10, "load": {"rate": 0.0}}),
            json!({"podName": "c", "queueLength": null, "reasons": {"queueLength": "not reported"}}),
            json!({"podName": "d", "queueLength": 9}),
            json!({"podName": "e", "queueLength": 0}),
        ])
    }

    #[track_caller]
    fn check_order(field: &str, expected: [usize; 4]) {
        let mut rows = some();
        rows.sort_by(field).unwrap();
        assert_eq!(rows.iter().copied().collect::<Vec<_>>(), expected, "{field}");
    }

    #[test]
    fn numbers_are_ordered_as_numbers_and_unknown_ones_come_last() {
        check_order("queueLength", [3, 2, 0, 1]);
        check_order(".queueLength", [3, 2, 0, 1]);
        check_order("-queueLength", [0, 2, 3, 1]);
        check_order("-podName", [3, 2, 1, 0]);
        check_order("load.rate", [0, 1, 2, 3]);
    }

    #[test]
    fn an_unknown_field_is_refused_and_the_nearest_is_named() {
        let refused = some().sort_by("queueLenght").unwrap_err().problems().join("\n");
        assert!(refused.contains("there are \"queueLength\", "), "{refused}");
        let columns = vec![("X".to_owned(), "reasons.queueLenght".to_owned())];
        let form = Form { format: Format::CustomColumns, columns };
        assert!(some().shown(&form, false).is_err());
    }

    #[test]
    fn unknown_and_zero_differ_in_every_form() {
        let form = |format, columns: &[(&str, &str)]| Form {
            format,
            columns: columns.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        };
        assert_eq!(some().shown(&form(Format::Name, &[]), false).unwrap().lines().count(), 4);
        assert_eq!(
            some().shown(&form(Format::Csv, &[]), false).unwrap(),
            "podName,queueLength,load.rate\n\"a,\"\"b\\u{1b}\",10,0.0\nc,,\nd,9,\ne,0,\n"
        );
        let columns = [("POD", "podName"), ("N", "queueLength"), ("WHY", "reasons.queueLength")];
        let text = some().shown(&form(Format::CustomColumns, &columns), true).unwrap();
        assert!(text.lines().nth(1).unwrap().ends_with("-    not reported"), "{text}");
        assert!(text.lines().nth(3).unwrap().ends_with("0    -"), "{text}");
    }
}
