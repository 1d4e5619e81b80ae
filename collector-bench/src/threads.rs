//! Hits on two threads at once: of one key, of many, and with a write among a hundred; and hits while a sweep
//! removes a hundred thousand entries.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Weak};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use collector_cache::{MemoryCache, Recent};
use collector_core::{
    CacheKey, Clock as _, KeyRef, MetricsCache as _, MetricsCollector as _, ModelRef, Reading,
    Replicas, Source, SystemClock, Tick,
};
use collector_engine::WorkloadHandle;
use dashmap::DashMap;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::case::Case;
use crate::hit::{HANDLE, KEYED, read_cache};
use crate::peers::{
    FastHasher, Locked, Peer, entry_as_written, entry_like_for_like, filled, key_of,
    read_as_written, read_like_for_like,
};
use crate::race::System;
use crate::report::{Figure, Report};
use crate::workload::{self, THRESHOLDS, cache_of, collector_of, shuffled, stored};

const SUITE: &str = "threads";
const THREADS: u32 = 2;
/// Reads of one thread in a run; long against the start of the threads.
const READS: u32 = 200_000;
const SPREAD: usize = 10_000;
/// Entries that a sweep removes while hits are timed.
const SWEPT: usize = 100_000;

/// Our cache without the collector around it, which a bench can write to.
const CACHE: &str = "collector's cache, by key";
/// The same with what each thread read lately in front of it, as the collector reads it.
const LATELY: &str = "collector's cache, read lately";

const HOT: &str = "one hot key, as written";
const HOT_ALIKE: &str = "one hot key, like for like";
const WRITES: &str = "one hot key, 1 % writes";
const SPREAD_KEYS: &str = "10 000 keys, like for like";

/// Names of the cases.
pub(crate) const CASES: [&str; 4] = [HOT, HOT_ALIKE, WRITES, SPREAD_KEYS];

/// Each way to read on two threads.
pub(crate) async fn cases() -> Result<[Case; 4]> {
    let (one, many) = (workload::models(1), workload::models(SPREAD));
    let mut hot = ours(&one).await?;
    hot.extend([
        written("dashmap", DashMap::new(), &one),
        written("RwLock<HashMap>", Locked::<_, std::hash::RandomState>::default(), &one),
    ]);
    let mut hot_alike = ours(&one).await?;
    hot_alike.extend(alike(&one, 0));
    let mut spread = ours(&many).await?;
    spread.extend(alike(&many, 0));
    Ok([
        Case::new(SUITE, HOT, hot),
        Case::new(SUITE, HOT_ALIKE, hot_alike),
        Case::new(SUITE, WRITES, alike(&one, 100)),
        Case::new(SUITE, SPREAD_KEYS, spread),
    ])
}

/// Measures them, and holds them against the goals.
pub(crate) async fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let rounds = if quick { 7 } else { 41 };
    let [hot, hot_alike, writes, spread] = cases().await?;
    let hot = hot.measure_threads(rounds, report)?;
    let hot_alike = hot_alike.measure_threads(rounds, report)?;
    let writes = writes.measure_threads(rounds, report)?;
    spread.measure_threads(rounds, report)?;
    let goals = [
        ("hit.two_threads.vs_dashmap", &hot, "dashmap"),
        ("hit.two_threads.vs_rwlock", &hot, "RwLock<HashMap>"),
        ("hit.two_threads.like_for_like.vs_dashmap", &hot_alike, "dashmap"),
        ("hit.two_threads.like_for_like.vs_rwlock", &hot_alike, "RwLock<HashMap>"),
    ];
    for (id, outcome, peer) in goals {
        let faster = outcome.of(peer)?.seconds / outcome.of(KEYED)?.seconds;
        report.goal_at_least(id, 2.0, faster);
    }
    let slowdown = writes.of(LATELY)?.seconds / hot_alike.of(LATELY)?.seconds;
    report.goal("hit.two_threads.one_percent_writes", 2.0, slowdown);
    during_sweep(if quick { 3 } else { 20 }, report)
}

/// Keeps this thread on a processor of its own: two that are put on one do not get into each other's way.
fn pin(thread: u32) -> Result<()> {
    let allowed = sched_getaffinity(None).context("which processors may be used?")?;
    let mut processors = (0..CpuSet::MAX_CPU).filter(|number| allowed.is_set(*number));
    let own = processors.nth(thread as usize).context("there are fewer processors than threads")?;
    let mut only = CpuSet::new();
    only.set(own);
    sched_setaffinity(None, &only).context("cannot choose a processor")
}

