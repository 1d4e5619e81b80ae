//! What an entry takes besides its value, as the allocator counts it.

use std::sync::Arc;
use std::time::Duration;

use collector_cache::MemoryCache;
use collector_core::{CacheKey, MetricsCache, ModelRef, Outcome, Stored, Tick, Value};

const NOW: Tick = Tick::from_nanos(1 << 40);

fn entry() -> Arc<Stored> {
    Arc::new(Stored {
        value: Value::None,
        outcome: Outcome::Missing,
        current_until: NOW,
        refresh_after: NOW,
        keep_until: NOW + Duration::from_secs(3600),
        keep_unread: Duration::ZERO,
        tracked: true,
        cold: Arc::default(),
    })
}

/// Keys of replicas, and with `allocations` one of each model besides.
fn keys(models: usize, allocations: bool) -> Vec<CacheKey> {
    let keys = |number| {
        let name = format!("meta-llama/Llama-3.1-8B-Instruct-{number}");
        let model = ModelRef::new(name, "inference-prod");
        let allocation =
            || CacheKey::allocation(&model, &"llama-8b-h100".into(), Some(&"H100".into()));
        [Some(CacheKey::replicas(&model)), allocations.then(allocation)]
    };
    (0..models).flat_map(keys).flatten().collect()
}

/// Bytes an entry, as counted and as the cache says.
fn footprint(models: usize, allocations: bool) -> (usize, usize) {
    let (entry, keys) = (entry(), keys(models, allocations));
    let count = keys.len();
    let mut kept = None;
    let counted = allocation_counter::measure(|| {
        let cache = MemoryCache::new(usize::MAX);
        for key in &keys {
            cache.put(key.clone(), Arc::clone(&entry), NOW);
        }
        kept = Some(cache);
    });
    let said = kept.map_or(0, |cache| cache.stats().bytes) / count;
    (usize::try_from(counted.bytes_current).unwrap() / count, said - entry.bytes())
}

#[test]
fn an_entry_is_counted_as_what_it_takes() {
    for models in [5_000, 10_000] {
        for allocations in [false, true] {
            let (counted, said) = footprint(models, allocations);
            let about = said * 7 / 8..=said * 9 / 8;
            assert!(
                about.contains(&counted),
                "{counted} B, and it says {said}, of {models} models"
            );
        }
    }
}
