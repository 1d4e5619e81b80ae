// SPDX-License-Identifier: Apache-2.0
//! The objects of the cluster, their versions, and the history that watches read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use super::kinds::Kind;
use super::selector::Selection;
use super::status::ApiError;

/// How many changes of a kind are kept unless a test says otherwise.
const HISTORY: usize = 10_000;
/// How many unfinished lists are kept. The oldest one expires first.
const UNFINISHED_LISTS: usize = 64;
/// The creation time of objects that come without one: this server reads no clock.
const CREATED: &str = "2026-01-01T00:00:00Z";

/// Objects by namespace and name.
type Objects = BTreeMap<(String, String), Arc<Value>>;

#[derive(Debug)]
pub(super) struct Store {
    /// The version of the newest change. All kinds share one count, as with etcd.
    version: u64,
    uids: u64,
    served: BTreeMap<Kind, Stored>,
    history: usize,
    unfinished: VecDeque<(u64, Page)>,
    lists: u64,
}

/// The objects of one kind and their latest changes.
#[derive(Debug, Default)]
struct Stored {
    objects: Objects,
    changes: VecDeque<Change>,
    /// The version up to which changes are forgotten.
    forgotten: u64,
}

/// A change of one object: from nothing, to nothing, or from one state to another.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
}

/// Objects of a list, as of one version.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) version: u64,
    pub(super) objects: Vec<Arc<Value>>,
    /// The token for the rest of the list, if there is any.
    pub(super) token: Option<String>,
    /// How many objects the rest has, where that is known.
    pub(super) remaining: Option<usize>,
}

impl Store {
    pub(super) fn new(kinds: &[Kind]) -> Self {
        Self {
            version: 1,
            uids: 0,
            served: kinds.iter().map(|kind| (*kind, Stored::default())).collect(),
            history: HISTORY,
            unfinished: VecDeque::new(),
            lists: 0,
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.served.keys().copied()
    }

    pub(super) fn serve(&mut self, kind: Kind) {
        let version = self.version;
        self.served
            .entry(kind)
            .or_insert_with(|| Stored { forgotten: version, ..Stored::default() });
    }

    pub(super) fn stop_serving(&mut self, kind: Kind) {
        self.served.remove(&kind);
    }

    pub(super) fn is_served(&self, kind: Kind) -> bool {
        self.served.contains_key(&kind)
    }

    /// The served kind at a path.
    pub(super) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        self.kinds()
            .find(|kind| (kind.group, kind.version, kind.plural) == (group, version, plural))
    }

