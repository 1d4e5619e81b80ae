// SPDX-License-Identifier: Apache-2.0
//! Requests and their answers.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::time::Instant;

use super::access::{self, Access};
use super::counters::{Counters, Verb};
use super::discovery;
use super::faults::{Fault, Faults};
use super::kinds::Kind;
use super::objects::Form;
use super::selector::Selection;
use super::status::{ApiError, json_response, too_many_requests, unknown_path};
use super::store::Store;
use super::watch::{Command, HALF_EVENT, Watch, WatchRequest, half_body};

/// The largest body of an access review that is read.
const MAX_REVIEW: usize = 1 << 20;
/// The start of a list, and all of it that a client gets.
const HALF_LIST: &str =
    r#"{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"#;
/// What a proxy in front of a broken server may answer.
const GARBAGE: &str = "<html>\u{1}not JSON</html>\n";

/// What the server and the test share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Changes with every object and every fault.
    pub(super) changed: watch::Sender<()>,
    pub(super) counters: watch::Sender<Counters>,
    pub(super) commands: broadcast::Sender<(Kind, Command)>,
}

pub(super) struct State {
    pub(super) store: Store,
    pub(super) faults: Faults,
    /// The accepted bearer tokens; `None` accepts requests without one too.
    pub(super) tokens: Option<HashSet<String>>,
    pub(super) allows: Arc<dyn Fn(&Access) -> bool + Send + Sync>,
    pub(super) reviews: Vec<Access>,
    /// Whether a watch from an expired version is refused with a status instead of an event.
    pub(super) expired_by_status: bool,
    pub(super) bookmark_interval: Option<Duration>,
    /// What each page of a list of these kinds waits for.
    pub(super) holds: HashMap<Kind, Arc<Semaphore>>,
}

/// What a path of a served kind names.
#[derive(Clone, Copy)]
struct Target<'a> {
    kind: Kind,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
}

type Params = HashMap<String, String>;

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            counters: watch::Sender::new(Counters::default()),
            commands: broadcast::Sender::new(1024),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Counters)) {
        self.counters.send_modify(count);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("store", &self.lock().store).finish_non_exhaustive()
    }
}

/// Answers a request.
pub(super) async fn handle(shared: Arc<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let segments: Vec<&str> =
        parts.uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
    let params = match Query::<Params>::try_from_uri(&parts.uri) {
        Ok(Query(params)) => params,
        Err(error) => return ApiError::bad_request(error.to_string()).into_response(),
    };
    let target = target(&shared.lock().store, &segments);
    let result = match target {
        Some(target) => answer_target(&shared, target, &params, &parts).await,
        None => answer_other(&shared, &segments, &parts, body).await,
    };
    result.unwrap_or_else(IntoResponse::into_response)
}

/// What a path names, if a kind is served there.
fn target<'a>(store: &Store, segments: &[&'a str]) -> Option<Target<'a>> {
    let (group, version, rest) = match segments {
        ["api", version, rest @ ..] => ("", version, rest),
        ["apis", group, version, rest @ ..] => (*group, version, rest),
        _ => return None,
    };
    let (plural, namespace, name) = match *rest {
        ["namespaces", namespace, plural] => (plural, Some(namespace), None),
        ["namespaces", namespace, plural, name] => (plural, Some(namespace), Some(name)),
        [plural] => (plural, None, None),
        [plural, name] => (plural, None, Some(name)),
        _ => return None,
    };
    let kind = store.find(group, version, plural)?;
    // Objects of namespaces have no address without theirs, and the others none with one.
    let addressed =
        if kind.namespaced { namespace.is_some() || name.is_none() } else { namespace.is_none() };
    addressed.then_some(Target { kind, namespace, name })
}

