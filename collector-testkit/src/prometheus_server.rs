// SPDX-License-Identifier: Apache-2.0
//! A real Prometheus that scrapes a simulated fleet or holds a written history, in a temporary folder,
//! stopped for certain.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use collector_sim::{FleetServer, PodLabel, ServeError};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::history::History;

/// The environment variable with the path of the `prometheus` program; `PATH` is searched without.
pub const PROMETHEUS_BIN: &str = "COLLECTOR_PROMETHEUS_BIN";
/// The environment variable that, set to `1`, makes tests fail that would be skipped for want of a
/// real server.
pub const REQUIRE_REAL_SERVERS: &str = "COLLECTOR_REQUIRE_REAL_SERVERS";

/// A new server is ready within a second; the rest is for a busy machine.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(60);
/// Between two fetches at something that is awaited.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// For one request of the helper's own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// A free port is found by opening it, so that another program may take it before the server does.
const PORT_TRIES: u32 = 5;
/// How much of the server's log an error shows.
const LOG_LINES: usize = 5;

/// Runs the server, and kills it when standard input ends. The system closes that pipe however
/// the test process ends, so that no server outlives it. It is killed outright: nothing that the
/// server does on its way out can delay the end. When it ends by itself, so does the watch over it,
/// before its process id can belong to another.
pub(crate) const GUARD: &str = r#"
exec 3<&0
"$@" &
server=$!
{ cat <&3 >/dev/null; kill -9 "$server" 2>/dev/null; } &
exec 3<&-
wait "$server"
kill "$!"
"#;

/// How a [`PrometheusServer`] is set up.
#[derive(Debug, Clone)]
pub struct PrometheusOptions {
    /// How often each pod is scraped.
    pub scrape_interval: Duration,
    /// How the label with the pod's name is called.
    pub pod_label: PodLabel,
    /// Further command line flags, such as `--query.max-samples=1000`.
    pub flags: Vec<String>,
}

impl Default for PrometheusOptions {
    /// Each pod every second, the label `pod`.
    fn default() -> Self {
        Self {
            scrape_interval: Duration::from_secs(1),
            pod_label: PodLabel::Pod,
            flags: Vec::new(),
        }
    }
}

/// A Prometheus of its own, on a free loopback port.
///
/// It is killed when this is dropped, and when the test process ends in whatever way.
#[derive(Debug)]
pub struct PrometheusServer {
    program: PathBuf,
    flags: Vec<String>,
    folder: TempDir,
    address: SocketAddr,
    /// `None` while it is stopped.
    process: Option<Guarded>,
}

/// The shell that guards the server. Dropping it kills both.
#[derive(Debug)]
pub(crate) struct Guarded(pub(crate) Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends at once, because the guard kills the server at the end of its input.
        let _ = self.0.wait();
    }
}

