// SPDX-License-Identifier: Apache-2.0
//! HTTP/1 on the connections of clients, with limits.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use collector_transport::server::{Answering, Http, Listener, Stream, local_address, serve_http};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::access::Local;
use super::app::Peer;

/// Request line and headers together.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The same where queries come in the request line: 16 KiB of one, percent-encoded.
pub(crate) const MAX_HEAD_WITH_QUERY_BYTES: usize = 80 * 1024;

/// For a whole request head, from the first byte we wait for: this also ends idle connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What requests find.
pub(crate) struct Door {
    pub(crate) answer: Arc<dyn Fn(Request) -> Answering + Send + Sync>,
    /// The limit of a request line and its headers on new connections.
    pub(crate) max_head_bytes: usize,
}

/// Serves until `stop` resolves; then takes no connection any more, and resolves once the requests
/// under way are answered. Each request finds the door of the moment.
pub(crate) async fn serve_until(
    listener: Listener,
    door: watch::Receiver<Door>,
    stop: impl Future<Output = ()> + Send,
) {
    let connect = move |stream: &Stream, peer: SocketAddr| {
        let head_bytes = door.borrow().max_head_bytes;
        let door = door.clone();
        let peer = Peer(peer.ip());
        let local = local_address(stream).map(|address| Local(address.ip()));
        let answer = Box::new(move |request: hyper::Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(peer);
            if let Some(local) = local {
                request.extensions_mut().insert(local);
            }
            (door.borrow().answer)(request)
        });
        Http { head_bytes, head_within: HEAD_TIMEOUT, answer }
    };
    serve_http(listener, Arc::new(connect), Box::pin(stop)).await;
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, sleep};
    use tower::ServiceExt as _;

    use super::*;

    /// More than socket buffers take.
    const BIG: usize = 64 * 1024 * 1024;

    struct Running {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        server: JoinHandle<()>,
    }

    async fn start() -> Running {
        let router = Router::new()
            .route("/small", get(|| async { "small" }))
            .route("/big", get(|| async { "x".repeat(BIG) }))
            .route(
                "/slow",
                get(|| async {
                    sleep(Duration::from_secs(2)).await;
                    "slow"
                }),
            );
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let listener = Listener { socket, tls: None, read_timeout: None };
        let answer =
            Arc::new(move |request| Box::pin(router.clone().oneshot(request)) as Answering);
        let (keep, door) = watch::channel(Door { answer, max_head_bytes: MAX_HEAD_BYTES });
        let server = tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            serve_until(listener, door, stop).await;
            drop(keep);
        });
        Running { address, stop, server }
    }

    /// Sends this and reads until the server closes the connection.
    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_end_is_cut_and_so_is_an_idle_connection() {
        let running = start().await;
        let begun = Instant::now();
        let answer = exchange(running.address, b"GET /small HTTP/1.1\r\nHost: ").await;
        assert_eq!(answer, "");
        assert_eq!(begun.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());

        let begun = Instant::now();
        let answer =
            exchange(running.address, b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(answer.ends_with("small"), "{answer}");
        assert_eq!(begun.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());
    }

    #[tokio::test]
    async fn a_head_beyond_the_limit_or_broken_is_refused() {
        let running = start().await;
        let long = "x".repeat(2 * MAX_HEAD_BYTES);
        for (request, status) in [
            (format!("GET /small?{long} HTTP/1.1\r\n\r\n"), "HTTP/1.1 4"),
            (format!("GET /small HTTP/1.1\r\nA: {long}\r\n\r\n"), "HTTP/1.1 431"),
            ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ] {
            let answer = exchange(running.address, request.as_bytes()).await;
            assert!(answer.starts_with(status), "{answer:?} to {request:.50}");
        }
        let long = "x".repeat(MAX_HEAD_BYTES - 200);
        let request = format!("GET /small?{long} HTTP/1.1\r\nConnection: close\r\n\r\n");
        let answer = exchange(running.address, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_its_answer_is_cut() {
        let running = start().await;
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        sleep(Duration::from_secs(20)).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < BIG, "{} bytes", answer.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_is_answered_before_the_end() {
        let running = start().await;
        let client = tokio::spawn(exchange(
            running.address,
            b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n",
        ));
        sleep(Duration::from_secs(1)).await;
        running.stop.send(()).unwrap();
        let answer = client.await.unwrap();
        assert!(answer.ends_with("slow"), "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        running.server.await.unwrap();
        assert!(TcpStream::connect(running.address).await.is_err());
    }
}
