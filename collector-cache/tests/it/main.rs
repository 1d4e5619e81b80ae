// SPDX-License-Identifier: Apache-2.0
//! Both caches keep the promises of `MetricsCache`.

// Ten thousand records are too many for Miri.
#[cfg(not(miri))]
mod footprint;
mod machine;

use collector_cache::{MemoryCache, NoOpCache};
use collector_testkit::conformance;

#[test]
fn memory_cache_conforms() {
    conformance::bounded_cache(|max_entries| MemoryCache::new(max_entries, usize::MAX));
}

#[test]
fn no_op_cache_conforms() {
    conformance::cache(|| NoOpCache);
}
