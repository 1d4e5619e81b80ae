// SPDX-License-Identifier: Apache-2.0
//! Writes: removing what belongs to one model, beside a walk over all keys, and overwriting a key.

use std::hint::black_box;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use collector_core::{Clock as _, MetricsCache as _, ModelRef, SystemClock, Tick};
use dashmap::DashMap;

use crate::case::Case;
use crate::peers::{
    self, FastHasher, Locked, Peer, entry_as_written, entry_like_for_like, filled, key_of,
};
use crate::race::System;
use crate::report::{Figure, Report};
use crate::workload::{self, cache_of, record, shuffled};

const SUITE: &str = "invalidate";
/// How our cache is called.
pub(crate) const OURS: &str = "collector";
const SCAN: &str = "RwLock<HashMap>, retain by prefix";
/// Models that are removed in one measurement, and put again outside of it.
const REMOVED: usize = 100;
/// The same for a walk, which costs the same for each.
const WALKED: usize = 2;

/// Records that a sweep looks at.
const SWEPT: usize = 10_000;

const OVERWRITE: &str = "overwrite a key";

/// Removing one model from few and from many entries.
pub(crate) fn cases() -> [Case; 2] {
    let case = |name, entries| {
        let models = workload::models(entries);
        let systems =
            vec![ours(&models), walk_locked(&models), walk_dashmap(&models), walk_moka(&models)];
        Case::new(SUITE, name, systems)
    };
    [case("one model of 10 000", 10_000), case("one model of 100 000", 100_000)]
}

/// Ours alone, where the putting again counts as well.
pub(crate) fn remove_and_put(name: &'static str, entries: usize) -> Case {
    Case::new(SUITE, name, vec![ours(&workload::models(entries))])
}

/// Overwriting a key that is there.
pub(crate) fn overwrite() -> Case {
    let models = workload::models(100);
    let room = models.len() * 2;
    let hasher = FastHasher::default;
    let systems = vec![
        overwrite_ours(&models),
        overwrite_peer("moka::sync", peers::moka_sync(room, hasher()), &models),
        overwrite_peer("quick_cache", peers::quick(room, hasher()), &models),
        overwrite_peer("dashmap", DashMap::with_hasher(hasher()), &models),
        overwrite_peer("RwLock<HashMap>", Locked::<_, FastHasher>::default(), &models),
    ];
    Case::new("overwrite", OVERWRITE, systems)
}

/// Measures both.
pub(crate) fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let rounds = if quick { 5 } else { 30 };
    let [few, many] = cases();
    let few = few.measure(rounds, report)?;
    let many = many.measure(rounds, report)?;
    let ours = few.of(OURS)?.seconds;
    // Ten times the entries; what is left is that they fit the processor's caches less.
    report.goal("invalidate.model.flatness", 2.0, many.of(OURS)?.seconds / ours);

    let overwritten = overwrite().measure(if quick { 20 } else { 100 }, report)?;
    let moka = overwritten.of("moka::sync")?.seconds;
    report.goal_at_least("overwrite.vs_moka", 3.0, moka / overwritten.of(OURS)?.seconds);
    sweep(rounds, report);
    Ok(())
}

/// Times a sweep that finds nothing to remove, as most do.
fn sweep(rounds: u32, report: &mut Report) {
    let now = SystemClock::new().now();
    let cache = cache_of(&workload::models(SWEPT), now);
    let mut fastest = Duration::MAX;
    for _ in 0..rounds {
        let began = tokio::time::Instant::now();
        cache.retain(&mut |record| black_box(record.expires_at()) > now);
        fastest = fastest.min(began.elapsed());
    }
    let value = fastest.as_secs_f64() * 1e3;
    report.row("sweep", "10 000 records", OURS, &[Figure { name: "time", value, unit: "ms" }]);
    report.goal("sweep.10000.ms", 1.0, value);
}

