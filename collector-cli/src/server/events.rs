// SPDX-License-Identifier: Apache-2.0
//! `GET /api/v1/events`: the readings of all tracked models, and each change of them, as server-sent events.
//!
//! One task follows the collector and numbers its changes ([`feed`]). A listener is a cursor into these numbers: a slow
//! one skips to the newest state of each model, and nothing is queued for it.

mod feed;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse as _;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use self::feed::Events;
use super::app::{App, Lifecycle};
use super::process;
use super::query::Query;
use super::respond::{Answered, Refusal};
use crate::output::{
    AllocationDocument, ErrorDocument, ReadingItem, ReplicasDocument, SCHEMA_VERSION, to_json,
};

/// Listeners at once: a quarter of the connections that are taken.
const MAX_LISTENERS: usize = 256;

/// A comment is sent after this time without an event, so that proxies keep the connection.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// The data of the event `model`: what is known of a model. Its parts were published together.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ModelEvent<'a> {
    schema_version: u32,
    model: &'a str,
    namespace: &'a str,
    /// Its replicas, or why there is no reading.
    replicas: ReadingItem<'a, ReplicasDocument<'a>>,
    /// The allocation of each tracked variant, or why there is no reading.
    allocations: Vec<ReadingItem<'a, AllocationDocument<'a>>>,
}

/// The data of the event `removed`: the model is no longer tracked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct RemovedEvent<'a> {
    schema_version: u32,
    model: &'a str,
    namespace: &'a str,
}

/// The data of the event `reset`: whatever the listener knows is void. An event `model` for each tracked model follows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ResetEvent {
    schema_version: u32,
    reason: ResetReason,
    /// How many models follow.
    models: usize,
}

/// Why a listener starts anew.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) enum ResetReason {
    /// It named no event.
    Start,
    /// The event that it named is none of this process: it has restarted, or another one answers.
    UnknownId,
    /// What has changed since the event that it named is no longer known, or it takes events too slowly.
    TooFarBack,
}

/// Streams readings and their changes.
pub(super) async fn listen(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answered {
    let from = Query::parse(&uri, &["from"])?.text("from");
    // A client that reconnects sends the first address again, with the id of the event that it has got since.
    let from = match headers.get("last-event-id") {
        Some(id) => Some(number_of(id.to_str().unwrap_or_default())),
        None => from.as_deref().map(number_of),
    };
    let Some(listener) = Listener::new(Arc::clone(&app.events), from) else {
        let message = format!("{MAX_LISTENERS} clients listen to events already");
        let document = ErrorDocument::new("TooManyListeners", message);
        return Err(Refusal::later(StatusCode::TOO_MANY_REQUESTS, document));
    };
    let parts = stream::unfold(listener, |mut listener| async move {
        let part = listener.next().await?;
        Some((Ok::<_, Infallible>(part), listener))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// A client that listens. It counts as one while it lives.
struct Listener {
    events: Arc<Events>,
    /// The number of the last event that was sent.
    cursor: u64,
    /// The number of the last change when the client last fetched everything. It knows no model that was removed earlier.
    started_at: u64,
    /// Why the client starts anew, which it is to be told.
    reset: Option<ResetReason>,
    last: watch::Receiver<u64>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.events.listeners.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Listener {
    /// Listens to what comes after the event of this number; `None` if there are too many listeners.
    fn new(events: Arc<Events>, from: Option<u64>) -> Option<Self> {
        let one_more = |count: usize| (count < MAX_LISTENERS).then_some(count + 1);
        events.listeners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        events.start();
        let last = events.last.subscribe();
        let reset = match from {
            None => Some(ResetReason::Start),
            // Not from before the start, nor from the future.
            Some(from) if from < events.began() || from > *last.borrow() => {
                Some(ResetReason::UnknownId)
            }
            Some(_) => None,
        };
        let cursor = from.unwrap_or_default();
        Some(Self { events, cursor, started_at: 0, reset, last })
    }

    /// The next bytes to send; `None` once the server stops. Sent bytes are not kept: if the future is dropped, the next
    /// call returns the same changes.
    async fn next(&mut self) -> Option<Bytes> {
        let stopping = Lifecycle::Stopping.reached(self.events.lifecycle.clone());
        tokio::select! {
            biased;
            () = stopping => None,
            part = self.part() => Some(part),
        }
    }

    async fn part(&mut self) -> Bytes {
        loop {
            let complete_to = self.cursor.max(self.started_at);
            if self.reset.is_none() && self.events.has_forgotten(complete_to) {
                self.reset = Some(ResetReason::TooFarBack);
            }
            if let Some(reason) = self.reset.take() {
                let models;
                (models, self.cursor, self.started_at) = self.events.begin();
                let data = ResetEvent { schema_version: SCHEMA_VERSION, reason, models };
                return event("reset", None, &data).into();
            }
            self.last.mark_unchanged();
            if let Some((part, until)) = self.events.part_after(self.cursor, complete_to) {
                self.cursor = until;
                return part;
            }
            match timeout(HEARTBEAT_INTERVAL, self.last.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Bytes::from_static(b":\n\n"),
            }
        }
    }
}

/// The number of the event with this id; 0, which no event has, if it is none of this process.
fn number_of(id: &str) -> u64 {
    let number = id.strip_prefix(process::name()).and_then(|rest| rest.strip_prefix('-'));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// An event as it is sent. JSON has no line breaks, so the data are one line.
fn event(name: &str, id: Option<u64>, data: &impl Serialize) -> String {
    let id = id.map_or_else(String::new, |id| format!("id: {}-{id}\n", process::name()));
    format!("event: {name}\n{id}data: {}\n\n", to_json(data).trim_end())
}
