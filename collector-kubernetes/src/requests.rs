// SPDX-License-Identifier: Apache-2.0
//! Requests to the API server: a list, page by page, and a watch, line by line. All of it is limited in time, size and
//! number.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use collector_core::{ErrorKind, Namespace, Permits};
use http::header::RETRY_AFTER;
use http::response::Parts;
use http_body_util::BodyExt as _;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::client::Body;
use kube::core::Request;
use tokio::time::timeout;

use crate::failure::Failure;
use crate::kind::Kind;
use crate::objects::{OBJECT_MAX, Object, Page};
use crate::watches::WatchId;

/// Objects of a page.
const PAGE: u32 = 500;
/// The most bytes of a page.
const PAGE_MAX: usize = 128 << 20;
/// The most objects of a kind.
const OBJECTS_MAX: usize = 200_000;
/// The most bytes of an error.
const ERROR_MAX: usize = 64 << 10;
/// How long a page may take, and the head of a watch.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// How long a question of `check` may take, and how many bytes its answer may have: a page of 100 objects.
const QUESTION_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: usize = 32 << 20;

/// How long a watch lasts. A server ends it once it has told all changes, so that each kind is heard at least as often,
/// also one of which no object changes.
pub(crate) const WATCH: Duration = Duration::from_secs(30);
/// How long the first watch after a list or a failure lasts: its end confirms soon that nothing is left to tell.
pub(crate) const FIRST_WATCH: Duration = Duration::from_secs(1);
/// How long a watch may be silent. A server that works has ended it before.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(45);

/// A complete list.
pub(crate) struct List {
    pub(crate) objects: Vec<Object>,
    /// The version from which a watch goes on.
    pub(crate) version: String,
}

fn path(base: &str, id: &WatchId) -> String {
    let kind = id.kind.plural();
    match &id.namespace {
        Some(namespace) => format!("{base}/namespaces/{namespace}/{kind}"),
        None => format!("{base}/{kind}"),
    }
}

/// Lists all objects. Fails with [`ErrorKind::NotFound`] if the server has no such kind.
pub(crate) async fn list(
    client: &Client,
    base: &str,
    id: &WatchId,
    permits: &dyn Permits,
) -> Result<List, Failure> {
    let mut objects = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    let mut pages = 0;
    loop {
        let request = Request::new(path(base, id)).list(&params);
        let request =
            request.map_err(|error| Failure::new(ErrorKind::Configuration, error.to_string()))?;
        let permit = permits.acquire().await;
        let _permit = permit.map_err(|error| Failure::new(error.kind(), error.to_string()))?;
        let read = async {
            let mut body = send(client, request).await?;
            read_all(&mut body, PAGE_MAX).await
        };
        let text = in_time(read).await?;
        let next = read_page(id.kind, &text, &mut objects)?;
        pages += 1;
        // Pages may be empty, and without an end.
        if objects.len().max(pages) > OBJECTS_MAX {
            let why = format!("there are more than {OBJECTS_MAX} {}", id.kind.name());
            return Err(Failure::new(ErrorKind::TooLarge, why));
        }
        match next {
            Next::Page(token) => params = params.continue_token(&token),
            Next::End(version) => return Ok(List { objects, version }),
        }
    }
}

enum Next {
    Page(String),
    End(String),
}

fn read_page(kind: Kind, text: &[u8], objects: &mut Vec<Object>) -> Result<Next, Failure> {
    let bad = |what: &str, error: &dyn std::fmt::Display| {
        Failure::new(ErrorKind::BadAnswer, format!("{what} of {}: {error}", kind.name()))
    };
    let page: Page<'_> = serde_json::from_slice(text).map_err(|error| bad("a list", &error))?;
    for item in page.items.unwrap_or_default() {
        objects.push(Object::read(kind, item.get()).map_err(|error| bad("an item", &error))?);
    }
    if let Some(token) = page.metadata.next.filter(|token| !token.is_empty()) {
        return Ok(Next::Page(token));
    }
    let version = page.metadata.resource_version.filter(|version| !version.is_empty());
    version.map(Next::End).ok_or_else(|| bad("a list", &"it has no resourceVersion"))
}

