// SPDX-License-Identifier: Apache-2.0
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
    use CheckStatus::{Fail, Skip, Warn};
    let fallback =
        "  fallback: {failureThreshold: 3, replicas: 1, behavior: currentReplicasIfHigher}\n";
    check_found(&[(fallback, "")], Fail, "longer than the cooldown (5m)");
    assert_eq!(found(&[(fallback, ""), ("minReplicaCount: 0", "minReplicaCount: 1")]), []);
    let quick = "cooldownPeriod: 300\n  advanced: {horizontalPodAutoscalerConfig: {behavior: {scaleDown: \
                 {stabilizationWindowSeconds: 0}}}}";
    check_found(&[("cooldownPeriod: 300", quick)], Warn, "each dip of the load");
    let idle = ("minReplicaCount: 0", "minReplicaCount: 2\n  idleReplicaCount: 0");
    check_found(&[(fallback, ""), idle], Fail, "it scales to zero (idleReplicaCount: 0) without");
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
    check_found(&[(", behavior: currentReplicasIfHigher", "")], Warn, "sets 1 replicas, even if");
    check_found(&[("IfHigher", "IfLower")], Warn, "leaves at most 1 replicas, even if more are");
    check_found(&[("IfHigher", "IfHighr")], Skip, "it may remove running replicas");
    assert_eq!(found(&[("IfHigher", "")]), []);
}

#[test]
fn annotations_pause_unless_they_are_false() {
    let with = |name: &str, value: &str| {
        let annotated = format!("annotations: {{autoscaling.keda.sh/{name}: \"{value}\"}}, ");
        found(&[("metadata: {name: llama", &format!("metadata: {{{annotated}name: llama"))])
    };
    for (name, value) in [("paused", "true"), ("paused", "yes"), ("paused-replicas", "0")] {
        let found = with(name, value);
        assert!(found.iter().any(|(_, text)| text.contains("it is paused")), "{found:?}");
    }
    for (name, value) in [("paused", "false"), ("paused-scale-in", "0")] {
        assert_eq!(with(name, value), [], "{name}: {value}");
    }
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
    let zero = ("threshold: \"5\"", "threshold: \"5\"\n        queryParameters: \"empty=zero\"");
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
    check_found(&[("\"5\"", "\"five\"")], Fail, "is not a number");
    check_found(&[("AverageValue", "Utilization")], Fail, "metricType is Utilization");
    let reference = ("type: prometheus", "type: prometheus\n      authenticationRef: {name: a}");
    check_found(&[reference], Warn, "without authModes, here or in the TriggerAuthentication");
    for key in ["authModes", "authMode"] {
        let modes = format!("threshold: \"5\"\n        {key}: bearer");
        assert_eq!(found(&[reference, ("threshold: \"5\"", &modes)]), [], "{key}");
    }
}

#[test]
fn the_examples_pass() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/");
    for (file, count) in [
        ("scaledobject.yaml", 2),
        ("scaledobject-external.yaml", 2),
        ("external-scaler.yaml", 2),
        ("signals-keda.yaml", 9),
    ] {
        let objects = read(&[Path::new(folder).join(file)], &[]).unwrap().remove(0).objects();
        assert_eq!(objects.len(), count, "{file}");
        let objects = objects.iter().map(|object| ScaledObject::of(&object.value));
        for finding in objects.flat_map(|object| object.rules(&context())) {
            let needs_keda = finding.check.detail.contains("this build has no external scaler");
            let skips = needs_keda && !cfg!(feature = "keda");
            let expected = if skips { CheckStatus::Skip } else { CheckStatus::Pass };
            assert_eq!(finding.check.status, expected, "{finding:?}");
        }
    }
}
