//! The rules that a ScaledObject must follow, so that missing metrics do not scale a running model to zero.

use collector_core::{Check, CheckStatus, duration};
use collector_promql::{Described, Kind, Limits, describe};

use super::{Fallback, ScaledObject, Trigger};

/// Labels that identify a model, its pods or its pool.
const MODEL: [&str; 9] = [
    "model_name",
    "target_model_name",
    "model",
    "inference_pool",
    "deployment",
    "statefulset",
    "pod",
    "service",
    "endpoint_name",
];
/// Prefixes of metrics that only the pods of model servers have.
const ENGINES: [&str; 5] = ["vllm:", "sglang:", "sglang_", "trtllm_", "tgi_"];

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
    pub(in super::super) fn rules(&self, context: &Context) -> Vec<Check> {
        let mut checks = vec![self.minimum()];
        checks.extend(self.fallback.as_ref().map(|fallback| self.of_fallback(fallback)));
        for trigger in &self.triggers {
            checks.extend(trigger.rules(context, self.min == 0).into_iter().map(|mut check| {
                check.detail =
                    format!("{}, trigger {}: {}", self.name, trigger.number, check.detail);
                check
            }));
        }
        if self.triggers.is_empty() {
            checks.push(self.check("trigger", CheckStatus::Fail, "it has no triggers"));
        }
        checks
    }

    fn minimum(&self) -> Check {
        if self.min > 0 {
            let detail = format!("at least {} replicas remain while its triggers fail", self.min);
            return self.check("minimum", CheckStatus::Pass, detail);
        }
        if self.fallback.is_some() {
            let detail = "it scales to zero, and has a fallback for failing triggers";
            return self.check("minimum", CheckStatus::Pass, detail);
        }
        let detail = format!(
            "it scales to zero without a fallback: if its triggers fail for longer than the cooldown ({}), KEDA may scale \
             a running model to zero",
            duration::format(self.cooldown)
        );
        self.check("minimum", CheckStatus::Fail, detail).with_remedy(
            "set spec.minReplicaCount: 1, or spec.fallback: {failureThreshold: 3, replicas: 1, behavior: \
             currentReplicasIfHigher}",
        )
    }

    fn of_fallback(&self, fallback: &Fallback) -> Check {
        let Fallback { failures, replicas, behavior } = fallback;
        let check = |status, detail: String| self.check("fallback", status, detail);
        let failing_for = self.polling.saturating_mul(u32::try_from(*failures).unwrap_or(u32::MAX));
        let [begins, cooldown] = [failing_for, self.cooldown].map(duration::format);
        if *failures == 0 {
            return check(CheckStatus::Fail, "failureThreshold is missing or 0".to_owned());
        }
        if *replicas == 0 {
            let detail = "replicas is 0: a failing trigger scales a running model to zero";
            return check(CheckStatus::Fail, detail.to_owned())
                .with_remedy("set fallback.replicas: 1");
        }
        if self.min == 0 && failing_for >= self.cooldown {
            let detail = format!(
                "it begins after {begins} ({failures} polls), when the cooldown of {cooldown} is over"
            );
            return check(CheckStatus::Fail, detail).with_remedy(
                "failureThreshold x pollingInterval must be less than cooldownPeriod",
            );
        }
        if behavior == "static" {
            let detail = format!(
                "after {failures} failed polls it sets {replicas} replicas, even if more are running"
            );
            return check(CheckStatus::Warn, detail)
                .with_remedy("set fallback.behavior: currentReplicasIfHigher");
        }
        check(
            CheckStatus::Pass,
            format!("it begins after {begins}, before the cooldown of {cooldown} is over"),
        )
    }
}

