// SPDX-License-Identifier: Apache-2.0
//! Sends one query and reads its answer, bounded in time, size and number.
//!
//! A server may require another method, another credential or another path of the same origin. That is
//! handled here, within the permits and the deadline of the fetch. Retries are the engine's task.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use collector_core::{Clock, ErrorKind, Permit, Permits, Tick};
use collector_transport::{ConfigError, Tls, TlsSettings, Wording, find, redirect, shown};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::time::Instant;

use crate::SECTION;
use crate::answer::{self, Row, Unreadable};
use crate::body::{Bodies, Body};
use crate::config::PrometheusConfig;
use crate::credentials::{Credentials, Sent, with_encoded_blanks};
use crate::failure::{Failure, Split, Stage};
use crate::plan::QueryKind;
use crate::promql::EvalTime;
use crate::proxy::Proxy;
use crate::reply::refused;
use crate::resolver::Resolver;
use crate::selfmetrics;

/// The codes of redirects that keep method and body.
const FOLLOWED: [u16; 2] = [307, 308];
/// Up to this size an answer is cheaper for the server without compression: gzip costs it about 0.8 MiB of
/// allocations. Answers about a thousand variants come in pieces of 20 to 32 KB, which shrink to a sixth.
const IDENTITY_BYTES_MAX: usize = 8 << 10;
/// Connections that are kept open: as many as one fetch uses at once.
const IDLE_CONNECTIONS_MAX: usize = 4;

mod course;
mod pass;

use course::{Again, Course};
pub use pass::{PassedAnswer, PassedRequest};

/// A connection to one PromQL server.
pub(crate) struct Client {
    http: reqwest::Client,
    /// `…/api/v1/query`.
    query_url: Url,
    /// The server's URL for messages; it holds no credentials.
    shown: String,
    credentials: Credentials,
    proxy: Option<Proxy>,
    tls: Option<Tls>,
    wording: Wording,
    timeout: Duration,
    bodies: Bodies,
    /// The server refuses POST.
    use_get: AtomicBool,
    /// Decoded size of the last answer to each kind of query.
    last_bytes: [AtomicUsize; QueryKind::ALL.len()],
}

/// What each query of a fetch may use.
#[derive(Clone, Copy)]
pub(crate) struct RequestBudget<'a> {
    pub(crate) permits: &'a dyn Permits,
    /// When the fetch must have ended.
    pub(crate) deadline: Instant,
    /// Whether a caller waits: the answer is small and requested uncompressed.
    pub(crate) waiting: bool,
    pub(crate) clock: &'a dyn Clock,
}

/// One query.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) kind: QueryKind,
    pub(crate) text: &'a str,
    /// `None`: the server's current time.
    pub(crate) time: Option<EvalTime>,
}

/// A query that was answered.
#[derive(Debug)]
pub(crate) struct Answered {
    /// Why rows may be absent.
    pub(crate) incomplete: Option<String>,
    /// The server's wall clock when it wrote the head, to the second.
    pub(crate) date: Option<SystemTime>,
    /// When the last request was sent, and when its answer had arrived.
    pub(crate) sent_at: Tick,
    pub(crate) arrived_at: Tick,
    /// Whether the answer was so large that its models should not share a query again.
    pub(crate) large: bool,
}

/// The result of one request.
enum Exchange<'a> {
    Body(Body<'a>),
    Again(Again),
}

/// Reads the body of an answer, and returns why rows may be absent.
type ReadBody<'a> = dyn FnMut(&Body<'_>) -> Result<Option<String>, Failure> + Send + 'a;

impl Client {
    pub(crate) fn new(config: &PrometheusConfig) -> Result<Self, ConfigError> {
        Self::with_credentials(config, Credentials::new(config)?)
    }

