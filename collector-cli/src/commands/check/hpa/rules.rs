// SPDX-License-Identifier: Apache-2.0
//! The rules that an HPA must follow, so that it scales by the load of one model.

use collector_core::{Check, CheckStatus};
use collector_promql::Kind;

use super::super::objects::Finding;
use super::super::scaled_object::{MODEL, is_of_apps, number};
use super::super::yaml::{Change, Step, To, steps};
use super::{Hpa, Metric, Source};

/// The stabilisation of an HPA that does not set one.
pub(in super::super) const STABILIZATION: u64 = 300;
/// Ends of names of metrics that are means or fractions of a pool, with one series for each.
const RATIOS: [&str; 7] = [
    "_pool_saturation",
    "_average_kv_cache_utilization",
    "_average_kv_cache_usage",
    "_average_queue_size",
    "_average_running_requests",
    "_milliseconds",
    "_ratio",
];
/// Ends of names of counters.
const COUNTERS: [&str; 4] = ["_total", "_sum", "_count", "_bucket"];

impl Hpa {
    /// Returns the checks that need no request. `scaled_objects` are the known ones, as `namespace/name`.
    pub(in super::super) fn rules(&self, scaled_objects: &[String]) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        findings.extend(self.version().map(Finding::from));
        findings.extend(self.numbers());
        findings.push(self.range().into());
        findings.extend(self.workload());
        findings.extend(self.behavior());
        for metric in &self.metrics {
            let of_metric = metric.rules(self, scaled_objects);
            findings.extend(of_metric.into_iter().map(|mut finding| {
                let detail = &finding.check.detail;
                finding.check.detail =
                    format!("{}, metric {}: {detail}", self.name, metric.number());
                finding
            }));
        }
        if self.metrics.is_empty() {
            let detail = "it has no metrics, so it scales by CPU";
            findings.push(self.check("metric", CheckStatus::Fail, detail).into());
        }
        findings
    }

    fn version(&self) -> Option<Check> {
        let (status, detail) = match self.api_version.as_str() {
            "autoscaling/v2" => return None,
            "autoscaling/v1" => (
                CheckStatus::Warn,
                "autoscaling/v1 has its metrics in an annotation, which is not checked".to_owned(),
            ),
            other => (CheckStatus::Fail, format!("apiVersion is {other:?}, not autoscaling/v2")),
        };
        let remedy = "use apiVersion: autoscaling/v2 (`kubectl get hpa.v2.autoscaling -o yaml`)";
        Some(self.check("version", status, detail).with_remedy(remedy))
    }

    /// Fields that must be numbers, and are texts.
    fn numbers(&self) -> Vec<Finding> {
        let findings = self.not_numbers.iter().map(|(key, value)| {
            let detail = format!("spec.{key} is {value}, but Kubernetes requires a whole number");
            let finding = Finding::from(self.check("range", CheckStatus::Fail, detail));
            match number(value) {
                Some(number) => finding.fixed_by(steps!["spec", *key], number),
                None => finding,
            }
        });
        findings.collect()
    }

    /// What it scales: unlike KEDA, an HPA has no group of its own for a workload without one.
    fn workload(&self) -> Option<Finding> {
        let kind = self.kind_without_group.as_deref()?;
        let detail = format!(
            "scaleTargetRef has no apiVersion, so the HPA looks for {kind} in the core group, where there is none"
        );
        let check = self.check("target", CheckStatus::Fail, detail);
        if !is_of_apps(kind) {
            let remedy = format!("set scaleTargetRef.apiVersion to that of {kind}");
            return Some(check.with_remedy(remedy).into());
        }
        let finding = Finding::from(check.with_remedy("set scaleTargetRef.apiVersion: apps/v1"));
        Some(finding.fixed_by(steps!["spec", "scaleTargetRef", "apiVersion"], "apps/v1"))
    }

    fn range(&self) -> Check {
        let min = self.min.unwrap_or(1);
        let Some(max) = self.max else {
            return self.check("range", CheckStatus::Fail, "maxReplicas is missing");
        };
        if max < min || max == 0 {
            let detail = format!("maxReplicas is {max} and minReplicas {min}");
            return self.check("range", CheckStatus::Fail, detail);
        }
        let wakes =
            |metric: &Metric| matches!(metric.source, Source::External | Source::Object(..));
        if min == 0 && !self.metrics.iter().any(wakes) {
            let detail = "minReplicas is 0, which needs a metric of type External or Object";
            return self
                .check("range", CheckStatus::Fail, detail)
                .with_remedy("set minReplicas: 1");
        }
        if min == 0 {
            let detail = "minReplicas is 0: it needs the feature gate HPAScaleToZero, and while its metrics are missing \
                          nothing starts a replica";
            return self
                .check("range", CheckStatus::Warn, detail)
                .with_remedy("set minReplicas: 1, or use KEDA, which has a fallback");
        }
        if min == max {
            let detail = format!("minReplicas and maxReplicas are {min}, so it never scales");
            return self.check("range", CheckStatus::Warn, detail);
        }
        let detail = format!("{min} to {max} replicas; missing metrics keep the present number");
        self.check("range", CheckStatus::Pass, detail)
    }

    fn behavior(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.stabilization == Some(0) {
            let detail = "behavior.scaleDown.stabilizationWindowSeconds is 0, so each dip of the load removes replicas, \
                          which take minutes to start again";
            let remedy = format!("set it to {STABILIZATION}, which is the default");
            let check = self.check("behavior", CheckStatus::Warn, detail).with_remedy(remedy);
            let path = steps!["spec", "behavior", "scaleDown", "stabilizationWindowSeconds"];
            findings.push(Finding::from(check).fixed_by(path, STABILIZATION));
        }
        for way in &self.disabled {
            let verb = if *way == "scaleUp" { "adds" } else { "removes" };
            let detail =
                format!("behavior.{way}.selectPolicy is Disabled, so it never {verb} replicas");
            findings.push(self.check("behavior", CheckStatus::Warn, detail).into());
        }
        findings
    }
}

