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

/// A generation is the time at which it is given, in microseconds, or the next number if that one was given already. So a
/// process that follows on another gives greater numbers, and one that works beside it gives others: the same number would
/// have to be given to the same model within the same microsecond.
fn next(wall: SystemTime) -> u64 {
    let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_micros()).unwrap_or_default();
    let mut given = 0;
    // The closure always returns a number, so the update cannot fail.
    let _ = LAST.fetch_update(Relaxed, Relaxed, |last| {
        given = now.max(last + 1);
        Some(given)
    });
    given
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_generation_is_the_time_and_grows_also_when_the_clock_does_not() {
        let at = |micros| UNIX_EPOCH + Duration::from_micros(micros);
        // Other tests of this process use the sequence at their own times.
        let far = 4_000_000_000_000_000;
        assert_eq!(next(at(far)), far);
        assert_eq!(next(at(far)), far + 1);
        assert_eq!(next(at(5)), far + 2, "the clock was set back");
        assert_eq!(next(at(far + 100)), far + 100);
    }
}
