//! The engine's cache: the one of `collector-cache`, which hits read without a detour, or any other.

use std::ops::Deref;
use std::sync::Arc;

use collector_cache::MemoryCache;
use collector_core::{KeyRef, MetricsCache, Stored, Tick};

/// A cache whose concrete kind is known where that is worth 20 ns a hit.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one in each collector, and a pointer more would be followed at each hit"
)]
pub(crate) enum Cache {
    Memory(MemoryCache),
    Other(Arc<dyn MetricsCache>),
}

impl Cache {
    /// Shows the entry to `f`; counts as a read at `now`.
    pub(crate) fn read<R>(
        &self,
        key: KeyRef<'_>,
        now: Tick,
        f: impl FnOnce(&Stored) -> R,
    ) -> Option<R> {
        match self {
            Self::Memory(cache) => cache.read(key, now, f),
            Self::Other(cache) => visit(&**cache, key, now, f),
        }
    }

    /// Whether a read of an entry that is due should see to its refresh, or another has just done so.
    pub(crate) fn may_refresh(&self, key: KeyRef<'_>, now: Tick) -> bool {
        match self {
            Self::Memory(cache) => cache.claim_refresh(key, now),
            Self::Other(_) => true,
        }
    }
}

/// Apart, so that what is read of the other is not copied around.
#[cold]
fn visit<R>(
    cache: &dyn MetricsCache,
    key: KeyRef<'_>,
    now: Tick,
    f: impl FnOnce(&Stored) -> R,
) -> Option<R> {
    let mut f = Some(f);
    let mut shown = None;
    cache.visit(key, now, &mut |stored| {
        if let Some(f) = f.take() {
            shown = Some(f(stored));
        }
    });
    shown
}

impl Deref for Cache {
    type Target = dyn MetricsCache;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Memory(cache) => cache,
            Self::Other(cache) => &**cache,
        }
    }
}
