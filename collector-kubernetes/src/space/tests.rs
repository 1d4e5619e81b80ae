// SPDX-License-Identifier: Apache-2.0

use collector_core::ManualClock;
use collector_core::supply::PodState;
use collector_core::{AcceleratorName, Clock as _};
use serde_json::{Value, json};

use super::*;

mod owners;

/// A namespace that takes objects as the API writes them.
struct Fixture {
    space: Space,
    clock: ManualClock,
}

impl Fixture {
    fn new() -> Self {
        Self { space: Space::new("n".into(), None), clock: ManualClock::new() }
    }

    fn put(&mut self, kind: Kind, object: &Value) -> Changes {
        let object = Object::read(kind, &object.to_string()).unwrap();
        let now = self.clock.now();
        let changes = self.space.put(kind, object, now);
        if self.space.is_unresolved() { self.space.resolve(now) } else { changes }
    }

    fn remove(&mut self, kind: Kind, name: &str) -> Changes {
        let now = self.clock.now();
        let changes = self.space.remove(kind, &name.into(), now);
        if self.space.is_unresolved() { self.space.resolve(now) } else { changes }
    }

    /// An HPA that describes a variant.
    fn variant(&mut self, name: &str, model: &str, kind: &str, target: &str) -> Changes {
        self.put(Kind::HorizontalPodAutoscaler, &scaler(name, model, kind, target))
    }

    /// A Deployment with its ReplicaSet.
    fn deployment(&mut self, name: &str, replicas: u32) {
        let spec = json!({"replicas": replicas});
        self.put(Kind::Deployment, &json!({"metadata": metadata(name, None), "spec": spec}));
        let owner = Some(("Deployment", name));
        self.put(Kind::ReplicaSet, &json!({"metadata": metadata(&format!("{name}-rs"), owner)}));
    }

    fn pod(&mut self, name: &str, replica_set: &str, ready: bool) -> Changes {
        let owner = Some(("ReplicaSet", replica_set));
        self.put(Kind::Pod, &pod(name, owner, &json!({}), ready))
    }

    fn labelled(&mut self, name: &str, owner: Option<(&str, &str)>, labels: &Value) -> Changes {
        self.put(Kind::Pod, &pod(name, owner, labels, true))
    }

    fn supply(&self, model: &str) -> ModelSupply {
        let now = self.clock.now();
        self.space.supply(&model.into(), now, now).unwrap()
    }

    /// The variants with their pods: `variant/wanted: pods`.
    fn shown(&self, model: &str) -> Vec<String> {
        let shown = |workload: &collector_core::supply::Workload| {
            let pods = workload.pods.iter();
            let pods: Vec<String> =
                pods.map(|pod| format!("{}={}", pod.name, pod.state.as_str())).collect();
            let variant = workload.variant.as_ref().map_or("-", |name| name.as_str());
            let wanted = workload.wanted.map_or("?".to_owned(), |wanted| wanted.to_string());
            format!("{variant}/{wanted}: {}", pods.join(" "))
        };
        self.supply(model).supply.workloads.iter().map(shown).collect()
    }

