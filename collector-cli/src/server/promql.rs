//! The PromQL API: guarded instant queries for autoscalers, and everything else passed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use collector_config::{AnchorStrength, Loaded, PromqlConfig};
use collector_core::{Clock, KnownModel, MetricsCollector as _, ModelRef, Nearest, duration};
use collector_engine::CachingCollector;
use collector_prometheus::{PassedRequest, PrometheusBackend, PrometheusConfig};
use collector_promql::{
    Anchors, Door, Empty, Found, InstantQuery, Limits, Models, Passed, Settings, Strength,
    Unanswered, Upstream,
};
use http_body_util::{BodyExt as _, Limited};

use super::MAX_HEAD_BYTES;
use crate::exit::Failure;

/// Bytes of a form.
const FORM_BYTES_MAX: usize = 64 << 10;
/// How long a form may take to arrive.
const FORM_WITHIN: Duration = Duration::from_secs(10);
/// Names that are suggested for a model that nobody knows.
const SUGGESTIONS: usize = 3;
/// Where dashboards ask: nothing is judged there.
const RAW: &str = "raw";
/// The guarded path.
const QUERY: &str = "api/v1/query";
/// Headers that are ours on the way to the server.
const OURS: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::PROXY_AUTHORIZATION,
    header::HOST,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::ACCEPT_ENCODING,
];
/// The paths that are passed.
const PASSED: [&str; 9] = [
    "api/v1/query_range",
    "api/v1/query_exemplars",
    "api/v1/series",
    "api/v1/labels",
    "api/v1/metadata",
    "api/v1/rules",
    "api/v1/format_query",
    "api/v1/parse_query",
    "api/v1/status/buildinfo",
];

/// The PromQL API.
pub(crate) struct Promql {
    door: Door,
    forward: Vec<HeaderName>,
}

/// Where a request goes.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Route {
    Guarded,
    Passed(String),
    /// Nothing of this API, below one of its prefixes.
    Nowhere,
}

impl Promql {
    /// The API, where the configuration switches it on.
    pub(crate) fn new(
        loaded: &Loaded,
        collector: Arc<CachingCollector>,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Self>, Failure> {
        let config = &loaded.config.promql;
        if !config.enabled {
            return Ok(None);
        }
        let forward = config.forward_headers.iter().map(|name| {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) if OURS.contains(&name) => {
                    Err(Failure::usage(format!("promql.forward_headers: {name} is not passed on")))
                }
                Ok(name) => Ok(name),
                Err(_) => {
                    let text = format!("promql.forward_headers: {name:?} is no name of a header");
                    Err(Failure::usage(text))
                }
            }
        });
        let forward = forward.collect::<Result<_, _>>()?;
        let door = door(loaded, collector, clock, config.answer_within)?;
        Ok(Some(Self { door, forward }))
    }

    async fn answer(&self, route: Route, request: Request) -> Response {
        let method = request.method().clone();
        if matches!(method, Method::HEAD | Method::OPTIONS) {
            return StatusCode::OK.into_response();
        }
        if route == Route::Nowhere {
            return error(StatusCode::NOT_FOUND, "not_found", "there is no such path in this API");
        }
        let (parts, body) = request.into_parts();
        let form = match form(body).await {
            Ok(form) => form,
            Err(refusal) => return bad(&refusal),
        };
        let in_url = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        // As Go joins them: the body first.
        let parameters: Vec<(String, String)> = url::form_urlencoded::parse(&form)
            .chain(in_url)
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        let headers = match self.forwarded(&parts.headers) {
            Ok(headers) => headers,
            Err(refusal) => return bad(&refusal),
        };
        match route {
            Route::Passed(path) => self.pass(path, parameters, headers).await,
            _ => match question(parameters, headers, &parts.headers) {
                Ok(question) => guarded(self.door.query(question).await),
                Err(refusal) => bad(&refusal),
            },
        }
    }

    async fn pass(
        &self,
        path: String,
        parameters: Vec<(String, String)>,
        headers: Vec<(String, String)>,
    ) -> Response {
        let mut request = collector_promql::Request::new(path, parameters);
        request.headers = headers;
        match self.door.pass(request).await {
            Ok(passed) => {
                let status = StatusCode::from_u16(passed.status).unwrap_or(StatusCode::BAD_GATEWAY);
                let kind = passed.content_type.and_then(|kind| HeaderValue::from_str(&kind).ok());
                let kind = kind.unwrap_or(HeaderValue::from_static("application/json"));
                (status, [(header::CONTENT_TYPE, kind)], passed.body).into_response()
            }
            Err(unanswered) => {
                let status = if unanswered.too_large {
                    StatusCode::BAD_GATEWAY
                } else {
                    StatusCode::SERVICE_UNAVAILABLE
                };
                error(status, "unavailable", &unanswered.message)
            }
        }
    }

    /// The headers that are passed on. One that cannot be is an error: without it another tenant would be asked.
    fn forwarded(&self, headers: &HeaderMap) -> Result<Vec<(String, String)>, String> {
        let sent = self.forward.iter().filter_map(|name| Some((name, headers.get(name)?)));
        let passed = sent.map(|(name, value)| match value.to_str() {
            Ok(value) => Ok((name.to_string(), value.to_owned())),
            Err(_) => Err(format!("the header {name} is not plain text")),
        });
        passed.collect()
    }
}

