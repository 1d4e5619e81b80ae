//! The rows of a page: what its series are about.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use collector_core::Role;
use foldhash::fast::RandomState;

use super::table::RowKind;

/// Rows that are held of one page. A picker of a thousand pods and as many models has fewer.
const ROWS_MAX: usize = 8192;

pub(super) type RowId = u16;

/// What one row is about. A name that the series do not give is `None`.
#[derive(Clone, Debug)]
pub(super) struct RowKey {
    pub(super) kind: RowKind,
    pub(super) names: [Option<Arc<str>>; 3],
}

/// What a server does where a request is served by several: the values of a role label that count.
const ROLES: [&str; 2] = ["prefill", "decode"];

/// The rows of one page, each once.
#[derive(Default, Debug)]
pub(super) struct Rows {
    keys: Vec<RowKey>,
    /// The roles that the series of each row name, as bits in the order of [`ROLES`].
    roles: Vec<u8>,
    /// By the hash of the key. Two keys of one hash do not both find room, which with 64 random bits
    /// no fleet will see.
    ids: HashMap<u64, RowId, RandomState>,
}

impl Rows {
    /// The row of this key, a new one if need be; `None` when there is no room for it.
    pub(super) fn id_of(&mut self, kind: RowKind, names: [Option<&str>; 3]) -> Option<RowId> {
        let hash = self.ids.hasher().hash_one((kind, names));
        if let Some(id) = self.ids.get(&hash) {
            let key = &self.keys[usize::from(*id)];
            let same = key.kind == kind && key.names.each_ref().map(Option::as_deref) == names;
            return same.then_some(*id);
        }
        if self.keys.len() == ROWS_MAX {
            return None;
        }
        let id = RowId::try_from(self.keys.len()).ok()?;
        self.keys.push(RowKey { kind, names: names.map(|name| name.map(Arc::from)) });
        self.roles.push(0);
        self.ids.insert(hash, id);
        Some(id)
    }

    /// Notes what a series of the row says that its server does.
    pub(super) fn note_role(&mut self, id: RowId, role: &str) {
        if let Some(bit) = ROLES.iter().position(|known| *known == role) {
            self.roles[usize::from(id)] |= 1 << bit;
        }
    }

    /// What the server of a row does, where its series agree.
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

    /// For each of the rows that lack a name, the only row of `used` that it can be a part of.
    ///
    /// What is said of a server without naming its model (vLLM's cache configuration) is about its
    /// only model; what is said of a model without naming its target (the picker's first generation)
    /// is about its only target. Where there are several, nobody can tell, and the row stays itself.
    pub(super) fn homes(&self, used: &[bool]) -> Vec<RowId> {
        let mut only: HashMap<Agrees<'_>, Only> = HashMap::new();
        let is_used = |id: &RowId| used[usize::from(*id)];
        let ids = || (0..).take(self.keys.len());
        for id in ids().filter(is_used) {
            let RowKey { kind, names } = self.key(id);
            let [first, second, third] = names.each_ref().map(Option::as_deref);
            match (kind, first, second) {
                (RowKind::Server, Some(_), rank) => {
                    only.entry(Agrees::Server).or_default().add(id);
                    only.entry(Agrees::Replica(third)).or_default().add(id);
                    only.entry(Agrees::Rank(rank, third)).or_default().add(id);
                }
                (RowKind::Model, model, Some(_)) => {
                    only.entry(Agrees::Model(model)).or_default().add(id);
                }
                _ => {}
            }
        }
        let home = |id: RowId| {
            let RowKey { kind, names } = self.key(id);
            let [first, second, third] = names.each_ref().map(Option::as_deref);
            let agrees = match (kind, first, second, third) {
                (RowKind::Server, None, None, None) => Agrees::Server,
                (RowKind::Server, None, None, replica) => Agrees::Replica(replica),
                (RowKind::Server, None, rank, replica) => Agrees::Rank(rank, replica),
                (RowKind::Model, model, None, _) => Agrees::Model(model),
                _ => return id,
            };
            match only.get(&agrees) {
                Some(Only::One(home)) => *home,
                _ => id,
            }
        };
        ids().map(home).collect()
    }
}

/// What the rows have in common of which there may be only one.
#[derive(PartialEq, Eq, Hash)]
enum Agrees<'a> {
    /// That they are a server's.
    Server,
    /// The replica.
    Replica(Option<&'a str>),
    /// Rank and replica.
    Rank(Option<&'a str>, Option<&'a str>),
    /// The model that was asked for.
    Model(Option<&'a str>),
}

/// Whether there is one of something.
#[derive(Default)]
enum Only {
    #[default]
    None,
    One(RowId),
    Several,
}

impl Only {
    fn add(&mut self, id: RowId) {
        *self = match self {
            Self::None => Self::One(id),
            Self::One(_) | Self::Several => Self::Several,
        };
    }
}
