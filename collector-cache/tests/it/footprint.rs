// SPDX-License-Identifier: Apache-2.0
//! What a record takes besides its value, as the allocator counts it.

use std::sync::Arc;

use collector_cache::MemoryCache;
use collector_core::{MetricsCache, ModelRecord, ModelRef};
use collector_testkit::SampleRecord;

fn records(count: usize) -> Vec<Arc<ModelRecord>> {
    let record = |number| {
        let name = format!("meta-llama/Llama-3.1-8B-Instruct-{number}");
        SampleRecord::new(&ModelRef::new(name, "inference-prod")).build()
    };
    (0..count).map(record).collect()
}

#[test]
fn the_overhead_of_a_record_is_counted_as_what_it_takes() {
    for count in [5_000, 10_000, 20_000] {
        let records = records(count);
        let mut kept = None;
        let counted = allocation_counter::measure(|| {
            let cache = MemoryCache::new(usize::MAX, usize::MAX);
            for record in &records {
                cache.put(Arc::clone(record));
            }
            kept = Some(cache);
        });
        // The counts of its `Arc` were allocated before.
        let table = usize::try_from(counted.bytes_current).unwrap() / count + 16;
        let said = kept.map_or(0, |cache| cache.stats().bytes) / count;
        let overhead = said - records[0].bytes();
        assert!(
            (overhead / 2..=overhead * 3 / 2).contains(&table),
            "{table} B a record, counted as {overhead}, of {count}"
        );
    }
}
