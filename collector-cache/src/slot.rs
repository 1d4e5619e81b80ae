//! The cell of one key: the entry it holds now, and when it was last read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};
use collector_core::{Stored, Tick};

pub(crate) struct Slot {
    stored: ArcSwap<Stored>,
    last_read: AtomicU64,
}

impl Slot {
    pub(crate) fn new(stored: Arc<Stored>, now: Tick) -> Self {
        Self { stored: ArcSwap::new(stored), last_read: AtomicU64::new(now.to_nanos()) }
    }

    pub(crate) fn touch(&self, now: Tick) {
        // Reads within one step of the coarse clock write once, so that readers of a hot key on
        // several cores mostly share the line instead of passing it on.
        let now = now.to_nanos();
        if self.last_read.load(Ordering::Relaxed) < now {
            self.last_read.fetch_max(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn last_read(&self) -> Tick {
        Tick::from_nanos(self.last_read.load(Ordering::Relaxed))
    }

    pub(crate) fn stored(&self) -> Arc<Stored> {
        self.stored.load_full()
    }

    pub(crate) fn borrow(&self) -> Guard<Arc<Stored>> {
        self.stored.load()
    }

    pub(crate) fn replace(&self, stored: Arc<Stored>) {
        self.stored.store(stored);
    }

    /// Past its use, and unread for as long as it wants to be kept all the same.
    pub(crate) fn is_forgotten(&self, now: Tick) -> bool {
        let stored = self.stored.load();
        now >= stored.keep_until && now >= self.last_read() + stored.keep_unread
    }
}
