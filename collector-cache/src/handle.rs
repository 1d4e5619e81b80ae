//! A handle on one key: finds its entry once and then looks only whether it is still the newest.

use std::sync::Arc;

use collector_core::{CacheKey, Stored, Tick};

use crate::memory::MemoryCache;
use crate::version::Version;

/// One reader's place at one key of a [`MemoryCache`].
///
/// A read through it is a comparison of two numbers while nothing was put; it takes no count of
/// anything that other readers share. It outlives the entry: after a removal it finds the one that is
/// put next. It holds the last entry that it has shown until it is read again.
#[derive(Clone)]
pub struct Handle {
    key: CacheKey,
    seen: Option<(Version, Arc<Stored>)>,
}

/// Whether a read shows what the one before it has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    /// The same entry.
    Again,
    /// Another one.
    New,
}

impl Handle {
    pub(crate) fn new(key: CacheKey) -> Self {
        Self { key, seen: None }
    }

    /// The key.
    pub fn key(&self) -> &CacheKey {
        &self.key
    }

    /// The entry, and whether it is another than the last time; counts as a read at `now`. `None` when
    /// there is none. `cache` must be the one that made the handle.
    pub fn read(&mut self, cache: &MemoryCache, now: Tick) -> Option<(&Arc<Stored>, Shown)> {
        let current = self.seen.as_ref().is_some_and(|(version, _)| version.is_current());
        if !current {
            self.seen = cache.resolve(self.key.as_ref());
        }
        let (version, stored) = self.seen.as_ref()?;
        version.touch(now);
        Some((stored, if current { Shown::Again } else { Shown::New }))
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("key", &self.key).finish_non_exhaustive()
    }
}