    fn conditions(&self) -> Vec<String> {
        let mut conditions = BTreeSet::new();
        self.space.report(&mut conditions);
        conditions.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check_condition(&self, part: &str) {
        let conditions = self.conditions();
        assert!(
            conditions.len() == 1 && conditions[0].contains(part),
            "{conditions:?} lacks {part:?}"
        );
    }
}

fn metadata(name: &str, owner: Option<(&str, &str)>) -> Value {
    let owners: Vec<Value> = owner
        .into_iter()
        .map(|(kind, name)| {
            json!({"kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true})
        })
        .collect();
    json!({"name": name, "namespace": "n", "uid": format!("uid-{name}"), "ownerReferences": owners})
}

fn pod(name: &str, owner: Option<(&str, &str)>, labels: &Value, ready: bool) -> Value {
    let mut metadata = metadata(name, owner);
    metadata["labels"] = labels.clone();
    let ready = if ready { "True" } else { "False" };
    let conditions = json!([{"type": "Ready", "status": ready}]);
    json!({"metadata": metadata, "status": {"phase": "Running", "conditions": conditions}})
}

fn scaler(name: &str, model: &str, kind: &str, target: &str) -> Value {
    let mut metadata = metadata(name, None);
    metadata["annotations"] = json!({"llm-d.ai/managed": "true", "llm-d.ai/model-id": model});
    json!({"metadata": metadata, "spec": {"scaleTargetRef": {"kind": kind, "name": target}}})
}

#[test]
fn a_pod_belongs_to_the_variant_that_scales_its_owner() {
    let mut fixture = Fixture::new();
    fixture.variant("llama", "org/m", "Deployment", "d");
    fixture.deployment("d", 3);
    let changes = fixture.pod("d-rs-a", "d-rs", true);
    assert_eq!(changes.models, BTreeSet::from(["org/m".into()]));
    assert!(!changes.variants, "a pod is no change of the variants");
    fixture.pod("d-rs-b", "d-rs", false);
    // Its name looks like the others', and its owner is another.
    fixture.labelled("d-rs-c", Some(("Job", "d")), &json!({}));
    assert_eq!(fixture.shown("org/m"), ["llama/3: d-rs-a=ready d-rs-b=starting"]);
    let of = |pod: &str| fixture.space.variant_of(&"org/m".into(), &pod.into()).is_some();
    assert!(of("d-rs-a") && !of("d-rs-c") && !of("other"));
    assert!(fixture.space.variant_of(&"org/other".into(), &"d-rs-a".into()).is_none());
}

#[test]
fn objects_may_come_in_any_order() {
    let mut fixture = Fixture::new();
    fixture.pod("d-rs-a", "d-rs", true);
    fixture.deployment("d", 1);
    assert!(!fixture.space.found.models.contains_key(&ModelId::from("org/m")));
    let changes = fixture.variant("llama", "org/m", "Deployment", "d");
    assert!(changes.variants && changes.models.contains(&ModelId::from("org/m")));
    assert_eq!(fixture.shown("org/m"), ["llama/1: d-rs-a=ready"]);
}

#[test]
fn the_state_of_a_pod_changes_with_its_time() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "m", "Deployment", "d");
    fixture.deployment("d", 1);
    fixture.pod("p", "d-rs", false);
    let state = |fixture: &Fixture| {
        let supply = fixture.supply("m").supply;
        let pod = supply.pod(&"p".into()).unwrap();
        (pod.state, pod.since.age(fixture.clock.now()).as_secs())
    };
    fixture.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(state(&fixture), (PodState::Starting, 60));
    fixture.pod("p", "d-rs", true);
    assert_eq!(state(&fixture), (PodState::Ready, 0));
    fixture.clock.advance(std::time::Duration::from_secs(5));
    let unchanged = fixture.pod("p", "d-rs", true);
    assert_eq!((unchanged, state(&fixture)), (Changes::default(), (PodState::Ready, 5)));
    fixture.pod("p", "d-rs", false);
    assert_eq!(state(&fixture), (PodState::NotReady, 0));
    // A pod of the same name that was made again has not been Ready yet.
    let mut again = pod("p", Some(("ReplicaSet", "d-rs")), &json!({}), false);
    again["metadata"]["uid"] = "another".into();
    fixture.put(Kind::Pod, &again);
    assert_eq!(state(&fixture), (PodState::Starting, 0));
}

#[test]
fn a_deleted_pod_is_remembered_for_longer_than_a_failing_source_is_believed() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "m", "Deployment", "d");
    fixture.deployment("d", 1);
    fixture.pod("p", "d-rs", true);
    let mut terminating = pod("p", Some(("ReplicaSet", "d-rs")), &json!({}), true);
    terminating["metadata"]["deletionTimestamp"] = "2026-03-01T10:00:00Z".into();
    fixture.put(Kind::Pod, &terminating);
    assert_eq!(fixture.shown("m"), ["v/1: p=terminating"]);
    assert!(!fixture.supply("m").supply.is_zero());
    fixture.remove(Kind::Pod, "p");
    let gone = fixture.supply("m");
    assert!(gone.supply.is_zero() && gone.is_complete);
    assert_eq!(gone.supply.deleted, [("p".into(), fixture.clock.now())]);
    let believed = collector_core::FreshnessThresholds::default().unavailable_threshold;
    fixture.clock.advance(believed);
    fixture.space.tidy(fixture.clock.now());
    assert!(fixture.supply("m").supply.saw_delete(&"p".into(), Tick::MIN));
    fixture.clock.advance(2 * believed);
    fixture.space.tidy(fixture.clock.now());
    assert_eq!(fixture.supply("m").supply.deleted, []);
}

#[test]
fn a_pod_that_is_over_does_not_exist() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "m", "Deployment", "d");
    fixture.deployment("d", 1);
    fixture.pod("p", "d-rs", true);
    let mut failed = pod("p", Some(("ReplicaSet", "d-rs")), &json!({}), false);
    failed["status"]["phase"] = "Failed".into();
    fixture.put(Kind::Pod, &failed);
    assert_eq!(fixture.shown("m"), ["v/1: "]);
}

