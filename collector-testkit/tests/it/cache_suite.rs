//! The cache suite on a plain cache, whole and with one flaw at a time.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use collector_core::{CacheKey, CacheStats, KeyRef, MetricsCache, Peeked, Scope, Stored, Tick};
use collector_testkit::conformance;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    None,
    SaysItKeepsNothing,
    LosesPuts,
    PeekCountsAsRead,
    VisitDoesNotCountAsRead,
    PutCountsAsRead,
    PutKeepsTheOldKey,
    PutKeepsTheOldValue,
    MatchesPrefixesOfText,
    RemovesByModelAlone,
    MiscountsRemovals,
    SweepsWhatIsRead,
    SweepsWhatIsAlive,
    SweepsOneTooLate,
    SweepsInSilence,
    MergesNamespaces,
}

const FLAWS: [Flaw; 15] = [
    Flaw::SaysItKeepsNothing,
    Flaw::LosesPuts,
    Flaw::PeekCountsAsRead,
    Flaw::VisitDoesNotCountAsRead,
    Flaw::PutCountsAsRead,
    Flaw::PutKeepsTheOldKey,
    Flaw::PutKeepsTheOldValue,
    Flaw::MatchesPrefixesOfText,
    Flaw::RemovesByModelAlone,
    Flaw::MiscountsRemovals,
    Flaw::SweepsWhatIsRead,
    Flaw::SweepsWhatIsAlive,
    Flaw::SweepsOneTooLate,
    Flaw::SweepsInSilence,
    Flaw::MergesNamespaces,
];

struct Entry {
    key: CacheKey,
    stored: Arc<Stored>,
    last_read: Tick,
}

struct PlainCache {
    flaw: Flaw,
    entries: Mutex<HashMap<String, Entry>>,
}

impl PlainCache {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self, key: KeyRef<'_>) -> String {
        if self.flaw == Flaw::MergesNamespaces {
            format!("{:?}", (key.kind(), key.model(), format!("{key:?}").len()))
        } else {
            format!("{key:?}")
        }
    }
}

impl MetricsCache for PlainCache {
    fn retains(&self) -> bool {
        self.flaw != Flaw::SaysItKeepsNothing
    }

    fn get(&self, key: KeyRef<'_>, now: Tick) -> Option<Arc<Stored>> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&self.id(key))?;
        entry.last_read = now;
        Some(Arc::clone(&entry.stored))
    }

    fn visit(&self, key: KeyRef<'_>, now: Tick, f: &mut dyn FnMut(&Stored)) -> bool {
        let stored = if self.flaw == Flaw::VisitDoesNotCountAsRead {
            self.peek(key).map(|peeked| peeked.stored)
        } else {
            self.get(key, now)
        };
        stored.inspect(|stored| f(stored)).is_some()
    }

    fn peek(&self, key: KeyRef<'_>) -> Option<Peeked> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&self.id(key))?;
        if self.flaw == Flaw::PeekCountsAsRead {
            entry.last_read = entry.last_read + std::time::Duration::from_secs(1);
        }
        Some(Peeked { stored: Arc::clone(&entry.stored), last_read: entry.last_read })
    }

    fn put(&self, key: CacheKey, stored: Arc<Stored>, now: Tick) {
        let mut entries = self.entries();
        let id = self.id(key.as_ref());
        let mut entry = Entry { key, stored, last_read: now };
        if let Some(old) = entries.remove(&id) {
            match self.flaw {
                Flaw::PutKeepsTheOldKey => entry.key = old.key,
                Flaw::PutKeepsTheOldValue => entry.stored = old.stored,
                _ => {}
            }
            if self.flaw != Flaw::PutCountsAsRead {
                entry.last_read = old.last_read;
            }
        }
        if self.flaw != Flaw::LosesPuts {
            entries.insert(id, entry);
        }
    }

    fn remove(&self, scope: &Scope) -> usize {
        let mut entries = self.entries();
        let before = entries.len();
        entries.retain(|_, entry| match (self.flaw, scope.single_model()) {
            (Flaw::MatchesPrefixesOfText, Some((model, _))) => {
                !entry.key.as_ref().model().starts_with(model)
            }
            (Flaw::RemovesByModelAlone, Some((model, _))) => entry.key.as_ref().model() != model,
            _ => !scope.contains(&entry.key),
        });
        let removed = before - entries.len();
        if self.flaw == Flaw::MiscountsRemovals { removed.min(1) } else { removed }
    }

    fn sweep(&self, now: Tick) -> Vec<CacheKey> {
        let mut swept = Vec::new();
        self.entries().retain(|_, entry| {
            let dead = now >= entry.stored.keep_until || self.flaw == Flaw::SweepsWhatIsAlive;
            let unread_since = entry.last_read + entry.stored.keep_unread;
            let unread = match self.flaw {
                Flaw::SweepsWhatIsRead => true,
                Flaw::SweepsOneTooLate => now > unread_since,
                _ => now >= unread_since,
            };
            if dead && unread {
                swept.push(entry.key.clone());
            }
            !(dead && unread)
        });
        if self.flaw == Flaw::SweepsInSilence {
            swept.clear();
        }
        swept
    }

    fn len(&self) -> usize {
        self.entries().len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn stats(&self) -> CacheStats {
        CacheStats { entries: self.len(), ..CacheStats::default() }
    }
}

#[test]
fn a_right_cache_passes() {
    conformance::cache(|| PlainCache::new(Flaw::None));
}

#[test]
fn each_flaw_is_caught() {
    for flaw in FLAWS {
        let outcome = catch_unwind(|| conformance::cache(|| PlainCache::new(flaw)));
        assert!(outcome.is_err(), "a cache that {flaw:?} passed");
    }
}
