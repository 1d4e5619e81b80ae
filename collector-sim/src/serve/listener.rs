// SPDX-License-Identifier: Apache-2.0
//! A listener with limits, and what a pod answers on it: `GET /metrics`, nothing else.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{ALLOW, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::answer::{self, Body, plain};
use super::faults::Faults;
use super::{LiveFleet, PodKey, clock, lock};

/// A scraper needs one connection, a pair of them two; the rest is for tests.
const MAX_CONNECTIONS: usize = 64;
/// A request head takes no time to send on loopback.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A scrape's request head is some 300 bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Number of scrape times that are kept.
const SCRAPES_KEPT: usize = 16;
/// Accepting fails if there are no file descriptors: wait for some to be closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers requests on a listener.
pub(super) trait Service: Send + Sync + 'static {
    /// Answers one request. Dropped when the client or the listener goes away.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// The state of one pod's listener.
#[derive(Debug)]
pub(super) struct PodPages {
    fleet: Arc<LiveFleet>,
    namespace: String,
    pod: String,
    scrapes: Mutex<VecDeque<Instant>>,
    faults: Mutex<Arc<Faults>>,
}

impl PodPages {
    pub(super) fn new(fleet: Arc<LiveFleet>, (namespace, pod): PodKey) -> Self {
        Self { fleet, namespace, pod, scrapes: Mutex::default(), faults: Mutex::default() }
    }

    pub(super) fn pod(&self) -> &str {
        &self.pod
    }

    pub(super) fn scrapes(&self) -> Vec<Instant> {
        lock(&self.scrapes).iter().copied().collect()
    }

    /// Sets its faults.
    pub(super) fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = Arc::new(faults);
    }

    pub(super) fn faults(&self) -> Arc<Faults> {
        Arc::clone(&lock(&self.faults))
    }

    fn note_scrape(&self) {
        let mut scrapes = lock(&self.scrapes);
        if scrapes.len() == SCRAPES_KEPT {
            scrapes.pop_front();
        }
        scrapes.push_back(clock::now());
    }
}

impl Service for PodPages {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "there is only /metrics\n");
        }
        if request.method() != Method::GET {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return response;
        }
        let faults = self.faults();
        answer::delay(&faults).await;
        // Rendering is the slowest step, so it runs without the lock.
        let view = self.fleet.with(|fleet| fleet.look(&self.namespace, &self.pod));
        if view.is_some() && faults.status.is_none() {
            self.note_scrape();
        }
        answer::answer(view, &faults)
    }
}

/// A running server. Dropping it closes the server and its connections.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    task: JoinHandle<()>,
    /// Closing it stops the task.
    stop: oneshot::Sender<Infallible>,
}

impl Listener {
    pub(super) async fn open(service: Arc<impl Service>, address: SocketAddr) -> io::Result<Self> {
        let socket = TcpListener::bind(address).await?;
        let address = socket.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(socket, service, stopped));
        Ok(Self { address, task, stop })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the socket and all connections. The returned future resolves when they are closed; it fails
    /// only if the task panicked, and then they are closed as well.
    pub(super) fn stop(self) -> JoinHandle<()> {
        drop(self.stop);
        self.task
    }
}

async fn serve(
    socket: TcpListener,
    service: Arc<impl Service>,
    mut stopped: oneshot::Receiver<Infallible>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            accepted = socket.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => { connections.spawn(answer_on(stream, Arc::clone(&service))); }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(socket);
    connections.shutdown().await;
}

async fn answer_on(stream: TcpStream, service: Arc<impl Service>) {
    let answers =
        service_fn(|request| async { Ok::<_, Infallible>(service.answer(request).await) });
    // A connection ends in an error when the client goes away.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answers)
        .await;
}
