// SPDX-License-Identifier: Apache-2.0
//! The PromQL API of `serve`: guarded instant queries for autoscalers, and other requests that are passed on.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use collector_config::Loaded;
use collector_core::{Backend, Clock, duration};
use collector_engine::CachingCollector;
use collector_promql::{Empty, Guard, InstantQuery};
use http_body_util::{BodyExt as _, Limited};

use self::guard::{guard, server};
use self::held::Series;
use self::pods::Pods;
use super::MAX_HEAD_BYTES;
use super::metrics::http;
use crate::exit::Failure;

/// The maximum size of a form.
const FORM_BYTES_MAX: usize = 64 << 10;
/// The timeout for receiving a form.
const FORM_WITHIN: Duration = Duration::from_secs(10);
/// The prefix for dashboards: queries below it are passed on.
const RAW: &str = "raw";
/// The guarded path.
const QUERY: &str = "api/v1/query";
/// Headers that the backend sets itself.
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
/// The paths that are passed on.
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
    guard: Guard,
    forward: Vec<HeaderName>,
    /// The address of the server.
    server: Option<String>,
}

static QUERIES: http::Route = http::Route::new("/api/v1/query");
static OTHERS: http::Route = http::Route::new("/raw/{path}");

/// How a request is handled.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Route {
    Guarded,
    Passed(String),
    /// A path that does not exist, below the prefix of dashboards.
    NotFound,
}

impl Promql {
    /// Creates the API if the configuration enables it, in the place of `former`. Call it before the backends are asked for
    /// anything: of pods that were found before, no gauges are kept.
    pub(crate) fn new(
        loaded: &Loaded,
        backends: &[Arc<dyn Backend>],
        collector: Arc<CachingCollector>,
        clock: Arc<dyn Clock>,
        former: Option<&Self>,
    ) -> Result<Option<Self>, Failure> {
        let config = &loaded.config.promql;
        if !config.enabled {
            return Ok(None);
        }
        let forward = config.forward_headers.iter().map(|name| {
            match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) if OURS.contains(&name) => Err(Failure::usage(format!(
                    "promql.forward_headers: {name} cannot be forwarded: it is set for the server"
                ))),
                Ok(name) => Ok(name),
                Err(_) => {
                    let text =
                        format!("promql.forward_headers: {name:?} is not a valid header name");
                    Err(Failure::usage(text))
                }
            }
        });
        let forward = forward.collect::<Result<_, _>>()?;
        let server = server(loaded).map(|server| server.url);
        let pods = Pods::new(backends, Arc::clone(&clock), server.is_some());
        let held = Arc::new(Series { collector: Arc::clone(&collector), pods });
        let mut guard = guard(loaded, collector, clock, config.answer_within, Some(held))?;
        if let Some(former) = former.filter(|former| former.server == server) {
            guard = guard.after(&former.guard);
        }
        Ok(Some(Self { guard, forward, server }))
    }

    /// Takes a request of the PromQL API, and returns its answer; `None` for any other request, which it leaves.
    pub(super) fn answer(
        &self,
        request: &mut Request,
    ) -> Option<impl Future<Output = http::Routed> + Send> {
        let route = route(request.uri().path());
        // The larger limit of the connection is for queries only.
        if route.is_none() && head_bytes(request) <= MAX_HEAD_BYTES {
            return None;
        }
        let request = mem::take(request);
        // In a box, because the future of each request has room for it.
        Some(Box::pin(async move {
            let Some(route) = route else {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                let message = "the request line and its headers are too long";
                return (error(status, "bad_data", message), None);
            };
            let counted = if route == Route::Guarded { &QUERIES } else { &OTHERS };
            (self.answer_to(route, request).await, Some(counted))
        }))
    }

    async fn answer_to(&self, route: Route, request: Request) -> Response {
        let method = request.method().clone();
        if matches!(method, Method::HEAD | Method::OPTIONS) {
            return StatusCode::OK.into_response();
        }
        if route == Route::NotFound {
            return error(StatusCode::NOT_FOUND, "not_found", "the PromQL API has no such path");
        }
        let (parts, body) = request.into_parts();
        let form = match form(body).await {
            Ok(form) => form,
            Err(refusal) => return bad(&refusal),
        };
        let in_url = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        // The body comes first, as in Go.
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
                Ok(question) => guarded(self.guard.query(question).await),
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
        match self.guard.pass(request).await {
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

    /// Returns the headers to pass on. An invalid value is an error: without the header another tenant would answer.
    fn forwarded(&self, headers: &HeaderMap) -> Result<Vec<(String, String)>, String> {
        let sent = self.forward.iter().filter_map(|name| Some((name, headers.get(name)?)));
        let passed = sent.map(|(name, value)| match value.to_str() {
            Ok(value) => Ok((name.to_string(), value.to_owned())),
            Err(_) => Err(format!("the header {name} is not ASCII text")),
        });
        passed.collect()
    }
}

/// Reads an instant query from parameters and headers.
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
    let time = time.map(|time| {
        seconds(time).ok_or_else(|| invalid("time", "expected Unix seconds or RFC 3339"))
    });
    let empty = match said("empty", "x-collector-empty").as_deref() {
        None | Some("error") => Empty::Error,
        Some("zero") => Empty::Zero,
        Some("pass") => Empty::Pass,
        Some(_) => return Err(invalid("empty", "expected error, zero or pass")),
    };
    let age = said("max_age", "x-collector-max-age");
    let age =
        age.map(|text| max_age(&text).ok_or_else(|| invalid("max_age", "expected a duration")));
    Ok(InstantQuery {
        query: query.to_owned(),
        time: time.transpose()?,
        empty,
        max_age: age.transpose()?,
        headers: forwarded,
        parameters,
    })
}

/// Parses the greatest age that a client accepts: seconds, or a duration.
pub(crate) fn max_age(text: &str) -> Option<Duration> {
    let seconds = text.parse().ok().and_then(|it| Duration::try_from_secs_f64(it).ok());
    seconds.or_else(|| duration::parse(text).ok())
}

fn head_bytes(request: &Request) -> usize {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
    let path = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    path + headers
}

/// Returns the route of a path, which may have extra slashes or start with `/prometheus`.
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
        _ => is_raw.then_some(Route::NotFound),
    }
}

async fn form(body: Body) -> Result<Bytes, String> {
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let read = Limited::new(body, FORM_BYTES_MAX).collect();
    match tokio::time::timeout(FORM_WITHIN, read).await {
        Ok(Ok(form)) => Ok(form.to_bytes()),
        Ok(Err(_)) => Err(format!("the form is broken, or has more than {FORM_BYTES_MAX} bytes")),
        Err(_) => Err("the form did not arrive in time".to_owned()),
    }
}

/// Parses a time as Unix seconds or RFC 3339.
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

mod fleet;
pub(crate) mod guard;
mod held;
mod pods;
mod readings;
#[cfg(feature = "epp")]
mod targets;
#[cfg(test)]
mod tests;
