// SPDX-License-Identifier: Apache-2.0
//! One watch: the stream of events that a client reads.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, Interval, interval_at, sleep_until};

use super::counters::Verb;
use super::faults::{Fault, Interruption};
use super::kinds::Kind;
use super::objects::{Form, bookmark, event};
use super::selector::Selection;
use super::server::Shared;
use super::status::ApiError;
use super::store::Change;

/// The start of an event, and all of it that a client gets.
pub(super) const HALF_EVENT: &str = r#"{"type":"MODIFIED","object":{"metadata":{"name":"half-"#;

/// What a test has the open watches do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Command {
    Bookmark,
    Interrupt(Interruption),
}

/// What a client asked to watch.
#[derive(Debug)]
pub(super) struct WatchRequest {
    pub(super) kind: Kind,
    pub(super) selection: Selection,
    pub(super) form: Form,
    /// The version that the client has seen; `None` to start with every object.
    pub(super) since: Option<u64>,
    pub(super) bookmarks: bool,
    /// Whether a bookmark marks the end of the objects at the start.
    pub(super) initial_events_end: bool,
    pub(super) deadline: Option<Instant>,
}

pub(super) struct Watch {
    shared: Arc<Shared>,
    request: WatchRequest,
    /// The version up to which changes are sent.
    since: u64,
    /// Lines that are ready to be sent.
    ready: VecDeque<Bytes>,
    /// What follows the last of these lines.
    ending: Option<Ending>,
    bookmarks: Option<Interval>,
    changed: watch::Receiver<()>,
    commands: broadcast::Receiver<(Kind, Command)>,
}

#[derive(Clone, Copy)]
enum Ending {
    End,
    Broken,
}

impl Watch {
    /// Opens a watch. From here on it takes part in what the test does to open watches.
    pub(super) fn open(shared: Arc<Shared>, request: WatchRequest) -> Self {
        let (changed, commands) = (shared.changed.subscribe(), shared.commands.subscribe());
        shared.count(|counters| *counters.open_watches.entry(request.kind).or_default() += 1);
        let state = shared.lock();
        let bookmarks = state.bookmark_interval.filter(|_| request.bookmarks);
        let initial =
            request.since.is_none().then(|| state.store.selected(request.kind, &request.selection));
        let since = request.since.unwrap_or(state.store.version());
        drop(state);
        let bookmarks = bookmarks.map(|every| interval_at(Instant::now() + every, every));
        let mut watch = Self {
            shared,
            request,
            since,
            ready: VecDeque::new(),
            ending: None,
            bookmarks,
            changed,
            commands,
        };
        for object in initial.iter().flatten() {
            watch.push("ADDED", object);
        }
        if watch.request.initial_events_end {
            watch.ready.push_back(bookmark(watch.request.kind, since, true));
        }
        watch
    }

    pub(super) fn into_body(self) -> Body {
        Body::from_stream(futures_util::stream::unfold(self, |mut watch| async move {
            let line = watch.next().await?;
            Some((line, watch))
        }))
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            self.wait_while_silent().await;
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            match self.ending {
                Some(Ending::End) => return None,
                Some(Ending::Broken) => {
                    self.ending = Some(Ending::End);
                    return Some(Err(broken_connection().await));
                }
                None => self.collect(),
            }
            if self.ready.is_empty() && self.ending.is_none() {
                self.wait().await;
            }
        }
    }

    async fn wait_while_silent(&mut self) {
        loop {
            self.changed.borrow_and_update();
            if self.shared.lock().faults.of(Verb::Watch, self.request.kind)
                != Some(Fault::SilentWatch)
            {
                return;
            }
            if self.changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits for something to send.
    async fn wait(&mut self) {
        let (deadline, bookmarks) = (self.request.deadline, self.bookmarks.as_mut());
        tokio::select! {
            biased;
            command = self.commands.recv() => {
                if let Ok((kind, command)) = command && kind == self.request.kind {
                    // What happened before the command is sent before it.
                    self.collect();
                    self.obey(command);
                }
            }
            _ = self.changed.changed() => {}
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                self.ending = Some(Ending::End);
            }
            () = tick(bookmarks) => self.push_bookmark(),
        }
    }

    /// Makes the events of all changes that were not sent.
    fn collect(&mut self) {
        let kind = self.request.kind;
        let state = self.shared.lock();
        let (served, version) = (state.store.is_served(kind), state.store.version());
        let changes = state.store.changes(kind, self.since);
        drop(state);
        match changes {
            _ if !served => self.ending = Some(Ending::End),
            Ok(changes) => {
                for change in changes {
                    self.push_change(change);
                }
                self.since = self.since.max(version);
            }
            Err(error) => self.push_error(&error),
        }
    }

    /// The event of a change as this selection sees it: an object that stops matching is deleted.
    fn push_change(&mut self, Change { version, before, after }: Change) {
        let selected = |object: &Arc<Value>| self.request.selection.matches(object);
        match (before.filter(selected), after.filter(selected)) {
            (None, None) => {}
            (None, Some(after)) => self.push("ADDED", &after),
            (Some(_), Some(after)) => self.push("MODIFIED", &after),
            (Some(before), None) => {
                // The last selected state, at the version of the deletion.
                let mut last = Value::clone(&before);
                last["metadata"]["resourceVersion"] = json!(version.to_string());
                self.push("DELETED", &last);
            }
        }
    }

    fn push(&mut self, kind_of_event: &str, object: &Value) {
        self.ready.push_back(event(kind_of_event, &self.request.form.object(object)));
        self.shared
            .count(|counters| *counters.objects_sent.entry(self.request.kind).or_default() += 1);
    }

    fn push_bookmark(&mut self) {
        if self.request.bookmarks && self.ending.is_none() {
            self.ready.push_back(bookmark(self.request.kind, self.since, false));
        }
    }

    fn push_error(&mut self, error: &ApiError) {
        self.ready.push_back(event("ERROR", &error.status()));
        self.ending = Some(Ending::End);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Bookmark => self.push_bookmark(),
            Command::Interrupt(Interruption::End) => self.ending = Some(Ending::End),
            Command::Interrupt(Interruption::Gone) => {
                self.push_error(&ApiError::version_too_old(self.since, self.since + 1));
            }
            Command::Interrupt(Interruption::InternalError) => {
                self.push_error(&ApiError::internal());
            }
            Command::Interrupt(Interruption::HalfEvent) => {
                self.ready.push_back(HALF_EVENT.into());
                self.ending = Some(Ending::Broken);
            }
            Command::Interrupt(Interruption::BrokenConnection) => {
                self.ending = Some(Ending::Broken);
            }
            Command::Interrupt(Interruption::Garbage) => {
                self.ready.push_back("{\u{1}not JSON\n".into());
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.count(|counters| {
            if let Some(open) = counters.open_watches.get_mut(&self.request.kind) {
                *open = open.saturating_sub(1);
            }
        });
    }
}

/// A body that breaks off after its first bytes.
pub(super) fn half_body(head: &'static str) -> Body {
    Body::from_stream(futures_util::stream::unfold(Some(head), |head| async move {
        match head {
            Some("") => Some((Err(broken_connection().await), None)),
            Some(head) => Some((Ok(Bytes::from(head)), Some(""))),
            None => None,
        }
    }))
}

/// What makes the server drop a connection, once it has sent what came before.
async fn broken_connection() -> io::Error {
    // The server writes when the body has nothing more for the moment.
    tokio::task::yield_now().await;
    io::ErrorKind::ConnectionAborted.into()
}

async fn tick(interval: Option<&mut Interval>) {
    match interval {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}