#[test]
fn of_a_group_the_leader_is_the_replica() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "m", "LeaderWorkerSet", "g");
    fixture.put(
        Kind::LeaderWorkerSet,
        &json!({"metadata": metadata("g", None), "spec": {"replicas": 1}}),
    );
    for (name, index) in [("g-0", "0"), ("g-0-1", "1")] {
        let labels = json!({"leaderworkerset.sigs.k8s.io/name": "g",
            "leaderworkerset.sigs.k8s.io/worker-index": index});
        fixture.labelled(name, Some(("StatefulSet", "of-the-leader")), &labels);
    }
    assert_eq!(fixture.shown("m"), ["v/1: g-0=ready"]);
    assert!(fixture.space.variant_of(&"m".into(), &"g-0-1".into()).is_some());
    fixture.remove(Kind::Pod, "g-0");
    assert!(!fixture.supply("m").is_complete, "a worker is left, so this is no known zero");
    fixture.remove(Kind::Pod, "g-0-1");
    assert!(fixture.supply("m").is_complete);
}

#[test]
fn a_worker_that_belongs_to_no_variant_is_no_known_zero() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "m", "Deployment", "d");
    fixture.deployment("d", 0);
    fixture.put(Kind::LeaderWorkerSet, &json!({"metadata": metadata("g", None), "spec": {}}));
    let labels = json!({"leaderworkerset.sigs.k8s.io/name": "g", "llm-d.ai/model": "m",
        "leaderworkerset.sigs.k8s.io/worker-index": "1"});
    assert!(fixture.supply("m").is_complete);
    fixture.labelled("g-0-1", None, &labels);
    assert!(!fixture.supply("m").is_complete);
}

#[test]
fn a_pod_without_an_owner_counts_by_its_labels() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "org/m", "Deployment", "d");
    fixture.deployment("d", 0);
    fixture.labelled("by-variant", None, &json!({"llm-d.ai/variant": "v"}));
    fixture.labelled("by-model", None, &json!({"llm-d.ai/model": "m"}));
    fixture.labelled("plain", None, &json!({}));
    assert_eq!(fixture.shown("org/m"), ["-/?: by-model=ready", "v/0: by-variant=ready"]);
    fixture.variant("w", "other/m", "Deployment", "e");
    fixture.remove(Kind::Pod, "by-variant");
    assert_eq!(fixture.shown("org/m"), ["v/0: "], "two models fit the label");
    assert!(!fixture.supply("org/m").is_complete);
}

#[test]
fn a_label_does_not_count_against_a_known_owner() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "m", "Deployment", "d");
    fixture.deployment("d", 1);
    fixture.deployment("copy", 1);
    let labels = json!({"llm-d.ai/variant": "v"});
    fixture.labelled("p", Some(("ReplicaSet", "copy-rs")), &labels);
    assert_eq!(fixture.shown("m"), ["v/1: "]);
    assert_eq!(fixture.conditions(), Vec::<String>::new());
    fixture.labelled("q", Some(("RayCluster", "ray")), &labels);
    assert_eq!(fixture.shown("m"), ["v/1: q=ready"]);
}

#[test]
fn zero_is_known_only_if_no_pod_can_be_the_models() {
    let mut fixture = Fixture::new();
    fixture.variant("v", "m", "Deployment", "d");
    assert!(!fixture.supply("m").is_complete, "what it scales is not known");
    fixture.deployment("d", 0);
    assert!(fixture.supply("m").is_complete);
    fixture.pod("p", "unknown", true);
    assert!(!fixture.supply("m").is_complete, "its owner may be the model's");
    fixture.remove(Kind::Pod, "p");
    assert!(fixture.supply("m").is_complete);
    fixture.put(Kind::Deployment, &json!({"metadata": metadata("x", None), "spec": 1}));
    assert!(!fixture.supply("m").is_complete, "an object could not be read");
}

#[test]
fn that_all_pods_of_a_variant_are_listed_is_known_for_each() {
    let mut fixture = Fixture::new();
    fixture.variant("busy", "m", "Deployment", "d");
    fixture.variant("idle", "m", "Deployment", "e");
    fixture.variant("lost", "m", "Deployment", "absent");
    fixture.deployment("d", 1);
    fixture.deployment("e", 0);
    fixture.pod("p", "d-rs", true);
    let listed = |fixture: &Fixture| {
        let workloads = fixture.supply("m").supply.workloads;
        workloads.iter().map(|workload| workload.lists_pods).collect::<Vec<_>>()
    };
    assert_eq!(listed(&fixture), [true, true, false], "the target of the last one is absent");
    let changes = fixture.pod("q", "unknown", true);
    assert_eq!(listed(&fixture), [false; 3], "its owner may be the idle one's");
    assert_eq!(changes.models, BTreeSet::from(["m".into()]), "it is told at once");
    assert_eq!(fixture.pod("r", "unknown", true), Changes::default());
    fixture.remove(Kind::Pod, "r");
    assert_eq!(fixture.remove(Kind::Pod, "q").models, BTreeSet::from(["m".into()]));
    assert_eq!(listed(&fixture), [true, true, false]);
    fixture.labelled("stray", None, &json!({"llm-d.ai/variant": "no"}));
    assert_eq!(listed(&fixture), [false; 3]);
}

