// SPDX-License-Identifier: Apache-2.0
//! A cache of your own: here a locked map that evicts nothing.
//!
//! A fake backend stands in for the server, so that it runs anywhere:
//!
//! ```text
//! cargo run -p inference-collector --features testkit --example own_cache
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use collector::core::{CacheStats, MetricsCache, ModelRecord};
use collector::prelude::*;
use collector::testkit::FakeBackend;

type Records = HashMap<ModelRef, Arc<ModelRecord>>;

/// One record per model. Records are immutable and replaced whole, so a map and a lock are enough.
#[derive(Default)]
struct MapCache(RwLock<Records>);

impl MapCache {
    fn read(&self) -> RwLockReadGuard<'_, Records> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Records> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetricsCache for MapCache {
    fn retains(&self) -> bool {
        true
    }

    fn get(&self, model: &ModelRef) -> Option<Arc<ModelRecord>> {
        self.read().get(model).cloned()
    }

    fn put(&self, record: Arc<ModelRecord>) {
        self.write().insert(record.model.clone(), record);
    }

    fn remove(&self, model: &ModelRef) -> Option<Arc<ModelRecord>> {
        self.write().remove(model)
    }

    fn retain(&self, keep: &mut dyn FnMut(&Arc<ModelRecord>) -> bool) {
        self.write().retain(|_, record| keep(record));
    }

    fn stats(&self) -> CacheStats {
        let records = self.read();
        let entries = records.values().map(|record| record.entries()).sum();
        let bytes = records.values().map(|record| record.bytes()).sum();
        CacheStats::new(records.len(), entries, bytes, 0)
    }
}

/// Where two readings of a model come from, with this cache.
async fn read_twice() -> Result<[&'static str; 2], Box<dyn Error>> {
    let backend = FakeBackend::new(Arc::new(SystemClock::new()));
    let model = ModelRef::new("org/chat", "prod");
    backend.serve_pods(&model, &["chat-0", "chat-1"]);
    let collector = CachingCollector::builder(Arc::new(backend))
        .cache(Arc::new(MapCache::default()))
        .build()?;
    let first = collector.collect_replica_metrics(&model).await?;
    let second = collector.collect_replica_metrics(&model).await?;
    Ok([first.source().as_str(), second.source().as_str()])
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    println!("{:?}", read_twice().await?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_conforms() {
        collector::testkit::conformance::cache(MapCache::default);
    }

    #[tokio::test]
    async fn the_second_reading_comes_from_the_cache() {
        assert_eq!(read_twice().await.unwrap(), ["backend", "cache"]);
    }
}
