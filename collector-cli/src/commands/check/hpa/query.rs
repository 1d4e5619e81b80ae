// SPDX-License-Identifier: Apache-2.0
//! The query of a metric, as prometheus-adapter's default rules write it: the series with the metric's name, by the
//! selector and the namespace, summed.

use serde_json::Value;

use super::super::scaled_object::ENGINES;
use super::{Metric, Source};
use crate::commands::promql::quoted;

/// Prefixes of metrics of endpoint pickers, collectors and the Workload Variant Autoscaler.
const OTHERS: [&str; 6] = [
    "llm_d_epp_",
    "llm_d_router_epp_",
    "inference_extension_",
    "inference_pool_",
    "collector_",
    "wva_",
];

/// Where Google's adapter has metrics of its managed Prometheus: `prometheus.googleapis.com|vllm:num_requests_waiting|gauge`.
const GOOGLE: &str = "prometheus.googleapis.com|";

/// A requirement of a label selector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Requirement {
    pub(super) label: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub(super) operator: String,
    pub(super) values: Vec<String>,
}

/// Reads `matchLabels` and `matchExpressions`.
pub(super) fn requirements(selector: &Value) -> Vec<Requirement> {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let labels = labels.map(|(label, value)| Requirement {
        label: series_label(label),
        operator: "In".to_owned(),
        values: vec![value.as_str().map_or_else(|| value.to_string(), str::to_owned)],
    });
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    let expressions = expressions.map(|expression| {
        let values = expression["values"].as_array().into_iter().flatten();
        Requirement {
            label: series_label(expression["key"].as_str().unwrap_or_default()),
            operator: expression["operator"].as_str().unwrap_or_default().to_owned(),
            values: values.filter_map(|value| value.as_str().map(str::to_owned)).collect(),
        }
    });
    labels.chain(expressions).filter(|requirement| requirement.label != "resource.type").collect()
}

/// The label of a series: Google's adapter writes where it is from.
fn series_label(label: &str) -> String {
    let mut prefixes = ["metric.labels.", "resource.labels."].iter();
    let plain = prefixes.find_map(|prefix| label.strip_prefix(prefix));
    plain.unwrap_or(label).to_owned()
}

impl Requirement {
    fn matcher(&self) -> String {
        let several = self.values.len() > 1;
        let operator = match self.operator.as_str() {
            "NotIn" if several => "!~",
            "NotIn" | "Exists" => "!=",
            "In" if several => "=~",
            _ => "=",
        };
        format!("{}{operator}{}", self.label, quoted(&self.values.join("|")))
    }
}

impl Metric {
    /// Returns whether it is a metric of model servers, endpoint pickers or this collector.
    pub(super) fn is_known(&self) -> bool {
        let series = self.series();
        self.type_of_signal().is_some()
            || ENGINES.iter().chain(&OTHERS).any(|prefix| series.starts_with(prefix))
    }

    /// The series that it is taken from. vLLM's are often renamed, because other tools do not take colons, and Google's
    /// adapter adds where a series is from, and its type.
    pub(super) fn series(&self) -> String {
        let of_google = self.name.strip_prefix(GOOGLE).and_then(|rest| rest.rsplit_once('|'));
        let name = of_google.map_or(self.name.as_str(), |(name, _)| name);
        match name.strip_prefix("vllm_") {
            Some(rest) => format!("vllm:{rest}"),
            None => name.to_owned(),
        }
    }

    /// Returns its query; `None` for KEDA's, for signals of the collector, and for CPU and memory.
    pub(super) fn query(&self, namespace: Option<&str>) -> Option<String> {
        if self.name.is_empty() || self.scaled_object().is_some() || self.type_of_signal().is_some()
        {
            return None;
        }
        let mut matchers: Vec<String> = self.selector.iter().map(Requirement::matcher).collect();
        if let Some(namespace) = namespace {
            matchers.push(format!("namespace={}", quoted(namespace)));
        }
        if let Source::Object(kind, name) = &self.source {
            matchers.push(format!("{}={}", kind.to_lowercase(), quoted(name)));
        }
        let series = self.series();
        let is_plain =
            |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
        let selector = if series.chars().all(is_plain) {
            format!("{series}{{{}}}", matchers.join(","))
        } else {
            matchers.insert(0, format!("__name__={}", quoted(&series)));
            format!("{{{}}}", matchers.join(","))
        };
        match self.source {
            Source::External | Source::Object(..) => Some(format!("sum({selector})")),
            Source::Pods => Some(format!("avg(sum by (pod) ({selector}))")),
            Source::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(metric: &Value, expected: &str) {
        let query = Metric::of(0, metric).query(Some("prod"));
        assert_eq!(query.as_deref(), Some(expected));
    }

    #[test]
    fn a_query_is_written_as_the_adapter_writes_it() {
        let name = "vllm:num_requests_waiting";
        let metric = json!({"name": name, "selector": {"matchLabels": {"model_name": "m"}}});
        check(
            &json!({"type": "External", "external": {"metric": metric}}),
            r#"sum(vllm:num_requests_waiting{model_name="m",namespace="prod"})"#,
        );
        check(
            &json!({"type": "Pods", "pods": {"metric": metric}}),
            r#"avg(sum by (pod) (vllm:num_requests_waiting{model_name="m",namespace="prod"}))"#,
        );
        let pool = json!({"kind": "Service", "name": "epp"});
        check(
            &json!({"type": "Object", "object": {"metric": {"name": "vllm_x"}, "describedObject": pool}}),
            r#"sum(vllm:x{namespace="prod",service="epp"})"#,
        );
        let expressions = json!([
            {"key": "a", "operator": "In", "values": ["b", "c"]},
            {"key": "d", "operator": "NotIn", "values": ["\"e"]},
            {"key": "f", "operator": "Exists"},
            {"key": "g", "operator": "DoesNotExist"},
        ]);
        check(
            &json!({"type": "External", "external": {"metric": {"name": "a-b", "selector": {"matchExpressions": expressions}}}}),
            r#"sum({__name__="a-b",a=~"b|c",d!="\"e",f!="",g="",namespace="prod"})"#,
        );
    }
}
