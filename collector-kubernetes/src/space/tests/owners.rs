// SPDX-License-Identifier: Apache-2.0
//! Workloads of one name, one after the other or in several groups: each has its own pods.

use serde_json::json;

use super::{Fixture, metadata, pod, scaler};
use crate::kind::Kind;

#[test]
fn a_workload_that_was_made_again_does_not_have_the_pods_of_the_former_one() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "m", "Deployment", "d");
    fixture.deployment("d", 2);
    fixture.pod("old", "d-rs", true);
    assert_eq!(fixture.shown("m"), ["v/2: old=ready"]);
    let mut again = metadata("d", None);
    again["uid"] = "second".into();
    let spec = json!({"replicas": 2});
    fixture.put(Kind::Deployment, &json!({"metadata": again, "spec": spec}));
    assert_eq!(fixture.shown("m"), ["v/2: "]);
    // It runs as long as the garbage collector has not deleted it, and may serve the model.
    assert!(!fixture.supply("m").is_complete);
    let mut set = metadata("d-new", Some(("Deployment", "d")));
    set["ownerReferences"][0]["uid"] = "second".into();
    fixture.put(Kind::ReplicaSet, &json!({"metadata": set}));
    fixture.pod("new", "d-new", true);
    assert_eq!(fixture.shown("m"), ["v/2: new=ready"]);
    fixture.remove(Kind::Pod, "old");
    assert!(fixture.supply("m").is_complete);
    // The same of what is between them.
    let mut set = metadata("d-new", Some(("Deployment", "d")));
    set["uid"] = "third".into();
    fixture.put(Kind::ReplicaSet, &json!({"metadata": set}));
    assert_eq!(fixture.shown("m"), ["v/2: "]);
}

#[test]
fn the_pods_of_a_workload_that_is_gone_are_no_variants() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "m", "Deployment", "d");
    fixture.deployment("d", 1);
    fixture.pod("p", "d-rs", true);
    fixture.remove(Kind::Deployment, "d");
    assert_eq!(fixture.shown("m"), ["v/?: "]);
    assert!(!fixture.supply("m").is_complete);
    // Orphaned on purpose: then it is known to have no owner.
    fixture.deployment("d", 0);
    fixture.put(Kind::ReplicaSet, &json!({"metadata": metadata("d-rs", None)}));
    assert_eq!(fixture.shown("m"), ["v/0: "]);
    assert!(fixture.supply("m").is_complete);
}

#[test]
fn workloads_of_one_name_and_kind_in_two_groups_are_two() {
    let mut fixture = Fixture::new();
    let mut object = scaler("v", "m", "StatefulSet", "s");
    object["spec"]["scaleTargetRef"]["apiVersion"] = "apps/v1".into();
    fixture.put(Kind::HorizontalPodAutoscaler, &object);
    let set = json!({"metadata": metadata("s", None), "spec": {"replicas": 1}});
    fixture.put(Kind::StatefulSet, &set);
    let owned = |fixture: &mut Fixture, name: &str, version: &str, uid: &str| {
        let mut pod = pod(name, Some(("StatefulSet", "s")), &json!({}), true);
        pod["metadata"]["ownerReferences"][0]["apiVersion"] = version.into();
        pod["metadata"]["ownerReferences"][0]["uid"] = uid.into();
        fixture.put(Kind::Pod, &pod);
    };
    owned(&mut fixture, "s-0", "apps/v1", "uid-s");
    owned(&mut fixture, "t-0", "apps.kruise.io/v1beta1", "uid-other");
    assert_eq!(fixture.shown("m"), ["v/1: s-0=ready"]);
    // A target has no uid: its group, its kind and its name are all there is.
    let mut object = scaler("w", "n", "StatefulSet", "s");
    object["spec"]["scaleTargetRef"]["apiVersion"] = "apps.kruise.io/v1beta1".into();
    fixture.put(Kind::HorizontalPodAutoscaler, &object);
    assert_eq!(fixture.shown("m"), ["v/1: s-0=ready"]);
    assert_eq!(fixture.shown("n"), ["w/?: t-0=ready"]);
}

#[test]
fn the_leader_of_a_group_that_was_made_again_is_not_of_the_new_one() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "m", "LeaderWorkerSet", "g");
    let set = |fixture: &mut Fixture, uid: &str| {
        let mut metadata = metadata("g", None);
        metadata["uid"] = uid.into();
        let spec = json!({"replicas": 1});
        fixture.put(Kind::LeaderWorkerSet, &json!({"metadata": metadata, "spec": spec}));
    };
    set(&mut fixture, "uid-g");
    let owner = Some(("LeaderWorkerSet", "g"));
    fixture.put(Kind::StatefulSet, &json!({"metadata": metadata("leaders", owner), "spec": {}}));
    let labels = json!({"leaderworkerset.sigs.k8s.io/name": "g",
        "leaderworkerset.sigs.k8s.io/worker-index": "0"});
    fixture.labelled("g-0", Some(("StatefulSet", "leaders")), &labels);
    assert_eq!(fixture.shown("m"), ["v/1: g-0=ready"]);
    set(&mut fixture, "second");
    assert_eq!(fixture.shown("m"), ["v/1: "]);
    assert!(!fixture.supply("m").is_complete);
}

#[test]
fn the_replicas_of_a_former_inference_service_are_not_wanted() {
    let mut fixture = Fixture::new();
    let service = |fixture: &mut Fixture, uid: &str| {
        let mut metadata = metadata("svc", None);
        metadata["uid"] = uid.into();
        let spec = json!({"model": {"name": "org/m"}});
        fixture.put(Kind::LlmInferenceService, &json!({"metadata": metadata, "spec": spec}));
    };
    service(&mut fixture, "uid-svc");
    let owner = Some(("LLMInferenceService", "svc"));
    let object = json!({"metadata": metadata("svc-kserve", owner), "spec": {"replicas": 2}});
    fixture.put(Kind::Deployment, &object);
    assert_eq!(fixture.shown("org/m"), ["svc/2: "]);
    service(&mut fixture, "second");
    assert_eq!(fixture.shown("org/m"), ["svc/?: "]);
}
