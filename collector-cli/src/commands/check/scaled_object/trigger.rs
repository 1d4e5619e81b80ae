// SPDX-License-Identifier: Apache-2.0
//! The rules for triggers with a query.

use collector_core::{Check, CheckStatus};
use collector_promql::{Described, Kind, Limits, describe};

use super::super::objects::Finding;
use super::super::yaml::{Change, Step, To, steps};
use super::rules::Context;
use super::{Trigger, is_false};
use crate::output::{ALLOCATION_SERIES, REPLICA_SERIES, SUPPLY_SERIES};
/// Labels that identify a namespace.
const NAMESPACE: [&str; 5] = [
    "namespace",
    "exported_namespace",
    "k8s_namespace_name",
    "kubernetes_namespace",
    "dynamo_namespace",
];
/// Labels that identify a model, its pods or its pool.
pub(in super::super) const MODEL: [&str; 26] = [
    "model_name",
    "target_model_name",
    "served_model_name",
    "model",
    "model_id",
    "variant_name",
    "target_name",
    "inference_pool",
    "deployment",
    "statefulset",
    "workload",
    "release",
    "isvc_name",
    "pod",
    "container",
    "service",
    "job",
    "instance",
    "endpoint_name",
    "name",
    "exported_pod",
    "exported_container",
    "exported_service",
    "exported_job",
    "dynamo_namespace",
    "dynamo_component",
];
/// Prefixes of metrics that only the pods of model servers have, and names that NIM writes without one.
pub(in super::super) const ENGINES: [&str; 21] = [
    "vllm:",
    "vllm_",
    "sglang:",
    "sglang_",
    "trtllm_",
    "nv_trt_llm_",
    "nv_inference_",
    "tgi_",
    "tokenspeed:",
    "lmdeploy:",
    "fastdeploy:",
    "atom:",
    "llamacpp:",
    "ray_vllm",
    "ray_sglang",
    "kserve_vllm:",
    "kserve_sglang:",
    "num_requests_running",
    "num_requests_waiting",
    "gpu_cache_usage_perc",
    "kv_cache_usage_perc",
];

impl Trigger {
    pub(super) fn rules(&self, context: &Context, to_zero: bool, others: bool) -> Vec<Finding> {
        let check = |name: &str, status, detail: String| {
            Check::new(format!("scaled-object.{name}"), status, detail)
        };
        if self.is_external() {
            #[cfg(feature = "keda")]
            return self.external_rules();
            #[cfg(not(feature = "keda"))]
            {
                let detail = "this build has no external scaler, so its triggers are not checked (feature keda)";
                return vec![check("trigger", CheckStatus::Skip, detail.to_owned()).into()];
            }
        }
        if self.kind != "prometheus" {
            let detail = format!("triggers of type {:?} are not checked", self.kind);
            return vec![check("trigger", CheckStatus::Skip, detail).into()];
        }
        let mut findings = self.texts();
        for key in ["serverAddress", "query", "threshold"] {
            if !self.metadata.contains_key(key) {
                let detail = format!("metadata.{key} is missing");
                findings.push(check("trigger", CheckStatus::Fail, detail).into());
            }
        }
        findings.extend(self.number_rule("threshold", true));
        findings.extend(self.number_rule("activationThreshold", false));
        if let Some(query) = self.text("query") {
            match describe(query, &context.limits) {
                Ok(described) => {
                    findings.extend(self.of_query(query, &described, context, to_zero, others));
                }
                Err(error) => {
                    let detail = format!("its query is invalid: {error}");
                    findings.push(check("query", CheckStatus::Fail, detail).into());
                }
            }
        }
        if let Some(address) = self.text("serverAddress")
            && !is_guarded(address, context.port)
            && !self.fails_if_empty()
        {
            let detail = format!(
                "KEDA reads an empty answer of {address} as 0, because ignoreNullValues is not \"false\""
            );
            let check = check("address", CheckStatus::Warn, detail);
            // At zero replicas it would always fail then, and the fallback would start a replica again and again.
            findings.push(if to_zero && others && self.is_of_engine() {
                let remedy = "set serverAddress to this collector (promql.enabled), and queryParameters: \"empty=zero\"";
                check.with_remedy(remedy).into()
            } else {
                let remedy = "set serverAddress to this collector (promql.enabled), or ignoreNullValues: \"false\"";
                Finding::from(check.with_remedy(remedy))
                    .fixed_by(self.metadata_path("ignoreNullValues"), "false")
            });
        }
        let has_modes = ["authModes", "authMode"].iter().any(|key| self.text(key).is_some());
        if self.has_authentication && !has_modes {
            let detail = "without authModes, here or in the TriggerAuthentication, KEDA does not use the CA or token of \
                          authenticationRef";
            findings.push(
                check("trigger", CheckStatus::Warn, detail.to_owned())
                    .with_remedy("set authModes: bearer, tls, basic or custom")
                    .into(),
            );
        }
        findings
    }

