// SPDX-License-Identifier: Apache-2.0
//! A cached read of a model's replicas, judged by ttl and freshness: ours beside caches and maps, as a caller
//! writes it and like for like.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use collector_core::{Clock as _, MetricsCollector, ModelRef, SystemClock, Tick};
use dashmap::DashMap;
use futures_util::FutureExt as _;

use crate::case::{Case, Outcome};
use crate::peers::{
    self, FastHasher, Locked, Peer, entry_as_written, entry_like_for_like, filled, key_of,
    read_as_written, read_like_for_like,
};
use crate::race::System;
use crate::report::Report;
use crate::workload::{self, collector_of, shuffled};

const SUITE: &str = "hit";
const LOST: &str = "an entry is lost";

/// Names of our ways to read.
pub(crate) const KEYED: &str = "collector, by key";
pub(crate) const HANDLE: &str = "collector, by handle";
pub(crate) const DYN: &str = "collector, dyn MetricsCollector";

const HOT: usize = 100;
const SPREAD: usize = 10_000;

/// Names of the cases.
pub(crate) const HOT_WRITTEN: &str = "hot, 100 entries, as written";
pub(crate) const HOT_ALIKE: &str = "hot, 100 entries, like for like";
pub(crate) const SPREAD_WRITTEN: &str = "spread, 10 000 entries, as written";
pub(crate) const SPREAD_ALIKE: &str = "spread, 10 000 entries, like for like";

/// How many entries there are where growth is shown.
pub(crate) const SIZES: [(usize, &str); 4] = [
    (100, "growth, 100 entries"),
    (1000, "growth, 1000 entries"),
    (10_000, "growth, 10 000 entries"),
    (100_000, "growth, 100 000 entries"),
];

/// The cases with few entries, which stay in the processor's caches.
pub(crate) async fn hot() -> Result<[Case; 2]> {
    Ok([hot_as_written().await?, hot_like_for_like().await?])
}

/// Few entries, in peers as a program would write them.
pub(crate) async fn hot_as_written() -> Result<Case> {
    Ok(Case::new(SUITE, HOT_WRITTEN, as_written(&workload::models(HOT)).await?))
}

/// Few entries, in peers that hold the same keys and values as ours.
pub(crate) async fn hot_like_for_like() -> Result<Case> {
    Ok(Case::new(SUITE, HOT_ALIKE, like_for_like(&workload::models(HOT)).await?))
}

/// The cases with many entries, read in an order that nobody guesses.
pub(crate) async fn spread() -> Result<[Case; 2]> {
    let models = workload::models(SPREAD);
    Ok([
        Case::new(SUITE, SPREAD_WRITTEN, as_written(&models).await?),
        Case::new(SUITE, SPREAD_ALIKE, like_for_like(&models).await?),
    ])
}

/// Measures hits with few and with many entries, and as the entries become more.
pub(crate) async fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let rounds = if quick { 30 } else { 200 };
    let [written, alike] = hot().await?;
    let (hot_written, hot_alike) =
        (written.measure(rounds, report)?, alike.measure(rounds, report)?);
    // A run of these takes a hundred times as long.
    let [written, alike] = spread().await?;
    let spread_written = written.measure(rounds / 3, report)?;
    let spread_alike = alike.measure(rounds / 3, report)?;
    goals_as_written(&hot_written, &spread_written, report)?;
    for (vs_map, vs_moka, outcome) in [
        ("hit.hot.vs_fastest_map", "hit.hot.vs_moka", &hot_alike),
        ("hit.spread.vs_fastest_map", "hit.spread.vs_moka", &spread_alike),
    ] {
        // Like for like: the same values and hasher, keys at hand, the coarse clock.
        let keyed = outcome.of(KEYED)?.seconds;
        report.goal(vs_map, 2.0, keyed / fastest_map(outcome)?);
        report.goal_at_least(vs_moka, 2.3, outcome.of("moka::sync")?.seconds / keyed);
    }
    growth(quick, report).await
}

/// Maps that take no note of reads and evict nothing.
const MAPS: [&str; 3] = ["dashmap", "RwLock<HashMap>", "quick_cache"];

fn fastest_map(outcome: &Outcome) -> Result<f64> {
    let mut fastest = f64::INFINITY;
    for map in MAPS {
        fastest = fastest.min(outcome.of(map)?.seconds);
    }
    Ok(fastest)
}

fn goals_as_written(hot: &Outcome, spread: &Outcome, report: &mut Report) -> Result<()> {
    let keyed = hot.of(KEYED)?;
    report.goal("hit.keyed.allocations", 0.0, keyed.allocations);
    for (id, at_least, outcome) in [
        ("hit.hot.as_written.vs_fastest_map", 2.5, hot),
        ("hit.spread.as_written.vs_fastest_map", 1.2, spread),
    ] {
        let ratio = fastest_map(outcome)? / outcome.of(KEYED)?.seconds;
        report.goal_at_least(id, at_least, ratio);
        if ratio < at_least {
            let why =
                "a hit counts itself and marks in its record when it was read, which no map does";
            report.note(SUITE, format!("{id} is missed by {:.2}: {why}", at_least - ratio));
        }
    }
    for (id, at_least, outcome) in
        [("hit.hot.as_written.vs_moka", 5.0, hot), ("hit.spread.as_written.vs_moka", 2.5, spread)]
    {
        let moka = outcome.of("moka::sync")?.seconds;
        report.goal_at_least(id, at_least, moka / outcome.of(KEYED)?.seconds);
    }
    let moka = hot.of("moka::sync")?.seconds;
    report.goal_at_least("hit.handle.vs_moka", 15.0, moka / hot.of(HANDLE)?.seconds);
    let through_dyn = hot.of(DYN)?;
    report.goal("hit.dyn.allocations", 1.0, through_dyn.allocations);
    report.goal("hit.dyn.vs_keyed", 2.5, through_dyn.seconds / keyed.seconds);
    Ok(())
}

