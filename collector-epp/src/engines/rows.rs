//! The rows of a page: what its series are about.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::table::RowKind;

/// Rows that are held of one page. A picker of a thousand pods and as many models has fewer.
const ROWS_MAX: usize = 8192;

pub(super) type RowId = u16;

/// What one row is about. A name that the series do not give is `None`.
#[derive(Clone, Debug)]
pub(super) struct RowKey {
    pub(super) kind: RowKind,
    pub(super) names: [Option<Arc<str>>; 2],
}

/// The rows of one page, each once.
#[derive(Default, Debug)]
pub(super) struct Rows {
    keys: Vec<RowKey>,
    /// By the hash of the key. Two keys of one hash do not both find room, which with 64 random bits
    /// no fleet will see.
    ids: HashMap<u64, RowId, RandomState>,
}

impl Rows {
    /// The row of this key, a new one if need be; `None` when there is no room for it.
    pub(super) fn id_of(&mut self, kind: RowKind, names: [Option<&str>; 2]) -> Option<RowId> {
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
        self.ids.insert(hash, id);
        Some(id)
    }

    pub(super) fn key(&self, id: RowId) -> &RowKey {
        &self.keys[usize::from(id)]
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
        self.ids.clear();
    }

    /// For each of the rows that lack a name, the only row of `used` that it can be a part of.
    ///
    /// What is said of a server without naming its model (vLLM's cache configuration) is about its
    /// only model; what is said of a model without naming its target (the picker's first generation)
    /// is about its only target. Where there are several, nobody can tell, and the row stays itself.
    pub(super) fn homes(&self, used: &[bool]) -> Vec<RowId> {
        let mut only: HashMap<(RowKind, Option<&str>), Only> = HashMap::new();
        let mut only_server = Only::None;
        let is_used = |id: &RowId| used[usize::from(*id)];
        let ids = || (0..).take(self.keys.len());
        for id in ids().filter(is_used) {
            let RowKey { kind, names: [first, second] } = self.key(id);
            match (kind, first, second) {
                (RowKind::Server, Some(_), rank) => {
                    only.entry((*kind, rank.as_deref())).or_default().add(id);
                    only_server.add(id);
                }
                (RowKind::Model, model, Some(_)) => {
                    only.entry((*kind, model.as_deref())).or_default().add(id);
                }
                _ => {}
            }
        }
        let home = |id: RowId| {
            let RowKey { kind, names: [first, second] } = self.key(id);
            let only_row = match (kind, first, second) {
                (RowKind::Server, None, None) => Some(&only_server),
                (RowKind::Server, None, rank) => only.get(&(*kind, rank.as_deref())),
                (RowKind::Model, model, None) => only.get(&(*kind, model.as_deref())),
                _ => None,
            };
            match only_row {
                Some(Only::One(home)) => *home,
                _ => id,
            }
        };
        ids().map(home).collect()
    }
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
