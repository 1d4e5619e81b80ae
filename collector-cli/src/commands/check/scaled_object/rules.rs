//! The rules that a ScaledObject must follow, so that missing metrics do not scale a running model to zero.

use std::time::Duration;

use collector_core::{Check, CheckStatus, duration};
use collector_promql::{Described, Kind, Limits, describe};
use serde_json::json;

use super::super::objects::Finding;
use super::super::yaml::{Change, Step, To, steps};
use super::{Fallback, ScaledObject, Trigger};

/// Labels that identify a namespace.
const NAMESPACE: [&str; 4] =
    ["namespace", "exported_namespace", "k8s_namespace_name", "kubernetes_namespace"];
/// Labels that identify a model, its pods or its pool.
pub(in super::super) const MODEL: [&str; 10] = [
    "model_name",
    "target_model_name",
    "model",
    "variant_name",
    "inference_pool",
    "deployment",
    "statefulset",
    "pod",
    "service",
    "endpoint_name",
];
/// Prefixes of metrics that only the pods of model servers have.
pub(in super::super) const ENGINES: [&str; 5] = ["vllm:", "sglang:", "sglang_", "trtllm_", "tgi_"];
/// Failed polls after which a fallback begins, if the cooldown allows it.
const FAILURES: u64 = 3;
/// The behavior of a fallback that removes no replicas.
const IF_HIGHER: &str = "currentReplicasIfHigher";

/// What the rules need from the configuration.
#[derive(Clone, Debug)]
pub(in super::super) struct Context {
    /// The port of this collector's API.
    pub(in super::super) port: u16,
    /// The limits of a query.
    pub(in super::super) limits: Limits,
}

impl ScaledObject {
    /// Returns the checks that need no request.
    pub(in super::super) fn rules(&self, context: &Context) -> Vec<Finding> {
        let mut findings = self.numbers();
        findings.push(self.minimum());
        findings.extend(self.range());
        findings.extend(self.fallback.as_ref().map(|fallback| self.of_fallback(fallback)));
        findings.extend(self.remarks().into_iter().map(Finding::from));
        for trigger in &self.triggers {
            let of_trigger = trigger.rules(context, self.to_zero(), self.sees_demand());
            findings.extend(of_trigger.into_iter().map(|mut finding| {
                let detail = &finding.check.detail;
                finding.check.detail =
                    format!("{}, trigger {}: {detail}", self.name, trigger.number());
                finding
            }));
        }
        if self.triggers.is_empty() {
            findings.push(self.check("trigger", CheckStatus::Fail, "it has no triggers").into());
        }
        findings
    }

    /// Fields that must be numbers, and are texts.
    fn numbers(&self) -> Vec<Finding> {
        let findings = self.not_numbers.iter().map(|(key, value)| {
            let detail = format!("spec.{key} is {value}, but Kubernetes requires a whole number");
            let finding = Finding::from(self.check("minimum", CheckStatus::Fail, detail));
            match value.as_str().and_then(|text| text.trim().parse::<u32>().ok()) {
                Some(number) => finding.fixed_by(steps!["spec", *key], number),
                None => finding,
            }
        });
        findings.collect()
    }

    fn minimum(&self) -> Finding {
        let to_zero = match self.idle {
            Some(0) if self.min > 0 => "it scales to zero (idleReplicaCount: 0)",
            _ => "it scales to zero",
        };
        if !self.to_zero() {
            let detail = format!("at least {} replicas remain while its triggers fail", self.min);
            return self.check("minimum", CheckStatus::Pass, detail).into();
        }
        if self.fallback.is_some() {
            let detail = format!("{to_zero}, and has a fallback for failing triggers");
            return self.check("minimum", CheckStatus::Pass, detail).into();
        }
        let detail = format!(
            "{to_zero} without a fallback: if its triggers fail for longer than the cooldown ({}), KEDA may scale a running \
             model to zero",
            duration::format(self.cooldown)
        );
        let check = self.check("minimum", CheckStatus::Fail, detail).with_remedy(
            "set spec.minReplicaCount: 1, or spec.fallback: {failureThreshold: 3, replicas: 1, behavior: \
             currentReplicasIfHigher}",
        );
        let (failures, mut finding) = self.with_room(check.into());
        let fallback = json!({"failureThreshold": failures, "replicas": 1, "behavior": IF_HIGHER});
        finding = finding.fixed_by(steps!["spec", "fallback"], fallback);
        finding
    }

