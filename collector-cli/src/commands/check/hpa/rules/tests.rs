// SPDX-License-Identifier: Apache-2.0
use std::path::Path;

use super::super::super::objects::read;
use super::*;

const GOOD: &str = r#"
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: llama, namespace: prod}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: llama}
  minReplicas: 1
  maxReplicas: 8
  behavior: {scaleDown: {stabilizationWindowSeconds: 300}}
  metrics:
    - type: External
      external:
        metric: {name: "vllm:num_requests_waiting", selector: {matchLabels: {model_name: llama}}}
        target: {type: AverageValue, averageValue: "5"}
"#;

fn found(changes: &[(&str, &str)]) -> Vec<(CheckStatus, String)> {
    let mut text = GOOD.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "{from}");
        text = text.replace(from, to);
    }
    let hpa = Hpa::of(&serde_saphyr::from_str(&text).unwrap());
    let checks = hpa.rules(&["prod/llama".to_owned()]).into_iter().map(|it| it.check);
    let checks = checks.filter(|check| check.status != CheckStatus::Pass);
    checks.map(|check| (check.status, check.detail)).collect()
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
    let saturation = [("vllm:num_requests_waiting", "llm_d_epp_flow_control_pool_saturation")];
    let value = ("type: AverageValue, averageValue: \"5\"", "type: Value, value: 700m");
    assert_eq!(found(&[saturation[0], value, ("model_name", "inference_pool")]), []);
}

#[test]
fn metrics_of_googles_adapter_are_known() {
    let name =
        ("vllm:num_requests_waiting", "prometheus.googleapis.com|vllm:num_requests_waiting|gauge");
    let label =
        ("model_name: llama", "metric.labels.model_name: llama, resource.type: prometheus_target");
    assert_eq!(found(&[name, label]), []);
    let hpa = Hpa::of(
        &serde_saphyr::from_str(&GOOD.replace(name.0, name.1).replace(label.0, label.1)).unwrap(),
    );
    let query = r#"sum(vllm:num_requests_waiting{model_name="llama",namespace="prod"})"#;
    assert_eq!(hpa.metrics[0].query(Some("prod")).as_deref(), Some(query));
}

#[cfg(feature = "keda")]
#[test]
fn signals_of_the_collector_are_known_and_are_no_queries() {
    use CheckStatus::{Fail, Warn};
    let queue = ("vllm:num_requests_waiting", "collector-queue");
    let model = ("model_name: llama", "model: llama");
    assert_eq!(found(&[queue, model]), []);
    check_found(&[queue], Fail, "without a model is an error");
    let saturation = ("vllm:num_requests_waiting", "collector-saturation");
    check_found(&[saturation, model], Warn, "a ratio must not be divided");
    let backlog = ("vllm:num_requests_waiting", "collector-backlog-seconds");
    check_found(&[backlog, model], Warn, "a ratio must not be divided");
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/");
    for file in ["external-metrics.yaml", "signals-hpa.yaml"] {
        let objects = read(&[], &[Path::new(folder).join(file)]).unwrap().remove(0).objects();
        for hpa in objects.iter().map(|object| Hpa::of(&object.value)) {
            assert!(!hpa.has_queries(), "{file}");
            for finding in hpa.rules(&[]) {
                assert_eq!(finding.check.status, CheckStatus::Pass, "{finding:?}");
            }
        }
    }
}

#[test]
fn targets_that_do_not_fit_are_found() {
    use CheckStatus::{Fail, Warn};
    let average = "type: AverageValue, averageValue: \"5\"";
    check_found(&[(average, "type: Value, value: \"5\"")], Warn, "must be divided by the replicas");
    check_found(&[(average, "type: AverageValue, value: \"5\"")], Fail, "the number is in value");
    check_found(&[(average, "type: AverageValue, averageValue: \"0\"")], Fail, "greater than 0");
    check_found(&[(average, "type: AverageValue")], Fail, "the target has no number");
    check_found(&[(average, "type: Utilization, averageValue: \"5\"")], Fail, "Utilization");
    // A number of replicas as Value multiplies the present ones by it.
    let wva =
        [("\"vllm:num_requests_waiting\"", "wva_desired_replicas"), ("model_name", "variant_name")];
    assert_eq!(found(&wva), []);
    check_found(
        &[wva[0], wva[1], (average, "type: Value, value: \"1\"")],
        Warn,
        "divided by the replicas",
    );
    let counter = ("vllm:num_requests_waiting", "vllm:prompt_tokens_total");
    check_found(&[counter], Warn, "is a counter");
}