    /// The served kind of an object.
    pub(super) fn kind_of(&self, object: &Value) -> Option<Kind> {
        let (api_version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
        self.kinds().find(|served| served.kind == kind && served.api_version() == api_version)
    }

    /// Creates or replaces an object, and fills in the metadata that an API server sets. An object that is equal to
    /// the stored one changes nothing.
    pub(super) fn apply(&mut self, kind: Kind, mut object: Value) -> Arc<Value> {
        let key = key(&object);
        let before = self.served.get(&kind).and_then(|stored| stored.objects.get(&key)).cloned();
        let old = before.as_deref().map_or(&Value::Null, |before| &before["metadata"]);
        self.uids += 1;
        let uid = format!("00000000-0000-4000-8000-{:012x}", self.uids);
        let respecified = before.as_ref().is_some_and(|before| before["spec"] != object["spec"]);
        let generation = old["generation"].as_u64().unwrap_or(1) + u64::from(respecified);
        let metadata = &mut object["metadata"];
        set_if_absent(metadata, "uid", old.get("uid").cloned().unwrap_or_else(|| json!(uid)));
        set_if_absent(
            metadata,
            "creationTimestamp",
            old.get("creationTimestamp").cloned().unwrap_or_else(|| json!(CREATED)),
        );
        set_if_absent(metadata, "generation", json!(generation));
        if let Some(before) = before.as_ref() {
            metadata["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if **before == object {
                return Arc::clone(before);
            }
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        if let Some(stored) = self.served.get_mut(&kind) {
            stored.objects.insert(key, Arc::clone(&object));
        }
        self.record(kind, before, Some(Arc::clone(&object)));
        object
    }

    /// Deletes an object; false if there is none.
    pub(super) fn delete(&mut self, kind: Kind, namespace: &str, name: &str) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(before) =
            self.served.get_mut(&kind).and_then(|stored| stored.objects.remove(&key))
        else {
            return false;
        };
        self.version += 1;
        self.record(kind, Some(before), None);
        true
    }

    fn record(&mut self, kind: Kind, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        if let Some(stored) = self.served.get_mut(&kind) {
            stored.changes.push_back(Change { version: self.version, before, after });
            stored.limit(self.history);
        }
    }

    pub(super) fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.served.get(&kind)?.objects.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Every selected object, in the order of namespaces and names.
    pub(super) fn selected(&self, kind: Kind, selection: &Selection) -> Vec<Arc<Value>> {
        let objects = self.served.get(&kind).into_iter().flat_map(|stored| stored.objects.values());
        objects.filter(|object| selection.matches(object)).cloned().collect()
    }

    /// The first page of a list. The rest is kept as it is now, under a token.
    pub(super) fn list(&mut self, kind: Kind, selection: &Selection, limit: usize) -> Page {
        let objects = self.selected(kind, selection);
        self.cut(Page { version: self.version, objects, token: None, remaining: None }, limit)
    }

    /// The page that a continue token stands for. The token stays valid until it expires.
    pub(super) fn list_on(&mut self, token: &str, limit: usize) -> Result<Page, ApiError> {
        let list =
            token.parse::<u64>().map_err(|_| ApiError::bad_request("continue key is not valid"))?;
        let kept = self.unfinished.iter().find(|(number, _)| *number == list);
        let page = kept.map(|(_, page)| page.clone()).ok_or_else(ApiError::continue_expired)?;
        Ok(self.cut(page, limit))
    }

    fn cut(&mut self, mut page: Page, limit: usize) -> Page {
        if limit == 0 || page.objects.len() <= limit {
            return page;
        }
        let rest = page.objects.split_off(limit);
        self.lists += 1;
        (page.token, page.remaining) = (Some(self.lists.to_string()), Some(rest.len()));
        let rest = Page { version: page.version, objects: rest, token: None, remaining: None };
        self.unfinished.push_back((self.lists, rest));
        if self.unfinished.len() > UNFINISHED_LISTS {
            self.unfinished.pop_front();
        }
        page
    }

    pub(super) fn expire_continue_tokens(&mut self) {
        self.unfinished.clear();
    }

    /// The changes of a kind after a version, or the error that the history does not reach back so far.
    ///
    /// After a version that is still to come nothing is returned until it is reached, as from a real API server.
    pub(super) fn changes(&self, kind: Kind, since: u64) -> Result<Vec<Change>, ApiError> {
        let Some(stored) = self.served.get(&kind) else { return Ok(Vec::new()) };
        if since < stored.forgotten {
            return Err(ApiError::version_too_old(since, stored.forgotten));
        }
        let first = stored.changes.partition_point(|change| change.version <= since);
        Ok(stored.changes.range(first..).cloned().collect())
    }

    pub(super) fn set_history(&mut self, history: usize) {
        self.history = history;
        self.served.values_mut().for_each(|stored| stored.limit(history));
    }

    pub(super) fn forget_history(&mut self) {
        for stored in self.served.values_mut() {
            stored.changes.clear();
            stored.forgotten = self.version;
        }
    }

    /// Counts versions from 1 again, as after a restore from a backup: every object gets a new one.
    pub(super) fn renumber(&mut self) {
        self.version = 1;
        for object in self.served.values_mut().flat_map(|stored| stored.objects.values_mut()) {
            self.version += 1;
            Arc::make_mut(object)["metadata"]["resourceVersion"] = json!(self.version.to_string());
        }
        self.expire_continue_tokens();
        self.forget_history();
    }
}

impl Stored {
    fn limit(&mut self, history: usize) {
        while self.changes.len() > history {
            self.forgotten =
                self.changes.pop_front().map_or(self.forgotten, |change| change.version);
        }
    }
}

fn key(object: &Value) -> (String, String) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (text("namespace"), text("name"))
}

fn set_if_absent(metadata: &mut Value, field: &str, value: Value) {
    if metadata.get(field).is_none() {
        metadata[field] = value;
    }
}