#[test]
fn an_inference_service_is_a_variant_unless_others_scale_it() {
    let mut fixture = Fixture::new();
    let service = |fixture: &mut Fixture| {
        let spec = json!({"model": {"name": "org/m"}, "replicas": 1});
        let object = json!({"metadata": metadata("svc", None), "spec": spec});
        fixture.put(Kind::LlmInferenceService, &object);
    };
    service(&mut fixture);
    for (name, replicas) in [("svc-kserve", 2), ("svc-kserve-prefill", 1)] {
        let owner = Some(("LLMInferenceService", "svc"));
        let object = json!({"metadata": metadata(name, owner), "spec": {"replicas": replicas}});
        fixture.put(Kind::Deployment, &object);
        let set = metadata(&format!("{name}-rs"), Some(("Deployment", name)));
        fixture.put(Kind::ReplicaSet, &json!({"metadata": set}));
        fixture.pod(&format!("{name}-0"), &format!("{name}-rs"), true);
    }
    let both = "svc/3: svc-kserve-0=ready svc-kserve-prefill-0=ready";
    assert_eq!(fixture.shown("org/m"), [both]);
    fixture.variant("decode", "org/m", "Deployment", "svc-kserve");
    let parts = ["decode/2: svc-kserve-0=ready", "svc/1: svc-kserve-prefill-0=ready"];
    assert_eq!(fixture.shown("org/m"), parts);
    fixture.variant("prefill", "org/m", "Deployment", "svc-kserve-prefill");
    let scaled = ["decode/2: svc-kserve-0=ready", "prefill/1: svc-kserve-prefill-0=ready"];
    assert_eq!(fixture.shown("org/m"), scaled);
}

#[test]
fn a_variant_has_what_describes_it() {
    let mut fixture = Fixture::new();
    let mut object = scaler("v", "m", "Deployment", "d");
    object["metadata"]["annotations"]["llm-d.ai/variant-cost"] = "40".into();
    object["metadata"]["labels"] = json!({"inference.optimization/acceleratorName": "A100"});
    let changes = fixture.put(Kind::ScaledObject, &object);
    assert!(changes.variants);
    let variant = |fixture: &Fixture| Arc::clone(&fixture.space.variants_of(&"m".into())[0]);
    let read = variant(&fixture);
    assert_eq!((read.cost, read.accelerator.clone()), (40.0, Some("A100".into())));
    let template = json!({"spec": {"nodeSelector": {"nvidia.com/gpu.product": "H100"}}});
    let deployment = json!({"metadata": metadata("d", None), "spec": {"template": template}});
    assert!(fixture.put(Kind::Deployment, &deployment).variants);
    assert_eq!(variant(&fixture).accelerator, Some(AcceleratorName::from("H100")));
    object["metadata"]["annotations"]["llm-d.ai/variant-cost"] = "50".into();
    assert!(fixture.put(Kind::ScaledObject, &object).variants, "a generation follows from it");
    assert!(!fixture.put(Kind::ScaledObject, &object).variants);
}

#[test]
fn of_two_variants_on_one_target_one_counts_and_the_other_is_reported() {
    let mut fixture = Fixture::new();
    fixture.deployment("d", 1);
    fixture.pod("p", "d-rs", true);
    fixture.variant("hpa", "m", "Deployment", "d");
    assert_eq!(fixture.conditions(), Vec::<String>::new());
    fixture.put(Kind::ScaledObject, &scaler("scaled", "m", "Deployment", "d"));
    assert_eq!(fixture.shown("m"), ["scaled/1: p=ready"]);
    fixture.check_condition(
        "HorizontalPodAutoscaler n/hpa: it scales Deployment d, and so does ScaledObject scaled",
    );
    fixture.remove(Kind::ScaledObject, "scaled");
    assert_eq!(fixture.shown("m"), ["hpa/1: p=ready"]);
    assert_eq!(fixture.conditions(), Vec::<String>::new());
}

