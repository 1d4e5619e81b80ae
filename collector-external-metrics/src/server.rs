// SPDX-License-Identifier: Apache-2.0
//! The server: HTTP/1 on connections with TLS.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use collector_transport::server::{Listener, Stream, client_certificates, serve_until};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::counters;
use crate::service::ExternalMetrics;

/// The head of a request: a selector has at most 4 KiB, and a user has groups.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// For the head of a request, and for the pause before it: the API server keeps connections, and an HPA reads every
/// 15 s.
const HEAD_WITHIN: Duration = Duration::from_secs(60);

/// Serves the API until `stop` resolves; then resolves once the requests in flight are answered.
///
/// The listener must have TLS, and ask clients for a certificate
/// ([`asks_clients`](collector_transport::server::ServerTlsSettings::asks_clients)): nobody else is served.
pub async fn serve(listener: Listener, api: Arc<ExternalMetrics>, stop: impl Future<Output = ()>) {
    counters::announce();
    let known = Arc::clone(&api);
    let connect = move |stream: Stream, _: SocketAddr| {
        let (api, certificates) = (Arc::clone(&api), Arc::new(client_certificates(&stream)));
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let (api, certificates) = (Arc::clone(&api), Arc::clone(&certificates));
            async move { Ok::<_, Infallible>(api.answer(&request, &certificates).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WITHIN)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
    };
    tokio::select! {
        () = serve_until(listener, connect, stop) => {}
        () = known.trust.keep_current() => {}
    }
}
