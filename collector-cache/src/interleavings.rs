// SPDX-License-Identifier: Apache-2.0
//! Models that loom runs through every interleaving of their threads: `cargo xtask loom`. They run the cache itself,
//! over loom's locks.

use std::sync::Arc;

use collector_core::{MetricsCache, ModelRecord, ModelRef};
use collector_testkit::{SampleRecord, explore};
use loom::thread;

use crate::MemoryCache;

fn record_of(name: &str, number: u64) -> Arc<ModelRecord> {
    SampleRecord { number, ..SampleRecord::new(&ModelRef::new(name, "prod")) }.build()
}

#[test]
fn a_reader_never_sees_an_older_record_after_a_newer_one() {
    explore(|| {
        let cache = Arc::new(MemoryCache::new(10, usize::MAX));
        let model = ModelRef::new("llama", "prod");
        let number =
            |cache: &MemoryCache| cache.get(&model).map(|record| SampleRecord::number_of(&record));
        cache.put(record_of("llama", 1));
        let writer = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || {
                cache.put(record_of("llama", 2));
                cache.put(record_of("llama", 3));
            })
        };
        let first = number(&cache);
        let second = number(&cache);
        assert!(first.is_some() && first <= second, "{first:?}, then {second:?}");
        writer.join().unwrap();
        assert_eq!(number(&cache), Some(3));
    });
}

#[test]
fn two_puts_beyond_the_limit_keep_one_record() {
    explore(|| {
        let cache = Arc::new(MemoryCache::new(1, usize::MAX));
        let other = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || cache.put(record_of("one", 1)))
        };
        cache.put(record_of("two", 1));
        other.join().unwrap();
        let stats = cache.stats();
        assert_eq!((stats.models, stats.entries, stats.evictions), (1, 1, 1));
    });
}

#[test]
fn a_record_that_replaces_one_to_be_evicted_is_counted_right() {
    explore(|| {
        let cache = Arc::new(MemoryCache::new(1, usize::MAX));
        cache.put(record_of("one", 1));
        let other = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || cache.put(record_of("two", 1)))
        };
        let larger = SampleRecord {
            allocations: vec![("fast".into(), None)],
            ..SampleRecord::new(&ModelRef::new("one", "prod"))
        };
        cache.put(larger.build());
        other.join().unwrap();
        let mut entries = 0;
        cache.retain(&mut |record| {
            entries += record.entries();
            true
        });
        assert_eq!(cache.stats().entries, entries);
    });
}
