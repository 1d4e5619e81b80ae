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
    assert_eq!(
        found(&[("failureThreshold: 3", "failureThreshold: 0")]),
        [],
        "the first failed poll"
    );
    let three = ("failureThreshold: 3", "failureThreshold: \"3\"");
    check_found(&[three], Fail, "spec.fallback.failureThreshold is \"3\", but Kubernetes");
    check_found(&[("replicas: 1,", "replicas: \"2\",")], Fail, "spec.fallback.replicas is \"2\"");
    check_found(&[("replicas: 1,", "replicas: 0,")], Fail, "replicas is 0");
    check_found(
        &[("cooldownPeriod: 300", "cooldownPeriod: 90")],
        Fail,
        "begins after 1m30s (3 polls)",
    );
    assert_eq!(found(&[("cooldownPeriod: 300", "cooldownPeriod: 91")]), []);
    check_found(
        &[(", behavior: currentReplicasIfHigher", "")],
        Warn,
        "after 3 failed polls it sets 1 replica, even if",
    );
    check_found(&[("IfHigher", "IfLower")], Warn, "leaves at most 1 replica, even if more are");
    check_found(&[("IfHigher", "IfHighr")], Skip, "it may remove running replicas");
    assert_eq!(found(&[("IfHigher", "")]), []);
}

#[test]
fn objects_that_never_scale_are_found() {
    use CheckStatus::{Fail, Warn};
    let between = |min: &str| ("minReplicaCount: 0", format!("{min}\n  maxReplicaCount: 4"));
    let (from, four) = between("minReplicaCount: 4");
    check_found(&[(from, &four)], Warn, "are 4, so it never scales");
    let (from, idle) = between("minReplicaCount: 4\n  idleReplicaCount: 0");
    assert_eq!(found(&[(from, &idle)]), [], "it scales between 0 and 4");
    for (way, says) in [("scaleUp", "never adds replicas"), ("scaleDown", "never removes replicas")]
    {
        let behavior = format!(
            "cooldownPeriod: 300\n  advanced: {{horizontalPodAutoscalerConfig: {{behavior: {{{way}: {{selectPolicy: \
             Disabled}}}}}}}}"
        );
        check_found(&[("cooldownPeriod: 300", &behavior)], Warn, says);
    }
    let target = "scaleTargetRef: {name: llama}";
    let set = "scaleTargetRef: {kind: LeaderWorkerSet, name: llama}";
    check_found(
        &[(target, set)],
        Fail,
        "LeaderWorkerSet without apiVersion, so KEDA looks for it in apps",
    );
    for right in [
        "scaleTargetRef: {kind: StatefulSet, name: llama}",
        "scaleTargetRef: {apiVersion: leaderworkerset.x-k8s.io/v1, kind: LeaderWorkerSet, name: llama}",
    ] {
        assert_eq!(found(&[(target, right)]), [], "{right}");
    }
    // KEDA takes a given minimum of 0 for 1 here, and a missing one not.
    let idle = ("minReplicaCount: 0", "minReplicaCount: 0\n  idleReplicaCount: 0");
    assert_eq!(found(&[idle]), []);
    let idle = ("minReplicaCount: 0", "idleReplicaCount: 0");
    check_found(&[idle], Fail, "must be less than minReplicaCount");
}

#[test]
fn cpu_and_memory_start_no_replica() {
    use CheckStatus::{Fail, Skip, Warn};
    let cpu = "triggers:\n    - {type: cpu, metricType: Utilization, metadata: {value: \"70\"}}";
    let running = [
        ("triggers:", cpu),
        ("llm_d_epp_request_running", "vllm:num_requests_running"),
        ("threshold: \"5\"", "threshold: \"5\"\n        queryParameters: \"empty=zero\""),
    ];
    let has = |found: &[(CheckStatus, String)], status: CheckStatus, says: &str| {
        assert!(found.iter().any(|(is, text)| *is == status && text.contains(says)), "{found:?}");
    };
    has(&found(&running), Skip, "triggers of type \"cpu\" are not checked");
    has(&found(&running), Warn, "nothing starts the first replica");
    let waiting = ("llm_d_epp_request_running", "llm_d_epp_flow_control_queue_size");
    has(&found(&[running[0], waiting]), Warn, "scales to zero while requests run");
    let fallback =
        "  fallback: {failureThreshold: 3, replicas: 1, behavior: currentReplicasIfHigher}\n";
    let alone = [("type: prometheus", "type: memory"), (fallback, "")];
    let found = found(&alone);
    has(&found, Fail, "KEDA refuses it");
    let failed = found.iter().filter(|(status, _)| *status == Fail);
    assert_eq!(failed.count(), 1, "{found:?}");
}

#[test]
fn the_namespace_of_a_trigger_is_a_parameter_of_its_query() {
    let with = |keys: &str| {
        let text = GOOD.replace("threshold: \"5\"", &format!("threshold: \"5\"\n        {keys}"));
        ScaledObject::of(&serde_saphyr::from_str(&text).unwrap()).triggers[0].parameters()
    };
    assert_eq!(with("namespace: a"), "namespace=a");
    assert_eq!(with("namespace: a\n        queryParameters: empty=zero"), "namespace=a,empty=zero");
    assert_eq!(with("queryParameters: empty=zero"), "empty=zero");
    assert_eq!(with(""), "");
}

