// SPDX-License-Identifier: Apache-2.0
//! Connections and their limits: a client that is slow, idle or greedy costs little and does not
//! affect others.

use std::fmt::Debug;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::tls::ServerTls;

/// Connections at a time; the next ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;

/// For the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// For a client that takes nothing of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where connections come in.
#[derive(Debug)]
pub struct Listener {
    /// The bound socket.
    pub socket: TcpListener,
    /// Set when connections are encrypted.
    pub tls: Option<Arc<ServerTls>>,
    /// How long a client that is read from may send nothing; `None` where the protocol has its own limit.
    pub read_timeout: Option<Duration>,
}

/// A connection of a client, encrypted or not.
pub type Stream = Pin<Box<TimeoutStream<Either<TcpStream, TlsStream<TcpStream>>>>>;

/// Returns the address of ours that a client has connected to.
pub fn local_address(stream: &Stream) -> Option<SocketAddr> {
    let socket = match stream.get_ref() {
        Either::Left(socket) => socket,
        Either::Right(tls) => tls.get_ref().0,
    };
    socket.local_addr().ok()
}

/// Returns the certificates that a client has shown, its own first. What they prove is that it has the key.
pub fn client_certificates(stream: &Stream) -> Vec<CertificateDer<'static>> {
    match stream.get_ref() {
        Either::Left(_) => Vec::new(),
        Either::Right(tls) => tls.get_ref().1.peer_certificates().unwrap_or_default().to_vec(),
    }
}

/// Serves until `stop` resolves; then takes no connection any more, and resolves once the requests
/// in flight are answered. `connect` speaks the protocol on a client's connection.
pub async fn serve_until<C>(
    listener: Listener,
    connect: impl Fn(Stream, SocketAddr) -> C + Clone + Send + 'static,
    stop: impl Future<Output = ()>,
) where
    C: GracefulConnection<Error: Debug> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut stop = pin!(stop);
    loop {
        let (stream, peer, permit) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener.socket, &permits) => accepted,
        };
        // A small answer must not wait for the acknowledgement of the one before it.
        let _ = stream.set_nodelay(true);
        let acceptor = listener.tls.as_ref().map(|tls| tls.acceptor());
        let read_timeout = listener.read_timeout;
        let (connect, watcher) = (connect.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            let stream = match acceptor {
                None => Either::Left(stream),
                Some(acceptor) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => Either::Right(stream),
                    Ok(Err(error)) => {
                        tracing::debug!(%peer, ?error, "TLS handshake failed");
                        return;
                    }
                    Err(_) => {
                        tracing::debug!(%peer, "TLS handshake timed out");
                        return;
                    }
                },
            };
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(WRITE_TIMEOUT));
            stream.set_read_timeout(read_timeout);
            let connection = connect(Box::pin(stream), peer);
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(%peer, ?error, "Connection ended early");
            }
        });
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