#[test]
fn bad_objects_are_reported_and_disturb_no_other() {
    let mut fixture = Fixture::new();
    fixture.deployment("d", 1);
    fixture.pod("p", "d-rs", true);
    fixture.variant("good", "m", "Deployment", "d");
    let mut check = |kind, object: Value, part: &str| {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        fixture.put(kind, &object);
        fixture.check_condition(part);
        assert_eq!(fixture.shown("m"), ["good/1: p=ready"], "{part}");
        fixture.remove(kind, &name);
        assert_eq!(fixture.conditions(), Vec::<String>::new());
    };
    let hpa = Kind::HorizontalPodAutoscaler;
    let mut no_target = scaler("bad", "x", "Deployment", "e");
    no_target["spec"] = json!({});
    check(hpa, no_target, "n/bad: it has no scaleTargetRef");
    check(hpa, scaler("bad", "", "Deployment", "e"), "it is managed and names no model");
    check(hpa, scaler("bad", "x", "Deployment", "e"), "Deployment e, which does not exist");
    check(hpa, scaler("bad", "x", "Rollout", "r"), "Rollout r, a kind whose replicas are not");
    let unreadable = json!({"metadata": metadata("bad", None), "spec": {"replicas": -1}});
    check(Kind::Deployment, unreadable, "it cannot be read: ");
    let stray = pod("bad", None, &json!({"llm-d.ai/variant": "no"}), true);
    check(Kind::Pod, stray, "its labels llm-d.ai/variant or llm-d.ai/model name");
}

#[test]
fn annotations_that_are_no_numbers_are_reported() {
    let mut fixture = Fixture::new();
    fixture.deployment("d", 1);
    for (annotation, text, part) in [
        ("llm-d.ai/variant-cost", "cheap", "its cost is \"cheap\", which is not an amount; 10 is"),
        ("llm-d.ai/variant-cost", "-1", "which is not an amount"),
        ("llm-d.ai/variant-cost", "NaN", "which is not an amount"),
        ("llm-d.ai/gpus-per-replica", "two", "are \"two\", which is not a whole number"),
    ] {
        let mut object = scaler("v", "m", "Deployment", "d");
        object["metadata"]["annotations"][annotation] = text.into();
        fixture.put(Kind::ScaledObject, &object);
        fixture.check_condition(part);
        let cost = fixture.space.variants_of(&"m".into())[0].cost;
        assert!((cost - collector_core::DEFAULT_COST).abs() < f64::EPSILON);
    }
}

#[test]
fn a_model_id_that_was_changed_in_place_is_reported_for_ten_minutes() {
    let mut fixture = Fixture::new();
    fixture.deployment("d", 1);
    fixture.pod("p", "d-rs", true);
    fixture.variant("v", "old", "Deployment", "d");
    let changes = fixture.variant("v", "new", "Deployment", "d");
    assert!(changes.variants);
    assert_eq!(changes.models, BTreeSet::from(["new".into(), "old".into()]));
    assert!(!fixture.space.found.models.contains_key(&ModelId::from("old")));
    assert_eq!(fixture.shown("new"), ["v/1: p=ready"]);
    fixture.check_condition("its model id was changed in place, from \"old\" to \"new\"");
    fixture.clock.advance(std::time::Duration::from_secs(601));
    fixture.space.tidy(fixture.clock.now());
    assert!(fixture.space.is_unresolved());
    fixture.space.resolve(fixture.clock.now());
    assert_eq!(fixture.conditions(), Vec::<String>::new());
}

#[test]
fn a_model_whose_object_has_no_workload_of_its_own_is_no_known_zero() {
    for (name, target) in [("w", json!({"kind": "Deployment", "name": "d"})), ("w", Value::Null)] {
        let mut fixture = Fixture::new();
        fixture.deployment("d", 1);
        fixture.deployment("empty", 0);
        fixture.variant("a", "first", "Deployment", "d");
        fixture.variant("b", "second", "Deployment", "empty");
        fixture.pod("p", "d-rs", true);
        assert!(fixture.supply("second").is_complete);
        let mut disputed = scaler(name, "second", "Deployment", "d");
        disputed["spec"]["scaleTargetRef"] = target;
        fixture.put(Kind::HorizontalPodAutoscaler, &disputed);
        assert!(!fixture.supply("second").is_complete, "the pod may serve it as well");
        fixture.remove(Kind::HorizontalPodAutoscaler, "w");
        fixture.variant("c", "second", "Deployment", "empty");
        assert!(fixture.supply("second").is_complete, "two of one model on one target hide no pod");
    }
}
