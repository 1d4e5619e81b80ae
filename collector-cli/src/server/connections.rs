//! Connections and their limits: a client that is slow, idle or greedy costs little and does not
//! affect others.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutWriter;
use tokio_rustls::TlsAcceptor;

use super::app::Peer;

/// Connections at a time; the next ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;

/// Request line and headers together.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// The same where queries come in the request line: 16 KiB of one, percent-encoded.
pub(crate) const MAX_HEAD_WITH_QUERY_BYTES: usize = 80 * 1024;

/// For a whole request head, from the first byte we wait for: this also ends idle connections.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// For the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// For a client that takes nothing of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where connections come in.
pub(crate) struct Listener {
    /// The bound socket.
    pub(crate) socket: TcpListener,
    /// Set when connections are encrypted.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Most bytes of a request line and its headers.
    pub(crate) max_head_bytes: usize,
}

/// Serves until `stop` resolves; then takes no connection any more, and resolves once the requests
/// under way are answered.
pub(crate) async fn serve_until(
    listener: Listener,
    router: Router,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener.socket, &permits) => accepted,
        };
        let (stream, peer, permit) = accepted;
        let connection = Connection {
            peer,
            router: router.clone(),
            max_head_bytes: listener.max_head_bytes,
            watcher: graceful.watcher(),
            _permit: permit,
        };
        match listener.tls.clone() {
            None => tokio::spawn(connection.serve(stream)),
            Some(acceptor) => tokio::spawn(async move {
                match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection.serve(stream).await,
                    Ok(Err(error)) => tracing::debug!(%peer, ?error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake timed out"),
                }
            }),
        };
    }
    drop(listener);
    graceful.shutdown().await;
}

/// The next connection, once there is room for it.
async fn accept(
    socket: &TcpListener,
    permits: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let permit = Arc::clone(permits).acquire_owned().await.expect("nobody closes the semaphore");
    loop {
        match socket.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            // Either the client is gone again, or file descriptors ran out: then some must be
            // given back before the next try makes sense.
            Err(error) => {
                tracing::warn!(?error, "Cannot accept a connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Connection {
    peer: SocketAddr,
    router: Router,
    max_head_bytes: usize,
    watcher: Watcher,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Send + 'static) {
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(WRITE_TIMEOUT));
        let router = TowerToHyperService::new(self.router);
        let peer = Peer(self.peer.ip());
        let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(self.max_head_bytes)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(peer = %self.peer, ?error, "Connection ended early");
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tokio::time::Instant;

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
        let listener = Listener { socket, tls: None, max_head_bytes: MAX_HEAD_BYTES };
        let server = tokio::spawn(serve_until(listener, router, async {
            let _ = stopped.await;
        }));
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
        let answer = exchange(running.address, b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n").await;
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
        stream.write_all(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        sleep(WRITE_TIMEOUT * 2).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < BIG, "{} bytes", answer.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_is_answered_before_the_end() {
        let running = start().await;
        let client =
            tokio::spawn(exchange(running.address, b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"));
        sleep(Duration::from_secs(1)).await;
        running.stop.send(()).unwrap();
        let answer = client.await.unwrap();
        assert!(answer.ends_with("slow"), "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
        running.server.await.unwrap();
        assert!(TcpStream::connect(running.address).await.is_err());
    }
}
