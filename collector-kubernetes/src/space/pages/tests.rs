// SPDX-License-Identifier: Apache-2.0

use std::fmt::Write as _;

use collector_core::{Clock as _, ManualClock};
use serde_json::{Value, json};

use crate::kind::Kind;
use crate::objects::Object;
use crate::pages::{PageSource, Selector};
use crate::space::Space;

struct Fixture {
    space: Space,
    clock: ManualClock,
}

impl Fixture {
    fn new(source: PageSource) -> Self {
        Self { space: Space::new("n".into(), Some(source.into())), clock: ManualClock::new() }
    }

    fn pools() -> Self {
        Self::new(PageSource::Pools)
    }

    /// Takes an object; returns whether the pages have changed.
    fn put(&mut self, kind: Kind, object: &Value) -> bool {
        let object = Object::read(kind, &object.to_string()).unwrap();
        self.space.put(kind, object, self.clock.now()).pages
    }

    fn remove(&mut self, kind: Kind, name: &str) -> bool {
        self.space.remove(kind, &name.into(), self.clock.now()).pages
    }

    /// The pages as URLs, with what else is known of them.
    fn shown(&self) -> Vec<String> {
        let shown = |page: &crate::pages::Page| {
            let scheme = if page.is_https { "https" } else { "http" };
            let mut text = format!("{} {scheme}://{}{}", page.pod, page.address, page.path);
            for (name, value) in [
                ("rank", page.rank.as_deref()),
                ("replica", page.replica.as_ref().map(collector_core::PodName::as_str)),
                ("engine", page.engine.as_deref()),
                ("role", page.role.as_deref()),
                ("picker", page.is_picker.then_some(&*page.source)),
                ("silent", page.may_be_silent.then_some("yes")),
            ] {
                if let Some(value) = value {
                    write!(text, " {name}={value}").unwrap();
                }
            }
            text
        };
        let mut pages: Vec<String> = self.space.pages().map(shown).collect();
        pages.sort();
        pages
    }

    fn conditions(&self) -> Vec<String> {
        let mut conditions = std::collections::BTreeSet::new();
        self.space.report(&mut conditions);
        conditions.iter().map(ToString::to_string).collect()
    }
}

fn pod(name: &str, ip: &str, labels: &Value, annotations: &Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "n", "uid": name, "labels": labels, "annotations": annotations},
        "status": {"phase": "Running", "podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn vllm(name: &str, ip: &str) -> Value {
    pod(name, ip, &json!({"app": "vllm"}), &json!({}))
}

fn pool(name: &str, app: &str, ports: &[u16]) -> Value {
    let ports: Vec<Value> = ports.iter().map(|port| json!({"number": port})).collect();
    json!({
        "metadata": {"name": name, "namespace": "n"},
        "spec": {"selector": {"matchLabels": {"app": app}}, "targetPorts": ports},
    })
}

/// A slice of a Service with its pods, and whether each is ready.
fn slice(service: &str, ports: &[(&str, u16)], pods: &[(&str, bool)]) -> Value {
    let ports: Vec<Value> =
        ports.iter().map(|(name, port)| json!({"name": name, "port": port})).collect();
    let endpoint = |(pod, ready): &(&str, bool)| {
        json!({
            "addresses": ["203.0.113.9"],
            "conditions": {"ready": ready},
            "targetRef": {"kind": "Pod", "name": pod, "namespace": "n"},
        })
    };
    let endpoints: Vec<Value> = pods.iter().map(endpoint).collect();
    json!({
        "metadata": {"name": format!("{service}-x"), "namespace": "n", "labels": {
            "kubernetes.io/service-name": service, "app": service,
        }},
        "endpoints": endpoints,
        "ports": ports,
    })
}

#[test]
fn the_pods_that_a_pool_selects_are_scraped() {
    let mut fixture = Fixture::pools();
    assert!(!fixture.put(Kind::Pod, &vllm("a", "10.0.0.1")));
    assert!(fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000])));
    assert!(fixture.put(Kind::Pod, &vllm("b", "fd00::1")));
    fixture.put(Kind::Pod, &pod("c", "10.0.0.3", &json!({"app": "other"}), &json!({})));
    let expected = ["a http://10.0.0.1:8000/metrics", "b http://[fd00::1]:8000/metrics"];
    assert_eq!(fixture.shown(), expected);
    // What does not matter changes nothing.
    let mut other = vllm("a", "10.0.0.1");
    other["status"]["message"] = "x".into();
    assert!(!fixture.put(Kind::Pod, &other));
    assert!(!fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000])));
    assert!(fixture.remove(Kind::Pod, "b"));
    assert!(fixture.put(Kind::InferencePool, &pool("p", "other", &[8000])));
    assert_eq!(fixture.shown(), ["c http://10.0.0.3:8000/metrics"]);
    assert!(fixture.remove(Kind::InferencePool, "p"));
    assert_eq!(fixture.shown(), Vec::<String>::new());
}

