// SPDX-License-Identifier: Apache-2.0
//! The fleet on sockets.

use std::io::ErrorKind;
use std::net::SocketAddr;

use collector_sim::{FleetServer, FleetSpec, Gauges, PodLabel, ServeError, Target, VariantSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::text::Text;

async fn start(pods: u32) -> FleetServer {
    let variant = VariantSpec { pods, ..VariantSpec::new("v", "org/model", "ns") };
    let variants = vec![variant];
    FleetServer::start(FleetSpec { variants, ..FleetSpec::default() }).await.unwrap()
}

fn address_of(fleet: &FleetServer, pod: &str) -> SocketAddr {
    fleet.targets().into_iter().find(|target| target.pod == pod).unwrap().address
}

/// Head and body of the answer to one request.
async fn ask(address: SocketAddr, request_line: &str) -> std::io::Result<(String, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{request_line} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Ok((head.to_owned(), body.to_owned()))
}

async fn scrape(address: SocketAddr) -> Text {
    let (head, body) = ask(address, "GET /metrics").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    Text::parse(&body)
}

#[tokio::test]
async fn a_scrape_of_a_frozen_fleet_equals_its_truth_and_is_recorded() {
    let fleet = start(2).await;
    fleet.freeze();
    assert!(fleet.scrapes("ns", "v-0").is_empty());
    let text = scrape(address_of(&fleet, "v-0")).await;
    let truth = fleet.truth("ns", "v-0").unwrap();
    assert!((text.only("vllm:kv_cache_usage_perc") - truth.kv_cache_usage()).abs() < 1e-12);
    assert_eq!(fleet.scrapes("ns", "v-0").len(), 1);
    assert!(fleet.scrapes("ns", "v-1").is_empty());

    for _ in 0..20 {
        scrape(address_of(&fleet, "v-0")).await;
    }
    let scrapes = fleet.scrapes("ns", "v-0");
    assert_eq!(scrapes.len(), 16);
    assert!(scrapes.is_sorted());
    fleet.stop().await;
}

#[tokio::test]
async fn only_metrics_is_answered() {
    let fleet = start(1).await;
    let address = address_of(&fleet, "v-0");
    assert!(ask(address, "GET /").await.unwrap().0.starts_with("HTTP/1.1 404"));
    let (head, _) = ask(address, "POST /metrics").await.unwrap();
    assert!(head.starts_with("HTTP/1.1 405") && head.contains("allow: GET"), "{head}");
    let (head, _) = ask(address, "GET /metrics").await.unwrap();
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    fleet.stop().await;
}

#[tokio::test]
async fn a_killed_pod_closes_its_connections_and_restarts_on_its_address() {
    let fleet = start(2).await;
    let address = address_of(&fleet, "v-0");
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /metrics HTTP/1.1\r\nHost: pod\r\n\r\n").await.unwrap();
    idle.read_exact(&mut [0; 12]).await.unwrap();

    fleet.kill_pod("ns", "v-0").await.unwrap();
    assert_eq!(
        ask(address, "GET /metrics").await.unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    // The rest of the first answer may still come; another answer must not.
    let _ = idle.write_all(b"GET /metrics HTTP/1.1\r\nHost: pod\r\n\r\n").await;
    let mut rest = Vec::new();
    let _ = idle.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"));
    assert_eq!(fleet.truth("ns", "v-0"), None);
    assert_eq!(fleet.targets().len(), 2);

    fleet.restart_pod("ns", "v-0").await.unwrap();
    scrape(address).await;
    fleet.stop().await;
}

#[tokio::test]
async fn pinned_gauges_are_scraped() {
    let fleet = start(1).await;
    let gauges = Gauges { waiting: 5, running: 7, kv_cache_usage: 0.5 };
    fleet.pin("ns", "v-0", 0, gauges).unwrap();
    let text = scrape(address_of(&fleet, "v-0")).await;
    assert!((text.only("vllm:num_requests_waiting") - 5.0).abs() < f64::EPSILON);
    fleet.stop().await;
}

#[tokio::test]
async fn the_targets_file_follows_pods_added_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("targets.json");
    let fleet = start(1).await;
    fleet.write_targets_to(&path, PodLabel::PodName).unwrap();
    let written =
        || -> serde_json::Value { serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap() };
    let group = |target: &Target| {
        serde_json::json!({
            "targets": [target.address.to_string()],
            "labels": { "namespace": "ns", "pod_name": target.pod },
        })
    };
    let first = fleet.targets().remove(0);
    assert_eq!(written(), serde_json::json!([group(&first)]));
    let second = fleet.add_pod("ns", "v").await.unwrap();
    assert_eq!(written(), serde_json::json!([group(&first), group(&second)]));
    fleet.delete_pod("ns", "v-0").await.unwrap();
    assert_eq!(written(), serde_json::json!([group(&second)]));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    fleet.stop().await;
}

#[tokio::test]
async fn an_unwritable_targets_file_is_named_in_the_error() {
    let fleet = start(1).await;
    let path = std::path::Path::new("/nonexistent/targets.json");
    let error = fleet.write_targets_to(path, PodLabel::Pod).unwrap_err();
    assert!(matches!(error, ServeError::Targets { .. }));
    assert!(error.to_string().contains("/nonexistent/targets.json"));
    fleet.stop().await;
}

#[tokio::test]
async fn a_dropped_or_stopped_fleet_refuses() {
    let fleet = start(1).await;
    let address = address_of(&fleet, "v-0");
    fleet.stop().await;
    assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);

    let fleet = start(1).await;
    let address = address_of(&fleet, "v-0");
    drop(fleet);
    // The listener's task ends at its next turn.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn pods_take_consecutive_ports_from_the_first_on() {
    // A range that is free now; another program may take it meanwhile, so that it is tried again.
    for _ in 0..20 {
        let probe = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = probe.local_addr().unwrap().port();
        drop(probe);
        let variants = vec![VariantSpec { pods: 2, ..VariantSpec::new("v", "org/model", "ns") }];
        let spec = FleetSpec { variants, ..FleetSpec::default() };
        let Ok(fleet) = FleetServer::start_from_port(spec, Some(port)).await else { continue };
        let Ok(added) = fleet.add_pod("ns", "v").await else { continue };
        assert_eq!(address_of(&fleet, "v-0").port(), port);
        assert_eq!(address_of(&fleet, "v-1").port(), port + 1);
        assert_eq!(added.address.port(), port + 2);
        fleet.stop().await;
        return;
    }
    panic!("no three free ports");
}

#[tokio::test]
async fn a_port_in_use_and_a_port_too_high_are_named_in_the_error() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let spec = || FleetSpec {
        variants: vec![VariantSpec { pods: 2, ..VariantSpec::new("v", "org/model", "ns") }],
        ..FleetSpec::default()
    };
    let error = FleetServer::start_from_port(spec(), Some(address.port())).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let error = FleetServer::start_from_port(spec(), Some(65535)).await.unwrap_err();
    let full = matches!(&error, ServeError::NoPort { pod } if pod == "v-1");
    assert!(full || matches!(error, ServeError::Listen { .. }), "{error}");
}
