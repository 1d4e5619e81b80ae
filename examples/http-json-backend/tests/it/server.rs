// SPDX-License-Identifier: Apache-2.0
//! A server that answers from a file, counts its requests and can be broken.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{Clock, Field, ModelRef, ReplicaMetrics, SystemClock, Tick};
use collector_testkit::conformance::{BreakableServer, Breakage, Fleet, FleetModel, FleetPod};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) const TOKEN: &str = "s3cr3t-token";

const FLEET: &str = include_str!("../../fleet.json");

pub(crate) struct Server {
    port: u16,
    state: Arc<State>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    requests: AtomicU64,
    broken: Mutex<Option<Breakage>>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move { state.answer(stream).await });
            }
        });
        Self { port, state, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/fleet", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    /// Answers one request, and closes the connection.
    async fn answer(&self, mut stream: TcpStream) {
        let (mut request, mut buffer) = (Vec::new(), [0; 1024]);
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => request.extend_from_slice(&buffer[..read]),
            }
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        let broken = self.broken.lock().unwrap().clone();
        let request = String::from_utf8_lossy(&request);
        let (status, body) = match broken {
            Some(Breakage::Stall) => {
                // Until the other side gives up.
                let _ = stream.read(&mut buffer).await;
                return;
            }
            // What a proxy shows that wants to be helpful.
            Some(Breakage::Down) => ("500 \u{7}Oops", format!("\u{1b}[31m{request}")),
            Some(Breakage::Unauthorized) => ("401 Unauthorized", String::new()),
            Some(Breakage::RateLimited) => {
                ("429 Too Many Requests\r\nRetry-After: 7", String::new())
            }
            _ => ("200 OK", FLEET.to_owned()),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[async_trait]
impl Fleet for Server {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(SystemClock::new())
    }

    fn models(&self) -> Vec<FleetModel> {
        let mut row = ReplicaMetrics::new("chat-0", Tick::MIN);
        row.kv_cache_usage = Some(0.42);
        row.queue_length = Some(3);
        row.running_requests = Some(7);
        let load = [Some(1.5), Some(768.0), Some(192.0), None, None, None, None];
        let busy = FleetPod::from(row).with_load(load.into());
        let mut row = ReplicaMetrics::new("chat-1", Tick::MIN);
        row.kv_cache_usage = Some(0.0);
        row.queue_length = Some(0);
        let idle = FleetPod::from(row).without([Field::RunningRequests, Field::CacheConfig]);
        let none: [FleetPod; 0] = [];
        vec![
            FleetModel::new(ModelRef::new("org/chat", "prod"), [busy, idle]),
            FleetModel::new(ModelRef::new("org/asleep", "prod"), none),
        ]
    }

    /// The server says 1.5 s.
    fn ages(&self) -> RangeInclusive<Duration> {
        Duration::from_millis(1500)..=Duration::from_secs(60)
    }

    fn requests(&self) -> Option<u64> {
        Some(self.state.requests.load(Ordering::SeqCst))
    }

    fn secrets(&self) -> Vec<String> {
        vec![TOKEN.to_owned()]
    }

    fn breakable(&self) -> Option<&dyn BreakableServer> {
        Some(self)
    }
}

#[async_trait]
impl BreakableServer for Server {
    async fn break_down(&self, how: &Breakage) -> bool {
        let is_known = matches!(
            how,
            Breakage::Down | Breakage::Stall | Breakage::Unauthorized | Breakage::RateLimited
        );
        if is_known {
            *self.state.broken.lock().unwrap() = Some(how.clone());
        }
        is_known
    }

    async fn restore(&self) {
        *self.state.broken.lock().unwrap() = None;
    }
}
