// SPDX-License-Identifier: Apache-2.0
//! The port of the server, which refuses connections while the server is stopped.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
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
    Serving(JoinHandle<()>),
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
        self.state = match std::mem::replace(&mut self.state, PortState::Lost) {
            PortState::Refusing(socket) => {
                PortState::Serving(tokio::spawn(accept(socket.listen(BACKLOG)?, router)))
            }
            PortState::Lost => PortState::Serving(tokio::spawn(accept(
                bind(self.address)?.listen(BACKLOG)?,
                router,
            ))),
            serving @ PortState::Serving(_) => serving,
        };
        Ok(())
    }

    /// Breaks all connections and refuses new ones. When this returns, none is open.
    pub(super) async fn refuse(&mut self) -> io::Result<()> {
        if let PortState::Serving(task) = &mut self.state {
            task.abort();
            // An error says that it was aborted.
            let _ = task.await;
            self.state = PortState::Lost;
            self.state = PortState::Refusing(bind(self.address)?);
        }
        Ok(())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let PortState::Serving(task) = &self.state {
            task.abort();
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Connections of before the stop linger in the system for a while.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves connections until the task is aborted, which breaks them all.
async fn accept(listener: TcpListener, router: Router) {
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
        }
    }
}

async fn serve(stream: TcpStream, router: Router) {
    // Events are small, and a client waits for each.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    // How a connection ends is the client's matter, or the test's.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
