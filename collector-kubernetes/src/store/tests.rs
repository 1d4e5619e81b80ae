// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use collector_core::{ErrorKind, ManualClock};
use serde_json::{Value, json};

use super::*;

struct Fixture {
    store: Store,
    clock: Arc<ManualClock>,
}

const KINDS: [Kind; 4] =
    [Kind::Pod, Kind::ReplicaSet, Kind::Deployment, Kind::HorizontalPodAutoscaler];

fn id(kind: Kind) -> WatchId {
    WatchId { kind, namespace: None }
}

impl Fixture {
    /// A store with these watches, none of which has a list.
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        let store = Store::new(Arc::clone(&clock) as Arc<dyn Clock>, Vec::new(), None);
        store.begin(KINDS.map(id).to_vec(), true);
        Self { store, clock }
    }

    /// A store that has listed a model with one pod.
    fn listed() -> Self {
        let fixture = Self::new();
        fixture.list(Kind::HorizontalPodAutoscaler, &[hpa()]);
        fixture.list(Kind::Deployment, &[object("d", &Value::Null)]);
        fixture.list(Kind::ReplicaSet, &[object("rs", &owner("Deployment", "d"))]);
        fixture.list(Kind::Pod, &[object("p", &owner("ReplicaSet", "rs"))]);
        fixture.store.take_changed();
        fixture
    }

    fn list(&self, kind: Kind, objects: &[Value]) {
        let read = |object: &Value| Object::read(kind, &object.to_string()).unwrap();
        self.store.replace(&id(kind), objects.iter().map(read).collect(), self.clock.now());
    }

    fn put(&self, kind: Kind, object: &Value) {
        self.store.put(&id(kind), Object::read(kind, &object.to_string()).unwrap());
    }

    fn pods(&self) -> Vec<String> {
        match self.store.known(&model()).unwrap() {
            Known::Supply(known) => known.supply.pods().map(|pod| pod.name.to_string()).collect(),
            Known::No(_) => panic!("the model is known"),
        }
    }

    fn unheard(&self) -> String {
        self.store.known(&model()).unwrap_err().why
    }
}

fn model() -> ModelRef {
    ModelRef::new("m", "n")
}

fn object(name: &str, owners: &Value) -> Value {
    json!({"metadata": {"name": name, "namespace": "n", "ownerReferences": owners}})
}

fn owner(kind: &str, name: &str) -> Value {
    json!([{"kind": kind, "name": name, "controller": true}])
}

fn hpa() -> Value {
    let mut hpa = object("v", &Value::Null);
    hpa["metadata"]["annotations"] = json!({"llm-d.ai/model-id": "m"});
    hpa["spec"] = json!({"scaleTargetRef": {"kind": "Deployment", "name": "d"}});
    hpa
}

#[test]
fn nothing_is_told_before_every_kind_is_listed() {
    let fixture = Fixture::new();
    fixture.clock.advance(Duration::from_secs(2));
    fixture.list(Kind::Pod, &[]);
    fixture.list(Kind::HorizontalPodAutoscaler, &[hpa()]);
    assert_eq!(fixture.unheard(), "the first list of replicasets is under way since 2s");
    assert!(fixture.store.take_changed().is_empty());
    assert_eq!(fixture.store.conditions(), [], "what is not listed is not missing");
    fixture.list(Kind::ReplicaSet, &[]);
    fixture.list(Kind::Deployment, &[object("d", &Value::Null)]);
    assert_eq!(fixture.store.take_changed(), HashSet::from([model()]));
    assert!(fixture.pods().is_empty());
}

#[test]
fn without_a_client_that_is_the_reason() {
    let store = Store::new(Arc::new(ManualClock::new()), Vec::new(), None);
    let unheard = store.known(&model()).unwrap_err();
    assert_eq!(unheard.why, "no client has been given yet");
    assert_eq!(unheard.kind, ErrorKind::Configuration);
}

#[test]
fn the_supply_is_as_old_as_the_watch_that_was_heard_longest_ago() {
    let fixture = Fixture::listed();
    fixture.clock.advance(Duration::from_secs(20));
    for kind in &KINDS[1..] {
        fixture.store.heard(&id(*kind));
    }
    fixture.clock.advance(Duration::from_secs(5));
    let age = |fixture: &Fixture| match fixture.store.known(&model()).unwrap() {
        Known::Supply(known) => known.supply.as_of.age(fixture.clock.now()).as_secs(),
        Known::No(_) => panic!("the model is known"),
    };
    assert_eq!(age(&fixture), 25);
    fixture.store.heard(&id(Kind::Pod));
    assert_eq!(age(&fixture), 5);
}

#[test]
fn a_lost_watch_is_told_until_it_is_heard_again() {
    let fixture = Fixture::listed();
    let lost = |why: &str| {
        let since = fixture.clock.now();
        let lost = Lost { since, kind: ErrorKind::Connect, why: why.to_owned() };
        fixture.store.lost(&id(Kind::Pod), lost);
    };
    lost("connection refused");
    fixture.clock.advance(Duration::from_secs(60));
    lost("still refused");
    assert_eq!(fixture.unheard(), "pods could not be read for 1m: still refused");
    assert_eq!(fixture.store.variants().len(), 1, "nothing is forgotten");
    fixture.store.heard(&id(Kind::Pod));
    assert_eq!(fixture.pods(), ["p"]);
}

