//! What a cache is, said as plainly as can be: a sorted map, and rules about who may leave it.

use std::collections::BTreeMap;
use std::sync::Arc;

use collector_core::{CacheKey, KeyKind, ModelRef, Scope, Stored, Tick, VariantName};

use super::Shown;
use super::order::Order;

/// What tells one key from another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Id {
    kind: KeyKind,
    model: String,
    namespace: String,
    variant: String,
}

impl Id {
    pub(super) fn of(key: &CacheKey) -> Self {
        let parts = key.as_ref();
        Self {
            kind: parts.kind(),
            model: parts.model().to_owned(),
            namespace: parts.namespace().to_owned(),
            variant: parts.variant().to_owned(),
        }
    }

    pub(super) fn key(&self) -> CacheKey {
        let model = ModelRef::new(self.model.as_str(), self.namespace.as_str());
        match self.kind {
            KeyKind::Replicas => CacheKey::replicas(&model),
            KeyKind::Allocation => {
                CacheKey::allocation(&model, &VariantName::from(self.variant.as_str()), None)
            }
        }
    }
}

pub(super) struct Entry {
    key: CacheKey,
    pub(super) stored: Arc<Stored>,
    pub(super) last_read: Tick,
}

impl Entry {
    fn leaves_at(&self) -> Tick {
        self.stored.keep_until.max(self.last_read + self.stored.keep_unread)
    }
}

pub(super) struct Reference {
    pub(super) entries: BTreeMap<Id, Entry>,
    pub(super) evictions: u64,
    max_entries: usize,
    max_bytes: usize,
    order: Order,
}

impl Reference {
    pub(super) fn without_limit() -> Self {
        Self::of_entries(usize::MAX, Order::Any)
    }

    pub(super) fn that_keeps_nothing() -> Self {
        Self::of_entries(0, Order::Any)
    }

    pub(super) fn of_entries(max_entries: usize, order: Order) -> Self {
        let entries = BTreeMap::new();
        Self { entries, evictions: 0, max_entries, max_bytes: usize::MAX, order }
    }

    pub(super) fn of_bytes(max_bytes: usize) -> Self {
        Self { max_bytes, ..Self::without_limit() }
    }

    /// The least that the entries can be counted as.
    pub(super) fn bytes(&self) -> usize {
        let bytes = |entry: &Entry| entry.stored.bytes() + entry.key.heap_bytes();
        self.entries.values().map(bytes).sum()
    }

    pub(super) fn read(&mut self, id: &Id, now: Tick, counts: bool) -> Option<Arc<Stored>> {
        let entry = self.entries.get_mut(id)?;
        if counts {
            entry.last_read = entry.last_read.max(now);
            self.order.read(id);
        }
        Some(Arc::clone(&entry.stored))
    }

    /// Puts, and checks who has left for it: `kept` tells whether an entry is still in the cache.
    pub(super) fn put(
        &mut self,
        key: CacheKey,
        stored: Arc<Stored>,
        now: Tick,
        kept: impl Fn(&Id) -> bool,
        shown: &Shown,
    ) {
        if self.max_entries == 0 {
            return;
        }
        let id = Id::of(&key);
        let before = self.entries.get(&id);
        let last_read = before.map_or(now, |entry| entry.last_read);
        let same_key = before.is_some_and(|entry| entry.key.accelerator() == key.accelerator());
        let was_tracked = before.map(|entry| entry.stored.tracked);
        let tracked = stored.tracked;
        if !same_key {
            self.order.leave(&id);
        }
        let others: Vec<(Id, bool, Tick)> = self
            .entries
            .iter()
            .filter(|(other, _)| **other != id)
            .map(|(other, entry)| (other.clone(), entry.stored.tracked, entry.last_read))
            .collect();
        let expected = (others.len() >= self.max_entries)
            .then(|| self.order.victims(&others, tracked))
            .flatten();
        self.entries.insert(id.clone(), Entry { key, stored, last_read });

        let gone: Vec<Id> = self.entries.keys().filter(|id| !kept(id)).cloned().collect();
        if let Some(expected) = expected {
            let allowed = match gone.as_slice() {
                [one] => expected.contains(one) || (expected.is_empty() && *one == id),
                _ => false,
            };
            assert!(allowed, "{shown}: {gone:?} left, and not one of {expected:?}");
        }
        self.check_who_left(&id, &gone, shown);
        for gone in &gone {
            self.entries.remove(gone);
            self.order.leave(gone);
        }
        self.evictions += gone.len() as u64;
        if self.entries.contains_key(&id) && (!same_key || was_tracked != Some(tracked)) {
            self.order.enter(&id, tracked);
        }
    }

    /// The rules that hold for every order of eviction.
    fn check_who_left(&self, put: &Id, gone: &[Id], shown: &Shown) {
        let is_tracked = |id: &Id| self.entries[id].stored.tracked;
        let stays: Vec<&Id> = self.entries.keys().filter(|id| !gone.contains(id)).collect();
        let limits = "within the limits";
        assert!(stays.len() <= self.max_entries, "{shown}: {limits}");
        let bytes = |id: &&Id| self.entries[*id].stored.bytes();
        let held: usize = stays.iter().map(bytes).sum();
        assert!(held <= self.max_bytes || stays.len() == 1, "{shown}: {limits}");
        assert!(!stays.is_empty(), "{shown}: one entry is always kept");
        if gone.contains(put) {
            assert!(!is_tracked(put), "{shown}: what is tracked finds room");
            assert!(stays.iter().all(|id| is_tracked(id)), "{shown}: the newest stays");
        }
        if gone.iter().any(is_tracked) {
            assert!(is_tracked(put), "{shown}: a tracked entry leaves only for another");
            let others = stays.iter().filter(|id| **id != put);
            assert!(
                others.into_iter().all(|id| is_tracked(id)),
                "{shown}: tracked ones leave last"
            );
        }
        if self.max_bytes == usize::MAX {
            let full = self.entries.len() - gone.len() == self.max_entries;
            assert!(gone.is_empty() || full, "{shown}: no more leave than must");
        }
    }

    pub(super) fn remove(&mut self, scope: &Scope) -> usize {
        self.drop_where(|entry| scope.contains(&entry.key)).len()
    }

    pub(super) fn sweep(&mut self, now: Tick) -> Vec<Id> {
        self.drop_where(|entry| entry.leaves_at() <= now)
    }

    fn drop_where(&mut self, leaves: impl Fn(&Entry) -> bool) -> Vec<Id> {
        let gone: Vec<Id> = self
            .entries
            .iter()
            .filter(|(_, entry)| leaves(entry))
            .map(|(id, _)| id.clone())
            .collect();
        for id in &gone {
            self.entries.remove(id);
            self.order.leave(id);
        }
        gone
    }
}