#[test]
fn fields_that_keda_does_not_have_are_found() {
    use CheckStatus::Warn;
    for (from, to, says) in [
        (
            "cooldownPeriod: 300",
            "cooldownPeriod: 300\n  maxReplicas: 4",
            "no field spec.maxReplicas, so nothing reads it: did you mean maxReplicaCount?",
        ),
        (
            "type: prometheus",
            "type: prometheus\n      pollingInterval: 5",
            "no field spec.triggers[0].pollingInterval, so nothing reads it: it belongs to spec",
        ),
        (
            "threshold: \"5\"",
            "threshold: \"5\"\n        metricType: Value",
            "spec.triggers[0].metadata.metricType, so nothing reads it: it belongs to the trigger",
        ),
        (
            "threshold: \"5\"",
            "threshold: \"5\"\n        ignoreNullValue: \"false\"",
            "did you mean ignoreNullValues?",
        ),
    ] {
        check_found(&[(from, to)], Warn, says);
    }
    let right = "threshold: \"5\"\n        metricName: a\n        unsafeSsl: \"true\"\n        timeout: \"1000\"";
    assert_eq!(found(&[("threshold: \"5\"", right)]), []);
}

#[test]
fn a_fallback_that_needs_a_newer_keda_says_so() {
    let detail = |changes: &[(&str, &str)]| {
        let text = changes.iter().fold(GOOD.to_owned(), |text, (from, to)| text.replace(from, to));
        let object = ScaledObject::of(&serde_saphyr::from_str(&text).unwrap());
        let fallback = object.fallback.clone().unwrap();
        object.of_fallback(&fallback).check.detail
    };
    let ends = "it begins after 1m30s, before the cooldown of 5m is over";
    assert!(detail(&[]).ends_with(ends));
    for newer in [("AverageValue", "Value"), ("\"5\"", "\"0.8\"")] {
        assert!(detail(&[newer]).ends_with(&format!("{ends}; for trigger 1 it needs KEDA 2.18")));
    }
    let formula = |target: &str| {
        format!(
            "cooldownPeriod: 300\n  advanced: {{scalingModifiers: {{formula: a + b, target: {target:?}}}}}"
        )
    };
    let changed = |target: &str| detail(&[("cooldownPeriod: 300", &formula(target))]);
    assert!(changed("2").ends_with(ends));
    assert!(
        changed("0.8").contains("no fallback with a formula whose target is not a whole number")
    );
    let value = [("cooldownPeriod: 300", &*formula("2")), ("AverageValue", "Value")];
    let [(status, text)] = found(&value).try_into().unwrap();
    assert_eq!((status, text.contains("formula replaces")), (CheckStatus::Skip, true));
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
    let [(_, unknown), (_, missing)] = found(&[("threshold", "treshold")]).try_into().unwrap();
    assert!(unknown.contains("did you mean threshold?"), "{unknown}");
    assert!(missing.contains("metadata.threshold is missing"), "{missing}");
    check_found(&[("type: prometheus", "type: kafka")], Skip, "not checked");
    check_found(&[("\"5\"", "\"0\"")], Fail, "must be greater than 0");
    for wrong in ["five", ".5", "+5", "Inf", "0x10"] {
        check_found(&[("\"5\"", &format!("{wrong:?}"))], Fail, "is not a number");
    }
    check_found(&[("AverageValue", "Utilization")], Fail, "metricType is Utilization");
    let reference = ("type: prometheus", "type: prometheus\n      authenticationRef: {name: a}");
    check_found(&[reference], Warn, "without authModes, here or in the TriggerAuthentication");
    for key in ["authModes", "authMode"] {
        let modes = format!("threshold: \"5\"\n        {key}: bearer");
        assert_eq!(found(&[reference, ("threshold: \"5\"", &modes)]), [], "{key}");
    }
}

#[test]
fn queries_that_scale_wrongly_are_found() {
    use CheckStatus::Warn;
    let (queue, running) = ("llm_d_epp_request_running", "vllm:num_requests_running");
    let address = "http://collector.monitoring:9464";
    // A number of replicas is divided by 1, however its one series is read.
    let wva = [(queue, "wva_desired_replicas"), ("sum(", "max(")];
    assert_eq!(found(&wva), []);
    check_found(
        &[wva[0], wva[1], ("AverageValue", "Value")],
        Warn,
        "must be divided by the replicas",
    );
    let min = ("minReplicaCount: 0", "minReplicaCount: 1");
    let raw = ("sum(llm_d_epp_request_running", "(vllm:num_requests_waiting");
    check_found(&[raw, min], Warn, "from the second pod on KEDA gets several elements");
    let nim = (queue, "num_requests_running");
    check_found(&[nim], Warn, "at zero replicas this trigger fails");
    check_found(&[(r#"namespace="prod""#, r#"namespace!="""#)], Warn, "selects every namespace");
    check_found(
        &[(r#"model_name="org/llama""#, r#"model_name=~".+""#)],
        Warn,
        "selects every model",
    );
    for of_model in ["job", "container", "exported_pod", "served_model_name", "isvc_name"] {
        assert_eq!(found(&[("model_name", of_model)]), [], "{of_model}");
    }
    // KEDA itself takes the empty answer of a Prometheus for 0.
    let direct = [(queue, running), (address, "http://prometheus:9090")];
    let [(_, zero), (_, reads)] = found(&direct).try_into().unwrap();
    assert!(zero.contains("nothing starts the first replica"), "{zero}");
    assert!(reads.contains("reads an empty answer"), "{reads}");
    let strict = ("\"5\"", "\"5\"\n        ignoreNullValues: \"false\"");
    check_found(&[direct[0], direct[1], strict], Warn, "at zero replicas this trigger fails");
    for strict in ["false", "False", "0"] {
        let ignore = format!("\"5\"\n        ignoreNullValues: {strict:?}");
        let changes = [(address, "http://prometheus:9090"), ("\"5\"", &*ignore)];
        assert_eq!(found(&changes), [], "{strict}");
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