#[test]
fn selectors_that_match_too_much_or_nothing_are_found() {
    use CheckStatus::{Fail, Skip, Warn};
    check_found(
        &[("model_name: llama", "model_name: org/llama")],
        Fail,
        "not a value of a Kubernetes label",
    );
    check_found(
        &[(", selector: {matchLabels: {model_name: llama}}", "")],
        Warn,
        "adds up all models",
    );
    let [(status, text)] = found(&[(", namespace: prod", "")]).try_into().unwrap();
    assert_eq!((status, text.contains("of all namespaces")), (Warn, true), "{text}");
    let keda = [
        ("\"vllm:num_requests_waiting\"", "s0-prometheus"),
        ("model_name", "scaledobject.keda.sh/name"),
    ];
    assert_eq!(found(&keda), []);
    let unknown =
        ("matchLabels: {model_name: llama}", "matchLabels: {scaledobject.keda.sh/name: other}");
    check_found(&[unknown], Skip, "of ScaledObject prod/other");
    check_found(
        &[("vllm:num_requests_waiting", "my_queue")],
        Skip,
        "not a metric of a model server",
    );
}

#[test]
fn ranges_and_behavior_that_do_not_scale_are_found() {
    use CheckStatus::{Fail, Skip, Warn};
    check_found(&[("minReplicas: 1", "minReplicas: 0")], Warn, "HPAScaleToZero");
    check_found(
        &[("minReplicas: 1", "minReplicas: 9")],
        Fail,
        "maxReplicas is 8 and minReplicas 9",
    );
    check_found(&[("  maxReplicas: 8\n", "")], Fail, "maxReplicas is missing");
    check_found(&[("minReplicas: 1", "minReplicas: 8")], Warn, "never scales");
    check_found(&[("Seconds: 300", "Seconds: 0")], Warn, "each dip");
    check_found(
        &[("scaleDown:", "scaleUp: {selectPolicy: Disabled}, scaleDown:")],
        Warn,
        "never adds",
    );
    check_found(
        &[("scaleDown: {", "scaleDown: {selectPolicy: Disabled, ")],
        Warn,
        "never removes replicas",
    );
    check_found(&[("maxReplicas: 8", "maxReplicas: \"8\"")], Fail, "spec.maxReplicas is \"8\"");
    check_found(&[("apiVersion: apps/v1, ", "")], Fail, "looks for Deployment in the core group");
    check_found(&[("autoscaling/v2", "autoscaling/v2beta2")], Fail, "not autoscaling/v2");
    check_found(&[("type: External", "type: Resource")], Skip, "not checked");
}

#[test]
fn the_example_passes() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/hpa.yaml");
    let objects = read(&[], &[file.into()]).unwrap().remove(0).objects();
    assert_eq!(objects.len(), 2);
    for finding in objects.iter().flat_map(|object| Hpa::of(&object.value).rules(&[])) {
        assert_eq!(finding.check.status, CheckStatus::Pass, "{finding:?}");
    }
}

#[test]
fn quantities_are_read_as_kubernetes_writes_them() {
    for (text, value) in [
        ("5", 5.0),
        ("+.5", 0.5),
        ("500m", 0.5),
        ("500000000n", 500_000_000.0 * 1e-9),
        ("7u", 7e-6),
        ("1k", 1000.0),
        ("2Ki", 2048.0),
        ("1Ti", f64::from(1 << 20).powi(2)),
        ("2E", 2e18),
        ("1Ei", f64::from(1 << 20).powi(3)),
        ("1Pi", f64::from(1 << 25).powi(2)),
        ("1e1", 10.0),
        ("1E3", 1000.0),
        ("25e-1", 2.5),
    ] {
        assert_eq!(quantity(text), Some(value), "{text}");
    }
    for text in ["five", "", "1e", "1e3k", "1E3Ki", "1 k", " 5", "inf", "nan", "5K", "1mm"] {
        assert_eq!(quantity(text), None, "{text:?}");
    }
}
