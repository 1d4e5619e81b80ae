// SPDX-License-Identifier: Apache-2.0
//! The control endpoint.

use std::net::SocketAddr;
use std::sync::Arc;

use collector_sim::{ControlServer, Faults, FleetServer, FleetSpec, PickerSpec, VariantSpec};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Controlled {
    fleet: Arc<FleetServer>,
    control: ControlServer,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        assert!(self.head.contains("content-type: application/json"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }

    /// The message of an error.
    #[track_caller]
    fn error(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        self.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

impl Controlled {
    async fn start() -> Self {
        let picker = PickerSpec::new("pool", "ns");
        let spec = FleetSpec {
            variants: vec![VariantSpec::new("v", "org/model", "ns")],
            pickers: vec![picker],
            ..FleetSpec::default()
        };
        let fleet = Arc::new(FleetServer::start(spec).await.unwrap());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let control = ControlServer::open(Arc::clone(&fleet), address).await.unwrap();
        Self { fleet, control }
    }

    async fn ask(&self, request_line: &str, body: &str) -> Answer {
        self.send(&format!(
            "{request_line} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\nContent-Length: {}\r\n\r\n\
             {body}",
            body.len()
        ))
        .await
    }

    async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.control.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A request that is refused early may end in a reset once the answer is read.
        let _ = stream.read_to_string(&mut answer).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    async fn pods(&self) -> Value {
        self.ask("GET /state", "").await.json()["variants"][0]["pods"].clone()
    }
}

#[tokio::test]
async fn the_state_is_the_truth_of_every_pod() {
    let sim = Controlled::start().await;
    sim.fleet.freeze();
    let state = sim.ask("GET /state", "").await.json();
    let variant = &state["variants"][0];
    assert_eq!(variant["model"], "org/model");
    assert_eq!(variant["engine"], "vllm");
    assert_eq!(variant["requests_per_minute"], 240.0);
    assert_eq!(variant["load"]["itl"], "20ms");
    assert_eq!(variant["load"]["shape"]["kind"], "steady");
    let truth = sim.fleet.truth("ns", "v-1").unwrap();
    let pod = &variant["pods"][1];
    assert_eq!((&pod["pod"], &pod["alive"]), (&json!("v-1"), &json!(true)));
    assert_eq!(pod["running"], truth.running());
    assert_eq!(pod["truth"]["totals"]["arrived"], truth.totals.arrived);
    assert_eq!(pod["truth"]["engines"][0]["waiting"], truth.waiting());
    assert_eq!(pod["faults"], json!({}));
    let target = sim.fleet.targets().into_iter().find(|target| target.pod == "v-1").unwrap();
    assert_eq!(pod["address"], target.address.to_string());
    assert_eq!(state["pickers"][0]["pod"], "pool-epp");
}

#[tokio::test]
async fn targets_are_as_service_discovery_reads_them() {
    let sim = Controlled::start().await;
    let targets = sim.ask("GET /targets", "").await.json();
    let first = &sim.fleet.targets()[0];
    assert_eq!(targets.as_array().unwrap().len(), 3);
    assert_eq!(
        targets[0],
        json!({
            "targets": [first.address.to_string()],
            "labels": { "namespace": "ns", "pod": "pool-epp" },
        })
    );
}

#[tokio::test]
async fn a_load_change_keeps_unmentioned_settings() {
    let sim = Controlled::start().await;
    let path = "POST /variants/ns/v/load";
    let change = r#"{"requests_per_minute": 90, "shape": {"kind": "wave", "period": "60s"}}"#;
    let answer = sim.ask(path, change).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let load = sim.fleet.load("ns", "v").unwrap();
    assert!((load.requests_per_minute - 90.0).abs() < 1e-9);
    assert_eq!((load.prompt_tokens, load.output_tokens), (500, 100));
    assert_eq!(answer.json()["shape"], json!({"kind": "wave", "period": "1m", "low": 0.2}));

    for (change, words) in [
        (r#"{"requests_per_minut": 90}"#, "requests_per_minut"),
        (r#"{"requests_per_minute": -1}"#, "-1"),
        (r#"{"prompt_tokens": 10000000}"#, "longest request"),
        (r#"{"shape": {"kind": "square"}}"#, "square"),
        ("[]", "invalid body"),
        ("{", "invalid body"),
    ] {
        let error = sim.ask(path, change).await.error(400);
        assert!(error.contains(words), "{error}");
    }
    assert!(sim.ask("POST /variants/ns/w/load", "{}").await.error(404).contains("\"w\""));
}

#[tokio::test]
async fn pods_are_added_killed_restarted_and_deleted() {
    let sim = Controlled::start().await;
    let added = sim.ask("POST /variants/ns/v/pods", "").await;
    assert_eq!(added.status, 201, "{}", added.body);
    let added = added.json();
    assert_eq!((&added["namespace"], &added["pod"]), (&json!("ns"), &json!("v-2")));
    let address: SocketAddr = added["address"].as_str().unwrap().parse().unwrap();
    TcpStream::connect(address).await.unwrap();

    let kill = sim.ask("POST /pods/ns/v-2", r#"{"action": "kill"}"#).await;
    assert_eq!((kill.status, kill.body.as_str()), (204, ""));
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(sim.pods().await[2]["alive"], false);
    assert_eq!(sim.pods().await[2]["truth"], Value::Null);

    assert_eq!(sim.ask("POST /pods/ns/v-2", r#"{"action": "restart"}"#).await.status, 204);
    TcpStream::connect(address).await.unwrap();
    assert_eq!(sim.ask("DELETE /pods/ns/v-2", "").await.status, 204);
    assert_eq!(sim.pods().await.as_array().unwrap().len(), 2);

    assert!(sim.ask("DELETE /pods/ns/v-2", "").await.error(404).contains("\"v-2\""));
    let error = sim.ask("POST /pods/ns/v-0", r#"{"action": "explode"}"#).await.error(400);
    assert!(error.contains("explode"), "{error}");
    // The picker is not a pod of any variant.
    sim.ask("DELETE /pods/ns/pool-epp", "").await.error(404);
    sim.ask("POST /variants/ns/w/pods", "").await.error(404);
}

#[tokio::test]
async fn faults_are_switched_on_and_off_for_one_pod_and_for_all() {
    let sim = Controlled::start().await;
    let path = "/pods/ns/v-0/faults";
    let faults =
        r#"{"slow": "2s", "body": "many-labels", "transfer": "cut-short", "vanish": true}"#;
    assert_eq!(sim.ask(&format!("PUT {path}"), faults).await.status, 204);
    let shown = sim.pods().await[0]["faults"].clone();
    assert_eq!(shown, serde_json::from_str::<Value>(faults).unwrap());
    assert_eq!(sim.pods().await[0]["alive"], true);
    assert_eq!(sim.ask(&format!("DELETE {path}"), "").await.status, 204);
    assert_eq!(sim.pods().await[0]["faults"], json!({}));

    assert_eq!(sim.ask("PUT /faults", r#"{"status": 503}"#).await.status, 204);
    for pod in ["v-0", "v-1", "pool-epp"] {
        assert_eq!(sim.fleet.faults("ns", pod).unwrap().status, Some(503));
    }
    assert_eq!(sim.ask("DELETE /faults", "").await.status, 204);
    assert_eq!(sim.fleet.faults("ns", "v-1"), Some(Faults::default()));

    for (faults, words) in [
        (r#"{"slwo": "2s"}"#, "slwo"),
        (r#"{"slow": "2"}"#, "no unit"),
        (r#"{"status": 42}"#, "status = 42"),
        (r#"{"body": "poem"}"#, "poem"),
    ] {
        let error = sim.ask(&format!("PUT {path}"), faults).await.error(400);
        assert!(error.contains(words), "{error}");
    }
    sim.ask("PUT /pods/ns/w-0/faults", "{}").await.error(404);
}

#[tokio::test]
async fn hostile_requests_are_errors_in_json() {
    let sim = Controlled::start().await;
    sim.ask("GET /nothing", "").await.error(404);
    sim.ask("GET /pods/ns/../../etc/passwd", "").await.error(404);
    let wrong = sim.ask("PATCH /faults", "").await;
    assert!(wrong.head.contains("allow: PUT, DELETE"), "{}", wrong.head);
    wrong.error(405);
    let long = "x".repeat(65 * 1024);
    sim.ask("PUT /faults", &format!("{{\"other_model\": \"{long}\"}}")).await.error(413);
    let foreign = "DELETE /pods/ns/v-0 HTTP/1.1\r\nHost: sim\r\nOrigin: http://elsewhere\r\n\
                   Connection: close\r\n\r\n";
    sim.send(foreign).await.error(403);
    assert_eq!(sim.fleet.targets().len(), 3);
    assert!(sim.ask("GET /", "").await.json()["paths"].as_array().unwrap().len() > 5);
}

#[tokio::test]
async fn the_control_listens_on_loopback_and_the_fleet_outlives_it() {
    let sim = Controlled::start().await;
    let anywhere = SocketAddr::from(([0, 0, 0, 0], 0));
    let error = ControlServer::open(Arc::clone(&sim.fleet), anywhere).await.unwrap_err();
    assert!(error.to_string().contains("loopback"), "{error}");

    let address = sim.control.address();
    sim.control.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    TcpStream::connect(sim.fleet.targets()[0].address).await.unwrap();
}
