// SPDX-License-Identifier: Apache-2.0
//! The server: the scaler with gRPC's health and reflection, on HTTP/2 connections.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use collector_transport::server::{Listener, Stream, serve_until};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;

use crate::api;
use crate::counters;
use crate::scaler::Scaler;
use crate::service::ExternalScaler;

/// Streams on one connection: KEDA has one for all of its ScaledObjects, and a call that waits for a place has no
/// deadline.
const CONCURRENT_STREAMS: u32 = 1_000_000;
/// How often a client is asked whether it is there, and how long that may take.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may be silent: longer than a ping takes, so only one that never began is.
const SILENT_FOR: Duration = Duration::from_secs(60);

/// Serves KEDA until `stop` resolves; then ends push streams with OK, and resolves once the calls in flight are
/// answered. The caller bounds that: a client may keep a call open.
///
/// With TLS the listener must offer HTTP/2 (`h2`), which KEDA insists on.
pub async fn serve(
    mut listener: Listener,
    scaler: impl Into<Arc<Scaler>>,
    stop: impl Future<Output = ()>,
) {
    counters::announce();
    listener.read_timeout = Some(SILENT_FOR);
    let ending = CancellationToken::new();
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(api::SERVICE, ServingStatus::Serving).await;
    let mut routes =
        Routes::new(ExternalScaler::new(scaler.into(), ending.clone())).add_service(health_service);
    let reflection = tonic_reflection::server::Builder::configure()
        .register_file_descriptor_set(api::description())
        .build_v1();
    match reflection {
        Ok(reflection) => routes = routes.add_service(reflection),
        // The tests hold the description together.
        Err(error) => tracing::error!(%error, "There is no reflection of the external scaler"),
    }
    let routes = routes.prepare();
    let connect = move |stream: Stream, _: SocketAddr| {
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(CONCURRENT_STREAMS)
            .keep_alive_interval(Some(PING_EVERY))
            .keep_alive_timeout(PING_WITHIN)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes.clone()))
    };
    let stop = pin!(stop);
    let stopped = async {
        stop.await;
        ending.cancel();
        // What is watched ends when it is forgotten.
        let mut health = health;
        for service in ["", api::SERVICE] {
            health.clear_service_status(service).await;
        }
    };
    serve_until(listener, connect, stopped).await;
}