impl Metric {
    fn rules(&self, hpa: &Hpa, scaled_objects: &[String]) -> Vec<Finding> {
        let check =
            |name: &str, status, detail: String| Check::new(format!("hpa.{name}"), status, detail);
        if let Source::Other(kind) = &self.source {
            let detail = format!("metrics of type {kind:?} are not checked");
            return vec![check("metric", CheckStatus::Skip, detail).into()];
        }
        if self.name.is_empty() {
            let detail = format!("{} has no metric.name", self.key());
            return vec![check("metric", CheckStatus::Fail, detail).into()];
        }
        if let Some(object) = self.scaled_object() {
            let name = match &hpa.namespace {
                Some(namespace) => format!("{namespace}/{object}"),
                None => object.to_owned(),
            };
            let detail = format!("{} is KEDA's, of ScaledObject {name}", self.name);
            let is_given = scaled_objects.contains(&name);
            let status = if is_given { CheckStatus::Pass } else { CheckStatus::Skip };
            let check = check("metric", status, detail);
            let remedy = "check --scaled-object checks it; KEDA overwrites changes of its HPA";
            return vec![if is_given { check } else { check.with_remedy(remedy) }.into()];
        }
        let mut findings: Vec<Finding> = self.of_selector(hpa);
        if COUNTERS.iter().any(|end| self.name.ends_with(end)) {
            let detail = format!("{} is a counter, which only grows", self.name);
            let remedy = "give the adapter a rule with rate(), and use its name here";
            findings.push(check("metric", CheckStatus::Warn, detail).with_remedy(remedy).into());
        }
        findings.extend(self.of_target());
        if !self.is_known() {
            let detail = format!(
                "{} is not a metric of a model server, an endpoint picker or this collector",
                self.name
            );
            findings.push(check("metric", CheckStatus::Skip, detail).into());
        } else if findings.is_empty() {
            findings.push(
                check("metric", CheckStatus::Pass, format!("{} follows the rules", self.name))
                    .into(),
            );
        }
        findings
    }

    fn of_selector(&self, hpa: &Hpa) -> Vec<Finding> {
        let check = |status, detail: String| Check::new("hpa.selector", status, detail);
        let mut findings = Vec::new();
        let values =
            self.selector.iter().flat_map(|it| it.values.iter().map(move |value| (it, value)));
        for (requirement, value) in values.filter(|(_, value)| !is_label_value(value)) {
            let detail = format!(
                "selector {}: {value:?} is not a value of a Kubernetes label, so the HPA rejects the selector",
                requirement.label
            );
            findings.push(
                check(CheckStatus::Fail, detail)
                    .with_remedy(
                        "names of models with a / cannot be selected: give the adapter a rule for the model \
                         (seriesQuery with model_name, name.as), or use KEDA, whose queries have no such limit",
                    )
                    .into(),
            );
        }
        if hpa.namespace.is_none() && self.source == Source::External {
            let detail =
                "the object has no metadata.namespace, so the values below are of all namespaces";
            findings.push(check(CheckStatus::Warn, detail.to_owned()).into());
        }
        if self.type_of_signal().is_some() {
            // A request without them is an error.
            let has_model =
                self.selector.iter().any(|it| ["model", "variant"].contains(&&*it.label));
            if !has_model {
                let detail = format!("{} without a model is an error", self.name);
                let check = check(CheckStatus::Fail, detail);
                findings.push(check.with_remedy("set metric.selector.matchLabels.model").into());
            }
            return findings;
        }
        let pins = self.selector.iter().any(|it| MODEL.contains(&it.label.as_str()));
        if self.source == Source::External && self.is_known() && !pins {
            let detail = format!(
                "{} without a selector for a model adds up all models of the namespace",
                self.name
            );
            let check = check(CheckStatus::Warn, detail);
            findings.push(check.with_remedy("set metric.selector.matchLabels.model_name").into());
        }
        findings
    }