async fn answer_target(
    shared: &Arc<Shared>,
    target: Target<'_>,
    params: &Params,
    request: &Parts,
) -> Result<Response, ApiError> {
    let Target { kind, namespace, name } = target;
    if request.method != Method::GET {
        return Err(ApiError::method_not_allowed());
    }
    let verb = match name {
        Some(_) => Verb::Get,
        None if flag(params, "watch") => Verb::Watch,
        None => Verb::List,
    };
    shared.count(|counters| *counters.requests.entry((verb, kind)).or_default() += 1);
    let fault = shared.lock().faults.of(verb, kind);
    match fault {
        Some(Fault::Forbidden) => return Err(ApiError::forbidden(kind, verb.as_str(), namespace)),
        Some(Fault::HalfBody) if verb == Verb::Watch => {
            return Ok(json_response(StatusCode::OK, half_body(HALF_EVENT)));
        }
        // The watch itself is silent.
        Some(Fault::SilentWatch) | None => {}
        Some(fault) => return fail(fault).await,
    }
    authenticate(shared, &request.headers)?;
    let access = Access {
        user: String::new(),
        verb: verb.as_str().to_owned(),
        group: kind.group.to_owned(),
        resource: kind.plural.to_owned(),
        namespace: namespace.unwrap_or_default().to_owned(),
        name: name.unwrap_or_default().to_owned(),
        path: String::new(),
    };
    if !allows(shared, &access) {
        return Err(ApiError::forbidden(kind, verb.as_str(), namespace));
    }
    let accept = request.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let form = Form::of_accept(accept.unwrap_or_default());
    match (verb, name) {
        (Verb::Get, Some(name)) => get(shared, target, name, form),
        (Verb::Watch, _) => watch(shared, target, params, form),
        _ => list(shared, target, params, form).await,
    }
}

fn get(shared: &Shared, target: Target<'_>, name: &str, form: Form) -> Result<Response, ApiError> {
    let object = shared.lock().store.get(target.kind, target.namespace.unwrap_or_default(), name);
    let object = object.ok_or_else(|| ApiError::not_found(target.kind, name))?;
    shared.count(|counters| *counters.objects_sent.entry(target.kind).or_default() += 1);
    Ok(json_response(StatusCode::OK, form.object(&object).to_string()))
}

async fn list(
    shared: &Shared,
    target: Target<'_>,
    params: &Params,
    form: Form,
) -> Result<Response, ApiError> {
    let kind = target.kind;
    wait_for_release(shared, kind).await;
    let selection = selection(target, params)?;
    let limit = number(params, "limit")?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0);
    let mut state = shared.lock();
    let mut page = if let Some(token) = params.get("continue").filter(|token| !token.is_empty()) {
        state.store.list_on(token, limit)?
    } else {
        let (wanted, current) =
            (number(params, "resourceVersion")?.unwrap_or(0), state.store.version());
        if wanted > current {
            return Err(ApiError::version_too_large(wanted, current));
        }
        state.store.list(kind, &selection, limit)
    };
    drop(state);
    if !selection.is_everything() {
        // How many are left is not known with a selector.
        page.remaining = None;
    }
    let sent = page.objects.len() as u64;
    shared.count(|counters| *counters.objects_sent.entry(kind).or_default() += sent);
    Ok(json_response(StatusCode::OK, form.list(kind, &page)))
}

/// Waits until the test releases this page, if it holds the lists of the kind.
async fn wait_for_release(shared: &Shared, kind: Kind) {
    let hold = shared.lock().holds.get(&kind).cloned();
    let Some(hold) = hold else { return };
    shared.count(|counters| *counters.held.entry(kind).or_default() += 1);
    let _counted = Held { shared, kind };
    // An error says that the test holds no pages any more.
    if let Ok(permit) = hold.acquire().await {
        permit.forget();
    }
}

/// Counts a page as held until it is released or its client is gone.
struct Held<'a> {
    shared: &'a Shared,
    kind: Kind,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.shared.count(|counters| {
            if let Some(held) = counters.held.get_mut(&self.kind) {
                *held = held.saturating_sub(1);
            }
        });
    }
}

fn watch(
    shared: &Arc<Shared>,
    target: Target<'_>,
    params: &Params,
    form: Form,
) -> Result<Response, ApiError> {
    let initial_events = flag(params, "sendInitialEvents");
    // Version 0 means any.
    let since =
        number(params, "resourceVersion")?.filter(|version| *version > 0 && !initial_events);
    let timeout = number(params, "timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let request = WatchRequest {
        kind: target.kind,
        selection: selection(target, params)?,
        form,
        since,
        bookmarks: flag(params, "allowWatchBookmarks"),
        initial_events_end: initial_events,
        deadline: timeout
            .and_then(|seconds| Instant::now().checked_add(Duration::from_secs(seconds))),
    };
    let state = shared.lock();
    if let Some(since) = since.filter(|_| state.expired_by_status) {
        state.store.changes(target.kind, since)?;
    }
    drop(state);
    Ok(json_response(StatusCode::OK, Watch::open(Arc::clone(shared), request).into_body()))
}

