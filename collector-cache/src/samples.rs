//! What the tests of this crate put into caches.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{Outcome, Stored, Tick, Value};

/// An entry that never leaves by itself and is tracked.
pub(crate) fn entry() -> Stored {
    Stored {
        value: Value::None,
        outcome: Outcome::Missing,
        current_until: Tick::MAX,
        refresh_after: Tick::MAX,
        keep_until: Tick::MAX,
        keep_unread: Duration::ZERO,
        tracked: true,
        cold: Arc::default(),
    }
}
