// SPDX-License-Identifier: Apache-2.0
//! Generations: the numbers by which readers tell a newer sample from the same one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use collector_core::{ModelRecord, Published};

use crate::engine::Engine;

/// The last generation that was given to a value, or to an event; 0 before the first.
///
/// There is one for the process, because a collector goes on with the values of the one whose place it takes.
static LAST: AtomicU64 = AtomicU64::new(0);

impl Engine {
    /// Gives a value that was just made its generation. One that repeats the value before it is that value: it keeps
    /// its generation and its times. One that differs in more than its sample, as after a reload, is still of that
    /// sample, whose time is shown as before.
    pub(crate) fn number(&self, record: &mut ModelRecord, before: Option<&ModelRecord>) {
        let Some(value) = &mut record.value else { return };
        let former = before.and_then(|before| before.value.as_ref());
        if let Some(former) = former.filter(|former| value.repeats(former)) {
            let supply = value.replicas.supply.clone();
            *value = Arc::clone(former);
            if supply != former.replicas.supply {
                // It was confirmed again.
                Arc::make_mut(value).replicas.supply = supply;
            }
            return;
        }
        let (mut at, mut wall) = (self.clock.now(), self.clock.wall());
        let generation = next(wall);
        let same_sample = former.filter(|former| value.replicas.oldest == former.replicas.oldest);
        if let Some(published) = same_sample.and_then(|former| former.published) {
            (at, wall) = (published.at, published.wall);
        }
        Arc::make_mut(value).published = Some(Published { generation, at, wall });
    }

    /// The next number of the sequence that generations are from.
    pub(crate) fn next_generation(&self) -> u64 {
        next(self.clock.wall())
    }
}

/// The sequence begins at the time of the first number, in microseconds: a process that follows on another, or works
/// beside it, does not use the numbers of that one.
fn next(wall: SystemTime) -> u64 {
    if LAST.load(Relaxed) == 0 {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        let start = u64::try_from(since.as_micros()).unwrap_or_default();
        // If another thread was faster, the sequence has begun.
        let _ = LAST.compare_exchange(0, start, Relaxed, Relaxed);
    }
    LAST.fetch_add(1, Relaxed) + 1
}