    /// Values of the metadata that are no texts.
    pub(super) fn texts(&self) -> Vec<Finding> {
        let wrong = self.metadata.iter().filter(|(_, value)| !value.is_string());
        let findings = wrong.map(|(key, value)| {
            let detail = format!("metadata.{key} is {value}, but Kubernetes requires a string");
            let check = Check::new("scaled-object.trigger", CheckStatus::Fail, detail);
            if value.is_object() || value.is_array() || value.is_null() {
                return check.into();
            }
            let mut finding = Finding::from(check.with_remedy("put the value in quotes"));
            let path = self.metadata_path(key);
            finding.changes.push(Change { path, to: To::Quoted });
            finding
        });
        findings.collect()
    }

    /// A number in the metadata: a target divides, so it must be greater than 0.
    pub(super) fn number_rule(&self, key: &str, is_target: bool) -> Option<Finding> {
        let text = self.text(key)?;
        // KEDA reads it as JSON, which has no `.5`, no `+5` and no `Inf`.
        let wrong = match serde_json::from_str::<f64>(text).ok() {
            None => "is not a number",
            Some(number) if is_target && number <= 0.0 => "must be greater than 0",
            Some(_) => return None,
        };
        let detail = format!("metadata.{key}: {text:?} {wrong}");
        Some(Check::new("scaled-object.trigger", CheckStatus::Fail, detail).into())
    }

    /// Whether the type of metric fits a sum or a ratio.
    pub(super) fn metric_type_rule(&self, kind: Kind, name: &str) -> Option<Finding> {
        if self.in_formula {
            return None;
        }
        let known = ["AverageValue", "Value"].contains(&self.metric_type.as_str());
        let (fits, why) = match kind {
            Kind::Sum => ("AverageValue", "a sum must be divided by the replicas"),
            Kind::Ratio => ("Value", "a ratio must not be divided by the replicas"),
            _ if known => return None,
            _ => ("AverageValue", "KEDA supports AverageValue and Value"),
        };
        if fits == self.metric_type {
            return None;
        }
        let detail = format!("metricType is {}, but {why}", self.metric_type);
        let status = if known { CheckStatus::Warn } else { CheckStatus::Fail };
        let check = Check::new(format!("scaled-object.{name}"), status, detail);
        Some(
            Finding::from(check.with_remedy(format!("set metricType: {fits}")))
                .fixed_by(steps!["spec", "triggers", self.index, "metricType"], fits),
        )
    }

    fn of_query(
        &self,
        query: &str,
        described: &Described,
        context: &Context,
        to_zero: bool,
        others: bool,
    ) -> Vec<Finding> {
        let check = |status, detail: String| Check::new("scaled-object.query", status, detail);
        let query = query.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut findings: Vec<Finding> = Vec::new();
        for (selector, labels) in &described.selectors {
            let has = |wanted: &[&str]| labels.iter().any(|label| wanted.contains(&label.as_str()));
            let (every, label) = match (has(&NAMESPACE), has(&MODEL)) {
                (false, false) => ("namespace and model", "namespace"),
                (false, true) => ("namespace", "namespace"),
                (true, false) => ("model", "model_name"),
                (true, true) => continue,
            };
            let detail = format!("{selector} selects every {every}, so the load of others counts");
            let check = check(CheckStatus::Warn, detail);
            findings.push(check.with_remedy(format!("add a matcher on {label}")).into());
        }
        let of_engine = described.selectors.iter().find(|(selector, _)| is_of_engine(selector));
        if let Some((selector, _)) = of_engine
            && to_zero
            && !self.is_zero_without_pods(context.port)
        {
            let detail = format!(
                "without pods {selector} has no series: at zero replicas this trigger fails, and a fallback adds a \
                 replica"
            );
            let check = check(CheckStatus::Warn, detail).with_remedy(
                "set queryParameters: \"empty=zero\" here, and let a trigger on the endpoint picker's queue add the first \
                 replica",
            );
            let mut finding = Finding::from(check);
            // Without a trigger that sees waiting requests, a failing one that wakes the fallback is better than none.
            let address = self.text("serverAddress");
            if others && address.is_some_and(|address| is_guarded(address, context.port)) {
                let parameters = match self.text("queryParameters") {
                    Some(others) => format!("{others},empty=zero"),
                    None => "empty=zero".to_owned(),
                };
                finding = finding.fixed_by(self.metadata_path("queryParameters"), parameters);
            }
            findings.push(finding);
        }
        if let Some((selector, _)) = of_engine
            && !described.is_aggregated
        {
            let detail = format!(
                "each pod has a series {selector}, and {query} does not aggregate them: from the second pod on KEDA gets several \
                 elements, which is an error"
            );
            findings.push(
                check(CheckStatus::Warn, detail)
                    .with_remedy("write sum(…), max(…) or avg(…)")
                    .into(),
            );
        }
        let kind = match described.selectors.as_slice() {
            // A number of replicas, which is the maximum of one series for example, is what an HPA divides by 1.
            [(selector, _)] if name_of(selector).ends_with("_replicas") => Kind::Sum,
            _ => described.kind,
        };
        findings.extend(self.metric_type_rule(kind, "query"));
        if findings.is_empty() {
            findings.push(check(CheckStatus::Pass, format!("{query} follows the rules")).into());
        }
        findings
    }

