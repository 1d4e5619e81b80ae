// SPDX-License-Identifier: Apache-2.0
//! The external scaler of `serve`, in front of pods that it scrapes, as KEDA calls it.

use collector_keda::Trigger;
use collector_keda::api::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse,
    ScaledObjectRef, path,
};
use collector_sim::Faults;
use prost::Message;
use serde_json::Value;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::pods::Pods;
use crate::process::{Served, collector, collector_of, run};

fn object(metadata: &[(&str, &str)]) -> ScaledObjectRef {
    let pairs = [&[("model", "org/model")], metadata].concat();
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    ScaledObjectRef {
        name: "chat".to_owned(),
        namespace: "prod".to_owned(),
        scaler_metadata: pairs.iter().map(pair).collect(),
    }
}

pub(crate) async fn connect(served: &Served) -> Channel {
    let line = served.log_so_far().lines().find_map(|line| line.split_once("scaler listens on "));
    let address = line.expect("it says where").1.trim().to_owned();
    Endpoint::from_shared(address).unwrap().connect().await.unwrap()
}

async fn call<M, R>(channel: &Channel, path: &'static str, message: M) -> Result<R, Status>
where
    M: Message + 'static,
    R: Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::<M, R>::default());
    Ok(grpc.unary(Request::new(message), path, codec).await?.into_inner())
}

pub(crate) async fn metric(channel: &Channel, metadata: &[(&str, &str)]) -> Result<f64, Status> {
    let scaled_object_ref = Some(object(metadata));
    let request = GetMetricsRequest { scaled_object_ref, metric_name: String::new() };
    let response: GetMetricsResponse = call(channel, path::GET_METRICS, request).await?;
    Ok(response.metric_values[0].metric_value_float)
}