/// Times the removal of some models, one by one, which are then put again.
fn removal(
    name: &'static str,
    models: &[ModelRef],
    count: usize,
    remove: impl Fn(&ModelRef) -> usize + 'static,
    put: impl Fn(&ModelRef) + 'static,
) -> System<'static> {
    let mut removed = shuffled(models.to_vec());
    removed.truncate(count);
    let operations = u32::try_from(count).unwrap_or(u32::MAX);
    System::timed(name, operations, move |runs| {
        let mut time = Duration::ZERO;
        for _ in 0..runs {
            let began = tokio::time::Instant::now();
            let gone: usize = removed.iter().map(&remove).sum();
            time += began.elapsed();
            ensure!(gone == removed.len(), "{gone} of {} were removed", removed.len());
            removed.iter().for_each(&put);
        }
        Ok(time)
    })
}

fn ours(models: &[ModelRef]) -> System<'static> {
    let clock = SystemClock::new();
    let now = clock.now();
    let cache = Arc::new(cache_of(models, now));
    let value = workload::value(&models[0], now);
    let to = Arc::clone(&cache);
    removal(
        OURS,
        models,
        REMOVED,
        move |model| usize::from(cache.remove(model).is_some()),
        move |model| to.put(record(model, &value, now)),
    )
}

fn walk_locked(models: &[ModelRef]) -> System<'static> {
    let map = Arc::new(filled(
        Locked::<Instant, std::hash::RandomState>::default(),
        models,
        entry_as_written,
    ));
    let to = Arc::clone(&map);
    removal(
        SCAN,
        models,
        WALKED,
        move |model| {
            let prefix = key_of(model);
            let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
            let before = map.len();
            map.retain(|key, _| !key.starts_with(&prefix));
            before - map.len()
        },
        move |model| to.put(key_of(model), entry_as_written(model)),
    )
}

fn walk_dashmap(models: &[ModelRef]) -> System<'static> {
    let map = Arc::new(filled(DashMap::new(), models, entry_as_written));
    let to = Arc::clone(&map);
    removal(
        "dashmap, retain by prefix",
        models,
        WALKED,
        move |model| {
            let prefix = key_of(model);
            let before = map.len();
            map.retain(|key, _| !key.starts_with(&prefix));
            before - map.len()
        },
        move |model| to.put(key_of(model), entry_as_written(model)),
    )
}

/// moka has no walk that removes; a caller walks over its keys and removes what fits.
fn walk_moka(models: &[ModelRef]) -> System<'static> {
    let hasher = std::hash::RandomState::new();
    let cache = filled(peers::moka_sync(models.len() * 2, hasher), models, entry_as_written);
    let to = cache.clone();
    removal(
        "moka::sync, walk and remove",
        models,
        WALKED,
        move |model| {
            let prefix = key_of(model);
            let keys: Vec<_> =
                cache.iter().map(|(key, _)| key).filter(|key| key.starts_with(&prefix)).collect();
            for key in &keys {
                cache.invalidate(key.as_str());
            }
            keys.len()
        },
        move |model| to.put(key_of(model), entry_as_written(model)),
    )
}

/// Overwrites each key once, with what was made before: a key to own and a shared value.
fn overwriting<K: Clone + 'static>(
    name: &'static str,
    keys: Vec<K>,
    mut put: impl FnMut(K) + 'static,
) -> System<'static> {
    let keys = shuffled(keys);
    let operations = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    System::of_many(name, operations, move || {
        for key in &keys {
            put(black_box(key).clone());
        }
        Ok(())
    })
}

fn overwrite_ours(models: &[ModelRef]) -> System<'static> {
    let now = SystemClock::new().now();
    let cache = cache_of(models, now);
    let value = workload::value(&models[0], now);
    let records = models.iter().map(|model| record(model, &value, now)).collect();
    overwriting(OURS, records, move |record| cache.put(record))
}

fn overwrite_peer(
    name: &'static str,
    peer: impl Peer<Tick> + 'static,
    models: &[ModelRef],
) -> System<'static> {
    let now = SystemClock::new().now();
    let peer = filled(peer, models, |model| entry_like_for_like(model, now));
    let entry = entry_like_for_like(&models[0], now);
    let keys = models.iter().map(key_of).collect();
    overwriting(name, keys, move |key| peer.put(key, entry.clone()))
}
