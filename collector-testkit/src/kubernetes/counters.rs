// SPDX-License-Identifier: Apache-2.0
//! What a [`Cluster`](super::Cluster) counts.

use std::collections::BTreeMap;

use super::kinds::Kind;

/// What a client asks of a kind, as roles name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// One object by its name.
    Get,
    /// All selected objects, or one page of them.
    List,
    /// Changes as they happen.
    Watch,
}

impl Verb {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
        }
    }
}

/// What the server has done since its start.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub(super) requests: BTreeMap<(Verb, Kind), u64>,
    pub(super) open_watches: BTreeMap<Kind, u64>,
    pub(super) objects_sent: BTreeMap<Kind, u64>,
    pub(super) held: BTreeMap<Kind, u64>,
}

impl Counters {
    /// How many requests for a kind arrived, refused ones and each page of a list included.
    pub fn requests(&self, verb: Verb, kind: Kind) -> u64 {
        self.requests.get(&(verb, kind)).copied().unwrap_or(0)
    }

    /// How many watches of a kind are open now.
    pub fn open_watches(&self, kind: Kind) -> u64 {
        self.open_watches.get(&kind).copied().unwrap_or(0)
    }

    /// How many objects of a kind were sent, in lists, as single objects and in events.
    pub fn objects_sent(&self, kind: Kind) -> u64 {
        self.objects_sent.get(&kind).copied().unwrap_or(0)
    }

    /// How many pages of a kind wait now for [`HeldPages::release`](super::HeldPages::release).
    pub fn held_pages(&self, kind: Kind) -> u64 {
        self.held.get(&kind).copied().unwrap_or(0)
    }
}
