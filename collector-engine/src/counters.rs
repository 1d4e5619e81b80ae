//! What a collector has done since it was made.

use std::sync::atomic::AtomicU64;

use crate::read::Counter;

#[derive(Default)]
pub(crate) struct Counters {
    /// Reads served from the cache within their ttl.
    pub(crate) hits: Counter,
    /// Reads served from the cache that were last known good.
    pub(crate) stale_serves: Counter,
    pub(crate) misses: AtomicU64,
    pub(crate) coalesced_misses: AtomicU64,
    pub(crate) background_refreshes: AtomicU64,
    /// Panics of a cache or a directory that were caught.
    pub(crate) panics: AtomicU64,
}