    pub(crate) fn with_credentials(
        config: &PrometheusConfig,
        credentials: Credentials,
    ) -> Result<Self, ConfigError> {
        let url = config.base_url()?;
        let shown = shown(&url).trim_end_matches('/').to_owned();
        let encrypted = url.scheme() == "https";
        if !encrypted && credentials.hold_secrets() {
            tracing::warn!(url = shown, "Credentials are sent unencrypted (prometheus.allow_http)");
        }
        let (proxy, proxy_setting) = Proxy::new(config, &url)?.unzip();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("collector/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .dns_resolver(Resolver)
            // Shorter than the deadline, so that the message can say which of them ended.
            .connect_timeout(config.timeout.mul_f64(0.9))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        if let Some(proxy) = proxy_setting {
            http = http.proxy(proxy);
        }
        // Without https nothing is loaded: the system's authorities take time and memory.
        let tls = encrypted.then(|| Tls::new(&tls_settings(config))).transpose()?;
        http = match &tls {
            Some(tls) => http.tls_backend_preconfigured(tls.config.clone()),
            None => http.tls_backend_preconfigured(no_tls()?),
        };
        let http = http.build().map_err(|error| {
            SECTION.error("url", "the HTTP client cannot be built").with_source(error)
        })?;
        let query_url = url.join("api/v1/query").map_err(|error| {
            SECTION.error("url", format!("not usable as a base URL: {error}")).with_source(error)
        })?;
        Ok(Self {
            http,
            query_url,
            shown,
            credentials,
            proxy,
            tls,
            wording: Wording {
                section: SECTION,
                server: "a PromQL server",
                address: SECTION.key_and_origin("url", config.url_origin.as_deref()).into(),
                unencrypted: " (with prometheus.allow_http)",
                host: url.host_str().unwrap_or_default().to_owned(),
                server_name: config.server_name.clone(),
                has_ca: config.ca_cert_path.is_some(),
                has_client_cert: config.client_cert_path.is_some(),
            },
            timeout: config.timeout,
            bodies: Bodies::new(config.max_response_bytes),
            use_get: AtomicBool::new(false),
            last_bytes: [const { AtomicUsize::new(0) }; QueryKind::ALL.len()],
        })
    }

    /// Returns the server's URL, for messages.
    pub(crate) fn url(&self) -> &str {
        &self.shown
    }

    /// Returns whether the connection is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Describes the credential that is sent, for messages.
    pub(crate) fn credential(&self) -> String {
        let mut text = self.credentials.describe();
        if self.wording.has_client_cert {
            text.push_str(", with the certificate of prometheus.client_cert_path");
        }
        text
    }

    /// Sends one query and passes each row of its answer to `on_row`.
    ///
    /// After an error, rows that were passed before must be discarded.
    pub(crate) async fn query(
        &self,
        query: Query<'_>,
        budget: RequestBudget<'_>,
        on_row: &mut (dyn FnMut(&Row<'_>) + Send),
    ) -> Result<Answered, Failure> {
        let mut read = |body: &Body<'_>| self.read(body, query, on_row);
        self.ask(query, budget, &mut read).await
    }

    /// Queries the raw samples of one series. Returns their times, in seconds, oldest first.
    pub(crate) async fn sample_times(
        &self,
        query: Query<'_>,
        budget: RequestBudget<'_>,
    ) -> Result<Vec<f64>, Failure> {
        let mut times = Vec::new();
        let mut read = |body: &Body<'_>| {
            times = answer::sample_times(&body.bytes);
            Ok(None)
        };
        self.ask(query, budget, &mut read).await?;
        Ok(times)
    }

    async fn ask(
        &self,
        query: Query<'_>,
        budget: RequestBudget<'_>,
        read: &mut ReadBody<'_>,
    ) -> Result<Answered, Failure> {
        let started = Instant::now();
        let result = self.answered(query, budget, read).await;
        selfmetrics::query_ended(query.kind, started.elapsed(), result.as_ref().err());
        result
    }

    async fn answered(
        &self,
        query: Query<'_>,
        budget: RequestBudget<'_>,
        read: &mut ReadBody<'_>,
    ) -> Result<Answered, Failure> {
        let mut course = Course::new(self.query_url.clone());
        loop {
            let sent = self.credentials.headers(budget.clock, budget.deadline).await?;
            let permit = self.permit(budget).await?;
            let sent_at = budget.clock.now();
            let outcome = self.exchange(query, &course.url, &sent, budget).await;
            let arrived_at = budget.clock.now();
            drop(permit);
            match outcome? {
                Exchange::Body(body) => {
                    return Ok(Answered {
                        incomplete: read(&body)?,
                        date: body.date,
                        sent_at,
                        arrived_at,
                        large: body.is_large(),
                    });
                }
                Exchange::Again(again) => {
                    course.follow(again, self, &sent, budget.clock, budget.deadline).await?;
                }
            }
        }
    }

    fn read(
        &self,
        body: &Body<'_>,
        query: Query<'_>,
        on_row: &mut (dyn FnMut(&Row<'_>) + Send),
    ) -> Result<Option<String>, Failure> {
        self.last_bytes[query.kind as usize].store(body.bytes.len(), Ordering::Relaxed);
        let redact = |text: &str| self.credentials.redact(text);
        answer::decode(&body.bytes, &redact, on_row).map_err(|unreadable| match unreadable {
            Unreadable::Refused { .. } => Failure::new(ErrorKind::Rejected, unreadable.to_string()),
            Unreadable::TooManyRows => Failure::new(
                ErrorKind::TooLarge,
                format!(
                    "{unreadable}; the limits are that many rows and {} decoded",
                    self.bodies.limit()
                ),
            )
            .with_remedy("set prometheus.namespaces")
            .with_split(Split::UntilItFits),
            _ => Failure::bad_answer(format!("{unreadable}{}", self.by_proxy()))
                .with_remedy("check prometheus.url"),
        })
    }

    async fn permit(&self, budget: RequestBudget<'_>) -> Result<Permit, Failure> {
        tokio::time::timeout_at(budget.deadline, budget.permits.acquire())
            .await
            .map_err(|_| {
                Failure::timeout("no time was left to send the request").at(Stage::Unsent)
            })?
            .map_err(Failure::not_permitted)
    }

    /// Sends one request and receives its answer within one deadline.
    async fn exchange(
        &self,
        query: Query<'_>,
        url: &Url,
        sent: &Sent,
        budget: RequestBudget<'_>,
    ) -> Result<Exchange<'_>, Failure> {
        let now = Instant::now();
        let deadline = budget.deadline.min(now + self.timeout);
        let left = deadline.saturating_duration_since(now);
        let mut stage = Stage::Connecting;
        let exchange = self.send_and_receive(query, url, sent, budget.waiting, left, &mut stage);
        if let Ok(outcome) = tokio::time::timeout_at(deadline, exchange).await {
            return outcome;
        }
        let (what, remedy) = match stage {
            Stage::Answering => ("the answer was not complete", "prometheus.timeout may be raised"),
            _ => ("no answer began", "is the server overloaded? prometheus.timeout may be raised"),
        };
        let detail = format!("{what} within {:.1}s", left.as_secs_f64());
        Err(Failure::timeout(detail).with_remedy(remedy))
    }

    async fn send_and_receive(
        &self,
        query: Query<'_>,
        url: &Url,
        sent: &Sent,
        waiting: bool,
        left: Duration,
        stage: &mut Stage,
    ) -> Result<Exchange<'_>, Failure> {
        if left.is_zero() {
            return Err(self.no_connection_in_time().at(Stage::Unsent));
        }
        let get = self.use_get.load(Ordering::Relaxed);
        let last_bytes = self.last_bytes[query.kind as usize].load(Ordering::Relaxed);
        let small = waiting || last_bytes < IDENTITY_BYTES_MAX;
        let mut headers = sent.headers.clone();
        headers.extend(headers_of_ours(small));
        let response = self.send(url, parameters(query, left), get, headers).await?;
        *stage = Stage::Answering;
        let response = match self.or_again(response, url, get).await? {
            Ok(response) => response,
            Err(again) => return Ok(Exchange::Again(again)),
        };
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response, url).await);
        }
        let body = self.bodies.read(response, last_bytes, |error| self.explain(error));
        Ok(Exchange::Body(body.await?))
    }

    /// Returns a response, or why the request has to be sent again.
    async fn or_again(
        &self,
        response: Response,
        url: &Url,
        get: bool,
    ) -> Result<Result<Response, Again>, Failure> {
        match response.status() {
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED if !get => {
                Ok(Err(Again::UseGet))
            }
            StatusCode::UNAUTHORIZED => {
                Ok(Err(Again::Unauthorized(self.refusal(response, url).await)))
            }
            status if status.is_redirection() => {
                let location = response.headers().get(LOCATION);
                redirect(url, status.as_u16(), location, &FOLLOWED, "prometheus.url")
                    .map(|next| Err(Again::Redirected(next)))
                    .map_err(Failure::of)
            }
            _ => Ok(Ok(response)),
        }
    }

    /// Returns the failure of a response with an error status.
    async fn refusal(&self, response: Response, url: &Url) -> Failure {
        let mut failure =
            refused(response, &self.credentials, &self.credential(), url.path()).await;
        failure.detail.push_str(&self.by_proxy());
        failure
    }

    /// Returns a suffix that names the proxy, if an answer may be its own.
    fn by_proxy(&self) -> String {
        self.proxy.as_ref().map(Proxy::answered).unwrap_or_default()
    }

    /// Sends parameters, in the URL or as a form, and returns the head of the answer.
    async fn send(
        &self,
        url: &Url,
        parameters: String,
        get: bool,
        headers: HeaderMap,
    ) -> Result<Response, Failure> {
        let mut url = url.clone();
        // The user's parameters are in the URL, where gateways look for them.
        let own = self.credentials.parameters();
        let (method, body) = if get {
            let and = if own.is_empty() || parameters.is_empty() { "" } else { "&" };
            let query = format!("{own}{and}{}", with_encoded_blanks(&parameters));
            url.set_query(Some(&*query).filter(|query| !query.is_empty()));
            (Method::GET, String::new())
        } else {
            url.set_query(Some(own).filter(|own| !own.is_empty()));
            (Method::POST, parameters)
        };
        #[cfg(feature = "sigv4")]
        let headers = {
            let mut headers = headers;
            headers.extend(self.credentials.signature(&method, &url, &body).await?);
            headers
        };
        let mut request = self.http.request(method, url).headers(headers);
        if !get {
            request = request.body(body);
        }
        let response = request.send().await.map_err(|error| self.explain(error))?;
        match (response.status(), &self.proxy) {
            (StatusCode::PROXY_AUTHENTICATION_REQUIRED, Some(proxy)) => {
                Err(proxy.wants_credentials())
            }
            _ => Ok(response),
        }
    }

    fn no_connection_in_time(&self) -> Failure {
        match &self.proxy {
            Some(proxy) => proxy.no_connection_in_time(),
            None => Failure::of(self.wording.no_connection_in_time()),
        }
    }

    fn explain(&self, error: reqwest::Error) -> Failure {
        // The URL may hold the query, and the message names the server in any case.
        let error = error.without_url();
        let connecting = error.is_connect();
        let demanded = self.tls.as_ref().is_some_and(Tls::take_client_cert_demanded);
        let failure = match &self.proxy {
            _ if error.is_timeout() => self.no_connection_in_time(),
            Some(proxy) if connecting && find::<rustls::Error>(&error).is_none() => {
                proxy.explain(&error)
            }
            _ => Failure::of(self.wording.explain(&error, connecting, demanded)),
        };
        let stage = if connecting { Stage::Connecting } else { Stage::Answering };
        failure.at(stage).with_source(error)
    }
}