/// Reads the parameters of an instant query.
fn question(
    parameters: Vec<(String, String)>,
    forwarded: Vec<(String, String)>,
    headers: &HeaderMap,
) -> Result<InstantQuery, String> {
    let of = |name: &str| parameters.iter().find(|(known, _)| known == name);
    let value = |name: &str| of(name).map(|(_, value)| value.as_str());
    let said = |parameter: &str, header: &str| {
        let header = headers.get(header).and_then(|value| value.to_str().ok());
        value(parameter).or(header).map(str::to_owned)
    };
    let invalid = |name: &str, why: &str| format!("invalid parameter {name:?}: {why}");
    let Some(query) = value("query").filter(|query| !query.is_empty()) else {
        return Err(invalid("query", "it is missing"));
    };
    let time = value("time").filter(|time| !time.is_empty());
    let time = time.map(|time| seconds(time).ok_or_else(|| invalid("time", "no time")));
    let empty = match said("empty", "x-collector-empty").as_deref() {
        None | Some("error") => Empty::Error,
        Some("zero") => Empty::Zero,
        Some("pass") => Empty::Pass,
        Some(_) => return Err(invalid("empty", "it is one of error, zero and pass")),
    };
    let max_age = said("max_age", "x-collector-max-age").map(|text| {
        let number = text.parse().ok().and_then(|it| Duration::try_from_secs_f64(it).ok());
        number
            .or_else(|| duration::parse(&text).ok())
            .ok_or_else(|| invalid("max_age", "no duration"))
    });
    Ok(InstantQuery {
        query: query.to_owned(),
        time: time.transpose()?,
        empty,
        max_age: max_age.transpose()?,
        headers: forwarded,
        parameters,
    })
}

/// Answers what belongs to the PromQL API, and leaves everything else to others.
pub(super) async fn intercept(
    State(promql): State<Option<Arc<Promql>>>,
    request: Request,
    next: Next,
) -> Response {
    match (promql, route(request.uri().path())) {
        (Some(promql), Some(route)) => promql.answer(route, request).await,
        // The connection takes more of a head, for the sake of queries alone.
        (Some(_), None) if head_bytes(&request) > MAX_HEAD_BYTES => {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            error(status, "bad_data", "the request line and its headers are too long")
        }
        _ => next.run(request).await,
    }
}

fn head_bytes(request: &Request) -> usize {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    path + headers
}

/// A door to the server of `[prometheus]`, whose callers wait so long.
pub(crate) fn door(
    loaded: &Loaded,
    collector: Arc<CachingCollector>,
    clock: Arc<dyn Clock>,
    answer_within: Duration,
) -> Result<Door, Failure> {
    let config = &loaded.config.promql;
    let server = loaded.config.settings_of::<PrometheusConfig>();
    let Some(server) = server.filter(|server| !server.url.is_empty()) else {
        return Err(Failure::usage("set prometheus.url: the server that queries are passed to"));
    };
    let anchors = anchors(config)?;
    let settings = Settings { answer_within, ..settings(config, server.timeout) };
    let backend = PrometheusBackend::new(server.clone(), Arc::clone(&clock))
        .map_err(|error| Failure::usage(error.to_string()))?;
    let configured = loaded.config.variants.iter().map(|variant| variant.model.to_string());
    let models = KnownModels { collector, configured: configured.collect() };
    Ok(Door::new(Arc::new(Server(backend)), Arc::new(models), clock, anchors, settings))
}

/// Where a path of this API leads, written as clients write it: with a slash too many, or below `/prometheus`.
fn route(path: &str) -> Option<Route> {
    let path = path.trim_matches('/');
    let path = path.strip_prefix("prometheus/").unwrap_or(path).trim_start_matches('/');
    let raw = path.strip_prefix(RAW).and_then(|rest| rest.strip_prefix('/'));
    let is_raw = raw.is_some();
    let path = raw.unwrap_or(path).trim_start_matches('/');
    let is_values = || {
        let name = path.strip_prefix("api/v1/label/").and_then(|rest| rest.strip_suffix("/values"));
        name.is_some_and(|name| !name.is_empty() && !name.contains(['/', '.', '%']))
    };
    match path {
        QUERY if is_raw => Some(Route::Passed(QUERY.to_owned())),
        QUERY => Some(Route::Guarded),
        _ if PASSED.contains(&path) || is_values() => Some(Route::Passed(path.to_owned())),
        _ => is_raw.then_some(Route::Nowhere),
    }
}