#[test]
fn a_pod_has_all_labels_of_its_pool() {
    let mut fixture = Fixture::pools();
    let mut object = pool("p", "vllm", &[8000]);
    object["spec"]["selector"]["matchLabels"]["tier"] = "prod".into();
    fixture.put(Kind::InferencePool, &object);
    fixture.put(Kind::Pod, &vllm("a", "10.0.0.1"));
    assert_eq!(fixture.shown(), Vec::<String>::new());
    let labels = json!({"app": "vllm", "tier": "prod"});
    fixture.put(Kind::Pod, &pod("a", "10.0.0.1", &labels, &json!({})));
    assert_eq!(fixture.shown().len(), 1);
}

#[test]
fn a_problem_of_several_pods_is_reported_once() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000]));
    for name in ["a", "b", "c"] {
        let annotations = json!({"prometheus.io/scheme": "ftp"});
        fixture.put(Kind::Pod, &pod(name, "10.0.0.1", &json!({"app": "vllm"}), &annotations));
    }
    let conditions = fixture.conditions();
    assert!(conditions.len() == 1 && conditions[0].starts_with("Pod n/a: "), "{conditions:?}");
    assert!(conditions[0].contains("other pods of the namespace have"), "{conditions:?}");
}

#[test]
fn a_pod_without_an_address_or_with_nothing_to_do_any_more_is_not_scraped() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000]));
    let mut object = vllm("a", "");
    fixture.put(Kind::Pod, &object);
    assert_eq!(fixture.shown(), Vec::<String>::new());
    object["status"]["podIP"] = "10.0.0.1".into();
    fixture.put(Kind::Pod, &object);
    for phase in ["Succeeded", "Failed"] {
        assert_eq!(fixture.shown().len(), 1);
        object["status"]["phase"] = phase.into();
        assert!(fixture.put(Kind::Pod, &object));
        assert_eq!(fixture.shown(), Vec::<String>::new());
        object["status"]["phase"] = "Running".into();
        fixture.put(Kind::Pod, &object);
    }
}

#[test]
fn a_pod_that_starts_or_terminates_may_be_silent() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000]));
    let mut object = vllm("a", "10.0.0.1");
    let mut check = |object: &Value, silent: bool| {
        fixture.put(Kind::Pod, object);
        assert_eq!(fixture.shown()[0].contains("silent"), silent, "{object}");
    };
    object["status"]["conditions"][0]["status"] = "False".into();
    check(&object, true);
    object["status"]["conditions"][0]["status"] = "True".into();
    check(&object, false);
    // It was ready before: what it has is unknown if it does not answer.
    object["status"]["conditions"][0]["status"] = "False".into();
    check(&object, false);
    // Another pod of its name has not been ready.
    object["metadata"]["uid"] = "other".into();
    check(&object, true);
    object["status"]["conditions"][0]["status"] = "True".into();
    object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    check(&object, true);
}

#[test]
fn each_port_of_a_pool_is_a_server() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000, 8001, 8002]));
    let mut check = |active: Option<&str>, ports: &[u16]| {
        let annotations = json!({"llm-d.ai/active-ports": active});
        fixture.put(Kind::Pod, &pod("a", "10.0.0.1", &json!({"app": "vllm"}), &annotations));
        let page = |port: &u16| format!("a http://10.0.0.1:{port}/metrics rank={port}");
        assert_eq!(fixture.shown(), ports.iter().map(page).collect::<Vec<_>>(), "{active:?}");
        fixture.conditions()
    };
    assert_eq!(check(None, &[8000, 8001, 8002]), Vec::<String>::new());
    assert_eq!(check(Some("8000, 8002"), &[8000, 8002]), Vec::<String>::new());
    // One that its pool does not have gets no requests.
    assert_eq!(check(Some("8001,9000"), &[8001]), Vec::<String>::new());
    // None of its servers runs.
    assert_eq!(check(Some(""), &[]), Vec::<String>::new());
    for bad in ["8000;8001", "99999", "9000", "-1", "8000,x"] {
        let conditions = check(Some(bad), &[8000, 8001, 8002]);
        assert!(
            conditions[0].contains(&format!("llm-d.ai/active-ports is \"{bad}\"")),
            "{conditions:?}"
        );
    }
}

