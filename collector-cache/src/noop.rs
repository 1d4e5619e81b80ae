//! The cache of someone who wants no cache.

use std::sync::Arc;

use collector_core::{CacheKey, CacheStats, KeyRef, MetricsCache, Peeked, Scope, Stored, Tick};

/// Keeps nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoOpCache;

impl MetricsCache for NoOpCache {
    fn retains(&self) -> bool {
        false
    }

    fn get(&self, _: KeyRef<'_>, _: Tick) -> Option<Arc<Stored>> {
        None
    }

    fn visit(&self, _: KeyRef<'_>, _: Tick, _: &mut dyn FnMut(&Stored)) -> bool {
        false
    }

    fn peek(&self, _: KeyRef<'_>) -> Option<Peeked> {
        None
    }

    fn put(&self, _: CacheKey, _: Arc<Stored>, _: Tick) {}

    fn remove(&self, _: &Scope) -> usize {
        0
    }

    fn sweep(&self, _: Tick) -> Vec<CacheKey> {
        Vec::new()
    }

    fn len(&self) -> usize {
        0
    }

    fn is_empty(&self) -> bool {
        true
    }

    fn stats(&self) -> CacheStats {
        CacheStats::default()
    }
}
