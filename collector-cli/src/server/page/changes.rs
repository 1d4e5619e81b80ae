// SPDX-License-Identifier: Apache-2.0
//! What the page asks for: the rows that have changed since it last asked, and one model in full.
//!
//! Each row has the number of the answer that first had it, so that any number of open pages is told of changes alone.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::IntoResponse as _;
use collector_core::{ModelRef, Tick, TrackedModel};
use serde::Serialize;

use super::row::{Row, moved, sampled_at};
use crate::output::{
    AllocationDocument, BackendDocument, ErrorDocument, PaceDocument, ReadingItem,
    ReplicasDocument, SCHEMA_VERSION, allocation_items, replicas_item, to_json,
};
use crate::server::app::App;
use crate::server::discovery::DiscoveryDocument;
use crate::server::query::Query;
use crate::server::reloads::ConfigurationDocument;
use crate::server::respond::{Answered, Refusal, found, streamed};

/// The rows are made again after this time, however many pages ask.
const SHARED_FOR: Duration = Duration::from_millis(500);

/// Removed models that pages which ask later are told of; older pages get all rows.
const MAX_REMOVED: usize = 1024;

/// The rows as they were last shown.
pub(crate) struct Changes(Mutex<Rows>);

struct Rows {
    /// Distinguishes the numbers of this process from those of others.
    epoch: u64,
    version: u64,
    made: Option<Tick>,
    models: HashMap<ModelRef, Shown>,
    next_id: u64,
    /// Version and id.
    removed: VecDeque<(u64, u64)>,
    /// A page with an older version may have missed a removal.
    forgotten: u64,
}

/// What was last shown of a model. The texts are parts of JSON.
struct Shown {
    id: u64,
    name: Arc<str>,
    row: Arc<str>,
    sampled_at: Option<Tick>,
    /// The versions in which it appeared, its row changed, and a newer sample came.
    appeared: u64,
    changed: u64,
    sampled: u64,
}

/// What a page lacks of a model.
struct Change {
    id: u64,
    sampled_at: Option<Tick>,
    name: Option<Arc<str>>,
    row: Option<Arc<str>>,
}

struct Since {
    version: String,
    /// These are all models.
    all: bool,
    removed: Vec<u64>,
    changes: Vec<Change>,
}

/// How the collector is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    ready: bool,
    configuration: ConfigurationDocument,
    backends: Vec<BackendDocument>,
    known: Option<usize>,
    discovery: Option<DiscoveryDocument>,
}

/// All that is known of a model.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OpenedModel<'a> {
    replicas: ReadingItem<'a, ReplicasDocument<'a>>,
    allocations: Vec<ReadingItem<'a, AllocationDocument<'a>>>,
    pace: PaceDocument,
}

/// The rows that have changed since the version `after`, or all. Does not count as reading.
pub(super) async fn changes(State(app): State<Arc<App>>, uri: Uri) -> Answered {
    let after = Query::parse(&uri, &["after"])?.text("after");
    let now = app.clock.now();
    let is_due = app.page.rows().made.is_none_or(|made| made.age(now) >= SHARED_FOR);
    // Read before the lock is taken, so that other pages do not wait for it.
    let tracked = is_due.then(|| app.collector.tracked());
    let since = {
        let mut rows = app.page.rows();
        if let Some(tracked) = tracked {
            rows.update(tracked, now);
        }
        rows.since(after.as_deref())
    };
    let state = app.collector.state();
    let status = Status {
        ready: app.is_ready(&state),
        configuration: app.reloads.document(),
        backends: state.backends.iter().map(BackendDocument::new).collect(),
        known: state.discovery.as_ref().and_then(|discovery| discovery.known),
        discovery: DiscoveryDocument::new(&state),
    };
    let start = format!(
        "{{\"schemaVersion\":{SCHEMA_VERSION},\"version\":\"{}\",\"all\":{},\"status\":{},\"removed\":{},\"models\":[",
        since.version,
        since.all,
        to_json(&status),
        to_json(&since.removed),
    );
    let separators = iter::once("").chain(iter::repeat(","));
    // Made as the client takes them: texts are shared by all who are sent them.
    let changes = separators.zip(since.changes).map(move |(separator, it)| it.text(separator, now));
    let parts = iter::once(start).chain(changes).chain(iter::once("]}".to_owned()));
    Ok(([(header::CONTENT_TYPE, "application/json")], streamed(parts)).into_response())
}

/// One model in full, by the id that its row has. Does not count as reading.
pub(super) async fn model(State(app): State<Arc<App>>, uri: Uri) -> Answered {
    let id = Query::parse(&uri, &["id"])?.text("id").and_then(|id| id.parse().ok());
    let id: u64 = id.ok_or_else(|| Refusal::bad_request("parameter \"id\" is not a number"))?;
    let model = app.page.rows().model(id).ok_or_else(unknown)?;
    let tracked = app.collector.tracked_model(&model).ok_or_else(unknown)?;
    let wall = app.clock.wall();
    Ok(found(&OpenedModel {
        replicas: replicas_item(&tracked, wall),
        allocations: allocation_items(&tracked, wall).collect(),
        pace: PaceDocument::new(&model, app.collector.pace(&model)),
    }))
}

fn unknown() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, ErrorDocument::new("NotFound", "no model has this id"))
}

impl Default for Changes {
    fn default() -> Self {
        Self(Mutex::new(Rows {
            epoch: RandomState::new().hash_one(()),
            version: 0,
            made: None,
            models: HashMap::new(),
            next_id: 0,
            removed: VecDeque::new(),
            forgotten: 0,
        }))
    }
}