#[test]
fn the_former_name_of_active_ports_counts_too() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000, 8001]));
    let annotations = json!({"inference.networking.k8s.io/active-ports": "8001"});
    fixture.put(Kind::Pod, &pod("a", "10.0.0.1", &json!({"app": "vllm"}), &annotations));
    assert_eq!(fixture.shown(), ["a http://10.0.0.1:8001/metrics rank=8001"]);
}

#[test]
fn annotations_and_labels_say_more() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000]));
    let labels =
        json!({"app": "vllm", "llm-d.ai/engine-type": "sglang", "llm-d.ai/role": "decode"});
    let annotations = json!({
        "prometheus.io/port": "9400", "prometheus.io/path": "/v1/prometheus-2.x", "prometheus.io/scheme": "https",
    });
    fixture.put(Kind::Pod, &pod("a", "10.0.0.1", &labels, &annotations));
    let older = json!({"app": "vllm", "inference.networking.k8s.io/engine-type": "vllm"});
    fixture.put(Kind::Pod, &pod("b", "10.0.0.2", &older, &json!({})));
    let expected = [
        "a https://10.0.0.1:9400/v1/prometheus-2.x engine=sglang role=decode",
        "b http://10.0.0.2:8000/metrics engine=vllm",
    ];
    assert_eq!(fixture.shown(), expected);
    assert_eq!(fixture.conditions(), Vec::<String>::new());
}

#[test]
fn hostile_annotations_lead_nowhere_else() {
    for (annotation, text) in [
        ("port", "99999"),
        ("port", "0"),
        ("port", "80@evil.example"),
        ("port", "8000/../x"),
        ("scheme", "file"),
        ("scheme", "http://evil.example/?"),
        ("scheme", "HTTPS"),
        ("path", "metrics"),
        ("path", "/../admin"),
        ("path", "/a/./b"),
        ("path", "/%2e%2e/admin"),
        ("path", "//evil.example/metrics"),
        ("path", "@evil.example/"),
        ("path", "/metrics?token=x"),
        ("path", "/metrics#x"),
        ("path", "/a b"),
        ("path", "/a\r\nHost: evil.example"),
        ("path", "/\\evil.example"),
        ("path", ""),
    ] {
        let mut fixture = Fixture::pools();
        fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000]));
        let annotations = json!({format!("prometheus.io/{annotation}"): text});
        fixture.put(Kind::Pod, &pod("a", "10.0.0.1", &json!({"app": "vllm"}), &annotations));
        assert_eq!(fixture.shown(), ["a http://10.0.0.1:8000/metrics"], "{text:?}");
        let conditions = fixture.conditions();
        let name = format!("Pod n/a: its annotation prometheus.io/{annotation} is ");
        assert!(conditions.len() == 1 && conditions[0].starts_with(&name), "{conditions:?}");
        assert!(!conditions[0].contains('\n'), "{conditions:?}");
    }
}

#[test]
fn an_annotated_port_does_not_hide_the_servers_of_several_ports() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000, 8001]));
    for (port, conditions) in [("8000", 0), ("9400", 1)] {
        let annotations = json!({"prometheus.io/port": port});
        fixture.put(Kind::Pod, &pod("a", "10.0.0.1", &json!({"app": "vllm"}), &annotations));
        assert_eq!(fixture.shown().len(), 2);
        assert_eq!(fixture.conditions().len(), conditions, "{port}");
    }
}

#[test]
fn a_pod_of_two_pools_is_scraped_once() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000]));
    fixture.put(Kind::InferencePool, &pool("q", "vllm", &[8000]));
    fixture.put(Kind::Pod, &vllm("a", "10.0.0.1"));
    assert_eq!(fixture.shown(), ["a http://10.0.0.1:8000/metrics"]);
    fixture.put(Kind::InferencePool, &pool("q", "vllm", &[8001, 8000]));
    let expected =
        ["a http://10.0.0.1:8000/metrics rank=8000", "a http://10.0.0.1:8001/metrics rank=8001"];
    assert_eq!(fixture.shown(), expected);
    fixture.remove(Kind::InferencePool, "p");
    assert_eq!(fixture.shown(), expected);
}

