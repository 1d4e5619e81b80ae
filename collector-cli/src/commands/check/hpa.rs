// SPDX-License-Identifier: Apache-2.0
//! `check --hpa`: HorizontalPodAutoscalers, checked by rules (`rules`) and by the present values of their metrics, as
//! prometheus-adapter's default rules would query them (`query`).

mod query;
mod rules;

use collector_core::{Check, CheckStatus};
#[cfg(feature = "keda")]
use collector_keda::Signal;
use collector_promql::Guard;
use serde_json::Value;

use self::query::{Requirement, requirements};
pub(super) use self::rules::STABILIZATION;
use super::objects::name_of;
use super::present::{present, read_by_adapter};
use super::scaled_object::number;

/// The label with which an HPA of KEDA selects its metrics.
const KEDA: &str = "scaledobject.keda.sh/name";

/// The fields of an HPA that its scaling depends on.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Hpa {
    /// `namespace/name`.
    pub(super) name: String,
    namespace: Option<String>,
    api_version: String,
    min: Option<u64>,
    max: Option<u64>,
    /// `behavior.scaleDown.stabilizationWindowSeconds`.
    stabilization: Option<u64>,
    /// The directions in which it may not scale: `scaleUp`, `scaleDown`.
    disabled: Vec<&'static str>,
    /// Fields whose value is not a number.
    not_numbers: Vec<(&'static str, Value)>,
    /// The workload's kind, if its group is missing.
    kind_without_group: Option<String>,
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, Debug)]
struct Metric {
    /// Its index in the list.
    index: usize,
    source: Source,
    name: String,
    selector: Vec<Requirement>,
    target: Target,
}

/// Where an HPA takes a metric from.
#[derive(Clone, PartialEq, Debug)]
enum Source {
    External,
    /// Of an object: its kind and its name.
    Object(String, String),
    Pods,
    /// CPU, memory or an unknown type.
    Other(String),
}

#[derive(Clone, PartialEq, Debug)]
struct Target {
    /// `AverageValue` or `Value`.
    kind: String,
    value: Option<Value>,
    average: Option<Value>,
}

impl Hpa {
    pub(super) fn of(document: &Value) -> Self {
        let spec = &document["spec"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let behavior = &spec["behavior"];
        let not_numbers = ["minReplicas", "maxReplicas"].into_iter();
        let not_numbers = not_numbers.filter(|key| !spec[key].is_null() && !spec[key].is_u64());
        let disabled = ["scaleUp", "scaleDown"].into_iter();
        let disabled = disabled.filter(|way| behavior[*way]["selectPolicy"] == "Disabled");
        let target = &spec["scaleTargetRef"];
        // The one kind of workloads in the core group.
        let kind = target["kind"].as_str().filter(|kind| *kind != "ReplicationController");
        let metrics = spec["metrics"].as_array().into_iter().flatten().enumerate();
        Self {
            name: name_of(document),
            namespace: text(&document["metadata"]["namespace"]),
            api_version: text(&document["apiVersion"]).unwrap_or_default(),
            min: number(&spec["minReplicas"]),
            max: number(&spec["maxReplicas"]),
            not_numbers: not_numbers.map(|key| (key, spec[key].clone())).collect(),
            kind_without_group: kind.filter(|_| target["apiVersion"].is_null()).map(str::to_owned),
            stabilization: behavior["scaleDown"]["stabilizationWindowSeconds"].as_u64(),
            disabled: disabled.collect(),
            metrics: metrics.map(|(index, metric)| Metric::of(index, metric)).collect(),
        }
    }

    /// Returns whether KEDA created it.
    pub(super) fn is_of_keda(&self) -> bool {
        self.metrics.iter().any(|metric| metric.scaled_object().is_some())
    }

    /// Returns whether a metrics adapter other than KEDA must serve one of its external metrics.
    pub(super) fn needs_other_adapter(&self) -> bool {
        let mut metrics = self.metrics.iter();
        metrics.any(|metric| metric.source == Source::External && metric.scaled_object().is_none())
    }

    /// Returns whether a metric needs the server of `[prometheus]` for its value.
    pub(super) fn has_queries(&self) -> bool {
        self.metrics.iter().any(|metric| metric.query(None).is_some())
    }

    /// Runs the query of each metric.
    pub(super) async fn values(&self, guard: &Guard) -> Vec<Check> {
        let mut checks = Vec::new();
        for metric in &self.metrics {
            let Some(query) = metric.query(self.namespace.as_deref()) else { continue };
            let (mut status, detail) = present(guard, &query, "", read_by_adapter).await;
            // The adapter may have given another name to a series.
            if status == CheckStatus::Fail && !metric.is_known() {
                status = CheckStatus::Warn;
            }
            let detail = format!("metric {}: {query}: {detail}", metric.number());
            checks.push(self.check("value", status, detail));
        }
        checks
    }

    /// Creates a check about this object.
    fn check(&self, name: &str, status: CheckStatus, detail: impl std::fmt::Display) -> Check {
        Check::new(format!("hpa.{name}"), status, format!("{}: {detail}", self.name))
    }
}

impl Metric {
    fn of(index: usize, metric: &Value) -> Self {
        let kind = metric["type"].as_str().unwrap_or_default();
        let section = &metric[Self::section(kind)];
        let source = match kind {
            "External" => Source::External,
            "Pods" => Source::Pods,
            "Object" => {
                let part = |key: &str| section["describedObject"][key].as_str().unwrap_or_default();
                Source::Object(part("kind").to_owned(), part("name").to_owned())
            }
            other => Source::Other(other.to_owned()),
        };
        let target = &section["target"];
        let given = |key: &str| Some(&target[key]).filter(|value| !value.is_null()).cloned();
        Self {
            index,
            source,
            name: section["metric"]["name"].as_str().unwrap_or_default().to_owned(),
            selector: requirements(&section["metric"]["selector"]),
            target: Target {
                kind: target["type"].as_str().unwrap_or_default().to_owned(),
                value: given("value"),
                average: given("averageValue"),
            },
        }
    }

    /// The key of a type's fields: `external` for `External`.
    fn section(kind: &str) -> String {
        let mut letters = kind.chars();
        letters
            .next()
            .map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
    }

    /// Its position as people count.
    fn number(&self) -> usize {
        self.index + 1
    }

    /// The type of target of a signal that the collector serves itself, by the External Metrics API.
    fn type_of_signal(&self) -> Option<&'static str> {
        let name = self.name.strip_prefix("collector-").filter(|_| self.source == Source::External);
        #[cfg(feature = "keda")]
        return name.filter(|name| Signal::NAMES.contains(name)).map(|name| {
            // Those that need keys of their own are ratios.
            Signal::plain(name).map_or("Value", |signal| signal.metric_type())
        });
        #[cfg(not(feature = "keda"))]
        name.map(|_| "")
    }

    /// The ScaledObject whose metric it is, if KEDA serves it.
    fn scaled_object(&self) -> Option<&str> {
        let requirement = self.selector.iter().find(|requirement| requirement.label == KEDA)?;
        Some(requirement.values.first().map_or("", String::as_str))
    }
}