    fn of_target(&self) -> Vec<Finding> {
        let check = |status, detail: String| Check::new("hpa.target", status, detail);
        let kind = self.target.kind.as_str();
        let series = self.series();
        let is_ratio = RATIOS.iter().any(|end| series.ends_with(end));
        let (fits, why) = match (&self.source, self.kind(is_ratio)) {
            (Source::Pods, _) => ("AverageValue", "metrics of type Pods are means over the pods"),
            (_, Kind::Sum) => (
                "AverageValue",
                "the adapter adds up the pods, and a sum must be divided by the replicas",
            ),
            (_, Kind::Ratio) => ("Value", "a ratio must not be divided by the replicas"),
            _ if ["AverageValue", "Value"].contains(&kind) => (kind, ""),
            _ => ("AverageValue", "an HPA supports AverageValue and Value here"),
        };
        let mut findings = Vec::new();
        if fits != kind {
            let is_valid = self.source != Source::Pods && ["AverageValue", "Value"].contains(&kind);
            let status = if is_valid { CheckStatus::Warn } else { CheckStatus::Fail };
            let detail = format!("target.type is {kind:?}, but {why}");
            let check = check(status, detail).with_remedy(format!("set target.type: {fits}"));
            findings.push(
                self.with_key(fits, Finding::from(check).fixed_by(self.target_path("type"), fits)),
            );
        } else if self.value_of(fits).is_none() && self.value_of(other(fits)).is_some() {
            let detail =
                format!("target.type is {fits}, but the number is in {}", key(other(fits)));
            let check = check(CheckStatus::Fail, detail);
            findings.push(self.with_key(fits, check.into()));
        }
        let number = self.target.average.as_ref().or(self.target.value.as_ref());
        let Some(number) = number else {
            findings.push(check(CheckStatus::Fail, "the target has no number".to_owned()).into());
            return findings;
        };
        let text = number.as_str().map_or_else(|| number.to_string(), str::to_owned);
        if quantity(&text).is_none_or(|value| value <= 0.0) {
            let detail = format!("the target is {text:?}, but must be a number greater than 0");
            findings.push(check(CheckStatus::Fail, detail).into());
        }
        findings
    }

    fn kind(&self, is_ratio: bool) -> Kind {
        match (self.type_of_signal(), self.is_known(), is_ratio) {
            (Some("Value"), ..) | (None, true, true) => Kind::Ratio,
            (Some("AverageValue"), ..) | (None, true, false) => Kind::Sum,
            _ => Kind::Unknown,
        }
    }

    /// Adds the change that the number is in the key of this type.
    fn with_key(&self, kind: &str, mut finding: Finding) -> Finding {
        if self.value_of(kind).is_none() && self.value_of(other(kind)).is_some() {
            let path = self.target_path(key(other(kind)));
            finding.changes.push(Change { path, to: To::Renamed(key(kind).to_owned()) });
        }
        finding
    }

    fn value_of(&self, kind: &str) -> Option<&serde_json::Value> {
        if kind == "Value" { self.target.value.as_ref() } else { self.target.average.as_ref() }
    }

    fn key(&self) -> &'static str {
        match self.source {
            Source::External => "external",
            Source::Object(..) => "object",
            Source::Pods => "pods",
            Source::Other(_) => "resource",
        }
    }

    fn target_path(&self, key: &str) -> Vec<Step> {
        steps!["spec", "metrics", self.index, self.key(), "target", key]
    }
}

fn key(kind: &str) -> &'static str {
    if kind == "Value" { "value" } else { "averageValue" }
}

fn other(kind: &str) -> &'static str {
    if kind == "Value" { "AverageValue" } else { "Value" }
}

/// Returns whether a text can be the value of a Kubernetes label: at most 63 letters, digits, `-`, `_` and `.`, and a
/// letter or digit at both ends.
fn is_label_value(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && is_end(text.bytes().next())
        && is_end(text.bytes().last())
}

/// Parses a Kubernetes quantity: `5`, `500m`, `1k`, `2Gi`, `1e3`. One with an exponent has no suffix.
fn quantity(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let suffix =
        SUFFIXES.iter().find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, factor)));
    let (number, factor) = match suffix {
        Some((number, _)) if number.contains(['e', 'E']) => return None,
        Some(number_and_factor) => number_and_factor,
        None => (text, &1.0),
    };
    number.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number * factor)
}

#[cfg(test)]
mod tests;