/// Opens a watch from a version, which the server ends after a time in whole seconds.
pub(crate) async fn watch(
    client: &Client,
    base: &str,
    id: &WatchId,
    version: &str,
    lasts: Duration,
) -> Result<Lines, Failure> {
    let seconds = u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX);
    let params = WatchParams::default().timeout(seconds);
    let request = Request::new(path(base, id)).watch(&params, version);
    let request =
        request.map_err(|error| Failure::new(ErrorKind::Configuration, error.to_string()))?;
    let body = in_time(send(client, request)).await?;
    Ok(Lines { body, buffer: BytesMut::new() })
}

/// Whether the server has the group and version of a kind at all. Where it does not say, it may have.
pub(crate) async fn is_served(client: &Client, base: &str) -> bool {
    let request = http::Request::get(base).body(Vec::new());
    let Ok(request) = request else { return true };
    let answer = in_time(send(client, request)).await;
    !matches!(answer, Err(failure) if failure.kind == ErrorKind::NotFound)
}

/// Whether a namespace exists; `None` if the server does not say, because we may not ask.
pub(crate) async fn has_namespace(client: &Client, namespace: &Namespace) -> Option<bool> {
    let request = http::Request::get(format!("/api/v1/namespaces/{namespace}")).body(Vec::new());
    match ask(client, request.ok()?).await {
        Ok(_) => Some(true),
        // It says so with the name, and not as of a path that it does not know.
        Err(failure) if failure.kind == ErrorKind::NotFound => {
            failure.why.contains(&format!("{:?}", namespace.as_str())).then_some(false)
        }
        Err(_) => None,
    }
}

async fn in_time<T>(request: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    timeout(REQUEST_MAX, request).await.unwrap_or_else(|_| {
        Err(Failure::new(ErrorKind::Timeout, format!("no answer within {REQUEST_MAX:?}")))
    })
}

/// Sends a request that takes at most [`QUESTION_MAX`]; returns the head and the text of an answer that is no error.
pub(crate) async fn ask(
    client: &Client,
    request: http::Request<Vec<u8>>,
) -> Result<(Parts, Bytes), Failure> {
    let asked = async {
        let (head, mut body) = send_for_head(client, request).await?;
        let text = read_all(&mut body, ANSWER_MAX).await?;
        Ok((head, text))
    };
    timeout(QUESTION_MAX, asked).await.unwrap_or_else(|_| {
        Err(Failure::new(ErrorKind::Timeout, format!("no answer within {QUESTION_MAX:?}")))
    })
}

/// Sends a request; returns the body of an answer that is no error.
async fn send(client: &Client, request: http::Request<Vec<u8>>) -> Result<Body, Failure> {
    Ok(send_for_head(client, request).await?.1)
}

async fn send_for_head(
    client: &Client,
    request: http::Request<Vec<u8>>,
) -> Result<(Parts, Body), Failure> {
    let answer = client.send(request.map(Body::from)).await;
    let answer = answer.map_err(|error| Failure::of_request(&error))?;
    let (head, mut body) = answer.into_parts();
    if head.status.is_success() {
        return Ok((head, body));
    }
    // What it says is a help, and not needed.
    let text = read_all(&mut body, ERROR_MAX).await.unwrap_or_default();
    let retry_after = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    Err(Failure::of_status(head.status.as_u16(), &text, retry_after))
}

async fn read_all(body: &mut Body, limit: usize) -> Result<Bytes, Failure> {
    let mut text = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::of_body(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if text.len() + data.len() > limit {
            let why = format!("the answer has more than {limit} bytes");
            return Err(Failure::new(ErrorKind::TooLarge, why));
        }
        text.extend_from_slice(&data);
    }
    Ok(text.freeze())
}

/// The lines of a watch.
pub(crate) struct Lines {
    body: Body,
    buffer: BytesMut,
}

impl Lines {
    /// Returns the next line; `None` at the end. A line without an end was cut off, and is not returned.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let mut searched = 0;
        loop {
            if let Some(end) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + end + 1);
                return Ok(Some(line.freeze()));
            }
            searched = self.buffer.len();
            if searched > OBJECT_MAX {
                let why = format!("an event has more than {OBJECT_MAX} bytes");
                return Err(Failure::new(ErrorKind::TooLarge, why));
            }
            let frame = timeout(SILENCE_MAX, self.body.frame()).await.map_err(|_| {
                let why = format!("the server has sent nothing for {SILENCE_MAX:?}");
                // It may accept the next one and be as silent: a list tells what has happened meanwhile.
                Failure { is_gone: true, ..Failure::new(ErrorKind::Timeout, why) }
            })?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Failure::of_body(&error)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}