async fn as_written(models: &[ModelRef]) -> Result<Vec<System<'static>>> {
    let room = models.len() * 2;
    let mut systems = ours(models).await?;
    let hasher = std::hash::RandomState::new;
    systems.extend([
        written("moka::future", peers::moka_future(room, hasher()), models),
        written("moka::sync", peers::moka_sync(room, hasher()), models),
        written(
            "quick_cache",
            peers::quick(room, quick_cache::DefaultHashBuilder::default()),
            models,
        ),
        written("dashmap", DashMap::with_hasher(hasher()), models),
        written("RwLock<HashMap>", Locked::<_, std::hash::RandomState>::default(), models),
    ]);
    Ok(systems)
}

async fn like_for_like(models: &[ModelRef]) -> Result<Vec<System<'static>>> {
    let room = models.len() * 2;
    let mut systems = ours(models).await?;
    let hasher = FastHasher::default;
    systems.extend([
        alike("moka::future", peers::moka_future(room, hasher()), models),
        alike("moka::sync", peers::moka_sync(room, hasher()), models),
        alike("quick_cache", peers::quick(room, hasher()), models),
        alike("dashmap", DashMap::with_hasher(hasher()), models),
        alike("RwLock<HashMap>", Locked::<_, FastHasher>::default(), models),
    ]);
    Ok(systems)
}

/// Reads every model once, in an order of its own.
fn each<K: 'static>(
    name: &'static str,
    keys: Vec<K>,
    mut read: impl FnMut(&K) -> bool + 'static,
) -> System<'static> {
    let keys = shuffled(keys);
    let operations = u32::try_from(keys.len()).unwrap_or(u32::MAX);
    System::of_many(name, operations, move || {
        let mut found = 0;
        for key in &keys {
            found += usize::from(read(black_box(key)));
        }
        (found == keys.len()).then_some(()).context(LOST)
    })
}

fn written(
    name: &'static str,
    peer: impl Peer<Instant> + 'static,
    models: &[ModelRef],
) -> System<'static> {
    let peer = filled(peer, models, entry_as_written);
    each(name, models.to_vec(), move |model| black_box(read_as_written(&peer, model)).is_some())
}

fn alike(
    name: &'static str,
    peer: impl Peer<Tick> + 'static,
    models: &[ModelRef],
) -> System<'static> {
    let clock = SystemClock::new();
    let now = clock.now();
    let peer = filled(peer, models, |model| entry_like_for_like(model, now));
    let keys = models.iter().map(key_of).collect();
    each(name, keys, move |key| black_box(read_like_for_like(&peer, key, &clock)).is_some())
}

/// Our ways to read; they have no other form for a comparison like for like. Each has a collector of its own:
/// of many entries, one would else find in the processor's caches what another has just read.
async fn ours(models: &[ModelRef]) -> Result<Vec<System<'static>>> {
    let by_key = collector_of(models).await?;
    let by_handle = collector_of(models).await?;
    let through_dyn: Arc<dyn MetricsCollector> = collector_of(models).await?;
    let handle = |model: &ModelRef| RefCell::new(by_handle.handle(model.clone(), None));
    let handles = models.iter().map(handle).collect();
    Ok(vec![
        each(KEYED, models.to_vec(), move |model| {
            black_box(by_key.cached_replicas(model)).is_some()
        }),
        each(HANDLE, handles, |handle| black_box(handle.borrow_mut().replicas()).is_some()),
        each(DYN, models.to_vec(), move |model| {
            let read = through_dyn.collect_replica_metrics(model).now_or_never();
            matches!(black_box(read), Some(Ok(_)))
        }),
    ])
}

/// What one read costs as entries become more.
async fn growth(quick: bool, report: &mut Report) -> Result<()> {
    let rounds = if quick { 3 } else { 20 };
    let sizes = if quick { &SIZES[..3] } else { &SIZES[..] };
    for (count, name) in sizes {
        let models = workload::models(*count);
        let mut systems = ours(&models).await?;
        let hasher = FastHasher::default;
        systems.extend([
            alike("moka::sync", peers::moka_sync(count * 2, hasher()), &models),
            alike("quick_cache", peers::quick(count * 2, hasher()), &models),
            alike("dashmap", DashMap::with_hasher(hasher()), &models),
            alike("RwLock<HashMap>", Locked::<_, FastHasher>::default(), &models),
        ]);
        Case::new(SUITE, name, systems).measure(rounds, report)?;
    }
    Ok(())
}
