//! How often an entry is still there when it is wanted: ways to choose what leaves a full cache, on made-up
//! traces that are the same in each run.

mod trace;

use std::num::NonZeroUsize;
use std::sync::Arc;

use collector_cache::{Eviction, MemoryCache};
use collector_core::{CacheKey, KeyRef, MetricsCache as _, ModelRef, Stored, Tick};
use lru::LruCache;
use moka::policy::EvictionPolicy;

use crate::report::{Figure, Report};
use crate::workload::{self, stored, value};

const SUITE: &str = "ratio";

/// Room for this share of the keys.
const CAPACITIES: [(&str, usize); 6] =
    [("1 %", 100), ("2 %", 50), ("5 %", 20), ("10 %", 10), ("20 %", 5), ("50 %", 2)];

/// A cache that is asked for a key, and keeps it from then on if it likes.
trait Policy {
    /// Whether the key was there.
    fn access(&mut self, key: usize) -> bool;
}

/// Runs every trace through every policy.
pub(crate) fn measure(quick: bool, report: &mut Report) {
    let models: Arc<[ModelRef]> = workload::models(trace::KEYS).into();
    let shared = stored(value(&models[0], Tick::MIN), Tick::MIN);
    for (case, trace) in trace::all(quick) {
        for (name, policy) in policies() {
            let mut figures = Vec::new();
            for (share, part) in CAPACITIES {
                let capacity = trace::KEYS / part;
                let mut policy = policy(capacity, &models, &shared);
                let hits = trace.iter().filter(|key| policy.access(**key as usize)).count();
                let percent = hits as f64 / trace.len() as f64 * 100.0;
                figures.push(Figure { name: share, value: percent, unit: "% hits" });
            }
            report.row(SUITE, case, name, &figures);
        }
    }
}

type Make = fn(usize, &Arc<[ModelRef]>, &Arc<Stored>) -> Box<dyn Policy>;

fn policies() -> [(&'static str, Make); 6] {
    [
        ("collector, SIEVE", |capacity, models, stored| {
            ours(capacity, Eviction::Sieve, models, stored)
        }),
        ("collector, LRU", |capacity, models, stored| {
            ours(capacity, Eviction::Lru, models, stored)
        }),
        ("moka, TinyLFU", |capacity, _, _| moka(capacity, EvictionPolicy::tiny_lfu())),
        ("moka, LRU", |capacity, _, _| moka(capacity, EvictionPolicy::lru())),
        ("quick_cache", |capacity, _, _| Box::new(quick_cache::sync::Cache::new(capacity))),
        ("lru", |capacity, _, _| {
            Box::new(LruCache::new(NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN)))
        }),
    ]
}

fn ours(
    capacity: usize,
    eviction: Eviction,
    models: &Arc<[ModelRef]>,
    stored: &Arc<Stored>,
) -> Box<dyn Policy> {
    let cache = MemoryCache::with_limits(capacity, usize::MAX, eviction);
    Box::new(Ours { cache, models: Arc::clone(models), stored: Arc::clone(stored), now: 0 })
}

struct Ours {
    cache: MemoryCache,
    models: Arc<[ModelRef]>,
    stored: Arc<Stored>,
    now: u64,
}

impl Policy for Ours {
    fn access(&mut self, key: usize) -> bool {
        let model = &self.models[key];
        // Each access has a time of its own, as a clock that never rests would give it.
        self.now += 1;
        let now = Tick::from_nanos(self.now);
        let found = self.cache.get(KeyRef::replicas(model), now).is_some();
        if !found {
            self.cache.put(CacheKey::replicas(model), Arc::clone(&self.stored), now);
        }
        found
    }
}

fn moka(capacity: usize, policy: EvictionPolicy) -> Box<dyn Policy> {
    let builder = moka::sync::Cache::builder().max_capacity(capacity as u64);
    Box::new(Moka(builder.eviction_policy(policy).build()))
}

struct Moka(moka::sync::Cache<usize, ()>);

impl Policy for Moka {
    fn access(&mut self, key: usize) -> bool {
        let found = self.0.get(&key).is_some();
        if !found {
            self.0.insert(key, ());
            // It evicts behind; here nothing else gives it the time, and it would hold more than it may.
            self.0.run_pending_tasks();
        }
        found
    }
}

impl Policy for quick_cache::sync::Cache<usize, ()> {
    fn access(&mut self, key: usize) -> bool {
        let found = self.get(&key).is_some();
        if !found {
            self.insert(key, ());
        }
        found
    }
}

impl Policy for LruCache<usize, ()> {
    fn access(&mut self, key: usize) -> bool {
        let found = self.get(&key).is_some();
        if !found {
            self.put(key, ());
        }
        found
    }
}
