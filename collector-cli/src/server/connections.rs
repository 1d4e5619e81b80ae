//! Connections and their limits: a client that is slow, silent or greedy costs little and harms
//! nobody else.

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
const MAX_HEAD_BYTES: usize = 16 * 1024;

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
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(peer = %self.peer, ?error, "Connection ended early");
        }
    }
}
