// SPDX-License-Identifier: Apache-2.0
//! What is known of the watches: whether each has a list, when it was last heard, and why it was lost. The age of all
//! that the cluster tells follows from it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use collector_core::duration;
use collector_core::{ErrorKind, Namespace, Tick};

use crate::kind::Kind;

/// How long a kind that was served must be missing until its objects are forgotten.
const GONE_AFTER: Duration = Duration::from_secs(60);
/// For how long a watch must be lost for that to be said.
const LOST_SHOWN: Duration = Duration::from_secs(1);

/// A watch: of a kind in one namespace, or in all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct WatchId {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<Namespace>,
}

impl fmt::Display for WatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        match &self.namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

/// The state of all watches.
#[derive(Debug)]
pub(crate) struct Watches {
    states: BTreeMap<WatchId, Watch>,
    /// Why there is no client.
    no_client: Option<Unheard>,
    /// Whether one has been asked for: a command for its credentials may take some seconds.
    has_tried: bool,
}

impl Default for Watches {
    fn default() -> Self {
        let why = "no client has been given yet".to_owned();
        let unheard = Unheard { kind: ErrorKind::Configuration, why };
        Self { states: BTreeMap::new(), no_client: Some(unheard), has_tried: false }
    }
}

#[derive(Debug)]
struct Watch {
    /// When it was last heard, once the objects are listed. A kind that is not served is listed, and has none.
    heard: Option<Heard>,
    /// Since when it is not heard, and why, if the last try failed; otherwise since when it is tried.
    lost: Option<Lost>,
    began: Tick,
    /// Since when the server says that it has no such kind any more.
    missing: Option<Tick>,
    /// Where a watch goes on.
    position: Option<Position>,
}

/// The path of the group and version that are served, and the version up to which all is known.
#[derive(Clone, Debug)]
pub(crate) struct Position {
    pub(crate) base: &'static str,
    pub(crate) version: String,
}

#[derive(Clone, Copy, Debug)]
enum Heard {
    At(Tick),
    NotServed,
}

/// Why a watch is lost.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub(crate) since: Tick,
    pub(crate) kind: ErrorKind,
    pub(crate) why: String,
}

/// Why the cluster cannot tell anything now.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Unheard {
    pub(crate) kind: ErrorKind,
    pub(crate) why: String,
}

impl Watches {
    /// Begins with these watches. With `from_start` none of them has a list yet; otherwise those that have keep it.
    pub(crate) fn begin(&mut self, ids: Vec<WatchId>, from_start: bool, now: Tick) {
        if from_start {
            self.states.clear();
        }
        for id in ids {
            let watch =
                || Watch { heard: None, lost: None, began: now, missing: None, position: None };
            self.states.entry(id).or_insert_with(watch);
        }
        self.no_client = None;
    }

    /// Where a watch goes on; `None`: it needs a list.
    pub(crate) fn position(&self, id: &WatchId) -> Option<Position> {
        self.states.get(id)?.position.clone()
    }

    pub(crate) fn set_position(&mut self, id: &WatchId, position: Option<Position>) {
        if let Some(watch) = self.states.get_mut(id) {
            watch.position = position;
        }
    }

    /// There is no client, and why.
    pub(crate) fn no_client(&mut self, why: Unheard) {
        self.no_client = Some(why);
        self.has_tried = true;
    }

    /// The watch was heard, or its list is complete. Returns whether it was not heard before.
    pub(crate) fn heard(&mut self, id: &WatchId, at: Tick) -> bool {
        self.set(id, Heard::At(at))
    }

    /// The server has no such kind.
    pub(crate) fn not_served(&mut self, id: &WatchId) {
        self.set(id, Heard::NotServed);
    }

    /// Whether the server has no such kind, now that it says so: one that has just started says it of kinds that it has.
    pub(crate) fn is_gone(&mut self, id: &WatchId, now: Tick) -> bool {
        let Some(watch) = self.states.get_mut(id) else { return false };
        match watch.heard {
            Some(Heard::At(_)) => watch.missing.get_or_insert(now).age(now) >= GONE_AFTER,
            Some(Heard::NotServed) | None => true,
        }
    }

    /// Whether the watch was heard after this.
    pub(crate) fn was_heard_after(&self, id: &WatchId, at: Tick) -> bool {
        let watch = self.states.get(id);
        watch.is_some_and(|watch| matches!(watch.heard, Some(Heard::At(heard)) if heard > at))
    }

