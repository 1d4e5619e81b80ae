// SPDX-License-Identifier: Apache-2.0
//! What is common to all connections: health, reflection, and clients that say nothing.

use collector_keda::api::SERVICE;
use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tonic::client::Grpc;
use tonic::{Code, Request};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_prost::ProstCodec;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::fixture::{Fixture, queue_of, seconds, trigger};

#[tokio::test(start_paused = true)]
async fn the_server_is_healthy_from_its_start_while_the_backend_hangs() {
    let fixture = Fixture::start().await;
    fixture.backend.hang();
    let mut health = HealthClient::new(fixture.client().await.0);
    for service in ["", SERVICE] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving);
    }
    let request = HealthCheckRequest { service: "other".to_owned() };
    assert_eq!(health.check(request).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_health_watch_does_not_hold_up_the_stop() {
    let fixture = Fixture::start().await;
    let mut health = HealthClient::new(fixture.client().await.0);
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let ended = fixture.stop();
    assert_eq!(watch.message().await.unwrap(), None);
    ended.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn reflection_describes_the_service() {
    let fixture = Fixture::start().await;
    let mut grpc = Grpc::new(fixture.client().await.0);
    let ask = |message| {
        let host = String::new();
        ServerReflectionRequest { host, message_request: Some(message) }
    };
    let asked = [
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(SERVICE.to_owned())),
    ];
    grpc.ready().await.unwrap();
    let codec = ProstCodec::<ServerReflectionRequest, ServerReflectionResponse>::default();
    let path =
        PathAndQuery::from_static("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    let asked = Request::new(futures_util::stream::iter(asked));
    let mut answers = grpc.streaming(asked, path, codec).await.unwrap().into_inner();
    let mut next = async || answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(list) = next().await else { panic!() };
    let names: Vec<_> = list.service.into_iter().map(|it| it.name).collect();
    assert!(names.contains(&SERVICE.to_owned()), "{names:?}");
    let MessageResponse::FileDescriptorResponse(files) = next().await else { panic!() };
    assert_eq!(files.file_descriptor_proto.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_cut_and_one_that_answers_pings_is_not() {
    let fixture = Fixture::start().await;
    fixture.serve(queue_of(0));
    let client = fixture.client().await;
    let mut stream = client.stream(trigger(&[])).await.unwrap();
    for begun_with in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let mut silent = TcpStream::connect(fixture.address).await.unwrap();
        silent.write_all(begun_with).await.unwrap();
        let begun = Instant::now();
        let mut rest = Vec::new();
        let _ = silent.read_to_end(&mut rest).await;
        assert!(begun.elapsed() <= seconds(61), "{:?}", begun.elapsed());
    }
    // Half an hour of nothing but pings.
    assert!(timeout(seconds(1800), stream.message()).await.is_err());
    fixture.serve(queue_of(1));
    fixture.forget();
    assert!(timeout(seconds(2), stream.message()).await.unwrap().unwrap().unwrap().result);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_grpc_ends_without_harm() {
    let fixture = Fixture::start().await;
    let client = fixture.client().await;
    let mut http1 = TcpStream::connect(fixture.address).await.unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = http1.read_to_end(&mut rest).await;
    client.spec(trigger(&[])).await;
}
