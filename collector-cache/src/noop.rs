// SPDX-License-Identifier: Apache-2.0
//! A cache that stores nothing.

use std::sync::Arc;

use collector_core::{CacheStats, MetricsCache, ModelRecord, ModelRef};

/// Stores nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct NoOpCache;

impl MetricsCache for NoOpCache {
    fn retains(&self) -> bool {
        false
    }

    fn get(&self, _: &ModelRef) -> Option<Arc<ModelRecord>> {
        None
    }

    fn put(&self, _: Arc<ModelRecord>) {}

    fn remove(&self, _: &ModelRef) -> Option<Arc<ModelRecord>> {
        None
    }

    fn retain(&self, _: &mut dyn FnMut(&Arc<ModelRecord>) -> bool) {}

    fn stats(&self) -> CacheStats {
        CacheStats::default()
    }
}