    /// Returns whether it is a trigger on an external scaler.
    pub(super) fn is_external(&self) -> bool {
        self.kind == "external" || self.kind == "external-push"
    }

    /// Returns whether all series of its query are those of readings, which `serve` holds itself.
    pub(super) fn is_of_readings(&self) -> bool {
        self.all_selectors(|selector| {
            let name = name_of(selector);
            REPLICA_SERIES.iter().any(|series| series.name == name)
                || ALLOCATION_SERIES.iter().any(|series| series.name == name)
                || SUPPLY_SERIES.iter().any(|series| series.name == name)
        })
    }

    /// Returns whether all series of its query are those of model servers.
    pub(super) fn is_of_engine(&self) -> bool {
        self.all_selectors(is_of_engine)
    }

    /// Returns whether it is 0 while requests run and none waits.
    pub(super) fn counts_waiting_only(&self) -> bool {
        #[cfg(feature = "keda")]
        if self.is_of_collector() {
            return self.is_on_waiting();
        }
        self.all_selectors(|selector| {
            let name = name_of(selector);
            name.contains("queue") || name.contains("waiting")
        })
    }

    /// Returns whether it has a query and all of its selectors fulfil a condition.
    fn all_selectors(&self, condition: impl Fn(&str) -> bool) -> bool {
        let described = self.text("query").map(|query| describe(query, &Limits::default()));
        let Some(Ok(described)) = described.filter(|_| self.kind == "prometheus") else {
            return false;
        };
        let mut selectors = described.selectors.iter();
        !described.selectors.is_empty() && selectors.all(|(selector, _)| condition(selector))
    }

    /// Returns whether an empty answer to its query is 0: to the collector, or to KEDA where it asks another server.
    pub(super) fn is_zero_without_pods(&self, port: u16) -> bool {
        if self.text("serverAddress").is_some_and(|address| is_guarded(address, port)) {
            return self.text("queryParameters").is_some_and(|text| text.contains("empty=zero"));
        }
        !self.fails_if_empty()
    }

    /// Returns the parameters that KEDA sends with its query. `namespace` is one, which Thanos behind OpenShift's proxy needs.
    pub(super) fn parameters(&self) -> String {
        let namespace = self.text("namespace").map(|namespace| format!("namespace={namespace}"));
        let others = self.text("queryParameters").map(str::to_owned);
        namespace.into_iter().chain(others).collect::<Vec<_>>().join(",")
    }

    /// Returns whether KEDA takes an empty answer to its query for an error.
    pub(super) fn fails_if_empty(&self) -> bool {
        self.metadata.get("ignoreNullValues").is_some_and(is_false)
    }

    /// Returns whether a fallback needs KEDA 2.18: before, it is for `AverageValue` alone, and its target is rounded down.
    pub(super) fn needs_newer_fallback(&self) -> bool {
        if self.in_formula {
            return false;
        }
        let target = match self.kind.as_str() {
            "prometheus" => self.text("threshold").and_then(|text| text.parse::<f64>().ok()),
            #[cfg(feature = "keda")]
            _ if self.is_of_collector() => self.read("").ok().map(|it| it.target.get()),
            _ => None,
        };
        self.metric_type == "Value" || target.is_some_and(|target| target.fract() != 0.0)
    }

    pub(super) fn metadata_path(&self, key: &str) -> Vec<Step> {
        steps!["spec", "triggers", self.index, "metadata", key]
    }
}

/// The name of a selector's metric.
fn name_of(selector: &str) -> &str {
    selector.split('{').next().unwrap_or_default()
}

fn is_of_engine(selector: &str) -> bool {
    ENGINES.iter().any(|prefix| selector.starts_with(prefix))
}

/// Returns whether an address is the guarded API of a collector: its port, and not below `/raw`.
fn is_guarded(address: &str, port: u16) -> bool {
    url::Url::parse(address).is_ok_and(|url| {
        let path = url.path().trim_matches('/');
        url.port() == Some(port) && (path.is_empty() || path == "prometheus")
    })
}