#[test]
fn of_a_leader_worker_set_the_leaders_serve_unless_all_declare_ports() {
    let member = |name: &str, ip: &str, worker: &str, active: Option<&str>| {
        let labels = json!({
            "app": "vllm", "leaderworkerset.sigs.k8s.io/name": "l",
            "leaderworkerset.sigs.k8s.io/group-index": "0",
            "leaderworkerset.sigs.k8s.io/worker-index": worker,
        });
        pod(name, ip, &labels, &json!({"llm-d.ai/active-ports": active}))
    };
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000]));
    fixture.put(Kind::Pod, &member("l-0", "10.0.0.1", "0", None));
    fixture.put(Kind::Pod, &member("l-0-1", "10.0.0.2", "1", None));
    assert_eq!(fixture.shown(), ["l-0 http://10.0.0.1:8000/metrics"]);
    fixture.put(Kind::Pod, &member("l-0", "10.0.0.1", "0", Some("8000")));
    fixture.put(Kind::Pod, &member("l-0-1", "10.0.0.2", "1", Some("8000")));
    let expected = [
        "l-0 http://10.0.0.1:8000/metrics rank=0-8000 replica=l-0",
        "l-0-1 http://10.0.0.2:8000/metrics rank=1-8000 replica=l-0",
    ];
    assert_eq!(fixture.shown(), expected);
}

fn pool_with_picker(name: &str, service: &str) -> Value {
    let mut pool = pool(name, "vllm", &[8000]);
    pool["spec"]["endpointPickerRef"] = json!({"name": service, "port": {"number": 9002}});
    pool
}

fn picker(name: &str, ip: &str) -> Value {
    pod(name, ip, &json!({"app": "epp"}), &json!({}))
}

#[test]
fn the_endpoint_picker_of_a_pool_is_scraped() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::Pod, &picker("epp-0", "10.0.1.1"));
    fixture.put(Kind::EndpointSlice, &slice("epp", &[("grpc-ext-proc", 9002)], &[("epp-0", true)]));
    assert!(fixture.put(Kind::InferencePool, &pool_with_picker("p", "epp")));
    assert_eq!(fixture.shown(), ["epp-0 http://10.0.1.1:9090/metrics picker=InferencePool p"]);
    // The name of a port goes before the default, and an annotation before that.
    let ports = [("grpc-ext-proc", 9002), ("http-metrics", 9091)];
    assert!(fixture.put(Kind::EndpointSlice, &slice("epp", &ports, &[("epp-0", true)])));
    assert!(fixture.shown()[0].contains("10.0.1.1:9091/"));
    let annotated = pod("epp-0", "10.0.1.1", &json!({}), &json!({"prometheus.io/port": "9092"}));
    assert!(fixture.put(Kind::Pod, &annotated));
    assert!(fixture.shown()[0].contains("10.0.1.1:9092/"));
    assert!(fixture.remove(Kind::EndpointSlice, "epp-x"));
    assert_eq!(fixture.shown(), Vec::<String>::new());
    let conditions = fixture.conditions();
    assert!(conditions[0].contains("the Service epp, has no endpoint"), "{conditions:?}");
}

#[test]
fn an_endpoint_picker_that_is_not_ready_is_scraped_if_no_other_is() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool_with_picker("p", "epp"));
    fixture.put(Kind::Pod, &picker("epp-0", "10.0.1.1"));
    fixture.put(Kind::Pod, &picker("epp-1", "10.0.1.2"));
    let mut shown = |ready: [bool; 2]| {
        let pods = [("epp-0", ready[0]), ("epp-1", ready[1])];
        fixture.put(Kind::EndpointSlice, &slice("epp", &[], &pods));
        let pages = fixture.shown();
        pages.iter().map(|page| page.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown([true, true]), ["epp-0", "epp-1"]);
    assert_eq!(shown([false, true]), ["epp-1"]);
    assert_eq!(shown([false, false]), ["epp-0", "epp-1"]);
}

#[test]
fn an_endpoint_that_is_no_pod_is_not_asked() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool_with_picker("p", "epp"));
    fixture.put(Kind::Pod, &picker("epp-0", "10.0.1.1"));
    let mut foreign = slice("epp", &[], &[("epp-0", true)]);
    foreign["endpoints"][0]["targetRef"] = Value::Null;
    fixture.put(Kind::EndpointSlice, &foreign);
    assert_eq!(fixture.shown(), Vec::<String>::new());
    assert!(
        fixture.conditions()[0].contains("1 endpoints of its Endpoint Picker epp are not pods")
    );
    foreign["endpoints"][0]["targetRef"] =
        json!({"kind": "Pod", "name": "epp-0", "namespace": "m"});
    fixture.put(Kind::EndpointSlice, &foreign);
    assert_eq!(fixture.shown(), Vec::<String>::new());
}