    /// Returns after how many failed polls a fallback can begin before the cooldown ends, and adds a longer cooldown where
    /// none can.
    fn with_room(&self, finding: Finding) -> (u64, Finding) {
        let begins = |failures: u64| {
            self.polling.saturating_mul(u32::try_from(failures).unwrap_or(u32::MAX))
        };
        if let Some(failures) = (1..=FAILURES).rev().find(|count| begins(*count) < self.cooldown) {
            return (failures, finding);
        }
        let cooldown = (begins(FAILURES) * 2).max(Duration::from_secs(super::COOLDOWN_SECONDS));
        (FAILURES, finding.fixed_by(steps!["spec", "cooldownPeriod"], cooldown.as_secs()))
    }

    fn range(&self) -> Option<Finding> {
        let (min, max) = (self.min, self.max);
        if max < min || max == 0 {
            let detail = format!("maxReplicaCount is {max} and minReplicaCount {min}");
            return Some(self.check("minimum", CheckStatus::Fail, detail).into());
        }
        let idle = self.idle.filter(|idle| *idle >= min)?;
        let detail = format!(
            "idleReplicaCount is {idle}, but must be less than minReplicaCount ({min}), and 0 is the only value that KEDA supports"
        );
        Some(self.check("minimum", CheckStatus::Fail, detail).into())
    }

    fn of_fallback(&self, fallback: &Fallback) -> Finding {
        let Fallback { failures, replicas, behavior } = fallback;
        let check = |status, detail: String| Finding::from(self.check("fallback", status, detail));
        let failing_for = self.polling.saturating_mul(u32::try_from(*failures).unwrap_or(u32::MAX));
        let [begins, cooldown] = [failing_for, self.cooldown].map(duration::format);
        let of = |key: &str| steps!["spec", "fallback", key];
        if *failures == 0 {
            let finding = check(CheckStatus::Fail, "failureThreshold is missing or 0".to_owned());
            let (failures, finding) = self.with_room(finding);
            return finding.fixed_by(of("failureThreshold"), failures);
        }
        if *replicas == 0 {
            let detail = "replicas is 0: a failing trigger scales a running model to zero";
            let check = self.check("fallback", CheckStatus::Fail, detail);
            return Finding::from(check.with_remedy("set fallback.replicas: 1"))
                .fixed_by(of("replicas"), 1);
        }
        if self.to_zero() && failing_for >= self.cooldown {
            let detail = format!(
                "it begins after {begins} ({failures} polls), when the cooldown of {cooldown} is over"
            );
            let check = self
                .check("fallback", CheckStatus::Fail, detail)
                .with_remedy("failureThreshold x pollingInterval must be less than cooldownPeriod");
            let (failures, finding) = self.with_room(check.into());
            return finding.fixed_by(of("failureThreshold"), failures);
        }
        if behavior == "static" {
            let detail = format!(
                "after {failures} failed polls it sets {replicas} replicas, even if more are running"
            );
            let check = self.check("fallback", CheckStatus::Warn, detail);
            return Finding::from(
                check.with_remedy("set fallback.behavior: currentReplicasIfHigher"),
            )
            .fixed_by(of("behavior"), IF_HIGHER);
        }
        let before = if self.to_zero() {
            format!(", before the cooldown of {cooldown} is over")
        } else {
            String::new()
        };
        check(CheckStatus::Pass, format!("it begins after {begins}{before}"))
    }

    /// What is not wrong, and changes the meaning of everything else.
    fn remarks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        if let Some(annotation) = &self.paused {
            let detail = format!("it is paused (annotation {annotation})");
            checks.push(self.check("paused", CheckStatus::Warn, detail));
        }
        if self.formula.is_some() {
            let detail = "advanced.scalingModifiers.formula replaces the values of its triggers, and is not checked";
            checks.push(self.check("formula", CheckStatus::Skip, detail));
        }
        let is_zero = |trigger: &Trigger| trigger.is_of_engine() && trigger.is_zero_if_empty();
        if self.to_zero() && !self.triggers.is_empty() && self.triggers.iter().all(is_zero) {
            let detail = "at zero replicas each of its triggers is 0 (empty=zero), so nothing starts the first replica";
            checks.push(
                self.check("minimum", CheckStatus::Warn, detail).with_remedy(
                    "add a trigger on the endpoint picker's queue, which holds requests while there are no pods",
                ),
            );
        }
        if self.to_zero()
            && !self.triggers.is_empty()
            && self.triggers.iter().all(Trigger::counts_waiting_only)
        {
            let detail = "its triggers count waiting requests alone, so it scales to zero while requests run";
            checks.push(
                self.check("minimum", CheckStatus::Warn, detail)
                    .with_remedy("add a trigger on the running requests"),
            );
        }
        checks
    }

    /// Returns whether a trigger may be active while there are no pods: one that needs no series of model servers.
    fn sees_demand(&self) -> bool {
        self.triggers.iter().any(|trigger| !trigger.is_of_engine())
    }
}

