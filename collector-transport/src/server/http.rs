// SPDX-License-Identifier: Apache-2.0
//! HTTP/1 on the connections of clients. Nothing here is generic: so it is compiled with this crate, which is optimised for
//! speed, and once for all servers.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use axum_core::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::connections::{Listener, Stream, serve_until};

/// An answer that is being made.
pub type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What a server does with one connection.
pub struct Http {
    /// The greatest request line with its headers.
    pub head_bytes: usize,
    /// For a whole request head, from when it is waited for: this also ends idle connections.
    pub head_within: Duration,
    /// Answers a request.
    pub answer: Box<dyn Fn(Request<Incoming>) -> Answering + Send>,
}

/// Says what a server does with a connection of this client.
pub type Connect = Arc<dyn Fn(&Stream, SocketAddr) -> Http + Send + Sync>;

/// Serves HTTP/1 until `stop` resolves; then takes no connection any more, and resolves once the requests in flight are
/// answered.
pub async fn serve_http(
    listener: Listener,
    connect: Connect,
    stop: Pin<Box<dyn Future<Output = ()> + Send + '_>>,
) {
    let connect = move |stream: Stream, peer: SocketAddr| {
        let Http { head_bytes, head_within, answer } = connect(&stream, peer);
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head_within)
            .max_buf_size(head_bytes)
            .serve_connection(TokioIo::new(stream), service_fn(answer))
    };
    serve_until(listener, connect, stop).await;
}
