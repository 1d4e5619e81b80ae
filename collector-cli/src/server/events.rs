//! `GET /api/v1/events`: the readings of all tracked models, and each change of them, as server-sent events.
//!
//! One task follows the collector, collects its changes for a moment, and numbers them in the sequence of generations.
//! A listener is a cursor into that sequence: a slow one skips to the newest state of each model, and nothing is queued
//! for it. Listeners that keep up share the bytes of a batch.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::IntoResponse as _;
use collector_core::{CollectError, Freshness, ModelRef, Part, Reading, Tick, TrackedModel};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::app::{App, Lifecycle};
use super::query::Query;
use super::respond::{Answered, Refusal};
use crate::output::{
    AllocationDocument, ErrorDocument, ReadingItem, ReplicasDocument, SCHEMA_VERSION,
    allocation_items, replicas_item, to_json,
};

/// Listeners at once: a quarter of the connections that are taken.
const MAX_LISTENERS: usize = 256;

/// How long changes are collected before they are sent: a listener is written to five times a second at most.
const BATCH_WINDOW: Duration = Duration::from_millis(200);

/// How long the bytes of a batch are sent: the ages in them are of the moment when they were made.
const SHARED_FOR: Duration = Duration::from_millis(500);

/// How often the tracked models are looked through for readings that have become stale or unavailable by age.
const AGEING_INTERVAL: Duration = Duration::from_secs(1);

/// A comment is sent after this time without an event, so that proxies keep the connection.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Models that one part of an answer has: a listener with many of them to get takes one part after the other.
const MODELS_IN_PART: usize = 32;

/// Removed models that are remembered for listeners that come back.
const MAX_REMOVED: usize = 1024;

/// The events of a server.
#[derive(Default)]
pub(crate) struct Events {
    /// Follows the collector from the first listener on.
    feed: OnceLock<Arc<Feed>>,
    listeners: Arc<AtomicUsize>,
}

/// The state that the follower writes and listeners read.
struct Feed {
    app: Arc<App>,
    /// Distinguishes the numbers of this process from those of others.
    epoch: u64,
    log: Mutex<Log>,
    /// The number of the last change.
    last: watch::Sender<u64>,
}

/// The last change of each model.
#[derive(Default)]
struct Log {
    models: HashMap<ModelRef, Change>,
    /// The models by the number of their last change.
    order: BTreeMap<u64, ModelRef>,
    /// The numbers of the models that were removed.
    removed: BTreeMap<u64, ModelRef>,
    /// A listener with a number up to this one may have missed a removal: it starts again.
    forgotten: u64,
    /// The last changes as they are sent, for listeners that are at its start.
    batch: Batch,
}

struct Change {
    number: u64,
    state: Vec<PartState>,
    /// When the status of a part changes by age, unless there is a newer sample.
    due: Tick,
}

/// The part of a reading whose change is an event: generation and status, or the reason that there is none.
#[derive(PartialEq)]
enum PartState {
    Reading(Option<u64>, Freshness),
    Error(String),
}

#[derive(Default)]
struct Batch {
    after: u64,
    until: u64,
    /// The events, and when they were made; `None` if nobody listened.
    bytes: Option<(Bytes, Tick)>,
}

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

/// The data of the event `snapshot`: the models that are tracked follow, and others are gone.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct SnapshotEvent {
    schema_version: u32,
    /// How many models follow.
    models: usize,
}

