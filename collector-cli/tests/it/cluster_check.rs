// SPDX-License-Identifier: Apache-2.0
//! `check` with a cluster.

use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use collector_testkit::kubernetes::fixtures::{self, Object};
use collector_testkit::kubernetes::{self, Cluster, Fault, Scope, kinds};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use wiremock::MockServer;

use crate::fake_prometheus::{MODEL, NAMESPACE, with_one_model};
use crate::faults::certificates::Authority;
use crate::process::{Ended, collector_of, run};

const SKIPPED: &str = "not asked, because the connection does not work";

/// A cluster with the two pods of [`MODEL`], and a Prometheus that scrapes them.
pub(crate) struct Fixture {
    pub(crate) cluster: Cluster,
    pub(crate) prometheus: MockServer,
    kubeconfig: NamedTempFile,
}

/// A ScaledObject that describes a model on a StatefulSet.
fn scaled_object(name: &str, model: &str, workload: &str) -> Object {
    fixtures::scaled_object(NAMESPACE, name, workload)
        .set("/spec/scaleTargetRef/kind", "StatefulSet")
        .annotations(&[
            ("llm-d.ai/managed", "true"),
            ("llm-d.ai/model-id", model),
            ("llm-d.ai/variant-cost", "4.5"),
            ("llm-d.ai/role", "decode"),
        ])
}

fn workload(name: &str, replicas: u8) -> Object {
    Object::new(kinds::STATEFUL_SETS, NAMESPACE, name).uid(name).set("/spec/replicas", replicas)
}

pub(crate) fn pod(name: &str, workload: &str) -> fixtures::Pod {
    fixtures::pod(NAMESPACE, name).uid(name).owner("StatefulSet", workload, workload).ready(true)
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let cluster = Cluster::start().await.unwrap();
        cluster.apply_all([workload("m", 2), scaled_object("v", MODEL, "m")]);
        cluster.apply_all([pod("m-0", "m"), pod("m-1", "m")]);
        let kubeconfig = kubeconfig(&cluster.url());
        let prometheus = with_one_model(Duration::ZERO).await;
        Self { cluster, prometheus, kubeconfig }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = collector_of(&self.prometheus.uri());
        command
            .env("COLLECTOR_KUBERNETES__ENABLED", "true")
            .env("COLLECTOR_KUBERNETES__KUBECONFIG", self.kubeconfig.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        run(&mut self.command(), args)
    }

    fn check(&self) -> Checked {
        Checked(self.run(&["check", "-o", "json"]))
    }
}

fn kubeconfig(url: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let text = kubernetes::kubeconfig(url, &json!({"token": "secret-token"}));
    file.as_file().write_all(text.as_bytes()).unwrap();
    file
}

/// A run of `check -o json`.
struct Checked(Ended);

impl Checked {
    /// The checks of the group with this name and status: details and remedies.
    fn of(&self, name: &str, status: &str) -> Vec<String> {
        let document = self.0.json();
        let checks = document["checks"].as_array().unwrap().iter();
        let id = format!("cluster.{name}");
        let checks = checks.filter(|check| check["id"] == id && check["status"] == status);
        let text = |check: &Value| {
            let remedy = check["remedy"].as_str().unwrap_or_default();
            format!("{}\n{remedy}", check["detail"].as_str().unwrap())
        };
        checks.map(text).collect()
    }

    #[track_caller]
    fn has(&self, name: &str, status: &str, says: &str) {
        let found = self.of(name, status);
        let document = self.0.json();
        let checks = document["checks"].as_array().unwrap().iter();
        let group = checks.filter(|check| check["id"].as_str().unwrap().starts_with("cluster."));
        let group: Vec<String> = group.map(Value::to_string).collect();
        assert!(
            found.iter().any(|text| text.contains(says)),
            "no {status} of {name} says {says:?}:\n{}",
            group.join("\n")
        );
    }

