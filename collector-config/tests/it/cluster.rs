// SPDX-License-Identifier: Apache-2.0
//! Direct scraping of the pods that a cluster tells: a test API server, and simulated model servers that are really
//! scraped.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use collector_config::Loader;
use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, CheckStatus, EndpointPicker, LiveContext,
    ModelRef, ModelSample, ProbeAsk, SystemClock, UpdateSink,
};
use collector_sim::{FleetServer, FleetSpec, VariantSpec};
use collector_testkit::kubernetes::fixtures::{self, Object};
use collector_testkit::kubernetes::{self, Cluster, Fault, kinds};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const MODEL: &str = "org/m";

fn model() -> ModelRef {
    ModelRef::new(MODEL, "chat")
}

/// A cluster, the pods of its model, and the backends that a configuration makes.
struct Fixture {
    server: Cluster,
    fleet: FleetServer,
    scrape: Arc<dyn Backend>,
    watching: JoinHandle<()>,
    _kubeconfig: NamedTempFile,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

struct Nobody;

impl UpdateSink for Nobody {
    fn push(&self, _: Answers) {}
    fn cycle_ended(&self) {}
}

async fn fleet(pods: u32) -> FleetServer {
    let variant = VariantSpec { pods, ..VariantSpec::new("v", MODEL, "chat") };
    let spec = FleetSpec { variants: vec![variant], ..FleetSpec::default() };
    FleetServer::start(spec).await.unwrap()
}

impl Fixture {
    /// A cluster without objects, with more settings.
    async fn new(pods: u32, settings: &[(&str, &str)]) -> Self {
        Self::with(Cluster::start().await.unwrap(), pods, settings).await
    }

    async fn with(server: Cluster, pods: u32, settings: &[(&str, &str)]) -> Self {
        let kubeconfig = NamedTempFile::new().unwrap();
        let text = kubernetes::kubeconfig(&server.url(), &json!({"token": "t"}));
        std::fs::write(kubeconfig.path(), text).unwrap();
        let path = kubeconfig.path().to_str().unwrap();
        let common = [
            ("backend", "scrape"),
            ("kubernetes.enabled", "true"),
            ("kubernetes.kubeconfig", path),
        ];
        let mut loader = Loader::new();
        for (key, value) in common.iter().chain(settings) {
            loader = loader.flag(key, *value, "--flag");
        }
        let config = loader.load().unwrap().config;
        let backends = config.build_backends(Arc::new(SystemClock::new())).unwrap();
        let [scrape, cluster] = backends.try_into().unwrap_or_else(|_| panic!("two backends"));
        let watching = tokio::spawn(async move {
            let context = LiveContext::new(Arc::new(Nobody), Arc::new(SystemClock::new()));
            cluster.live().unwrap().run(context).await;
        });
        Self { server, fleet: fleet(pods).await, scrape, watching, _kubeconfig: kubeconfig }
    }

    fn address(&self, pod: usize) -> SocketAddr {
        self.fleet.targets()[pod].address
    }

    /// A pod that is the simulated one of this number.
    fn pod(&self, number: usize) -> fixtures::Pod {
        let port = self.address(number).port().to_string();
        pod(&format!("m-{number}"), &port).ready(true)
    }

    async fn fetch(&self) -> Result<Answer, BackendError> {
        let mut answers = self.scrape.fetch(Ask::new(&[model()], &SystemClock::new())).await?;
        Ok(answers.remove(&model()).unwrap())
    }

    /// Waits until the sample has these pods.
    async fn pods_are(&self, expected: &[&str]) -> ModelSample {
        self.sample_is(|sample| {
            let mut pods: Vec<_> =
                sample.replicas.iter().map(|row| row.pod_name.as_str()).collect();
            pods.sort_unstable();
            pods == expected && sample.absent.named().is_empty()
        })
        .await
    }

