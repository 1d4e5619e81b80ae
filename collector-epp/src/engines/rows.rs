// SPDX-License-Identifier: Apache-2.0
//! The rows of a metrics page, by the labels that name them.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use collector_core::Role;
use foldhash::fast::RandomState;

/// Rows that are kept of one page. Model servers have far fewer.
const ROWS_MAX: usize = 8192;

pub(super) type RowId = u16;

/// Model, rank and replica of a row; `None` for a name that the series do not give.
pub(super) type RowKey = [Option<Arc<str>>; 3];

/// The roles of servers that share the work of a request: values of a role label that are used.
const ROLES: [&str; 2] = ["prefill", "decode"];

/// The rows of one page, each once.
#[derive(Default, Debug)]
pub(super) struct Rows {
    keys: Vec<RowKey>,
    /// The roles that the series of each row name, as bits in the order of [`ROLES`].
    roles: Vec<u8>,
    /// By the hash of the key. Of two keys with one hash only the first is kept, which no fleet will see with 64
    /// random bits.
    ids: HashMap<u64, RowId, RandomState>,
}

impl Rows {
    /// Returns the row of this key, which may be a new one; `None` if there are too many rows.
    pub(super) fn id_of(&mut self, names: [Option<&str>; 3]) -> Option<RowId> {
        let hash = self.ids.hasher().hash_one(names);
        if let Some(id) = self.ids.get(&hash) {
            let same = texts(self.key(*id)) == names;
            return same.then_some(*id);
        }
        if self.keys.len() == ROWS_MAX {
            return None;
        }
        let id = RowId::try_from(self.keys.len()).ok()?;
        self.keys.push(names.map(|name| name.map(Arc::from)));
        self.roles.push(0);
        self.ids.insert(hash, id);
        Some(id)
    }

    /// Records the role that a series of the row names.
    pub(super) fn note_role(&mut self, id: RowId, role: &str) {
        if let Some(bit) = ROLES.iter().position(|known| *known == role) {
            self.roles[usize::from(id)] |= 1 << bit;
        }
    }

    /// Returns the role of a row's server, if its series agree.
    pub(super) fn role(&self, id: RowId) -> Option<Role> {
        let noted = self.roles[usize::from(id)];
        let bit = (0..ROLES.len()).find(|bit| noted == 1 << bit)?;
        Some(ROLES[bit].into())
    }

    pub(super) fn key(&self, id: RowId) -> &RowKey {
        &self.keys[usize::from(id)]
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.roles.clear();
        self.ids.clear();
    }

    /// Returns the row that each row belongs to: for a row that lacks a name, the only row of `used` that matches its
    /// other names.
    ///
    /// Series of a server that do not name a model (vLLM's cache configuration) belong to its only model. If it has
    /// several, the row stays separate.
    pub(super) fn homes(&self, used: &[bool]) -> Vec<RowId> {
        let mut only: HashMap<Agrees<'_>, Option<RowId>> = HashMap::new();
        let ids = || (0..).take(self.keys.len());
        for id in ids().filter(|id: &RowId| used[usize::from(*id)]) {
            let [Some(_), rank, replica] = texts(self.key(id)) else { continue };
            for agrees in [Agrees::Server, Agrees::Replica(replica), Agrees::Rank(rank, replica)] {
                only.entry(agrees).and_modify(|only| *only = None).or_insert(Some(id));
            }
        }
        let home = |id: RowId| {
            let agrees = match texts(self.key(id)) {
                [None, None, None] => Agrees::Server,
                [None, None, replica] => Agrees::Replica(replica),
                [None, rank, replica] => Agrees::Rank(rank, replica),
                [Some(_), ..] => return id,
            };
            only.get(&agrees).copied().flatten().unwrap_or(id)
        };
        ids().map(home).collect()
    }
}

fn texts(key: &RowKey) -> [Option<&str>; 3] {
    key.each_ref().map(Option::as_deref)
}

/// The names that a row and the rows it may belong to have in common.
#[derive(PartialEq, Eq, Hash)]
enum Agrees<'a> {
    /// The server.
    Server,
    /// The replica.
    Replica(Option<&'a str>),
    /// Rank and replica.
    Rank(Option<&'a str>, Option<&'a str>),
}