/// Why a Prometheus could not be started or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrometheusError {
    /// There is no `prometheus` program.
    #[error(
        "no `prometheus` program: install it with `apt-get install prometheus`, or set \
         {PROMETHEUS_BIN} to its path"
    )]
    NotInstalled,
    /// The server ended while it was starting.
    #[error("prometheus on {address} ended while starting; its log ends with:\n{log}")]
    Ended {
        /// Where it was to listen.
        address: SocketAddr,
        /// The last lines of its log.
        log: String,
    },
    /// The server is running but does not get ready.
    #[error(
        "prometheus on {address} was not ready within {READY_WITHIN:?}; its log ends with:\n{log}"
    )]
    NotReady {
        /// Where it listens.
        address: SocketAddr,
        /// The last lines of its log.
        log: String,
    },
    /// Not every pod was scraped in time.
    #[error("prometheus on {address} did not scrape pod {pod:?} within {READY_WITHIN:?}")]
    NotScraped {
        /// Where it listens.
        address: SocketAddr,
        /// The first pod that waits.
        pod: String,
    },
    /// A request failed.
    #[error("GET http://{address}{path}: {problem}")]
    Request {
        /// Where it was sent.
        address: SocketAddr,
        /// What was asked for.
        path: String,
        /// What went wrong.
        problem: String,
    },
    /// `promtool` made no blocks of the history.
    #[error("promtool tsdb create-blocks-from openmetrics: {0}")]
    History(String),
    /// The list of targets could not be written.
    #[error(transparent)]
    Targets(#[from] ServeError),
    /// The server's files or its process could not be made.
    #[error("cannot set up prometheus in a temporary folder: {0}")]
    Io(#[from] io::Error),
}

impl PrometheusServer {
    /// Starts a server that scrapes the fleet, and returns when it answers queries. Pods that are
    /// added to the fleet or deleted from it later are targets, or are none, within a moment.
    ///
    /// # Errors
    /// [`PrometheusError::NotInstalled`] when there is no program to start; the others say what
    /// failed.
    pub async fn start(
        fleet: &FleetServer,
        options: PrometheusOptions,
    ) -> Result<Self, PrometheusError> {
        let program = find_program().ok_or(PrometheusError::NotInstalled)?;
        let folder = new_folder()?;
        fleet.write_targets_to(&folder.path().join("targets.json"), options.pod_label)?;
        Self::begin(program, folder, &configuration(&options), options.flags).await
    }

    /// Starts a server with a configuration of the caller's own, the text of a `prometheus.yml`, and
    /// returns when it answers queries: for what a [`FleetServer`] is too true to life for.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(configuration: &str) -> Result<Self, PrometheusError> {
        let program = find_program().ok_or(PrometheusError::NotInstalled)?;
        Self::begin(program, new_folder()?, configuration, Vec::new()).await
    }

    /// Starts a server that scrapes nothing and holds a history, and returns when it answers queries.
    ///
    /// # Errors
    /// As [`start_with_history`](Self::start_with_history).
    pub async fn start_over(history: &History) -> Result<Self, PrometheusError> {
        Self::start_with_history(&history.open_metrics()).await
    }

    /// Starts a server that scrapes nothing and holds a history: an OpenMetrics page whose samples have
    /// timestamps. Blocks are made of it by the program `promtool`, which is installed with `prometheus`.
    ///
    /// # Errors
    /// As [`start`](Self::start); [`PrometheusError::History`] when `promtool` refuses the page.
    pub async fn start_with_history(page: &str) -> Result<Self, PrometheusError> {
        let program = find_program().ok_or(PrometheusError::NotInstalled)?;
        let folder = new_folder()?;
        let file = folder.path().join("history.om");
        fs::write(&file, page)?;
        let made = Command::new(program.with_file_name("promtool"))
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .arg(&file)
            .arg(folder.path().join("data"))
            .stdin(Stdio::null())
            .output()?;
        if !made.status.success() {
            let problem = String::from_utf8_lossy(&made.stderr);
            return Err(PrometheusError::History(problem.trim().to_owned()));
        }
        fs::remove_file(&file)?;
        Self::begin(program, folder, "global: {}\n", Vec::new()).await
    }

    async fn begin(
        program: PathBuf,
        folder: TempDir,
        configuration: &str,
        flags: Vec<String>,
    ) -> Result<Self, PrometheusError> {
        fs::write(folder.path().join("prometheus.yml"), configuration)?;
        let mut server = Self { program, flags, folder, address: free_address()?, process: None };
        let mut tries = 1;
        loop {
            match server.start_again().await {
                Err(PrometheusError::Ended { log, .. })
                    if log.contains("address already in use") && tries < PORT_TRIES =>
                {
                    tries += 1;
                    server.address = free_address()?;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
    }

    /// As [`start`](Self::start), for a test that is skipped where no Prometheus is installed:
    /// `None`, after saying so, unless [`REQUIRE_REAL_SERVERS`] is `1`.
    ///
    /// # Panics
    /// When the server cannot be started, or is required and not installed.
    pub async fn start_or_skip(fleet: &FleetServer, options: PrometheusOptions) -> Option<Self> {
        Self::or_skip(Self::start(fleet, options).await)
    }

    /// As [`start_with`](Self::start_with), for a test that is skipped where no Prometheus is installed.
    ///
    /// # Panics
    /// As [`start_or_skip`](Self::start_or_skip).
    pub async fn start_with_or_skip(configuration: &str) -> Option<Self> {
        Self::or_skip(Self::start_with(configuration).await)
    }

    /// As [`start_over`](Self::start_over), for a test that is skipped where no Prometheus is installed.
    ///
    /// # Panics
    /// As [`start_or_skip`](Self::start_or_skip).
    pub async fn start_over_or_skip(history: &History) -> Option<Self> {
        Self::or_skip(Self::start_over(history).await)
    }

    /// As [`start_with_history`](Self::start_with_history), for a test that is skipped where no Prometheus is
    /// installed.
    ///
    /// # Panics
    /// As [`start_or_skip`](Self::start_or_skip).
    pub async fn start_with_history_or_skip(page: &str) -> Option<Self> {
        Self::or_skip(Self::start_with_history(page).await)
    }

    fn or_skip(started: Result<Self, PrometheusError>) -> Option<Self> {
        match started {
            Ok(server) => Some(server),
            Err(error @ PrometheusError::NotInstalled) => {
                skip(&error.to_string());
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// The base URL, without a slash at its end. It stays the same when the server is started
    /// again.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends the server, as a crash would. Its data stay.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts the server, after [`stop`](Self::stop), on the same port and with the data it had,
    /// and returns when it answers queries. A server that runs is stopped first.
    ///
    /// # Errors
    /// When it ends at once (another program may have taken the port) or does not get ready.
    pub async fn start_again(&mut self) -> Result<(), PrometheusError> {
        self.stop();
        let mut process = self.spawn()?;
        let deadline = now() + READY_WITHIN;
        while !self.is_ready().await {
            if process.0.try_wait()?.is_some() {
                return Err(PrometheusError::Ended { address: self.address, log: self.log_end() });
            }
            if now() > deadline {
                return Err(PrometheusError::NotReady {
                    address: self.address,
                    log: self.log_end(),
                });
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.process = Some(process);
        Ok(())
    }

    fn spawn(&self) -> io::Result<Guarded> {
        let folder = self.folder.path();
        let log = File::create(self.log_path())?;
        Command::new("sh")
            .args(["-c", GUARD, "sh"])
            .arg(&self.program)
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", self.data_path().display()))
            .arg(format!("--web.listen-address={}", self.address))
            // Its default of 5 s would be waited for at each start and each new pod.
            .arg("--scrape.discovery-reload-interval=100ms")
            .args(&self.flags)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map(Guarded)
    }

    /// Whether this very server is ready. On a port that another Prometheus has taken, that one
    /// would answer: the data folder distinguishes them.
    async fn is_ready(&self) -> bool {
        let data = self.data_path();
        self.get("/-/ready").await.is_ok()
            && self
                .get("/api/v1/status/flags")
                .await
                .is_ok_and(|flags| flags.contains(&*data.to_string_lossy()))
    }

    /// The body of the answer to a GET of `path`, which may hold a query. Counts as a request,
    /// but only under its own handler in [`requests_total`](Self::requests_total).
    ///
    /// # Errors
    /// When the server cannot be reached, answers too slowly or too much, or not with 200.
    pub async fn get(&self, path: &str) -> Result<String, PrometheusError> {
        let failed = |problem: String| PrometheusError::Request {
            address: self.address,
            path: path.to_owned(),
            problem,
        };
        tokio::time::timeout(REQUEST_TIMEOUT, get(self.address, path))
            .await
            .map_err(|_| failed(format!("no answer within {REQUEST_TIMEOUT:?}")))?
            .map_err(|error| failed(error.to_string()))
    }

    /// How many requests the server says it has answered, with whatever status, for a handler
    /// such as `/api/v1/query`, since it was last started.
    ///
    /// # Errors
    /// When the server's own metrics cannot be read.
    pub async fn requests_total(&self, handler: &str) -> Result<u64, PrometheusError> {
        let metrics = self.get("/metrics").await?;
        let handler = format!("handler=\"{handler}\"");
        // There is a sample for each status that was answered: none means no requests.
        let count = |line: &str| -> Option<u64> { line.rsplit(' ').next()?.parse().ok() };
        metrics
            .lines()
            .filter(|line| line.starts_with("prometheus_http_requests_total{"))
            .filter(|line| line.contains(&handler))
            .map(count)
            .sum::<Option<u64>>()
            .ok_or_else(|| PrometheusError::Request {
                address: self.address,
                path: "/metrics".to_owned(),
                problem: "prometheus_http_requests_total is not a whole number".to_owned(),
            })
    }

    /// Waits until a scrape of each living pod is stored that was made after this call. So what
    /// was true of a [frozen](FleetServer::freeze) fleet then is what queries now find.
    ///
    /// # Errors
    /// When a pod is not scraped in time.
    pub async fn stored_scrape(&self, fleet: &FleetServer) -> Result<(), PrometheusError> {
        let called = now();
        let deadline = called + READY_WITHIN;
        let pods: Vec<_> = fleet
            .targets()
            .into_iter()
            .filter(|target| fleet.truth(&target.namespace, &target.pod).is_some())
            .collect();
        for target in pods {
            // Prometheus stores a scrape before it begins the pod's next one: so wait for two.
            while fleet
                .scrapes(&target.namespace, &target.pod)
                .iter()
                .filter(|scrape| **scrape > called)
                .count()
                < 2
            {
                if now() > deadline {
                    return Err(PrometheusError::NotScraped {
                        address: self.address,
                        pod: target.pod,
                    });
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        }
        Ok(())
    }

    fn data_path(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("prometheus.log")
    }

    fn log_end(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

fn new_folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("collector-prometheus-").tempdir()
}

fn configuration(options: &PrometheusOptions) -> String {
    let interval = options.scrape_interval.as_millis();
    format!(
        "global: {{ scrape_interval: {interval}ms, scrape_timeout: {interval}ms }}\n\
         scrape_configs:\n\
         - job_name: fleet\n\
         \x20 file_sd_configs: [{{ files: [targets.json], refresh_interval: 5s }}]\n"
    )
}

pub(crate) fn find_program() -> Option<PathBuf> {
    program(PROMETHEUS_BIN, "prometheus")
}

/// The path of a program: that which a variable holds, else the first in `PATH`.
pub(crate) fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let runs = |path: &Path| path.is_file();
    match env::var_os(variable) {
        Some(path) => Some(PathBuf::from(path)).filter(|path| runs(path)),
        None => env::split_paths(&env::var_os("PATH")?)
            .map(|folder| folder.join(name))
            .find(|path| runs(path)),
    }
}

/// Says that a test is skipped, and why.
///
/// # Panics
/// When real servers are required.
pub(crate) fn skip(reason: &str) {
    assert_ne!(env::var(REQUIRE_REAL_SERVERS).as_deref(), Ok("1"), "{reason}");
    #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
    {
        eprintln!("SKIPPED: {reason}");
    }
}

pub(crate) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

pub(crate) async fn get(
    address: SocketAddr,
    path: &str,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    send(address, Method::GET, path, String::new()).await
}

/// Sends one request; the body of the answer, when it is 200 or 204.
pub(crate) async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: String,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder().method(method).uri(path);
    let request =
        request.header(header::HOST, address.to_string()).body(Full::new(Bytes::from(body)))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        match status {
            StatusCode::OK | StatusCode::NO_CONTENT => Ok(text),
            _ => Err(format!("{status}: {text}").into()),
        }
    };
    // The connection runs together with the exchange, whose end is the end of both.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        closed = connection => { closed?; exchange.await }
    }
}

#[expect(clippy::disallowed_methods, reason = "a real server lives in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