    #[track_caller]
    fn lists_models(&self) {
        let document = self.0.json();
        let mut checks = document["checks"].as_array().unwrap().iter();
        let is_passed = |check: &Value| check["id"] == "model.known" && check["status"] == "pass";
        assert!(checks.any(is_passed), "{document}");
    }

    #[track_caller]
    fn fails_at(&self, name: &str, says: &str) {
        self.has(name, "fail", says);
        assert_eq!(self.0.exit, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_without_faults_passes() {
    let fixture = Fixture::new().await;
    let ended = fixture.run(&["check"]);
    assert_eq!(ended.exit, 0, "{}{}", ended.stdout, ended.stderr);
    let group = ended.stdout.split("\ncluster\n").nth(1).unwrap();
    let group =
        group.split("\nmodel\n").next().unwrap().replace(&fixture.cluster.url(), "http://server");
    let expected = "  ✓ connection: Kubernetes v1.33.0 at http://server answers
  ✓ clock: the API server's clock is within 2 s of ours
  ✓ apis: served: Pod (v1), ReplicaSet (apps/v1), Deployment (apps/v1), StatefulSet (apps/v1), LeaderWorkerSet \
(leaderworkerset.x-k8s.io/v1), LLMInferenceService (serving.kserve.io/v1alpha1), ScaledObject (keda.sh/v1alpha1), \
HorizontalPodAutoscaler (autoscaling/v2), VariantAutoscaling (llmd.ai/v1alpha1), InferencePool \
(inference.networking.k8s.io/v1), InferencePool (inference.networking.x-k8s.io/v1alpha2), EndpointSlice (discovery.k8s.io/v1)
  ✓ rbac: all 18 permissions that are needed are granted
  ✓ lists: the API server lists every kind: 1 model, 1 variant
  ✓ objects: nothing is wrong with them
  ✓ series: 1 model that objects describe has series
  ✓ pods: 2 Ready pods have metrics
  - autoscalers: no ScaledObject and no HPA scales by metrics of the collector or of a Prometheus
  ✓ metrics-api: v1beta1.external.metrics.k8s.io: nobody serves it, and external_metrics.enabled is false";
    assert_eq!(group, expected);
    assert!(!ended.stdout.contains("secret-token"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_does_not_answer_fails_the_first_line_and_the_other_groups_go_on() {
    let mut fixture = Fixture::new().await;
    fixture.cluster.stop().await.unwrap();
    let checked = fixture.check();
    checked.fails_at("connection", "cannot connect");
    for name in ["apis", "rbac", "lists", "objects", "series", "pods", "autoscalers", "metrics-api"]
    {
        checked.has(name, "skip", SKIPPED);
    }
    checked.lists_models();

    fixture.cluster.resume().unwrap();
    fixture.cluster.accept_tokens(["another-token"]);
    fixture.check().fails_at("connection", "401");
    fixture.cluster.set_fault(Scope::Everything, Fault::Forbidden);
    let checked = fixture.check();
    checked.has("connection", "warn", "does not tell its version: forbidden (403)");
    checked.fails_at("rbac", "403");
    fixture.cluster.set_fault(Scope::Everything, Fault::NoAnswer);
    let checked = fixture.check();
    checked.fails_at("connection", "no answer within 5s");
    // What is measured is read without the cluster.
    checked.lists_models();
    fixture.kubeconfig = kubeconfig(&fixture.cluster.url().replace("http://", "https://"));
    let checked = fixture.check();
    checked.fails_at("connection", "TLS");
    checked.has("connection", "fail", "certificate-authority of the kubeconfig");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_permission_is_named_with_the_rule_that_grants_it() {
    let fixture = Fixture::new().await;
    fixture
        .cluster
        .allow(|access| access.resource != "deployments" && access.resource != "statefulsets");
    let checked = fixture.check();
    checked
        .fails_at("rbac", "4 of 18 permissions are missing: list deployments, watch deployments");
    let rule = "- apiGroups: [\"apps\"]\n  resources: [\"deployments\", \"statefulsets\"]\n  verbs: [\"list\", \"watch\"]";
    checked.has("rbac", "fail", rule);
    checked.fails_at("lists", "deployments");
    checked.has("pods", "skip", "not every object is listed");

    let mut command = fixture.command();
    command.env("COLLECTOR_KUBERNETES__NAMESPACES", "prod");
    fixture.cluster.allow(|access| access.resource != "pods" && !access.namespace.is_empty());
    let checked = Checked(run(&mut command, &["check", "-o", "json"]));
    checked
        .fails_at("rbac", "2 of 18 permissions are missing: list pods in prod, watch pods in prod");
    checked.has("rbac", "fail", "add to a Role of namespace prod");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_without_an_answer_do_not_keep_the_model_from_being_read() {
    let fixture = Fixture::new().await;
    fixture.cluster.set_fault(kinds::PODS, Fault::NoAnswer);
    let checked = fixture.check();
    checked.fails_at("lists", "pods could not be read: no list within 9.7s");
    checked.lists_models();
    // Of a single list it makes no sense to say for how long.
    fixture.cluster.set_fault(kinds::PODS, Fault::InternalError);
    fixture.check().fails_at("lists", "pods could not be read: ");
}

#[tokio::test(flavor = "multi_thread")]
async fn direct_scraping_of_a_cluster_needs_its_pools_in_the_groups_that_are_served() {
    let fixture = Fixture::new().await;
    let scraping = |from: &str| {
        let mut command = fixture.command();
        command.env("COLLECTOR_BACKEND", "scrape,prometheus");
        command.env("COLLECTOR_KUBERNETES__SCRAPE", from);
        if from == "endpoint_slices" {
            command.env("COLLECTOR_KUBERNETES__SCRAPE_SELECTOR", "app=vllm");
        }
        Checked(run(&mut command, &["check", "-o", "json"]))
    };
    scraping("pools").has("rbac", "pass", "all 24 permissions");
    scraping("endpoint_slices").has("rbac", "pass", "all 20 permissions");
    fixture.cluster.allow(|access| access.group != "inference.networking.x-k8s.io");
    let checked = scraping("pools");
    checked.fails_at("rbac", "2 of 24 permissions are missing: list inferencepools, watch");
    let rule =
        "- apiGroups: [\"inference.networking.x-k8s.io\"]\n  resources: [\"inferencepools\"]";
    checked.has("rbac", "fail", rule);
    fixture.cluster.stop_serving(kinds::INFERENCE_POOLS_V1ALPHA2);
    scraping("pools").has("rbac", "pass", "all 22 permissions");
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_are_unknown_and_not_none_while_the_cluster_does_not_answer() {
    let fixture = Fixture::new().await;
    fixture.cluster.set_fault(Scope::Everything, Fault::NoAnswer);
    let mut command = fixture.command();
    command.env("COLLECTOR_BACKEND", "scrape");
    let document = run(&mut command, &["check", "-o", "json"]).json();
    let mut checks = document["checks"].as_array().unwrap().iter();
    let targets = checks.find(|check| check["id"] == "connection.targets").unwrap();
    assert_eq!(targets["status"], "fail");
    assert!(targets["detail"].as_str().unwrap().contains("not known yet"), "{targets}");
    assert_eq!(
        targets["remedy"],
        "does the API server answer, and does an InferencePool select pods?"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_that_are_not_installed_are_not_missed() {
    let fixture = Fixture::new().await;
    fixture.cluster.stop_serving(kinds::LEADER_WORKER_SETS);
    fixture.cluster.stop_serving(kinds::INFERENCE_POOLS);
    fixture.cluster.stop_serving(kinds::INFERENCE_POOLS_V1ALPHA2);
    let checked = fixture.check();
    assert_eq!(checked.0.exit, 0, "{}", checked.0.stdout);
    checked.has("apis", "skip", "not installed, and not needed: LeaderWorkerSet, InferencePool");
    checked.has("rbac", "pass", "all 16 permissions");
    fixture.cluster.stop_serving(kinds::STATEFUL_SETS);
    fixture.check().fails_at("apis", "no StatefulSet, which every cluster has");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_api_of_pools_direct_scraping_cannot_know_its_pods() {
    let fixture = Fixture::new().await;
    fixture.cluster.stop_serving(kinds::INFERENCE_POOLS);
    fixture.cluster.stop_serving(kinds::INFERENCE_POOLS_V1ALPHA2);
    let mut command = fixture.command();
    command.env("COLLECTOR_BACKEND", "scrape,prometheus");
    let checked = Checked(run(&mut command, &["check", "-o", "json"]));
    checked.fails_at("apis", "no InferencePool, which name the pods to scrape");
    checked.has("apis", "fail", "set kubernetes.scrape to endpoint_slices or off");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_is_not_watched_is_unknown_and_not_empty() {
    let fixture = Fixture::new().await;
    let watching = |args: &[&str]| {
        let mut command = fixture.command();
        command.env("COLLECTOR_KUBERNETES__NAMESPACES", "dev");
        run(&mut command, args)
    };
    let unwatched = "the cluster is not watched in namespace \"prod\": kubernetes.namespaces is limited to \"dev\"";
    for what in ["variants", "pods"] {
        let ended = watching(&["get", what, "-n", NAMESPACE]);
        assert_eq!(ended.exit, 2, "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains(unwatched), "{}", ended.stderr);
        assert!(ended.stderr.contains("add it to kubernetes.namespaces"), "{}", ended.stderr);
        // Nothing is in the namespaces that are watched, which is not nothing at all.
        let ended = watching(&["get", what, "-A"]);
        assert_eq!(ended.exit, 3, "{}", ended.stderr);
        let limit = "kubernetes.namespaces is limited to \"dev\"";
        assert!(ended.stderr.contains(limit), "{}", ended.stderr);
    }
    let checked = Checked(watching(&["check", "-m", MODEL, "-n", NAMESPACE, "-o", "json"]));
    checked.has("model", "warn", unwatched);
    checked.has("autoscalers", "skip", unwatched);
    checked.has("series", "warn", "describes a model; kubernetes.namespaces is limited to \"dev\"");
    assert_eq!(checked.0.exit, 0, "what is measured is there: {}", checked.0.stdout);
    // Prometheus has no such model, and the cluster was not asked.
    let ended = watching(&["get", "replicas", "-m", "org/other", "-n", NAMESPACE]);
    assert_eq!(ended.exit, 5, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("namespace \"prod\" is not watched"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_objects_is_a_warning() {
    let fixture = Fixture::new().await;
    let second = scaled_object("w", MODEL, "m");
    let without = scaled_object("x\u{1b}[2J", MODEL, "m").set("/spec/scaleTargetRef", Value::Null);
    fixture.cluster.apply_all([second, without]);
    let checked = fixture.check();
    checked.has("objects", "warn", "ScaledObject prod/w: it scales StatefulSet m, and so does");
    checked.has("objects", "warn", "it has no scaleTargetRef");
    assert!(!checked.0.stdout.contains('\u{1b}'));
    assert_eq!(checked.0.exit, 0, "{}", checked.0.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_with_ready_pods_and_without_series_fails_with_the_nearest_names() {
    let fixture = Fixture::new().await;
    fixture.cluster.apply_all([workload("n", 1), scaled_object("o", "org/modle", "n")]);
    // Nothing of it is Ready, so nothing is to be measured.
    fixture.check().has(
        "series",
        "pass",
        "no pod is Ready, and there are no series, of model \"org/modle\"",
    );
    fixture.cluster.apply(pod("n-0", "n"));
    let checked = fixture.check();
    checked.fails_at("series", "has Ready pods and no series in any backend (ScaledObject o)");
    checked.has("series", "fail", "series have \"org/model\"");
    checked.has("series", "pass", "1 model that objects describe has series");

    fixture.cluster.apply_all([Object::new(kinds::STATEFUL_SETS, "other", "n").uid("n")]);
    let elsewhere = scaled_object("o", MODEL, "n").set("/metadata/namespace", "other");
    fixture.cluster.apply(elsewhere);
    fixture.cluster.apply(fixtures::pod("other", "n-0").owner("StatefulSet", "n", "n").ready(true));
    fixture.check().has("series", "fail", "its series have another namespace: \"prod\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn models_without_series_are_unknown_while_a_backend_does_not_answer() {
    let fixture = Fixture::new().await;
    fixture.prometheus.reset().await;
    let checked = fixture.check();
    checked.has("series", "skip", "not every backend lists its models: prometheus:");
    assert!(checked.of("pods", "fail").is_empty(), "{}", checked.0.stdout);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_are_ready_and_silent_differ_from_those_that_answer_and_are_not_ready() {
    let fixture = Fixture::new().await;
    fixture.cluster.apply(pod("m-1", "m").ready(false));
    fixture.cluster.apply_all((2..9).map(|n| pod(&format!("m-{n}"), "m")));
    let checked = fixture.check();
    checked.fails_at("pods", "7 pods are Ready, and no backend has metrics of them: prod/m-2, ");
    checked.has("pods", "fail", " and 2 more\na PodMonitor");
    checked.has("pods", "warn", "1 pod answers and is not Ready: prod/m-1");
    checked.has("pods", "pass", "1 Ready pod has metrics");
    let now = jiff::Timestamp::now().to_string();
    fixture.cluster.apply_all((2..9).map(|n| {
        let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": now}]);
        pod(&format!("m-{n}"), "m").set("/status/conditions", ready)
    }));
    fixture.check().has(
        "pods",
        "warn",
        "7 pods are Ready for less than 120 s, and not scraped yet",
    );
}

/// A trigger on a Prometheus.
fn trigger(fixture: &Fixture, query: &str) -> Value {
    let metadata = json!({
        "serverAddress": fixture.prometheus.uri(), "query": query, "threshold": "5",
        "ignoreNullValues": "false",
    });
    json!([{"type": "prometheus", "metadata": metadata}])
}

#[tokio::test(flavor = "multi_thread")]
async fn autoscalers_of_the_cluster_are_checked_with_a_line_for_each() {
    let fixture = Fixture::new().await;
    let query = "sum(vllm:num_requests_waiting{namespace=\"prod\",model_name=\"org/model\"})";
    let scaled = |query: &str| {
        scaled_object("v", MODEL, "m")
            .set("/spec/minReplicaCount", 1)
            .set("/spec/triggers", trigger(&fixture, query))
    };
    fixture.cluster.apply(scaled("sum("));
    let checked = fixture.check();
    checked.fails_at("autoscalers", "ScaledObject prod/v: trigger 1: ");
    checked.has(
        "autoscalers",
        "fail",
        "kubectl get scaledobject v -n prod -o yaml | collector check --scaled-object -",
    );
    assert_eq!(checked.of("autoscalers", "fail").len(), 1, "{}", checked.0.stdout);

    // Two of one workload, and KEDA's own HPA, which counts with its ScaledObject.
    let selector = json!({"matchLabels": {"scaledobject.keda.sh/name": "v"}});
    let metric = json!([{"type": "External", "external": {"metric": {"name": "s0", "selector": selector},
        "target": {"type": "AverageValue", "averageValue": "5"}}}]);
    let of_keda = fixtures::horizontal_pod_autoscaler(NAMESPACE, "keda-hpa-v", "m")
        .set("/spec/metrics", metric);
    fixture.cluster.apply(of_keda);
    fixture.cluster.apply(scaled(query));
    let second = scaled_object("w", MODEL, "m").set("/spec/triggers", trigger(&fixture, query));
    fixture.cluster.apply(second);
    fixture.check().fails_at("autoscalers", "both scale StatefulSet prod/m, against each other");
    fixture.cluster.set_fault(kinds::SCALED_OBJECTS, Fault::InternalError);
    fixture.check().fails_at("autoscalers", "the API server: the server failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_of_the_metrics_api_is_named() {
    let fixture = Fixture::new().await;
    let name = "v1beta1.external.metrics.k8s.io";
    let service = json!({"namespace": "keda", "name": "keda-operator-metrics-apiserver"});
    fixture.cluster.apply(Object::new(kinds::API_SERVICES, "", name).set("/spec/service", service).set(
        "/spec",
        json!({"group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "service": {"namespace": "keda", "name": "keda-operator-metrics-apiserver"}}),
    ));
    fixture.check().has(
        "metrics-api",
        "pass",
        "KEDA serves it (Service keda/keda-operator-metrics-apiserver)",
    );
    fixture.cluster.allow(|access| access.resource != "apiservices");
    fixture.check().has("metrics-api", "warn", "resources: [\"apiservices\"]");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cluster_that_is_read_the_external_metrics_api_needs_its_own_rights() {
    let mut fixture = Fixture::new().await;
    let authority = Authority::new();
    let pair = authority.sign("localhost");
    let files = [("CERT", "cert.pem", &pair.cert), ("KEY", "key.pem", &pair.key)];
    let files = files.map(|(key, name, pem)| {
        (format!("COLLECTOR_EXTERNAL_METRICS__TLS_{key}_PATH"), authority.write(name, pem))
    });
    let check = |fixture: &Fixture, more: &[(&str, &str)]| {
        let mut command = fixture.command();
        command.env("COLLECTOR_KUBERNETES__ENABLED", "false").envs(files.clone());
        command.env("COLLECTOR_EXTERNAL_METRICS__ENABLED", "true").envs(more.iter().copied());
        Checked(run(&mut command, &["check", "-o", "json"]))
    };
    let checked = check(&fixture, &[]);
    checked.has("connection", "pass", "Kubernetes v1.33.0");
    checked.has("rbac", "pass", "all 2 permissions that are needed are granted");
    checked.fails_at("metrics-api", "nobody serves it");
    for name in ["apis", "lists", "objects", "series", "pods", "autoscalers"] {
        let statuses = ["pass", "warn", "fail", "skip"];
        assert!(statuses.iter().all(|status| checked.of(name, status).is_empty()), "{name}");
    }
    fixture.cluster.allow(|access| access.resource != "subjectaccessreviews");
    let checked = check(&fixture, &[]);
    checked.fails_at("rbac", "1 of 2 permissions are missing: create subjectaccessreviews");
    fixture.cluster.allow(|access| access.resource != "configmaps");
    let missing = "get configmaps in kube-system";
    check(&fixture, &[]).fails_at("rbac", missing);
    // A file names the front proxy, and no cluster is asked.
    let file = [("COLLECTOR_EXTERNAL_METRICS__FRONT_PROXY_CA_PATH", &*authority.file())];
    assert!(check(&fixture, &file).of("connection", "pass").is_empty());
    fixture.cluster.stop().await.unwrap();
    let checked = check(&fixture, &[]);
    checked.fails_at("connection", "cannot connect");
    checked.has("rbac", "skip", SKIPPED);
    checked.lists_models();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_shown_as_the_cluster_sees_it() {
    let fixture = Fixture::new().await;
    fixture.cluster.apply(workload("m", 3));
    fixture.cluster.apply(pod("m-2", "m").ready(false).set("/status/containerStatuses", json!([])));
    let of =
        |model: &str| Checked(fixture.run(&["check", "-o", "json", "-m", model, "-n", NAMESPACE]));
    of(MODEL).has("model", "pass", "variant v of StatefulSet m: 3 wanted, 2 ready, 1 starting");
    of("org/modle").has("model", "warn", "those of its namespace describe \"org/model\"");
}
