//! Both caches keep the promises of `MetricsCache`.

mod machine;

use collector_cache::{MemoryCache, NoOpCache};
use collector_testkit::conformance;

#[test]
fn memory_cache_conforms() {
    conformance::cache(|| MemoryCache::new(10_000));
}

#[test]
fn no_op_cache_conforms() {
    conformance::cache(|| NoOpCache);
}