impl Trigger {
    fn rules(&self, context: &Context, to_zero: bool, others: bool) -> Vec<Finding> {
        let check = |name: &str, status, detail: String| {
            Check::new(format!("scaled-object.{name}"), status, detail)
        };
        if self.is_external() {
            return self.external_rules();
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
            && self.text("ignoreNullValues") != Some("false")
        {
            let detail = format!(
                "KEDA reads an empty answer of {address} as 0, because ignoreNullValues is not \"false\""
            );
            let check = check("address", CheckStatus::Warn, detail).with_remedy(
                "set serverAddress to this collector (promql.enabled), or ignoreNullValues: \"false\"",
            );
            findings.push(
                Finding::from(check).fixed_by(self.metadata_path("ignoreNullValues"), "false"),
            );
        }
        if self.has_authentication && self.text("authModes").is_none() {
            let detail =
                "without authModes, KEDA does not use the CA or token of authenticationRef";
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
        let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
        let wrong = match number {
            None => "is no number",
            Some(number) if is_target && number <= 0.0 => "must be greater than 0",
            Some(_) => return None,
        };
        let detail = format!("metadata.{key}: {text:?} {wrong}");
        Some(Check::new("scaled-object.trigger", CheckStatus::Fail, detail).into())
    }

    /// Whether the type of metric fits a sum or a ratio.
    pub(super) fn metric_type_rule(&self, kind: Kind, name: &str) -> Option<Finding> {
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
            && !self.is_zero_if_empty()
        {
            let detail = format!(
                "without pods there are no series of {selector}: at zero replicas this trigger fails, and a fallback adds a \
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
        findings.extend(self.metric_type_rule(described.kind, "query"));
        if findings.is_empty() {
            findings.push(check(CheckStatus::Pass, format!("{query} follows the rules")).into());
        }
        findings
    }

    /// Returns whether all series of its query are those of model servers.
    fn is_of_engine(&self) -> bool {
        self.all_selectors(is_of_engine)
    }

    /// Returns whether it is 0 while requests run and none waits.
    fn counts_waiting_only(&self) -> bool {
        if self.is_of_collector() {
            return ["queue", "waiting-capacity"].contains(&self.signal());
        }
        self.all_selectors(|selector| {
            let name = selector.split('{').next().unwrap_or_default();
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

    /// Returns whether the collector takes an empty answer to its query for 0.
    fn is_zero_if_empty(&self) -> bool {
        self.text("queryParameters").is_some_and(|text| text.contains("empty=zero"))
    }

    pub(super) fn metadata_path(&self, key: &str) -> Vec<Step> {
        steps!["spec", "triggers", self.index, "metadata", key]
    }
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::objects::read;
    use super::*;

    /// An object that scales to zero, with a trigger on the endpoint picker's running requests.
    const GOOD: &str = r#"
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: llama, namespace: prod}
spec:
  scaleTargetRef: {name: llama}
  minReplicaCount: 0
  cooldownPeriod: 300
  fallback: {failureThreshold: 3, replicas: 1, behavior: currentReplicasIfHigher}
  triggers:
    - type: prometheus
      metricType: AverageValue
      metadata:
        serverAddress: http://collector.monitoring:9464
        query: sum(llm_d_epp_request_running{namespace="prod",model_name="org/llama"})
        threshold: "5"
"#;

    fn context() -> Context {
        Context { port: 9464, limits: Limits::default() }
    }

    /// Returns the checks of the changed object that do not pass.
    fn found(changes: &[(&str, &str)]) -> Vec<(CheckStatus, String)> {
        let mut text = GOOD.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let object = ScaledObject::of(&serde_saphyr::from_str(&text).unwrap());
        let checks = object.rules(&context()).into_iter().map(|finding| finding.check);
        checks
            .filter(|check| check.status != CheckStatus::Pass)
            .map(|check| (check.status, check.detail))
            .collect()
    }

    #[track_caller]
    fn check_found(changes: &[(&str, &str)], status: CheckStatus, says: &str) {
        let found = found(changes);
        let [(is, text)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((*is, text.contains(says)), (status, true), "{text}");
        assert!(text.starts_with("prod/llama"), "{text}");
    }

    #[test]
    fn a_good_object_passes() {
        assert_eq!(found(&[]), []);
    }

    #[test]
    fn settings_that_scale_to_zero_in_an_outage_are_found() {
        use CheckStatus::{Fail, Warn};
        let fallback =
            "  fallback: {failureThreshold: 3, replicas: 1, behavior: currentReplicasIfHigher}\n";
        check_found(&[(fallback, "")], Fail, "longer than the cooldown (5m)");
        assert_eq!(found(&[(fallback, ""), ("minReplicaCount: 0", "minReplicaCount: 1")]), []);
        let idle = ("minReplicaCount: 0", "minReplicaCount: 2\n  idleReplicaCount: 0");
        check_found(
            &[(fallback, ""), idle],
            Fail,
            "it scales to zero (idleReplicaCount: 0) without",
        );
        let text = ("minReplicaCount: 0", "minReplicaCount: \"1\"");
        check_found(&[text], Fail, "requires a whole number");
        check_found(
            &[("minReplicaCount: 0", "minReplicaCount: 3\n  maxReplicaCount: 2")],
            Fail,
            "maxReplicaCount is 2 and minReplicaCount 3",
        );
        check_found(&[("failureThreshold: 3, ", "")], Fail, "failureThreshold is missing");
        check_found(&[("replicas: 1,", "replicas: 0,")], Fail, "replicas is 0");
        check_found(
            &[("cooldownPeriod: 300", "cooldownPeriod: 90")],
            Fail,
            "begins after 1m30s (3 polls)",
        );
        check_found(
            &[(", behavior: currentReplicasIfHigher", "")],
            Warn,
            "even if more are running",
        );
    }

    #[test]
    fn triggers_that_misread_answers_are_found() {
        use CheckStatus::{Fail, Skip, Warn};
        let address = "http://collector.monitoring:9464";
        check_found(&[(address, "http://prometheus:9090")], Warn, "reads an empty answer");
        check_found(
            &[(address, "http://collector.monitoring:9464/raw")],
            Warn,
            "reads an empty answer",
        );
        check_found(&[(r#"namespace="prod","#, "")], Warn, "selects every namespace");
        check_found(&[(r#",model_name="org/llama""#, "")], Warn, "selects every model");
        let queue = "llm_d_epp_request_running";
        let running = "vllm:num_requests_running";
        check_found(&[(queue, running)], Warn, "at zero replicas this trigger fails");
        let zero =
            ("threshold: \"5\"", "threshold: \"5\"\n        queryParameters: \"empty=zero\"");
        check_found(&[(queue, running), zero], Warn, "nothing starts the first replica");
        assert_eq!(found(&[(queue, running), ("minReplicaCount: 0", "minReplicaCount: 1")]), []);
        let waiting = "llm_d_epp_flow_control_queue_size";
        check_found(&[(queue, waiting)], Warn, "scales to zero while requests run");
        check_found(&[("AverageValue", "Value")], Warn, "metricType is Value");
        check_found(&[("sum(", "max(")], Warn, "metricType is AverageValue");
        check_found(&[("sum(", "sum((")], Fail, "its query is invalid");
        check_found(&[("\"5\"", "5")], Fail, "metadata.threshold is 5");
        check_found(&[("threshold", "treshold")], Fail, "metadata.threshold is missing");
        check_found(&[("type: prometheus", "type: cpu")], Skip, "not checked");
        check_found(&[("\"5\"", "\"0\"")], Fail, "must be greater than 0");
        check_found(&[("\"5\"", "\"five\"")], Fail, "is no number");
        check_found(&[("AverageValue", "Utilization")], Fail, "metricType is Utilization");
    }

    #[test]
    fn the_examples_pass() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/");
        for file in ["scaledobject.yaml", "scaledobject-external.yaml"] {
            let objects = read(&[Path::new(folder).join(file)], &[]).unwrap().remove(0).objects();
            assert_eq!(objects.len(), 2, "{file}");
            let objects = objects.iter().map(|object| ScaledObject::of(&object.value));
            for finding in objects.flat_map(|object| object.rules(&context())) {
                assert_eq!(finding.check.status, CheckStatus::Pass, "{finding:?}");
            }
        }
    }
}