/// Lets every thread do the same at the same time, each on a processor of its own. The slowest counts.
fn together(
    name: &'static str,
    run: impl Fn(u32) -> Result<()> + Sync + Send + 'static,
) -> System<'static> {
    System::timed(name, READS, move |runs| {
        let start = Barrier::new(THREADS as usize);
        let (run, start) = (&run, &start);
        let times = thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|number| {
                    scope.spawn(move || {
                        let pinned = pin(number);
                        start.wait();
                        pinned?;
                        let began = tokio::time::Instant::now();
                        for _ in 0..runs {
                            run(number)?;
                        }
                        anyhow::Ok(began.elapsed())
                    })
                })
                .collect();
            threads.into_iter().map(ScopedJoinHandle::join).collect::<Vec<_>>()
        });
        let mut slowest = Duration::ZERO;
        for time in times {
            let time = time.ok().context("a reading thread panicked")??;
            slowest = slowest.max(time);
        }
        Ok(slowest)
    })
}

/// Reads `READS` of the keys, from a place of each thread's own, and overwrites after every so many (never
/// where that is 0).
fn reads<K>(
    keys: &[K],
    thread: u32,
    writes: u32,
    read: impl Fn(&K) -> bool,
    write: impl Fn(&K),
) -> Result<()> {
    let from = keys.len() / THREADS as usize * thread as usize;
    let mut found = 0;
    let order = keys.iter().cycle().skip(from).take(READS as usize);
    for (number, key) in (1_u32..).zip(order) {
        found += u32::from(read(black_box(key)));
        if writes > 0 && number % writes == 0 {
            write(key);
        }
    }
    ensure!(found == READS, "an entry is lost");
    Ok(())
}

async fn ours(models: &[ModelRef]) -> Result<Vec<System<'static>>> {
    let collector = collector_of(models).await?;
    let by_key = Arc::clone(&collector);
    let keys = shuffled(models.to_vec());
    let models = keys.clone();
    Ok(vec![
        together(KEYED, move |thread| {
            let read = |model: &ModelRef| black_box(by_key.cached_replicas(model)).is_some();
            reads(&keys, thread, 0, read, |_| {})
        }),
        together(HANDLE, move |thread| {
            // Each thread has handles of its own, as each reconcile loop has.
            let handle = |model: &ModelRef| RefCell::new(collector.handle(model.clone(), None));
            let handles: Vec<_> = models.iter().map(handle).collect();
            let read = |handle: &RefCell<WorkloadHandle>| {
                black_box(handle.borrow_mut().replicas()).is_some()
            };
            reads(&handles, thread, 0, read, |_| {})
        }),
    ])
}

/// Our cache, read by key or with what each thread read lately in front of it.
fn our_cache(name: &'static str, models: &[ModelRef], writes: u32) -> System<'static> {
    let clock = SystemClock::new();
    let cache = cache_of(models, clock.now());
    let keys = shuffled(models.to_vec());
    let spare = stored(workload::value(&models[0], clock.now()), clock.now());
    together(name, move |thread| {
        let recent = RefCell::default();
        let write = |model: &ModelRef| {
            cache.put(CacheKey::replicas(model), Arc::clone(&spare), clock.now());
        };
        let by_key = |model: &ModelRef| black_box(read_cache(&cache, model, clock.now())).is_some();
        let lately = |model: &ModelRef| {
            black_box(read_lately(&cache, &recent, model, clock.now())).is_some()
        };
        if name == LATELY {
            reads(&keys, thread, writes, lately, write)
        } else {
            reads(&keys, thread, writes, by_key, write)
        }
    })
}

/// A read of what the thread remembers, else of the cache.
fn read_lately(
    cache: &MemoryCache,
    recent: &RefCell<Recent<Weak<Replicas>>>,
    model: &ModelRef,
    now: Tick,
) -> Option<Reading<Replicas>> {
    let key = KeyRef::replicas(model);
    if let Some(value) = recent.borrow().find(key, now).and_then(Weak::upgrade) {
        return Some(Reading::new(value, now, &THRESHOLDS, Source::Cache));
    }
    let reading = read_cache(cache, model, now)?;
    recent.borrow_mut().learn(cache, key, |_| Some(Arc::downgrade(reading.value())));
    Some(reading)
}

fn written(
    name: &'static str,
    peer: impl Peer<Instant> + 'static,
    models: &[ModelRef],
) -> System<'static> {
    let peer = filled(peer, models, entry_as_written);
    let keys = shuffled(models.to_vec());
    together(name, move |thread| {
        let read = |model: &ModelRef| black_box(read_as_written(&peer, model)).is_some();
        reads(&keys, thread, 0, read, |_| {})
    })
}