/// Returns the headers of every request; `small` if a small answer is expected.
fn headers_of_ours(small: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    let encoding = if small { "identity" } else { "gzip" };
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
    headers
}

/// Returns the parameters of a query, URL-encoded.
fn parameters(query: Query<'_>, left: Duration) -> String {
    // Slightly less than our own deadline, so that the server gives up first and says so.
    let timeout = left.mul_f64(0.9);
    let mut parameters = url::form_urlencoded::Serializer::new(String::new());
    parameters.append_pair("query", query.text);
    if let Some(time) = query.time {
        parameters.append_pair("time", &time.to_string());
    }
    // Otherwise VictoriaMetrics hides the newest samples; other servers ignore it.
    parameters.append_pair("nocache", "1");
    parameters.append_pair("timeout", &format!("{}ms", timeout.as_millis().max(1)));
    parameters.finish()
}

fn tls_settings(config: &PrometheusConfig) -> TlsSettings {
    TlsSettings {
        section: SECTION,
        server: config.url.clone(),
        ca_cert_path: config.ca_cert_path.clone(),
        client_cert_path: config.client_cert_path.clone(),
        client_key_path: config.client_key_path.clone(),
        server_name: config.server_name.clone(),
        tls_insecure_skip_verify: config.tls_insecure_skip_verify,
    }
}

/// A TLS configuration for a client that never uses it. Without one, the HTTP client loads the system's
/// authorities.
fn no_tls() -> Result<rustls::ClientConfig, ConfigError> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SECTION.error("url", "TLS cannot be set up").with_source(error))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}