#[test]
fn an_endpoint_picker_that_is_no_service_is_reported() {
    let mut fixture = Fixture::pools();
    let mut object = pool_with_picker("p", "epp");
    object["spec"]["endpointPickerRef"]["kind"] = "Deployment".into();
    fixture.put(Kind::InferencePool, &object);
    assert!(fixture.conditions()[0].contains("is the Deployment epp, which is no Service"));
}

#[test]
fn a_pool_of_the_alpha_group_is_another_one_than_that_of_its_name() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::AlphaInferencePool, &json!({
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"selector": {"app": "vllm"}, "targetPortNumber": 8000, "extensionRef": {"name": "epp"}},
    }));
    fixture.put(Kind::Pod, &vllm("a", "10.0.0.1"));
    fixture.put(Kind::Pod, &picker("epp-0", "10.0.1.1"));
    fixture.put(Kind::EndpointSlice, &slice("epp", &[], &[("epp-0", true)]));
    let expected = [
        "a http://10.0.0.1:8000/metrics",
        "epp-0 http://10.0.1.1:9090/metrics picker=InferencePool p",
    ];
    assert_eq!(fixture.shown(), expected);
    // While pools are moved, both are there.
    fixture.put(Kind::InferencePool, &pool_with_picker("p", "epp"));
    assert_eq!(fixture.shown(), expected);
    fixture.remove(Kind::AlphaInferencePool, "p");
    assert_eq!(fixture.shown(), expected);
    fixture.remove(Kind::InferencePool, "p");
    assert_eq!(fixture.shown(), Vec::<String>::new());
}

#[test]
fn a_pool_that_selects_nothing_or_has_no_port_is_reported() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::Pod, &vllm("a", "10.0.0.1"));
    let mut object = pool("p", "vllm", &[8000]);
    object["spec"]["selector"]["matchLabels"] = json!({});
    fixture.put(Kind::InferencePool, &object);
    assert!(fixture.conditions()[0].contains("its selector has no labels"));
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[]));
    assert!(fixture.conditions()[0].contains("it has no target port"));
    assert_eq!(fixture.shown(), Vec::<String>::new());
}

#[test]
fn pages_of_an_object_that_cannot_be_read_any_more_stay() {
    let mut fixture = Fixture::pools();
    fixture.put(Kind::InferencePool, &pool("p", "vllm", &[8000]));
    fixture.put(Kind::Pod, &vllm("a", "10.0.0.1"));
    let mut bad = pool("p", "vllm", &[8000]);
    bad["spec"]["targetPorts"][0]["number"] = 99_999.into();
    assert!(!fixture.put(Kind::InferencePool, &bad));
    assert_eq!(fixture.shown().len(), 1);
    fixture.space.resolve(fixture.clock.now());
    assert!(fixture.conditions()[0].contains("InferencePool n/p: it cannot be read"));
    assert!(fixture.remove(Kind::InferencePool, "p"));
}

#[test]
fn the_pods_of_endpoint_slices_are_scraped() {
    let mut fixture =
        Fixture::new(PageSource::EndpointSlices(Selector::parse("app=chat").unwrap()));
    fixture.put(Kind::Pod, &vllm("a", "10.0.0.1"));
    assert!(
        fixture.put(
            Kind::EndpointSlice,
            &slice("chat", &[("http", 8000)], &[("a", true), ("b", false)])
        )
    );
    fixture.put(Kind::EndpointSlice, &slice("other", &[("http", 8000)], &[("c", true)]));
    fixture.put(Kind::Pod, &vllm("b", "10.0.0.2"));
    fixture.put(Kind::Pod, &vllm("c", "10.0.0.3"));
    assert_eq!(
        fixture.shown(),
        ["a http://10.0.0.1:8000/metrics", "b http://10.0.0.2:8000/metrics"]
    );
    let ports = [("http", 8000), ("metrics", 8001)];
    fixture.put(Kind::EndpointSlice, &slice("chat", &ports, &[("a", true)]));
    assert_eq!(fixture.shown(), ["a http://10.0.0.1:8001/metrics"]);
    fixture.put(Kind::EndpointSlice, &slice("chat", &[("http", 1), ("grpc", 2)], &[("a", true)]));
    assert_eq!(fixture.shown(), Vec::<String>::new());
    assert!(fixture.conditions()[0].contains("none of which is called metrics"));
}

#[test]
fn nothing_is_kept_where_nothing_is_scraped() {
    let mut space = Space::new("n".into(), None);
    let object = Object::read(Kind::Pod, &vllm("a", "10.0.0.1").to_string()).unwrap();
    assert!(!space.put(Kind::Pod, object, ManualClock::new().now()).pages);
    assert_eq!(space.pages.pods.len(), 0);
}