impl Trigger {
    fn rules(&self, context: &Context, to_zero: bool) -> Vec<Check> {
        let check = |name: &str, status, detail: String| {
            Check::new(format!("scaled-object.{name}"), status, detail)
        };
        if self.kind != "prometheus" {
            let detail = format!("triggers of type {:?} are not checked", self.kind);
            return vec![check("trigger", CheckStatus::Skip, detail)];
        }
        let mut checks = Vec::new();
        for (key, value) in self.metadata.iter().filter(|(_, value)| !value.is_string()) {
            let detail = format!("metadata.{key} is {value}, but Kubernetes requires a string");
            let remedy = format!("write {key}: \"{value}\"");
            checks.push(check("trigger", CheckStatus::Fail, detail).with_remedy(remedy));
        }
        for key in ["serverAddress", "query", "threshold"] {
            if !self.metadata.contains_key(key) {
                let detail = format!("metadata.{key} is missing");
                checks.push(check("trigger", CheckStatus::Fail, detail));
            }
        }
        if let Some(query) = self.text("query") {
            match describe(query, &context.limits) {
                Ok(described) => checks.extend(self.of_query(query, &described, to_zero)),
                Err(error) => {
                    let detail = format!("its query is invalid: {error}");
                    checks.push(check("query", CheckStatus::Fail, detail));
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
            checks.push(check("address", CheckStatus::Warn, detail).with_remedy(
                "set serverAddress to this collector (promql.enabled), or ignoreNullValues: \"false\"",
            ));
        }
        if self.has_authentication && self.text("authModes").is_none() {
            let detail =
                "without authModes, KEDA does not use the CA or token of authenticationRef";
            checks.push(
                check("trigger", CheckStatus::Warn, detail.to_owned())
                    .with_remedy("set authModes: bearer, tls, basic or custom"),
            );
        }
        checks
    }

    fn of_query(&self, query: &str, described: &Described, to_zero: bool) -> Vec<Check> {
        let check = |status, detail: String| Check::new("scaled-object.query", status, detail);
        let mut checks = Vec::new();
        for (selector, labels) in &described.selectors {
            let has = |wanted: &[&str]| labels.iter().any(|label| wanted.contains(&label.as_str()));
            let (every, label) = match (has(&["namespace"]), has(&MODEL)) {
                (false, false) => ("namespace and model", "namespace"),
                (false, true) => ("namespace", "namespace"),
                (true, false) => ("model", "model_name"),
                (true, true) => continue,
            };
            let detail = format!("{selector} selects every {every}, so the load of others counts");
            checks.push(
                check(CheckStatus::Warn, detail).with_remedy(format!("add a matcher on {label}")),
            );
        }
        let is_of_engine = |selector: &str| ENGINES.iter().any(|it| selector.starts_with(it));
        let of_engine = described.selectors.iter().find(|(selector, _)| is_of_engine(selector));
        if let Some((selector, _)) = of_engine
            && to_zero
            && !self.text("queryParameters").is_some_and(|text| text.contains("empty=zero"))
        {
            let detail = format!(
                "without pods there are no series of {selector}: at zero replicas this trigger fails, and a fallback adds a \
                 replica"
            );
            checks.push(check(CheckStatus::Warn, detail).with_remedy(
                "set queryParameters: \"empty=zero\" here, and let a trigger on the endpoint picker's queue add the first \
                 replica",
            ));
        }
        let (fits, why) = match described.kind {
            Kind::Sum => ("AverageValue", "a sum must be divided by the replicas"),
            Kind::Ratio => ("Value", "a ratio must not be divided by the replicas"),
            _ => (self.metric_type.as_str(), ""),
        };
        if fits != self.metric_type {
            let detail = format!("metricType is {}, but {why}", self.metric_type);
            checks.push(
                check(CheckStatus::Warn, detail).with_remedy(format!("set metricType: {fits}")),
            );
        }
        if checks.is_empty() {
            checks.push(check(CheckStatus::Pass, format!("{query} follows the rules")));
        }
        checks
    }
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

    use super::super::{parse, read};
    use super::*;

    /// An object that scales to zero, with a trigger on the endpoint picker's queue.
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
        query: sum(llm_d_epp_flow_control_queue_size{namespace="prod",model_name="org/llama"})
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
        let object = parse(&text).unwrap().remove(0);
        let checks = object.rules(&context()).into_iter();
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
        let queue = "llm_d_epp_flow_control_queue_size";
        let running = "vllm:num_requests_running";
        check_found(&[(queue, running)], Warn, "at zero replicas this trigger fails");
        let zero =
            ("threshold: \"5\"", "threshold: \"5\"\n        queryParameters: \"empty=zero\"");
        assert_eq!(found(&[(queue, running), zero]), []);
        assert_eq!(found(&[(queue, running), ("minReplicaCount: 0", "minReplicaCount: 1")]), []);
        check_found(&[("AverageValue", "Value")], Warn, "metricType is Value");
        check_found(&[("sum(", "max(")], Warn, "metricType is AverageValue");
        check_found(&[("sum(", "sum((")], Fail, "its query is invalid");
        check_found(&[("\"5\"", "5")], Fail, "metadata.threshold is 5");
        check_found(&[("threshold", "treshold")], Fail, "metadata.threshold is missing");
        check_found(&[("type: prometheus", "type: cpu")], Skip, "not checked");
    }

    #[test]
    fn the_example_passes() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/scaledobject.yaml");
        let objects = read(Path::new(file)).unwrap();
        assert_eq!(objects.len(), 2);
        for check in objects.iter().flat_map(|object| object.rules(&context())) {
            assert_eq!(check.status, CheckStatus::Pass, "{check:?}");
        }
    }
}
