// SPDX-License-Identifier: Apache-2.0
//! The promises of every backend, kept by this one before a real Prometheus, with a gateway in between that
//! counts the requests and can be broken.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Backend as _, Clock, Field, KnownModel, ListAsk, ModelRef, ReplicaMetrics, SystemClock, Tick,
};
use collector_prometheus::{PrometheusBackend, PrometheusConfig};
use collector_sim::{FleetServer, FleetSpec, Gauges, VariantSpec};
use collector_testkit::conformance::{
    self, BreakableServer, Breakage, Fleet, FleetModel, FleetPod,
};
use collector_testkit::{PrometheusOptions, PrometheusServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const TOKEN: &str = "s3cr3t-token";

/// Each pod of a variant, by its number.
fn gauges(number: u32) -> Gauges {
    let kv_cache_usage = 0.25 * f64::from(number + 1);
    Gauges { waiting: 3 + number, running: 7 + number, kv_cache_usage }
}

/// Passes requests on to the server, each in a connection of its own.
struct Gateway {
    port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

struct State {
    server: String,
    requests: AtomicU64,
    broken: Mutex<Option<Breakage>>,
}

impl Gateway {
    async fn before(server: &PrometheusServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = server.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
        let state =
            Arc::new(State { server, requests: AtomicU64::new(0), broken: Mutex::new(None) });
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move { state.pass_on(client).await });
            }
        });
        Self { port, state, accepting }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl State {
    /// Serves one request. Nothing is done about a client or a server that goes away.
    async fn pass_on(&self, mut client: TcpStream) -> Option<()> {
        let request = read_request(&mut client).await?;
        self.requests.fetch_add(1, Ordering::SeqCst);
        let broken = self.broken.lock().unwrap().clone();
        let answer = match broken {
            Some(Breakage::Stall) => {
                let _ = client.read(&mut [0; 1]).await;
                return None;
            }
            // What a proxy shows that wants to be helpful.
            Some(Breakage::Down) => Some(("502 Bad Gateway", format!("\u{1b}[31m\u{7}{request}"))),
            Some(Breakage::Unauthorized) => Some(("401 Unauthorized", String::new())),
            Some(Breakage::RateLimited) => Some(("429 Too Many Requests", String::new())),
            Some(Breakage::Field(field)) if request.contains(series(field)?) => {
                let error =
                    r#"{"status": "error", "errorType": "execution", "error": "no such store"}"#;
                Some(("422 Unprocessable Entity", error.to_owned()))
            }
            _ => None,
        };
        if let Some((status, body)) = answer {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
            );
            return client.write_all((head + &body).as_bytes()).await.ok();
        }
        let mut server = TcpStream::connect(&self.server).await.ok()?;
        let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        server.write_all(request.as_bytes()).await.ok()?;
        copy(&mut server, &mut client).await.ok()?;
        Some(())
    }
}

/// A request with its body.
async fn read_request(client: &mut TcpStream) -> Option<String> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = client.read(&mut buffer).await.ok().filter(|count| *count > 0)?;
        read.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.split("content-length:").nth(1).and_then(|rest| rest.lines().next());
        if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
            return Some(text.into_owned());
        }
    }
}

/// What stands in each query that asks for a field, and in no other.
fn series(field: Field) -> Option<&'static str> {
    match field {
        Field::QueueLength => Some("max_over_time%28vllm%3Anum_requests_waiting"),
        Field::KvCacheUsage => Some("kv_cache_usage_perc"),
        Field::TtftAverage => Some("time_to_first_token_seconds_sum"),
        Field::AvgOutputTokens => Some("generation_tokens"),
        _ => None,
    }
}

/// The fleet as the conformance suite sees it.
struct Conforming {
    clock: Arc<SystemClock>,
    gateway: Gateway,
}

fn in_prod(model: &str) -> ModelRef {
    ModelRef::new(model, "prod")
}

#[async_trait]
impl Fleet for Conforming {
    fn clock(&self) -> Arc<dyn Clock> {
        Arc::<SystemClock>::clone(&self.clock)
    }

    fn models(&self) -> Vec<FleetModel> {
        let pod = |name: &str, number| {
            let mut row = ReplicaMetrics::new(format!("{name}-{number}").as_str(), Tick::MIN);
            let gauges = gauges(number);
            row.queue_length = Some(gauges.waiting.into());
            row.running_requests = Some(gauges.running.into());
            row.kv_cache_usage = Some(gauges.kv_cache_usage);
            FleetPod::from(row)
        };
        vec![
            FleetModel::new(in_prod("org/a"), (0..2).map(|number| pod("a", number))),
            FleetModel::new(in_prod("org/b"), (0..3).map(|number| pod("b", number))),
        ]
    }

    fn ages(&self) -> std::ops::RangeInclusive<Duration> {
        Duration::ZERO..=Duration::from_secs(30)
    }

    fn requests(&self) -> Option<u64> {
        Some(self.gateway.state.requests.load(Ordering::SeqCst))
    }

    fn secrets(&self) -> Vec<String> {
        vec![TOKEN.to_owned()]
    }

    fn breakable(&self) -> Option<&dyn BreakableServer> {
        Some(self)
    }
}

#[async_trait]
impl BreakableServer for Conforming {
    async fn break_down(&self, how: &Breakage) -> bool {
        let can = match how {
            Breakage::Field(field) => series(*field).is_some(),
            Breakage::Pod(..) => false,
            _ => true,
        };
        if can {
            *self.gateway.state.broken.lock().unwrap() = Some(how.clone());
        }
        can
    }

    async fn restore(&self) {
        *self.gateway.state.broken.lock().unwrap() = None;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_backend_conforms() {
    let variant = |name: &str, model: &str, pods| VariantSpec {
        pods,
        ..VariantSpec::new(name, model, "prod")
    };
    let variants = vec![variant("a", "org/a", 2), variant("b", "org/b", 3)];
    let spec =
        FleetSpec { seed: 7, warm_up: Duration::from_secs(60), variants, ..FleetSpec::default() };
    let fleet = FleetServer::start(spec).await.unwrap();
    for target in fleet.targets() {
        let number = target.pod.rsplit('-').next().unwrap().parse().unwrap();
        fleet.pin("prod", &target.pod, 0, gauges(number)).unwrap();
    }
    let options = PrometheusOptions::default();
    let scrape_interval = options.scrape_interval;
    let Some(server) = PrometheusServer::start_or_skip(&fleet, options).await else { return };
    for _ in 0..3 {
        server.stored_scrape(&fleet).await.unwrap();
    }
    let gateway = Gateway::before(&server).await;
    let clock = Arc::new(SystemClock::new());
    let config = PrometheusConfig {
        url: format!("http://127.0.0.1:{}", gateway.port),
        allow_http: true,
        bearer_token: Some(TOKEN.into()),
        scrape_interval,
        window: Some(Duration::from_secs(10)),
        ..PrometheusConfig::default()
    };
    let backend = PrometheusBackend::new(config, Arc::<SystemClock>::clone(&clock)).unwrap();
    let known = backend.list_models(ListAsk::new(&*clock)).await.unwrap();
    assert_eq!(known[0], KnownModel::new(in_prod("org/a"), Some(2)));
    conformance::backend(&backend, &Conforming { clock, gateway }).await;
}