async fn answer_other(
    shared: &Shared,
    segments: &[&str],
    request: &Parts,
    body: Body,
) -> Result<Response, ApiError> {
    let fault = shared.lock().faults.of_everything();
    if let Some(fault) = fault.filter(|fault| *fault != Fault::SilentWatch) {
        return fail(fault).await;
    }
    authenticate(shared, &request.headers)?;
    if let ["apis", discovery::AUTHORIZATION, "v1", review] = segments
        && discovery::REVIEWS.iter().any(|(plural, _)| plural == review)
    {
        return answer_review(shared, &request.method, body).await;
    }
    let store = &shared.lock().store;
    let document = match segments {
        ["version"] => Some(discovery::version()),
        ["api"] => Some(discovery::core_versions()),
        ["api", "v1"] => discovery::resources(store, "", "v1"),
        ["apis"] => Some(discovery::groups(store)),
        ["apis", group] => discovery::group(store, group),
        ["apis", group, version] => discovery::resources(store, group, version),
        _ => None,
    };
    Ok(document
        .map_or_else(unknown_path, |document| json_response(StatusCode::OK, document.to_string())))
}

async fn answer_review(shared: &Shared, method: &Method, body: Body) -> Result<Response, ApiError> {
    if *method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let body = to_bytes(body, MAX_REVIEW).await;
    let body = body.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let review: Value =
        serde_json::from_slice(&body).map_err(|error| ApiError::bad_request(error.to_string()))?;
    let access = Access::of_review(&review);
    shared.lock().reviews.push(access.clone());
    let allowed = allows(shared, &access);
    Ok(json_response(StatusCode::CREATED, access::answer(review, allowed).to_string()))
}

/// The rule is called without the lock: it may read the cluster.
fn allows(shared: &Shared, access: &Access) -> bool {
    let rule = Arc::clone(&shared.lock().allows);
    rule(access)
}

fn authenticate(shared: &Shared, headers: &HeaderMap) -> Result<(), ApiError> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match &shared.lock().tokens {
        Some(tokens) if !token.is_some_and(|token| tokens.contains(token)) => {
            Err(ApiError::unauthorized())
        }
        _ => Ok(()),
    }
}

/// The answer of a request that a fault hits.
async fn fail(fault: Fault) -> Result<Response, ApiError> {
    match fault {
        Fault::Unauthorized => Err(ApiError::unauthorized()),
        Fault::Forbidden => Err(ApiError::forbidden_path()),
        Fault::Gone => Err(ApiError::version_too_old(1, 2)),
        Fault::TooManyRequests { retry_after_seconds } => {
            Ok(too_many_requests(retry_after_seconds))
        }
        Fault::InternalError => Err(ApiError::internal()),
        Fault::Garbage => Ok(json_response(StatusCode::OK, GARBAGE)),
        Fault::HalfBody => Ok(json_response(StatusCode::OK, half_body(HALF_LIST))),
        Fault::NoAnswer | Fault::SilentWatch => std::future::pending().await,
    }
}

fn selection(target: Target<'_>, params: &Params) -> Result<Selection, ApiError> {
    let param = |name: &str| params.get(name).map(String::as_str);
    Selection::parse(target.namespace, param("labelSelector"), param("fieldSelector"))
        .map_err(ApiError::bad_request)
}

fn flag(params: &Params, name: &str) -> bool {
    params.get(name).is_some_and(|value| matches!(value.as_str(), "true" | "1"))
}

fn number(params: &Params, name: &str) -> Result<Option<u64>, ApiError> {
    let value = params.get(name).filter(|value| !value.is_empty());
    let invalid =
        |value: &String| ApiError::bad_request(format!("{name}: Invalid value: {value:?}"));
    value.map(|value| value.parse().map_err(|_| invalid(value))).transpose()
}