#[tokio::test(flavor = "multi_thread")]
async fn keda_reads_a_fleet_and_its_streams_end_with_ok_at_sigterm() {
    let pods = Pods::start().await;
    let config = pods.config("[keda]\nlisten = \"127.0.0.1:0\"");
    let mut command = collector();
    let served =
        Served::start(command.arg("--config").arg(config).env("COLLECTOR_EPP__WINDOW", "6s"));
    let channel = connect(&served).await;

    for _ in 0..2 {
        let object = object(&[("signal", "running"), ("variannt", "small")]);
        let spec: GetMetricSpecResponse =
            call(&channel, path::GET_METRIC_SPEC, object).await.unwrap();
        assert_eq!(spec.metric_specs[0].metric_name, "collector-running");
    }
    // The first scrape may take longer than a call.
    let running = loop {
        match metric(&channel, &[("signal", "running")]).await {
            Ok(running) => break running,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    };
    assert!(running > 0.0, "{running}");
    // A quantile takes two pages of buckets within the window.
    let slo = [("signal", "slo-ratio"), ("metric", "ttft"), ("slo", "10s"), ("quantile", "0.99")];
    let ratio = loop {
        match metric(&channel, &slo).await {
            Ok(ratio) => break ratio,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert!((0.0..1.0).contains(&ratio), "{ratio}");
    let active: IsActiveResponse =
        call(&channel, path::IS_ACTIVE, object(&[("signal", "running")])).await.unwrap();
    assert!(active.result);
    let unknown = metric(&channel, &[("model", "org/modle")]).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("nearest: \"org/model\""), "{unknown}");

    let page = served.get("/metrics").body;
    let counted = "collector_keda_calls_total{rpc=\"IsActive\",code=\"OK\"} 1\n";
    assert!(page.contains(counted), "no {counted} in {page}");

    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<ScaledObjectRef, IsActiveResponse>::default();
    let path = PathAndQuery::from_static(path::STREAM_IS_ACTIVE);
    let request = Request::new(object(&[("signal", "running")]));
    let streamed = grpc.server_streaming(request, path, codec).await.unwrap();
    let mut stream = streamed.into_inner();
    assert!(stream.message().await.unwrap().unwrap().result);
    let stopped = tokio::task::spawn_blocking(move || served.stop("-TERM"));
    assert_eq!(stream.message().await.unwrap(), None, "the end is no error");
    let (exit, log) = stopped.await.unwrap();
    assert_eq!(exit, Some(0), "{log}");
    assert!(!log.contains("are cut"), "{log}");
    assert_eq!(log.matches("variannt").count(), 1, "an unknown key is named once: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_pod_is_an_error_for_keda_and_never_a_smaller_sum() {
    let pods = Pods::start().await;
    pods.break_one("m-1", Faults { hang: true, ..Faults::default() }).await;
    let config = pods.config("[keda]\nlisten = \"127.0.0.1:0\"");
    let served = Served::start(collector().arg("--config").arg(config));
    let channel = connect(&served).await;
    let refused = loop {
        let refused = metric(&channel, &[]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        if !refused.message().contains("for the first time") {
            break refused;
        }
    };
    let text =
        "not all pods of \"org/model\" in \"prod\" answered; a sum of them would be too small";
    assert_eq!(refused.message(), text);
}

/// The pods are gone when their recording is replayed, twenty times as fast.
#[cfg(feature = "record")]
#[tokio::test(flavor = "multi_thread")]
async fn keda_scales_on_a_recording_until_it_is_too_old() {
    let pods = Pods::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("incident.rec");
    let (config, name) = (pods.config(""), file.to_str().unwrap());
    let args = ["record", name, "-m", "org/model", "-n", "prod", "--duration", "4s"];
    let ended = run(collector().arg("--config").arg(config), &args);
    assert_eq!(ended.exit, 0, "{}", ended.stderr);
    drop(pods);

    let mut command = collector();
    command.env("COLLECTOR_BACKEND", "replay").env("COLLECTOR_REPLAY__PATH", &file);
    command.env("COLLECTOR_REPLAY__SPEED", "20").env("COLLECTOR_KEDA__LISTEN", "127.0.0.1:0");
    let served = Served::start(&mut command);
    let channel = connect(&served).await;
    let running = loop {
        match metric(&channel, &[("signal", "running")]).await {
            Ok(running) => break running,
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
    };
    assert!(running > 0.0, "{running}");
    // After the end there is that number while it is young enough, and then none.
    let old = loop {
        match metric(&channel, &[("signal", "running")]).await {
            Ok(running) => assert!(running > 0.0, "{running}"),
            Err(status) => break status,
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!(old.code(), Code::Unavailable, "{old}");
}

#[test]
fn an_address_that_others_can_reach_is_warned_about() {
    for (address, warned) in [("127.0.0.1:0", false), ("0.0.0.0:0", true)] {
        let mut command = collector_of("http://127.0.0.1:9");
        let served = Served::start(command.env("COLLECTOR_KEDA__LISTEN", address));
        let log = served.log_so_far();
        assert!(log.contains("The external scaler listens on http://"), "{log}");
        assert_eq!(
            log.contains("let only KEDA in, or set keda.tls_client_ca_path"),
            warned,
            "{log}"
        );
    }
}

#[test]
fn the_triggers_of_the_example_can_be_used() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/external-scaler.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let triggers = objects.iter().filter_map(|object| object["spec"]["triggers"].as_array());
    let mut signals = Vec::new();
    for trigger in triggers.flatten() {
        assert!(trigger["type"].as_str().unwrap().starts_with("external"), "{trigger}");
        let pairs = trigger["metadata"].as_object().unwrap().iter();
        let pairs: Vec<_> =
            pairs.map(|(key, value)| (key.as_str(), value.as_str().unwrap())).collect();
        let read = Trigger::of(&object(&pairs)).unwrap();
        signals.push(read.subject.signal.name());
    }
    assert_eq!(signals, ["queue", "kv-max", "queue", "running"]);
}

#[test]
fn files_and_addresses_of_the_scaler_that_cannot_be_used_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let serve = |variables: &[(&str, &str)]| {
        let mut command = collector_of("http://127.0.0.1:9");
        command.env("COLLECTOR_KEDA__LISTEN", "127.0.0.1:0");
        for (variable, value) in variables {
            command.env(format!("COLLECTOR_KEDA__{variable}"), value);
        }
        run(&mut command, &["serve", "--listen", "127.0.0.1:0"])
    };
    let ended = serve(&[("LISTEN", &address)]);
    assert_eq!(ended.exit, 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("cannot listen on {address}")), "{}", ended.stderr);
    let ended = serve(&[("TLS_CERT_PATH", "/nowhere"), ("TLS_KEY_PATH", "/nowhere")]);
    assert_eq!(ended.exit, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains("keda.tls_cert_path"), "{}", ended.stderr);
}
