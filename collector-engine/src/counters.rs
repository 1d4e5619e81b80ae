//! What a collector has done since it was made, but for its hits (see `readers.rs`).

use std::sync::atomic::AtomicU64;

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) misses: AtomicU64,
    pub(crate) coalesced_misses: AtomicU64,
    pub(crate) background_refreshes: AtomicU64,
    /// Panics of a cache or a directory that were caught.
    pub(crate) panics: AtomicU64,
}
