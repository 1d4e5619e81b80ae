// SPDX-License-Identifier: Apache-2.0
//! `serve` on a real socket, from its start to its end.

use std::net::TcpListener;
use std::time::Duration;

use crate::fake_prometheus::{MODEL, NAMESPACE, hanging, is_asked, with_one_model};
use crate::process::{Served, collector_of, run};

fn reading() -> String {
    format!("/api/v1/replicas?model={MODEL}&namespace={NAMESPACE}")
}

#[tokio::test]
async fn readings_health_and_metrics_are_served_until_sigterm() {
    let prometheus = with_one_model(Duration::from_secs(2)).await;
    let mut command = collector_of(&prometheus.uri());
    // The first read asks the backend, and nothing else does.
    let served = Served::start(command.env("COLLECTOR_TRACKING__DISCOVER", "false"));
    assert_eq!(served.get("/healthz").status, 200);

    let first = served.get(&reading());
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(first.json()["source"], "backend");
    let asked = prometheus.received_requests().await.unwrap().len();
    assert_eq!(served.get(&reading()).json()["source"], "cache");
    assert_eq!(prometheus.received_requests().await.unwrap().len(), asked);

    let list = served.get("/api/v1/replicas").json();
    assert_eq!(list["items"][0]["model"], MODEL);
    let models = served.get("/api/v1/models").json();
    assert_eq!(models["items"][0]["tracked"], true);

    let page = served.get("/metrics").body;
    for part in [
        "wva_metrics_collection_duration_seconds_bucket{query_type=\"kv_cache\",le=\"0.001\"}",
        "wva_metrics_collection_errors_total{query_type=\"queue_length\",reason=",
        "wva_metrics_pods_discovered{namespace=\"prod\"} 2\n",
        "wva_metrics_freshness_status{variant_name=\"\",namespace=\"prod\",status=\"fresh\"} 1\n",
        "collector_backend_breaker_state{backend=\"prometheus\"} 0\n",
        "collector_cache_hits_total 1\n",
        "collector_replica_kv_cache_usage{model_name=\"org/model\",namespace=\"prod\",pod=\"m-0\"",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }

    let (exit, log) = served.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
}

#[tokio::test]
async fn a_dead_backend_leaves_the_process_alive_and_ready() {
    let mut command = collector_of("http://127.0.0.1:9");
    // It would be ready once the list has failed too.
    let served = Served::start(command.env("COLLECTOR_TRACKING__DISCOVER", "false"));
    let answer = served.get(&reading());
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.json()["error"]["reason"], "PrometheusError");
    assert!(answer.head.contains("retry-after: "), "{}", answer.head);
    assert_eq!(served.get("/healthz").status, 200);
    let ready = served.get("/readyz");
    assert_eq!(ready.status, 200, "{}", ready.body);
    assert_eq!(ready.json()["backends"][0]["state"], "down");
    let (exit, log) = served.stop("-INT");
    assert_eq!(exit, Some(0), "{log}");
}

#[tokio::test]
async fn a_read_in_flight_is_answered_though_the_backend_hangs() {
    let prometheus = hanging().await;
    let mut command = collector_of(&prometheus.uri());
    command.env("COLLECTOR_PROMETHEUS__TIMEOUT", "20s");
    // What arrives at the backend is the read.
    let served = Served::start(command.env("COLLECTOR_TRACKING__DISCOVER", "false"));
    let address = served.address;
    let client = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let request = format!("GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n", reading());
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    while !is_asked(&prometheus).await {
        tokio::task::yield_now().await;
    }
    let (exit, log) = served.stop("-TERM");
    assert_eq!(exit, Some(0), "{log}");
    let answer = client.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[tokio::test]
async fn hostile_requests_are_errors_in_json() {
    let prometheus = with_one_model(Duration::ZERO).await;
    let served = Served::start(&mut collector_of(&prometheus.uri()));
    for (path, status) in [
        ("/api/v1/replicas?model=%3Cscript%3E&namespace=prod", 404),
        ("/api/v1/replicas?model=.*&namespace=prod", 404),
        ("/api/v1/replicas?model=%22%7D%20or%20vector(1)&namespace=prod", 404),
        ("/api/v1/replicas?model=a%0d%0aX-Evil:%201&namespace=prod", 400),
        ("/api/v1/replicas?model=%00&namespace=prod", 400),
        ("/%2e%2e/%2e%2e/etc/passwd", 404),
        ("/../../etc/passwd", 404),
    ] {
        let answer = served.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        assert!(answer.head.contains("nosniff"), "{}", answer.head);
        assert!(!answer.head.contains("x-evil"), "{}", answer.head);
        assert!(answer.json()["error"]["message"].is_string());
    }
}

#[tokio::test]
async fn a_port_in_use_exits_with_1_and_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(&mut collector_of("http://127.0.0.1:9"), &["serve", "--listen", &address]);
    assert_eq!(ended.exit, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&address), "{}", ended.stderr);
}

#[tokio::test]
async fn files_of_the_server_that_cannot_be_read_exit_with_2_and_are_named() {
    for (variables, key) in [
        (&["TLS_CERT_PATH"][..], "server.tls_key_path"),
        (&["TLS_CERT_PATH", "TLS_KEY_PATH"], "server.tls_cert_path"),
        (&["ADMIN_TOKEN_PATH"], "server.admin_token_path"),
    ] {
        let mut command = collector_of("http://127.0.0.1:9");
        for variable in variables {
            command.env(format!("COLLECTOR_SERVER__{variable}"), "/nowhere");
        }
        let ended = run(&mut command, &["serve", "--listen", "127.0.0.1:0"]);
        assert_eq!(ended.exit, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains(key), "{}", ended.stderr);
    }
}
