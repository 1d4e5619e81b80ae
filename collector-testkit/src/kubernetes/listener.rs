// SPDX-License-Identifier: Apache-2.0
//! The port of the server, which refuses connections while the server is stopped.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 1024;

/// A loopback port that the system chose, and keeps for the server until this is dropped.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) address: SocketAddr,
    state: PortState,
}

#[derive(Debug)]
enum PortState {
    /// Bound without listening: the system refuses connections, and gives the port to nobody else.
    Refusing(TcpSocket),
    /// Dropping the sender ends the task and all connections.
    Serving(oneshot::Sender<()>, JoinHandle<()>),
    /// Binding the port again failed.
    Lost,
}

impl Port {
    pub(super) fn bind() -> io::Result<Self> {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok(Self { address: socket.local_addr()?, state: PortState::Refusing(socket) })
    }

    /// Starts to accept connections; does nothing if it does already.
    pub(super) fn serve(&mut self, router: Router) -> io::Result<()> {
        let socket = match std::mem::replace(&mut self.state, PortState::Lost) {
            PortState::Refusing(socket) => socket,
            PortState::Lost => bind(self.address)?,
            serving @ PortState::Serving(..) => {
                self.state = serving;
                return Ok(());
            }
        };
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(socket.listen(BACKLOG)?, router, stopped));
        self.state = PortState::Serving(stop, task);
        Ok(())
    }

    /// Breaks all connections and refuses new ones. When this returns, none is open.
    pub(super) async fn refuse(&mut self) -> io::Result<()> {
        if let PortState::Serving(stop, task) = std::mem::replace(&mut self.state, PortState::Lost)
        {
            drop(stop);
            // An error says that the runtime ended the task.
            let _ = task.await;
        }
        if matches!(self.state, PortState::Lost) {
            self.state = PortState::Refusing(bind(self.address)?);
        }
        Ok(())
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of before the stop linger in the system for a while.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves connections until it is stopped, which breaks them all.
async fn accept(listener: TcpListener, router: Router, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, router.clone()));
                }
                // Too many open files, or a client that is gone already.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
            _ = &mut stopped => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn serve(stream: TcpStream, router: Router) {
    // Events are small, and a client waits for each.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    // How a connection ends is the client's matter, or the test's.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