    async fn sample_is(&self, is_expected: impl Fn(&ModelSample) -> bool) -> ModelSample {
        let mut last = None;
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            loop {
                let answer = self.fetch().await;
                if let Ok(Answer::Found(sample)) = answer {
                    if is_expected(&sample) {
                        return sample;
                    }
                    last = Some(format!("{sample:?}"));
                } else {
                    last = Some(format!("{answer:?}"));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let waited = waited.await;
        waited.unwrap_or_else(|_| panic!("it never came; last: {last:?}"))
    }
}

fn pod(name: &str, port: &str) -> fixtures::Pod {
    let pod = fixtures::pod("chat", name).uid(name).labels(&[("app", "vllm")]).ip("127.0.0.1");
    pod.annotations(&[("prometheus.io/port", port)])
}

fn pool(name: &str) -> Object {
    fixtures::inference_pool("chat", name, &[("app", "vllm")], 8000, "epp")
}

fn alpha_pool() -> Object {
    Object::new(kinds::INFERENCE_POOLS_V1ALPHA2, "chat", "p")
        .set("/spec/selector", json!({"app": "vllm"}))
        .set("/spec/targetPortNumber", 8000)
        .set("/spec/extensionRef", json!({"name": "epp"}))
}

fn slice(service: &str, port: u16, pod: &str) -> Value {
    Object::new(kinds::ENDPOINT_SLICES, "chat", &format!("{service}-x"))
        .labels(&[("kubernetes.io/service-name", service), ("app", service)])
        .set("/addressType", "IPv4")
        .set("/ports", json!([{"name": "http-metrics", "port": port}]))
        .set(
            "/endpoints",
            json!([{
                "addresses": ["203.0.113.1"],
                "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": pod, "namespace": "chat"},
            }]),
        )
        .build()
}

#[tokio::test]
async fn pods_of_a_pool_are_scraped_as_they_come_and_go() {
    let fixture = Fixture::new(2, &[]).await;
    fixture.server.apply(pool("p"));
    fixture.server.apply(fixture.pod(0));
    fixture.pods_are(&["m-0"]).await;
    // One that starts and does not answer disturbs nothing.
    fixture.server.apply(pod("m-9", "1").ready(false).set("/status/containerStatuses", json!([])));
    fixture.server.apply(fixture.pod(1).ready(false));
    fixture.pods_are(&["m-0", "m-1"]).await;
    fixture.server.apply(fixture.pod(1));
    fixture.pods_are(&["m-0", "m-1"]).await;
    // As long as it answers it counts.
    fixture.server.apply(fixture.pod(1).terminating());
    fixture.pods_are(&["m-0", "m-1"]).await;
    let name = fixture.fleet.targets()[1].pod.clone();
    fixture.fleet.kill_pod("chat", &name).await.unwrap();
    fixture.pods_are(&["m-0"]).await;
    fixture.server.delete(kinds::PODS, "chat", "m-1");
    fixture.server.delete(kinds::PODS, "chat", "m-0");
    fixture.sample_is(|sample| sample.replicas.is_empty() && sample.lists_pods).await;
}

#[tokio::test]
async fn before_the_first_lists_nothing_is_missing() {
    let server = Cluster::start().await.unwrap();
    server.set_fault(kinds::INFERENCE_POOLS, Fault::InternalError);
    let fixture = Fixture::with(server, 1, &[]).await;
    let error = match fixture.fetch().await {
        Err(error) | Ok(Answer::Failed(error)) => error,
        Ok(other) => panic!("{other:?}"),
    };
    assert!(
        error.to_string().contains("kubernetes.scrape: inferencepools could not be read"),
        "{error}"
    );
    fixture.server.apply(pool("p"));
    fixture.server.apply(fixture.pod(0));
    fixture.server.clear_faults();
    fixture.pods_are(&["m-0"]).await;
}

#[tokio::test]
async fn a_lost_watch_keeps_the_last_targets() {
    let mut fixture = Fixture::new(1, &[]).await;
    fixture.server.apply(pool("p"));
    fixture.server.apply(fixture.pod(0));
    fixture.pods_are(&["m-0"]).await;
    fixture.server.stop().await.unwrap();
    for _ in 0..5 {
        fixture.pods_are(&["m-0"]).await;
    }
    fixture.server.resume().unwrap();
    fixture.server.delete(kinds::PODS, "chat", "m-0");
    fixture.sample_is(|sample| sample.replicas.is_empty()).await;
}

#[tokio::test]
async fn the_servers_of_several_ports_are_one_replica() {
    let fixture = Fixture::new(3, &[]).await;
    let ports: Vec<u16> = (0..3).map(|pod| fixture.address(pod).port()).collect();
    let numbers: Vec<Value> = ports.iter().map(|port| json!({"number": port})).collect();
    fixture.server.apply(pool("p").set("/spec/targetPorts", numbers));
    fixture.server.apply(pool("q"));
    let several =
        |active: &str| pod("m-0", "").annotations(&[("llm-d.ai/active-ports", active)]).ready(true);
    // Both pools select it, and q names a port that nobody serves: it is not active.
    fixture.server.apply(several(&format!("{},{}", ports[0], ports[2])));
    fixture.pods_are(&["m-0"]).await;
    let scraped = |number: usize| {
        let pod = &fixture.fleet.targets()[number].pod;
        !fixture.fleet.scrapes("chat", pod).is_empty()
    };
    assert_eq!([scraped(0), scraped(1), scraped(2)], [true, false, true]);
}

#[tokio::test]
async fn pools_of_the_alpha_group_are_read_whatever_the_cluster_serves() {
    // Releases of the extension install both groups, and pools stay in the former one until they are written again.
    for serves_both in [true, false] {
        let server = Cluster::start().await.unwrap();
        if !serves_both {
            server.stop_serving(kinds::INFERENCE_POOLS);
        }
        server.apply(alpha_pool());
        let fixture = Fixture::with(server, 1, &[]).await;
        fixture.server.apply(fixture.pod(0));
        fixture.pods_are(&["m-0"]).await;
    }
}

#[tokio::test]
async fn without_the_api_of_pools_no_model_is_missing() {
    let server = Cluster::start().await.unwrap();
    server.stop_serving(kinds::INFERENCE_POOLS);
    server.stop_serving(kinds::INFERENCE_POOLS_V1ALPHA2);
    let fixture = Fixture::with(server, 1, &[]).await;
    fixture.server.apply(fixture.pod(0));
    let why = match fixture.fetch().await {
        Err(error) | Ok(Answer::Failed(error)) => error.to_string(),
        Ok(answer) => panic!("nothing says which pods there are: {answer:?}"),
    };
    assert!(why.contains("the API server has no inferencepools"), "{why}");
    assert!(why.contains("set kubernetes.scrape"), "{why}");
}

#[tokio::test]
async fn in_a_namespace_that_is_not_watched_no_model_is_missing() {
    let fixture = Fixture::new(0, &[("kubernetes.namespaces", "dev")]).await;
    let why = match fixture.fetch().await {
        Err(error) | Ok(Answer::Failed(error)) => error.to_string(),
        Ok(answer) => panic!("nobody looked there: {answer:?}"),
    };
    assert!(why.contains("namespace \"chat\" is not watched"), "{why}");
}

/// A model whose Endpoint Pickers want the token `for-pickers`, and the file that has it.
async fn fixture_with_picker_token() -> (Fixture, NamedTempFile) {
    let token = NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "for-pickers").unwrap();
    let settings = [
        ("scrape.picker_token_path", token.path().to_str().unwrap()),
        ("scrape.allow_token_over_http", "true"),
    ];
    let fixture = Fixture::new(1, &settings).await;
    (fixture, token)
}

#[tokio::test]
async fn a_replica_of_an_endpoint_picker_that_never_answered_belongs_to_its_pool() {
    let (fixture, _token) = fixture_with_picker_token().await;
    let (port, _) = picker("for-pickers").await;
    fixture.server.apply(pool("p"));
    fixture.server.apply(fixture.pod(0));
    let pod = |name| fixtures::pod("chat", name).ip("127.0.0.1").ready(true);
    fixture.server.apply(slice("epp", port, "epp-0"));
    fixture.server.apply(pod("epp-0"));
    // That of another pool does not answer.
    fixture.server.apply(fixtures::inference_pool(
        "chat",
        "q",
        &[("app", "other")],
        8000,
        "epp-of-q",
    ));
    fixture.server.apply(slice("epp-of-q", 1, "epp-of-q-0"));
    fixture.server.apply(pod("epp-of-q-0"));
    let held = |sample: &ModelSample| sample.endpoint_picker.queued_requests();
    fixture.sample_is(|sample| held(sample) == Some(7)).await;
    let mut of_replica = slice("epp", 2, "epp-1");
    of_replica["metadata"]["name"] = "epp-y".into();
    fixture.server.apply(of_replica);
    fixture.server.apply(pod("epp-1"));
    fixture
        .sample_is(|sample| matches!(sample.endpoint_picker, EndpointPicker::Silent { .. }))
        .await;
}

#[tokio::test]
async fn pods_of_endpoint_slices_are_scraped() {
    let settings =
        [("kubernetes.scrape", "endpoint_slices"), ("kubernetes.scrape_selector", "app=chat")];
    let fixture = Fixture::new(1, &settings).await;
    let port = fixture.address(0).port();
    fixture.server.apply(slice("chat", port, "m-0"));
    fixture.server.apply(fixtures::pod("chat", "m-0").ip("127.0.0.1").ready(true));
    fixture.pods_are(&["m-0"]).await;
}

#[tokio::test]
async fn hostile_annotations_are_reported_and_ask_nobody_else() {
    let fixture = Fixture::new(1, &[]).await;
    let address = fixture.address(0);
    fixture.server.apply(pool("p").set("/spec/targetPorts", json!([{"number": address.port()}])));
    let hostile = [
        ("prometheus.io/port", "99999"),
        ("prometheus.io/path", "/@evil.example/../x y"),
        ("prometheus.io/scheme", "file"),
    ];
    fixture.server.apply(fixture.pod(0).annotations(&hostile));
    fixture.pods_are(&["m-0"]).await;
    let probe = fixture.scrape.probe(ProbeAsk::new(&SystemClock::new())).await.unwrap();
    let targets = probe.checks.iter().find(|check| check.id == "connection.targets").unwrap();
    assert_eq!(targets.status, CheckStatus::Pass);
    assert_eq!(targets.detail, "1 target in 1 namespace: 1 of kubernetes.scrape");
}

/// An Endpoint Picker that answers only who has the token, and remembers what was asked.
async fn picker(token: &'static str) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    let request = String::from_utf8_lossy(&bytes[..read]).to_lowercase();
                    let is_allowed =
                        request.contains(&format!("authorization: bearer {token}\r\n"));
                    log.lock().unwrap().push(request);
                    let page = "llm_d_epp_info{commit=\"c\"} 1\n\
                                llm_d_epp_ready_endpoints{name=\"p\"} 1\n\
                                llm_d_epp_per_endpoint_queue_size{name=\"p\",model_server_endpoint=\"m-0\"} 0\n\
                                llm_d_epp_flow_control_pool_saturation{inference_pool=\"p\",stage=\"effective\"} 0.5\n\
                                llm_d_epp_flow_control_queue_size{inference_pool=\"p\",model_name=\"org/m\",target_model_name=\"org/m\"} 7\n";
                    let status = if is_allowed { "200 OK" } else { "401 Unauthorized" };
                    let head =
                        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", page.len());
                    if stream.write_all((head + page).as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, requests)
}

#[tokio::test]
async fn the_endpoint_picker_of_a_pool_is_read_with_its_token() {
    let (fixture, _token) = fixture_with_picker_token().await;
    let (port, requests) = picker("for-pickers").await;
    fixture.server.apply(pool("p"));
    fixture.server.apply(fixture.pod(0));
    fixture.server.apply(slice("epp", port, "epp-0"));
    fixture.server.apply(fixtures::pod("chat", "epp-0").ip("127.0.0.1").ready(true));
    let held = |sample: &ModelSample| match &sample.endpoint_picker {
        EndpointPicker::Responding(load) => load.queued_requests,
        _ => None,
    };
    fixture.sample_is(|sample| held(sample) == Some(7)).await;
    assert!(requests.lock().unwrap().iter().all(|request| request.starts_with("get /metrics ")));
    // It crashed: what it holds is unknown, and not 0.
    let mut broken = slice("epp", 1, "epp-0");
    broken["endpoints"][0]["conditions"]["ready"] = false.into();
    fixture.server.apply(broken);
    fixture
        .sample_is(|sample| matches!(sample.endpoint_picker, EndpointPicker::Silent { .. }))
        .await;
}

#[test]
fn targets_of_the_section_go_before_the_cluster_unless_both_are_wanted() {
    let load = |settings: &[(&str, &str)]| {
        let mut loader = Loader::new();
        for (key, value) in [("backend", "scrape")].iter().chain(settings) {
            loader = loader.flag(key, *value, "--flag");
        }
        loader.load().map(|loaded| {
            let settings = loaded.config.chosen_settings_of::<collector_epp::EppConfig>().cloned();
            settings.unwrap().others_find_targets
        })
    };
    let file = ("scrape.target_file", "/t.json");
    let enabled = ("kubernetes.enabled", "true");
    assert!(load(&[]).is_err());
    assert!(load(&[enabled]).unwrap());
    assert!(!load(&[enabled, file]).unwrap());
    assert!(load(&[enabled, file, ("kubernetes.scrape", "pools")]).unwrap());
    assert!(!load(&[("kubernetes.scrape", "pools"), file]).unwrap());
    let refused = |settings: &[(&str, &str)], part: &str| {
        let error = load(settings).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused(&[enabled, ("kubernetes.scrape", "off")], "scrape.targets: not set");
    let slices = ("kubernetes.scrape", "endpoint_slices");
    refused(&[enabled, slices], "kubernetes.scrape_selector: not set");
    let selector = |text| ("kubernetes.scrape_selector", text);
    refused(&[enabled, slices, selector("app")], "\"app\" is not a label with its value");
    refused(&[enabled, selector("app=x")], "for kubernetes.scrape = \"endpoint_slices\" alone");
    assert!(load(&[enabled, slices, selector("app=x")]).unwrap());
}
