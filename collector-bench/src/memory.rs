// SPDX-License-Identifier: Apache-2.0
//! What an entry takes besides its value, and what a fleet takes in all, as the allocator counts it.

use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use collector_cache::MemoryCache;
use collector_core::{Clock as _, MetricsCache as _, ModelRef, ModelValue, SystemClock};
use dashmap::DashMap;

use crate::peers::{self, Entry, FastHasher, Locked, Peer, key_of};
use crate::report::{Figure, Report};
use crate::workload::{self, TTL, collector_with_variants, record};

const SUITE: &str = "memory";
/// Name of the case that compares.
pub(crate) const ENTRY: &str = "a model of 10 000, besides its value";
const ENTRIES: usize = 10_000;
const VARIANTS: usize = 100;

/// Measures both. Counts are of this thread: what is measured runs on it.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    let now = SystemClock::new().now();
    let models = workload::models(ENTRIES);
    // Made before, so that only what stands around the values is counted.
    let values: Vec<(&ModelRef, Arc<ModelValue>)> =
        models.iter().map(|model| (model, workload::value(model, now))).collect();

    let ours = bytes(|| {
        let cache = MemoryCache::new(ENTRIES * 2, usize::MAX);
        for (model, value) in &values {
            cache.put(record(model, value, now));
        }
        cache
    })? / ENTRIES as f64;
    row(report, ENTRY, "collector", ours, "B");
    report.goal("memory.bytes_per_model", 200.0, ours);

    let entry = |value: &Arc<ModelValue>| Entry {
        value: Arc::clone(value),
        sampled_at: now,
        expires_at: now + TTL,
    };
    let room = ENTRIES * 2;
    let hasher = FastHasher::default;
    for (name, bytes) in [
        ("moka::sync", peer(|| peers::moka_sync(room, hasher()), &values, entry)?),
        ("quick_cache", peer(|| peers::quick(room, hasher()), &values, entry)?),
        ("dashmap", peer(|| DashMap::with_hasher(hasher()), &values, entry)?),
        ("RwLock<HashMap>", peer(Locked::<_, FastHasher>::default, &values, entry)?),
    ] {
        row(report, ENTRY, name, bytes, "B");
    }

    let all = fleet()?;
    row(report, "100 variants of 8 replicas in all", "collector", all / 1e3, "kB");
    report.goal("memory.100x8_bytes", 1e6, all);
    Ok(())
}

fn row(
    report: &mut Report,
    case: &'static str,
    system: &'static str,
    value: f64,
    unit: &'static str,
) {
    report.row(SUITE, case, system, &[Figure { name: "heap", value, unit }]);
}

/// Bytes on the heap that are held by what `make` makes.
fn bytes<T>(make: impl FnOnce() -> T) -> Result<f64> {
    let mut kept = None;
    let counted = allocation_counter::measure(|| kept = Some(make()));
    drop(kept.context("nothing was made")?);
    Ok(counted.bytes_current as f64)
}

/// Bytes of an entry of a peer.
fn peer<T, P: Peer<T>>(
    make: impl FnOnce() -> P,
    values: &[(&ModelRef, Arc<ModelValue>)],
    entry: impl Fn(&Arc<ModelValue>) -> Entry<T>,
) -> Result<f64> {
    let all = bytes(|| {
        let peer = make();
        for (model, value) in values {
            peer.put(key_of(model), entry(value));
        }
        peer
    })?;
    Ok(all / values.len() as f64)
}

/// A whole collector that has read 100 models of a variant each, its worker not running: values, answers
/// they were made of, keys and tables.
fn fleet() -> Result<f64> {
    let models = workload::models(VARIANTS);
    // A thread of its own, because a runtime cannot be started within another.
    let all = thread::scope(|scope| {
        scope
            .spawn(|| {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_time().build()?;
                let mut outcome = None;
                let counted = allocation_counter::measure(|| {
                    outcome = Some(runtime.block_on(collector_with_variants(&models)));
                });
                drop(outcome.context("no collector")??);
                anyhow::Ok(counted.bytes_current as f64)
            })
            .join()
    });
    all.ok().context("the measuring thread panicked")?
}
