// SPDX-License-Identifier: Apache-2.0

use serde_json::{Value, json};

use super::*;
use crate::kind::TargetKind;

fn content(kind: Kind, object: &Value) -> Content {
    Object::read(kind, &object.to_string()).unwrap().content
}

fn pod(object: &Value) -> PodObject {
    match content(Kind::Pod, object) {
        Content::Pod(pod) => pod,
        other => panic!("{other:?}"),
    }
}

fn scaler(kind: Kind, object: &Value) -> ScalerObject {
    match content(kind, object) {
        Content::Scaler(scaler) => scaler,
        other => panic!("{other:?}"),
    }
}

fn workload(kind: Kind, object: &Value) -> WorkloadObject {
    match content(kind, object) {
        Content::Workload(workload) => workload,
        other => panic!("{other:?}"),
    }
}

/// A status with the condition Ready since a second of the hour, and containers that started at others.
fn status(ready: &str, since: u8, states: &Value) -> Value {
    let condition = json!({"type": "Ready", "status": ready,
        "lastTransitionTime": format!("2026-03-01T10:00:{since:02}Z")});
    json!({"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}, condition],
        "containerStatuses": [states]})
}

fn running(since: u8) -> Value {
    json!({"running": {"startedAt": format!("2026-03-01T10:00:{since:02}Z")}})
}

#[track_caller]
fn check_phase(status: &Value, expected: PodPhase) {
    let object = json!({"metadata": {"name": "p", "namespace": "n"}, "status": status});
    assert_eq!(pod(&object).phase, expected, "{status}");
}

#[test]
fn a_pod_is_read_with_what_it_belongs_to() {
    let object = json!({
        "metadata": {"name": "llama-0", "namespace": "chat", "uid": "u-1", "managedFields": [{"f": {}}],
            "labels": {"llm-d.ai/variant": "llama", "llm-d.ai/model": "llama-8b", "app": "x"},
            "ownerReferences": [
                {"kind": "Other", "name": "o", "uid": "1"},
                {"kind": "ReplicaSet", "name": "llama-abc", "uid": "2", "controller": true}]},
        "spec": {"containers": [{"name": "vllm"}]},
        "status": {"phase": "Pending"},
    });
    let read = Object::read(Kind::Pod, &object.to_string()).unwrap();
    assert_eq!((read.namespace.as_str(), &*read.name), ("chat", "llama-0"));
    let pod = pod(&object);
    let owner = Target::new(Kind::ReplicaSet, "llama-abc");
    assert_eq!(pod.owner, Some(Owner { target: owner, uid: Some("2".into()) }));
    assert_eq!((pod.variant.as_deref(), pod.model.as_deref()), (Some("llama"), Some("llama-8b")));
    assert_eq!((&*pod.uid, pod.is_worker), ("u-1", false));
}

#[test]
fn the_phase_of_a_pod_follows_from_its_status() {
    let unready = |has_been_ready| PodPhase::Unready { has_been_ready };
    check_phase(&Value::Null, unready(false));
    check_phase(&json!({"phase": "Pending"}), unready(false));
    check_phase(&status("True", 30, &json!({"state": running(10)})), PodPhase::Ready);
    // The condition is false since before the containers started: never Ready.
    check_phase(&status("False", 5, &json!({"state": running(10)})), unready(false));
    check_phase(&status("False", 10, &json!({"state": running(10)})), unready(false));
    // It became false after they had started: readiness was lost.
    check_phase(&status("False", 30, &json!({"state": running(10)})), unready(true));
    let crashed = json!({"state": running(40), "lastState": {"terminated": {
        "startedAt": "2026-03-01T10:00:10Z", "finishedAt": "2026-03-01T10:00:29Z"}}});
    check_phase(&status("False", 30, &crashed), unready(true));
    let never = json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {
        "startedAt": "2026-03-01T10:00:10Z"}}});
    check_phase(&status("False", 5, &never), unready(false));
    check_phase(&json!({"phase": "Failed"}), PodPhase::Over);
    check_phase(&json!({"phase": "Succeeded"}), PodPhase::Over);
}

#[test]
fn a_pod_that_is_being_deleted_terminates_though_it_is_ready() {
    let metadata =
        json!({"name": "p", "namespace": "n", "deletionTimestamp": "2026-03-01T10:00:00Z"});
    let ready = status("True", 30, &json!({"state": running(10)}));
    let phase = |status: &Value| pod(&json!({"metadata": metadata, "status": status})).phase;
    assert_eq!(phase(&ready), PodPhase::Terminating);
    assert_eq!(phase(&json!({"phase": "Failed"})), PodPhase::Over);
}

#[test]
fn only_the_leader_of_a_group_is_a_replica() {
    let of = |index: &str| {
        let labels = json!({"leaderworkerset.sigs.k8s.io/worker-index": index,
            "leaderworkerset.sigs.k8s.io/name": "group"});
        let owners = json!([{"kind": "StatefulSet", "name": "group-0", "controller": true}]);
        let metadata =
            json!({"name": "p", "namespace": "n", "labels": labels, "ownerReferences": owners});
        let pod = pod(&json!({"metadata": metadata}));
        assert_eq!(pod.group_of, Some(Target::new(Kind::LeaderWorkerSet, "group")));
        pod.is_worker
    };
    assert!(!of("0"));
    assert!(of("1"));
}