async fn form(body: Body) -> Result<Vec<u8>, String> {
    let read = Limited::new(body, FORM_BYTES_MAX).collect();
    match tokio::time::timeout(FORM_WITHIN, read).await {
        Ok(Ok(form)) => Ok(form.to_bytes().to_vec()),
        Ok(Err(_)) => Err(format!("the form is broken, or has more than {FORM_BYTES_MAX} bytes")),
        Err(_) => Err("the form did not arrive in time".to_owned()),
    }
}

/// A time as Unix seconds or in the form of RFC 3339.
fn seconds(text: &str) -> Option<f64> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    let moment = || {
        let time = text.parse::<jiff::Timestamp>().ok()?;
        Some(time.as_duration().as_secs_f64())
    };
    number.or_else(moment)
}

fn guarded(reply: collector_promql::Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let json = HeaderValue::from_static("application/json");
    let mut response = (status, [(header::CONTENT_TYPE, json)], reply.body).into_response();
    let headers = response.headers_mut();
    if let Some(age) = reply.age {
        headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    }
    if let Some(after) = reply.retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    if let Some(reason) = reply.reason {
        let reason = HeaderValue::from_static(reason.as_str());
        headers.insert(HeaderName::from_static("x-collector-reason"), reason);
    }
    response
}

fn bad(text: &str) -> Response {
    error(StatusCode::BAD_REQUEST, "bad_data", text)
}

fn error(status: StatusCode, kind: &str, text: &str) -> Response {
    let document = serde_json::json!({ "status": "error", "errorType": kind, "error": text });
    (status, [(header::CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}

fn settings(config: &PromqlConfig, timeout: Duration) -> Settings {
    Settings {
        ttl: config.ttl,
        answer_within: config.answer_within,
        max_age: config.max_age,
        max_stale: config.max_stale,
        timeout,
        limits: Limits {
            bytes: config.max_query_bytes,
            depth: config.max_depth,
            operators: config.max_operators,
        },
        max_entries: config.max_entries,
        max_bytes: config.max_bytes,
    }
}

fn anchors(config: &PromqlConfig) -> Result<Anchors, Failure> {
    let mut anchors = Anchors::built_in();
    // The first that is written is tried first.
    for (place, spec) in config.anchors.iter().enumerate().rev() {
        let strength = match spec.strength {
            AnchorStrength::Strong => Strength::Strong,
            AnchorStrength::Alive => Strength::Alive,
        };
        anchors.prepend(&spec.name, &spec.anchor, strength).map_err(|error| {
            Failure::usage(format!("promql.anchors: entry {}, name: {error}", place + 1))
        })?;
    }
    Ok(anchors)
}

/// The server of `[prometheus]`.
struct Server(PrometheusBackend);

#[async_trait]
impl Upstream for Server {
    async fn ask(
        &self,
        request: collector_promql::Request,
        within: Duration,
    ) -> Result<Passed, Unanswered> {
        let passed = PassedRequest {
            path: &request.path,
            parameters: &request.parameters,
            headers: &request.headers,
        };
        match self.0.pass(passed, within).await {
            Ok(answer) => Ok(Passed::new(answer.status, answer.content_type, answer.body)),
            Err(error) if error.kind() == collector_core::ErrorKind::TooLarge => {
                Err(Unanswered::too_large(error.to_string()))
            }
            Err(error) => Err(Unanswered::new(error.to_string())),
        }
    }
}

/// The models that backends or the configuration know.
struct KnownModels {
    collector: Arc<CachingCollector>,
    configured: Vec<String>,
}

#[async_trait]
impl Models for KnownModels {
    async fn find(&self, model: &str) -> Found {
        if self.configured.iter().any(|known| known == model) {
            return Found::Known;
        }
        let Ok(known) = self.collector.list_models().await else { return Found::CannotTell };
        if known.iter().any(|known| known.model.model.as_str() == model) {
            return Found::Known;
        }
        Found::Unknown(nearest(model, &known))
    }
}

fn nearest(model: &str, known: &[KnownModel]) -> Vec<String> {
    let asked = ModelRef::new(model, "");
    let nearest = Nearest::of(&asked, known, SUGGESTIONS, strsim::damerau_levenshtein);
    nearest.models.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests;