fn alike(models: &[ModelRef], writes: u32) -> Vec<System<'static>> {
    vec![
        our_cache(CACHE, models, writes),
        our_cache(LATELY, models, writes),
        peer("dashmap", DashMap::with_hasher(FastHasher::default()), models, writes),
        peer("RwLock<HashMap>", Locked::<_, FastHasher>::default(), models, writes),
    ]
}

fn peer(
    name: &'static str,
    peer: impl Peer<Tick> + 'static,
    models: &[ModelRef],
    writes: u32,
) -> System<'static> {
    let clock = SystemClock::new();
    let now = clock.now();
    let peer = filled(peer, models, |model| entry_like_for_like(model, now));
    let keys: Vec<String> = shuffled(models.iter().map(key_of).collect());
    let spare = entry_like_for_like(&models[0], now);
    together(name, move |thread| {
        let read = |key: &String| black_box(read_like_for_like(&peer, key, &clock)).is_some();
        reads(&keys, thread, writes, read, |key| peer.put(key.clone(), spare.clone()))
    })
}

/// Times single hits, the clock's 20 to 30 ns included, while another thread sweeps.
fn during_sweep(sweeps: usize, report: &mut Report) -> Result<()> {
    let clock = SystemClock::new();
    let now = clock.now();
    let models = workload::models(SWEPT + 1);
    let (hot, due) = models.split_first().context("no model")?;
    let cache = MemoryCache::new(SWEPT * 2);
    cache.put(CacheKey::replicas(hot), stored(workload::value(hot, now), now), now);
    let shared = workload::value(hot, now);
    let mut quiet = hits_while(&cache, hot, &clock, || {
        thread::sleep(Duration::from_millis(100));
        Ok(())
    })?;
    tell(report, "hits alone", &mut quiet);

    let mut swept = Vec::new();
    let mut sweeping = Duration::ZERO;
    for _ in 0..sweeps {
        let mut entry = (*stored(Arc::clone(&shared), now)).clone();
        entry.keep_until = now;
        let entry = Arc::new(entry);
        for model in due {
            cache.put(CacheKey::replicas(model), Arc::clone(&entry), now);
        }
        swept.append(&mut hits_while(&cache, hot, &clock, || {
            let began = tokio::time::Instant::now();
            let removed = cache.sweep(clock.now()).len();
            sweeping += began.elapsed();
            ensure!(removed == SWEPT, "{removed} of {SWEPT} entries were swept");
            Ok(())
        })?);
    }
    let milliseconds = sweeping.as_secs_f64() * 1e3 / sweeps as f64;
    tell(report, "hits during a sweep of 100 000 entries", &mut swept);
    report.row(
        SUITE,
        "a sweep of 100 000 entries",
        "collector",
        &[Figure { name: "time", value: milliseconds, unit: "ms" }],
    );
    Ok(())
}

/// Nanoseconds of each hit until `meanwhile` has ended.
fn hits_while(
    cache: &MemoryCache,
    model: &ModelRef,
    clock: &SystemClock,
    meanwhile: impl FnOnce() -> Result<()> + Send,
) -> Result<Vec<u64>> {
    let (ended, start) = (AtomicBool::new(false), Barrier::new(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            start.wait();
            let outcome = meanwhile();
            ended.store(true, Ordering::Relaxed);
            outcome
        });
        let mut times = Vec::with_capacity(1 << 20);
        start.wait();
        while !ended.load(Ordering::Relaxed) {
            let began = tokio::time::Instant::now();
            let found = black_box(read_cache(cache, model, clock.now())).is_some();
            times.push(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
            ensure!(found, "the sweep took an entry that was not due");
        }
        other.join().ok().context("the sweep panicked")??;
        Ok(times)
    })
}

fn tell(report: &mut Report, case: &'static str, nanos: &mut [u64]) {
    nanos.sort_unstable();
    let quantile = |name, thousandths: usize| {
        let place = (nanos.len() * thousandths / 1000).min(nanos.len().saturating_sub(1));
        let value = nanos.get(place).map_or(f64::NAN, |nanos| *nanos as f64);
        Figure { name, value, unit: "ns" }
    };
    report.row(
        SUITE,
        case,
        CACHE,
        &[
            quantile("p50", 500),
            quantile("p99", 990),
            quantile("p99.9", 999),
            quantile("slowest", 1000),
            Figure { name: "hits", value: nanos.len() as f64, unit: "" },
        ],
    );
}