#[test]
fn a_workload_has_its_replicas_and_what_its_pods_run_on() {
    let metadata = json!({"name": "d", "namespace": "n"});
    let template =
        json!({"spec": {"nodeSelector": {"zone": "a", "nvidia.com/gpu.product": "H100"}}});
    let object = json!({"metadata": metadata, "spec": {"replicas": 3, "template": template}});
    let deployment = workload(Kind::Deployment, &object);
    assert_eq!((deployment.replicas, deployment.accelerator.as_deref()), (Some(3), Some("H100")));
    let spec =
        json!({"replicas": 2, "leaderWorkerTemplate": {"size": 2, "workerTemplate": template}});
    let group = workload(Kind::LeaderWorkerSet, &json!({"metadata": metadata, "spec": spec}));
    assert_eq!((group.replicas, group.accelerator.as_deref()), (Some(2), Some("H100")));
    let unset = workload(Kind::Deployment, &json!({"metadata": metadata, "spec": {}}));
    assert_eq!(unset.replicas, Some(1), "the default of Kubernetes");
    let set = workload(Kind::ReplicaSet, &json!({"metadata": metadata, "spec": {"replicas": 3}}));
    assert_eq!(set, WorkloadObject::default());
}

#[test]
fn an_inference_service_names_its_model() {
    let of = |spec: Value| {
        let object = json!({"metadata": {"name": "svc", "namespace": "n"}, "spec": spec});
        workload(Kind::LlmInferenceService, &object).model
    };
    let spec = json!({"model": {"uri": "hf://org/m", "name": "org/m"}, "replicas": 2});
    assert_eq!(of(spec).as_deref(), Some("org/m"));
    assert_eq!(of(json!({"model": {"uri": "hf://org/m"}})).as_deref(), Some("svc"));
}

#[test]
fn a_scaler_describes_a_variant_by_annotations() {
    let annotations = json!({"llm-d.ai/managed": "true", "llm-d.ai/model-id": "org/m",
        "llm-d.ai/variant-cost": "40.0", "other": "x"});
    let metadata = json!({"name": "s", "namespace": "n", "annotations": annotations});
    let spec = json!({"scaleTargetRef": {"name": "d"}, "triggers": [{"type": "external"}]});
    let scaler_of = |kind, spec: Value| scaler(kind, &json!({"metadata": metadata, "spec": spec}));
    let read = scaler_of(Kind::ScaledObject, spec);
    assert_eq!(read.target, Some(Target::new(Kind::Deployment, "d")));
    assert_eq!((read.model.as_deref(), read.cost.as_deref()), (Some("org/m"), Some("40.0")));
    assert!(read.is_managed && !read.is_derived);
    let rollout = json!({"scaleTargetRef": {"kind": "Rollout", "name": "r"}});
    let read = scaler_of(Kind::HorizontalPodAutoscaler, rollout);
    let kind = TargetKind::Other { group: "".into(), kind: "Rollout".into() };
    assert_eq!(read.target, Some(Target::new(kind, "r")));
    assert_eq!(scaler_of(Kind::HorizontalPodAutoscaler, json!({})).target, None);
}

#[test]
fn a_kind_is_that_of_its_group() {
    let of = TargetKind::of_reference;
    let watched = TargetKind::Watched;
    assert_eq!(of(Some("apps/v1"), "StatefulSet"), watched(Kind::StatefulSet));
    assert_eq!(of(Some("apps/v1beta2"), "StatefulSet"), watched(Kind::StatefulSet));
    assert_eq!(of(Some("v1"), "Pod"), watched(Kind::Pod));
    assert_eq!(of(None, "StatefulSet"), watched(Kind::StatefulSet));
    for (version, group) in [("apps.kruise.io/v1beta1", "apps.kruise.io"), ("v1", "")] {
        let kind = TargetKind::Other { group: group.into(), kind: "StatefulSet".into() };
        assert_eq!(of(Some(version), "StatefulSet"), kind);
    }
}

#[test]
fn the_hpa_that_keda_makes_is_no_scaler_of_its_own() {
    let metadata = json!({"name": "keda-hpa-s", "namespace": "n",
        "ownerReferences": [{"kind": "ScaledObject", "name": "s", "controller": true}]});
    assert!(scaler(Kind::HorizontalPodAutoscaler, &json!({"metadata": metadata})).is_derived);
}

#[test]
fn a_variant_autoscaling_has_the_model_in_its_specification() {
    let labels = json!({"inference.optimization/acceleratorName": "A100"});
    let spec = json!({"modelID": "org/m", "variantCost": "12.5",
        "scaleTargetRef": {"kind": "Deployment", "name": "d"}});
    let object =
        json!({"metadata": {"name": "v", "namespace": "n", "labels": labels}, "spec": spec});
    let read = scaler(Kind::VariantAutoscaling, &object);
    assert_eq!((read.model.as_deref(), read.cost.as_deref()), (Some("org/m"), Some("12.5")));
    assert_eq!(read.accelerator.as_deref(), Some("A100"));
}

#[test]
fn an_object_that_cannot_be_read_is_kept_as_that() {
    let object =
        json!({"metadata": {"name": "d", "namespace": "n"}, "spec": {"replicas": "three"}});
    let read = Object::read(Kind::Deployment, &object.to_string()).unwrap();
    assert_eq!(&*read.name, "d");
    assert!(matches!(read.content, Content::Unreadable(_)));
    assert!(Object::read(Kind::Deployment, "{}").is_err());
}

#[test]
fn the_endpoint_picker_of_an_inference_service_is_none_of_its_workloads() {
    let of = |component: &str| {
        let metadata = json!({"name": "d", "namespace": "n",
            "labels": {"app.kubernetes.io/component": component},
            "ownerReferences": [{"kind": "LLMInferenceService", "name": "s", "controller": true}]});
        workload(Kind::Deployment, &json!({"metadata": metadata})).owner.is_some()
    };
    assert!(of("llminferenceservice-workload-prefill"));
    assert!(!of("llminferenceservice-router-scheduler"));
}