#[test]
fn a_new_list_replaces_the_former_as_a_whole() {
    let fixture = Fixture::listed();
    let pod = |name: &str| object(name, &owner("ReplicaSet", "rs"));
    fixture.put(Kind::Pod, &pod("q"));
    assert_eq!(fixture.pods(), ["p", "q"]);
    fixture.list(Kind::Pod, &[pod("q"), pod("r")]);
    assert_eq!(fixture.pods(), ["q", "r"]);
    let mut elsewhere = pod("s");
    elsewhere["metadata"]["namespace"] = "other".into();
    fixture.put(Kind::Pod, &elsewhere);
    let in_namespace = WatchId { kind: Kind::Pod, namespace: Some("other".into()) };
    fixture.store.replace(&in_namespace, Vec::new(), fixture.clock.now());
    assert_eq!(fixture.pods(), ["q", "r"], "a list of one namespace leaves the others");
}

#[test]
fn the_generation_changes_with_variants_and_not_with_pods() {
    let fixture = Fixture::listed();
    let before = fixture.store.generation();
    fixture.put(Kind::Pod, &object("q", &owner("ReplicaSet", "rs")));
    assert_eq!(fixture.store.take_changed(), HashSet::from([model()]));
    assert_eq!(fixture.store.generation(), before);
    let mut dearer = hpa();
    dearer["metadata"]["annotations"]["llm-d.ai/variant-cost"] = "20".into();
    fixture.put(Kind::HorizontalPodAutoscaler, &dearer);
    fixture.store.take_changed();
    assert_ne!(fixture.store.generation(), before);
    let variant = fixture.store.variant_of(&model(), &"q".into()).unwrap();
    assert!((variant.cost - 20.0).abs() < f64::EPSILON);
}

#[test]
fn a_model_that_no_object_describes_is_not_known() {
    let fixture = Fixture::listed();
    let other = ModelRef::new("other", "n");
    assert!(matches!(fixture.store.known(&other), Ok(Known::No(_))));
    let models = fixture.store.models();
    assert_eq!(models, [KnownModel::new(model(), Some(0))], "its pod is not Ready");
}

#[test]
fn a_kind_that_is_not_served_counts_as_listed() {
    let fixture = Fixture::new();
    for kind in KINDS {
        fixture.store.not_served(&id(kind));
    }
    fixture.clock.advance(Duration::from_secs(600));
    assert!(matches!(fixture.store.known(&model()), Ok(Known::No(_))));
}

#[test]
fn once_the_last_list_is_there_the_model_is_known() {
    let fixture = Fixture::new();
    fixture.list(Kind::HorizontalPodAutoscaler, &[hpa()]);
    fixture.list(Kind::Deployment, &[object("d", &Value::Null)]);
    fixture.list(Kind::ReplicaSet, &[object("rs", &owner("Deployment", "d"))]);
    fixture.list(Kind::Pod, &[object("p", &owner("ReplicaSet", "rs"))]);
    assert_eq!(fixture.pods(), ["p"]);
}

#[test]
fn a_list_that_comes_late_removes_nothing_that_a_watch_has_told() {
    let fixture = Fixture::listed();
    let pod = |name: &str| object(name, &owner("ReplicaSet", "rs"));
    let began = fixture.clock.now();
    fixture.clock.advance(Duration::from_secs(1));
    fixture.put(Kind::Pod, &pod("q"));
    let late = Object::read(Kind::Pod, &pod("p").to_string()).unwrap();
    assert!(!fixture.store.replace(&id(Kind::Pod), vec![late], began));
    assert_eq!(fixture.pods(), ["p", "q"]);
}

#[test]
fn a_watch_that_is_opened_again_confirms_nothing_yet() {
    let fixture = Fixture::listed();
    let since = fixture.clock.now();
    let lost = Lost { since, kind: ErrorKind::Connect, why: "refused".to_owned() };
    fixture.store.lost(&id(Kind::Pod), lost);
    fixture.clock.advance(Duration::from_secs(60));
    fixture.store.opened(&id(Kind::Pod));
    let age = fixture.store.as_of().unwrap().age(fixture.clock.now());
    assert_eq!(age, Duration::from_secs(60));
}

#[test]
fn a_kind_that_is_missing_for_a_moment_keeps_its_objects() {
    let fixture = Fixture::listed();
    let hpas = id(Kind::HorizontalPodAutoscaler);
    assert!(!fixture.store.not_served(&hpas));
    fixture.clock.advance(Duration::from_secs(59));
    assert!(!fixture.store.not_served(&hpas));
    assert_eq!(fixture.pods(), ["p"]);
    fixture.list(Kind::HorizontalPodAutoscaler, &[hpa()]);
    fixture.clock.advance(Duration::from_secs(1));
    assert!(!fixture.store.not_served(&hpas), "it was there meanwhile");
    fixture.clock.advance(Duration::from_secs(60));
    assert!(fixture.store.not_served(&hpas));
    assert!(matches!(fixture.store.known(&model()), Ok(Known::No(_))));
}
