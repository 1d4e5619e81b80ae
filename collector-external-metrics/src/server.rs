// SPDX-License-Identifier: Apache-2.0
//! The server: HTTP/1 on connections with TLS.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use collector_transport::server::{
    Answering, Body, Http, Listener, Stream, client_certificates, serve_http,
};
use http::Request;
use hyper::body::Incoming;

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
pub async fn serve(
    listener: Listener,
    api: Arc<ExternalMetrics>,
    stop: impl Future<Output = ()> + Send,
) {
    counters::announce();
    let known = Arc::clone(&api);
    let connect = move |stream: &Stream, _: SocketAddr| {
        let (api, certificates) = (Arc::clone(&api), Arc::new(client_certificates(stream)));
        let answer = Box::new(move |request: Request<Incoming>| {
            let (api, certificates) = (Arc::clone(&api), Arc::clone(&certificates));
            let answer =
                async move { Ok(api.answer(&request, &certificates).await.map(Body::new)) };
            Box::pin(answer) as Answering
        });
        Http { head_bytes: HEAD_BYTES_MAX, head_within: HEAD_WITHIN, answer }
    };
    tokio::select! {
        () = serve_http(listener, Arc::new(connect), Box::pin(stop)) => {}
        () = known.trust.keep_current() => {}
    }
}