    /// The watch was opened. Returns whether it was lost before.
    pub(crate) fn opened(&mut self, id: &WatchId) -> bool {
        self.states.get_mut(id).is_some_and(|watch| watch.lost.take().is_some())
    }

    fn set(&mut self, id: &WatchId, heard: Heard) -> bool {
        let Some(watch) = self.states.get_mut(id) else { return false };
        watch.missing = None;
        let was_lost = watch.lost.take().is_some();
        was_lost | watch.heard.replace(heard).is_none()
    }

    /// A try failed. The watch is lost since the first one. Returns whether it was not lost before.
    pub(crate) fn lost(&mut self, id: &WatchId, lost: Lost) -> bool {
        let Some(watch) = self.states.get_mut(id) else { return false };
        let since = watch.lost.as_ref().map(|former| former.since);
        watch.lost = Some(Lost { since: since.unwrap_or(lost.since), ..lost });
        since.is_none()
    }

    /// Whether every kind of the supply has been listed.
    pub(crate) fn are_listed(&self) -> bool {
        let mut supply = self.states.iter().filter(|(id, _)| !id.kind.is_of_pages());
        self.no_client.is_none() && supply.all(|(_, watch)| watch.heard.is_some())
    }

    /// Returns since when nothing of the supply has changed that was not heard of; else why that is not known.
    pub(crate) fn as_of(&self, now: Tick) -> Result<Tick, Unheard> {
        self.as_of_kinds(|kind| !kind.is_of_pages(), now)
    }

    /// The same for the metrics pages. Without a kind that names them they are unknown, and not none.
    pub(crate) fn pages_as_of(&self, now: Tick) -> Result<Tick, Unheard> {
        let is_absent =
            |watch: &Watch| matches!((&watch.heard, &watch.lost), (Some(Heard::NotServed), None));
        // InferencePools of one group are enough.
        let has_others = |id: &WatchId| {
            let mut others = self.states.iter().filter(|(other, _)| other.kind != id.kind);
            others
                .any(|(other, watch)| other.kind.plural() == id.kind.plural() && !is_absent(watch))
        };
        let is_missing =
            |id: &WatchId, watch| id.kind.is_of_pages() && is_absent(watch) && !has_others(id);
        if let Some((id, _)) = self.states.iter().find(|(id, watch)| is_missing(id, watch)) {
            let why = format!(
                "the API server has no {}, which name the pods to scrape: install its API, or set kubernetes.scrape",
                id.kind.plural()
            );
            return Err(Unheard { kind: ErrorKind::NotFound, why });
        }
        self.as_of_kinds(|kind| kind == Kind::Pod || kind.is_of_pages(), now)
    }

    fn as_of_kinds(&self, is_needed: impl Fn(Kind) -> bool, now: Tick) -> Result<Tick, Unheard> {
        if let Some(why) = &self.no_client {
            return Err(why.clone());
        }
        let mut as_of = now;
        let mut first_list = None;
        for (id, watch) in self.states.iter().filter(|(id, _)| is_needed(id.kind)) {
            if let Some(lost) = &watch.lost {
                // A single list has no age that says anything.
                let age = match lost.since.age(now) {
                    age if age < LOST_SHOWN => String::new(),
                    age => format!(" for {}", duration::format_seconds(age)),
                };
                let why = format!("{id} could not be read{age}: {}", lost.why);
                return Err(Unheard { kind: lost.kind, why });
            }
            match watch.heard {
                None => first_list = first_list.or(Some((id, watch.began))),
                Some(Heard::At(at)) => as_of = as_of.min(at),
                Some(Heard::NotServed) => {}
            }
        }
        match first_list {
            None => Ok(as_of),
            Some((id, began)) => {
                let age = duration::format_seconds(began.age(now));
                let why = format!("the first list of {id} is under way since {age}");
                Err(Unheard { kind: ErrorKind::Timeout, why })
            }
        }
    }

    /// Whether each has been tried: listed, or lost.
    pub(crate) fn are_tried(&self) -> bool {
        if self.no_client.is_some() {
            return self.has_tried;
        }
        self.states.values().all(|watch| watch.heard.is_some() || watch.lost.is_some())
    }

    /// The age of each kind that is listed: that of the watch that was heard longest ago.
    pub(crate) fn ages(&self, now: Tick) -> BTreeMap<Kind, Duration> {
        let mut ages = BTreeMap::new();
        for (id, watch) in &self.states {
            if let Some(Heard::At(at)) = watch.heard {
                let age: &mut Duration = ages.entry(id.kind).or_default();
                *age = (*age).max(at.age(now));
            }
        }
        ages
    }
}