/// Counts a listener while it lives.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Streams readings and their changes.
pub(super) async fn listen(State(app): State<Arc<App>>, headers: HeaderMap, uri: Uri) -> Answered {
    let after = Query::parse(&uri, &["after"])?.number("after")?;
    let one_more = |count: usize| (count < MAX_LISTENERS).then_some(count + 1);
    let listeners = &app.events.listeners;
    if listeners.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
        let message = format!("{MAX_LISTENERS} clients listen to events already");
        let document = ErrorDocument::new("TooManyListeners", message);
        return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, document));
    }
    let place = Place(Arc::clone(listeners));
    let feed = app.events.feed.get_or_init(|| Feed::start(Arc::clone(&app)));
    let last_id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    // A client that reconnects sends the first address again, with the id of the event that it has got since.
    let cursor = match last_id {
        Some(id) => feed.number_of(id),
        None => after,
    };
    let listener = Listener::new(Arc::clone(feed), cursor, place);
    let parts = stream::unfold(listener, |mut listener| async move {
        let part = listener.next().await?;
        Some((Ok::<_, Infallible>(part), listener))
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream")];
    Ok((headers, Body::from_stream(parts)).into_response())
}

struct Listener {
    feed: Arc<Feed>,
    /// The number of the last change that was sent.
    cursor: u64,
    /// A snapshot is to be announced.
    begins: bool,
    last: watch::Receiver<u64>,
    _place: Place,
}

impl Listener {
    fn new(feed: Arc<Feed>, cursor: Option<u64>, place: Place) -> Self {
        let log = feed.log();
        let last = feed.last.subscribe();
        // A number from the future is one of another process.
        let newest = *last.borrow();
        let known = cursor.filter(|cursor| (log.forgotten..=newest).contains(cursor));
        drop(log);
        Self { begins: known.is_none(), cursor: known.unwrap_or(0), last, feed, _place: place }
    }

    /// The next bytes to send; `None` once the server stops. Sent bytes are not kept: if the future is dropped, the next
    /// call returns the same changes.
    async fn next(&mut self) -> Option<Bytes> {
        let stopping = Lifecycle::Stopping.reached(self.feed.app.lifecycle.clone());
        tokio::select! {
            biased;
            () = stopping => None,
            part = self.part() => Some(part),
        }
    }

    async fn part(&mut self) -> Bytes {
        if std::mem::take(&mut self.begins) {
            let log = self.feed.log();
            let data = SnapshotEvent { schema_version: SCHEMA_VERSION, models: log.models.len() };
            return event("snapshot", None, &data).into();
        }
        loop {
            self.last.mark_unchanged();
            if let Some((part, until)) = self.feed.part_after(self.cursor) {
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

impl Feed {
    /// Starts to follow the collector.
    fn start(app: Arc<App>) -> Arc<Self> {
        let started = app.clock.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let follow = app.collector.follow();
        let epoch = u64::try_from(started.as_millis()).unwrap_or_default();
        let feed =
            Arc::new(Self { app, epoch, log: Mutex::default(), last: watch::Sender::default() });
        // The models that are known now are older than this number.
        feed.log().forgotten = feed.app.collector.next_generation();
        let models = feed.app.collector.tracked().into_iter().map(|tracked| tracked.model);
        feed.note(models.collect());
        tokio::spawn(Arc::clone(&feed).follow(follow));
        feed
    }

    async fn follow(self: Arc<Self>, mut changes: broadcast::Receiver<ModelRef>) {
        let mut ageing = interval(AGEING_INTERVAL);
        ageing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stopping = Lifecycle::Stopping.reached(self.app.lifecycle.clone());
        tokio::pin!(stopping);
        loop {
            let models = tokio::select! {
                biased;
                () = &mut stopping => return,
                _ = ageing.tick() => self.due(),
                first = changes.recv() => {
                    sleep(BATCH_WINDOW).await;
                    match first {
                        Ok(first) => self.collect(first, &mut changes),
                        Err(RecvError::Lagged(_)) => self.all(),
                        Err(RecvError::Closed) => return,
                    }
                }
            };
            self.note(models);
        }
    }

    /// The changes that have come.
    fn collect(
        &self,
        first: ModelRef,
        changes: &mut broadcast::Receiver<ModelRef>,
    ) -> HashSet<ModelRef> {
        let mut models = HashSet::from([first]);
        loop {
            match changes.try_recv() {
                Ok(model) => _ = models.insert(model),
                Err(TryRecvError::Lagged(_)) => return self.all(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return models,
            }
        }
    }

    /// The tracked models, and those that were.
    fn all(&self) -> HashSet<ModelRef> {
        let tracked = self.app.collector.tracked().into_iter().map(|tracked| tracked.model);
        tracked.chain(self.log().models.keys().cloned()).collect()
    }

    /// The models of which a status has changed by age.
    fn due(&self) -> HashSet<ModelRef> {
        let now = self.app.clock.now();
        let log = self.log();
        let due = log.models.iter().filter(|(_, change)| change.due <= now);
        due.map(|(model, _)| model.clone()).collect()
    }

    /// Numbers what has changed of these models, and wakes the listeners.
    fn note(&self, models: HashSet<ModelRef>) {
        let after = *self.last.borrow();
        let mut text = String::new();
        let is_heard = self.last.receiver_count() > 0;
        let mut log = self.log();
        for model in models {
            let tracked = self.app.collector.tracked_model(&model);
            let state = tracked.as_ref().map(states);
            let former = log.models.get(&model);
            if former.map(|change| &change.state) == state.as_ref() {
                if let (Some(change), Some(tracked)) = (log.models.get_mut(&model), &tracked) {
                    change.due = self.due_of(tracked);
                }
                continue;
            }
            let number = self.app.collector.next_generation();
            if let Some(former) = log.models.remove(&model) {
                log.order.remove(&former.number);
            }
            log.removed.retain(|_, removed| *removed != model);
            if is_heard {
                text.push_str(&self.event_of(&model, tracked.as_ref(), number));
            }
            if let (Some(tracked), Some(state)) = (&tracked, state) {
                let due = self.due_of(tracked);
                log.models.insert(model.clone(), Change { number, state, due });
                log.order.insert(number, model);
            } else {
                log.removed.insert(number, model);
            }
            log.batch.until = number;
        }
        while log.removed.len() > MAX_REMOVED {
            if let Some((number, _)) = log.removed.pop_first() {
                log.forgotten = log.forgotten.max(number);
            }
        }
        if log.batch.until > after {
            log.batch.after = after;
            log.batch.bytes = is_heard.then(|| (text.into(), self.app.clock.now()));
            self.last.send_replace(log.batch.until);
        }
    }

    /// The bytes of the next changes after a number, and the number of the last of them; `None` if there is none.
    fn part_after(&self, cursor: u64) -> Option<(Bytes, u64)> {
        let next: Vec<(u64, ModelRef)> = {
            let log = self.log();
            if log.batch.after == cursor
                && let Some((bytes, made)) = &log.batch.bytes
                && made.age(self.app.clock.now()) < SHARED_FOR
            {
                return Some((bytes.clone(), log.batch.until));
            }
            // Who gets a snapshot knows none of the models that were removed.
            let removed =
                (cursor > 0).then(|| log.removed.range(cursor + 1..).take(MODELS_IN_PART));
            let changed = log.order.range(cursor + 1..).take(MODELS_IN_PART);
            let mut next: Vec<_> = changed.chain(removed.into_iter().flatten()).collect();
            next.sort_unstable_by_key(|(number, _)| **number);
            let next = next.into_iter().take(MODELS_IN_PART);
            next.map(|(number, model)| (*number, model.clone())).collect()
        };
        let until = next.last()?.0;
        // Read again, because what was sent to others then has aged since.
        let event = |(number, model): &(u64, ModelRef)| {
            let tracked = self.app.collector.tracked_model(model);
            self.event_of(model, tracked.as_ref(), *number)
        };
        Some((next.iter().map(event).collect::<String>().into(), until))
    }

    fn event_of(&self, model: &ModelRef, tracked: Option<&TrackedModel>, number: u64) -> String {
        let id = Some(format!("{:x}-{number}", self.epoch));
        let schema_version = SCHEMA_VERSION;
        let (name, namespace) = (model.model.as_str(), model.namespace.as_str());
        match tracked {
            None => event("removed", id, &RemovedEvent { schema_version, model: name, namespace }),
            Some(tracked) => {
                let wall = self.app.clock.wall();
                let data = ModelEvent {
                    schema_version,
                    model: name,
                    namespace,
                    replicas: replicas_item(tracked, wall),
                    allocations: allocation_items(tracked, wall).collect(),
                };
                event("model", id, &data)
            }
        }
    }

    /// The number in the id of an event, if it is one of this process.
    fn number_of(&self, id: &str) -> Option<u64> {
        let (epoch, number) = id.split_once('-')?;
        let is_ours = u64::from_str_radix(epoch, 16) == Ok(self.epoch);
        number.parse().ok().filter(|_| is_ours)
    }

    /// When the status of a part of a model changes by age.
    fn due_of(&self, tracked: &TrackedModel) -> Tick {
        let thresholds = &self.app.loaded.config.cache.freshness;
        let next = |freshness: Freshness| match freshness {
            Freshness::Fresh => Some(thresholds.fresh_threshold),
            Freshness::Stale => Some(thresholds.unavailable_threshold),
            Freshness::Unavailable => None,
        };
        let allocations = tracked.allocations.iter().filter_map(|(_, part)| part.as_ref().ok());
        let replicas = tracked.replicas.as_ref().ok();
        let due = allocations
            .filter_map(|part| Some(part.value().oldest + next(part.freshness())?))
            .chain(replicas.and_then(|part| Some(part.value().oldest + next(part.freshness())?)));
        due.min().unwrap_or(Tick::MAX)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn states(tracked: &TrackedModel) -> Vec<PartState> {
    fn state<T: Part>(part: &Result<Reading<T>, CollectError>) -> PartState {
        match part {
            Ok(reading) => PartState::Reading(reading.generation(), reading.freshness()),
            Err(error) => PartState::Error(error.reason_name()),
        }
    }
    let allocations = tracked.allocations.iter().map(|(_, part)| state(part));
    std::iter::once(state(&tracked.replicas)).chain(allocations).collect()
}

/// An event as it is sent. JSON has no line breaks, so the data are one line.
fn event(name: &str, id: Option<String>, data: &impl Serialize) -> String {
    let id = id.map_or_else(String::new, |id| format!("id: {id}\n"));
    format!("event: {name}\n{id}data: {}\n\n", to_json(data).trim_end())
}