impl Changes {
    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn update(&mut self, tracked: Vec<TrackedModel>, now: Tick) {
        self.version += 1;
        self.made = Some(now);
        let version = self.version;
        let mut former = std::mem::take(&mut self.models);
        for tracked in tracked {
            let row = format!(",\"row\":{}", to_json(&Row::new(&tracked)));
            let at = sampled_at(&tracked, now);
            let shown = match former.remove(&tracked.model) {
                Some(mut shown) => {
                    if *shown.row != *row {
                        shown.row = row.into();
                        shown.changed = version;
                    }
                    if moved(shown.sampled_at, at) {
                        shown.sampled_at = at;
                        shown.sampled = version;
                    }
                    shown
                }
                None => self.appear(&tracked.model, row, at),
            };
            self.models.insert(tracked.model, shown);
        }
        self.removed.extend(former.into_values().map(|shown| (version, shown.id)));
        while self.removed.len() > MAX_REMOVED {
            self.forgotten = self.removed.pop_front().map_or(0, |(version, _)| version);
        }
    }

    fn appear(&mut self, model: &ModelRef, row: String, sampled_at: Option<Tick>) -> Shown {
        let (name, namespace) =
            (to_json(&model.model.as_str()), to_json(&model.namespace.as_str()));
        let id = self.next_id;
        self.next_id += 1;
        Shown {
            id,
            name: format!(",\"model\":{name},\"namespace\":{namespace}").into(),
            row: row.into(),
            sampled_at,
            appeared: self.version,
            changed: self.version,
            sampled: self.version,
        }
    }

    fn since(&self, after: Option<&str>) -> Since {
        let after = after.and_then(|after| {
            let (epoch, version) = after.split_once('-')?;
            let is_ours = u64::from_str_radix(epoch, 16) == Ok(self.epoch);
            let version: u64 = version.parse().ok()?;
            (is_ours && (self.forgotten..=self.version).contains(&version)).then_some(version)
        });
        let known = after.unwrap_or(0);
        let newer = self.models.values().filter(|it| it.changed.max(it.sampled) > known);
        let changes = newer.map(|it| Change {
            id: it.id,
            sampled_at: it.sampled_at,
            name: (it.appeared > known).then(|| Arc::clone(&it.name)),
            row: (it.changed > known).then(|| Arc::clone(&it.row)),
        });
        let removed =
            self.removed.iter().filter(|(version, _)| after.is_some() && *version > known);
        Since {
            version: format!("{:x}-{}", self.epoch, self.version),
            all: after.is_none(),
            removed: removed.map(|(_, id)| *id).collect(),
            changes: changes.collect(),
        }
    }

    fn model(&self, id: u64) -> Option<ModelRef> {
        self.models.iter().find(|(_, shown)| shown.id == id).map(|(model, _)| model.clone())
    }
}

impl Change {
    fn text(&self, separator: &str, now: Tick) -> String {
        let age = self.sampled_at.map(|at| at.age(now).as_secs_f64());
        let age = age.map_or_else(|| "null".to_owned(), |age| format!("{age:.1}"));
        let [name, row] = [&self.name, &self.row].map(|it| it.as_deref().unwrap_or_default());
        format!("{separator}{{\"id\":{},\"age\":{age}{name}{row}}}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use collector_core::CollectError;

    use super::*;

    fn update(rows: &mut Rows, names: impl IntoIterator<Item = usize>) {
        let tracked = |number| {
            let model = ModelRef::new(format!("org/{number}"), "prod");
            let replicas = Err(CollectError::Pending { model: model.clone() });
            TrackedModel { model, replicas, allocations: Vec::new() }
        };
        rows.update(names.into_iter().map(tracked).collect(), Tick::MIN);
    }

    #[test]
    fn a_removed_model_is_told_once() {
        let changes = Changes::default();
        let mut rows = changes.rows();
        update(&mut rows, 0..3);
        let before = rows.since(None).version;
        let id = rows.models[&ModelRef::new("org/1", "prod")].id;
        update(&mut rows, [0, 2]);
        let since = rows.since(Some(&before));
        assert_eq!((since.all, since.removed, since.changes.len()), (false, vec![id], 0));
        assert!(rows.since(Some(&since.version)).removed.is_empty());
        assert_eq!(rows.model(id), None);

        // One that comes back is another, with its name.
        update(&mut rows, 0..3);
        let since = rows.since(Some(&since.version));
        assert_eq!(since.changes.len(), 1);
        assert!(since.changes[0].name.is_some() && since.changes[0].id != id);
    }

    #[test]
    fn a_page_that_may_have_missed_a_removal_gets_all() {
        let changes = Changes::default();
        let mut rows = changes.rows();
        update(&mut rows, 0..=MAX_REMOVED);
        let before = rows.since(None).version;
        update(&mut rows, 0..1);
        assert!(!rows.since(Some(&before)).all);
        let kept = rows.since(None).version;
        update(&mut rows, []);
        assert!(rows.since(Some(&before)).all);
        assert!(!rows.since(Some(&kept)).all);
        assert_eq!(rows.removed.len(), MAX_REMOVED);
    }

    #[test]
    fn a_name_is_sent_as_json() {
        let changes = Changes::default();
        let mut rows = changes.rows();
        let model = ModelRef::new("a\"b\\\n<", "prod");
        let row = String::new();
        let shown = rows.appear(&model, row, None);
        let change =
            Change { id: 7, sampled_at: None, name: Some(shown.name), row: Some(shown.row) };
        let json: serde_json::Value = serde_json::from_str(&change.text("", Tick::MIN)).unwrap();
        assert_eq!(json["model"], "a\"b\\\n<");
        assert_eq!(json["age"], serde_json::Value::Null);
    }
}
