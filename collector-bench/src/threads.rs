// SPDX-License-Identifier: Apache-2.0
//! Hits on two threads at once, of one key and of many. Here two runs of one program differ by a factor of three, so
//! that no goal stands on them.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use collector_core::{Clock as _, MetricsCollector as _, ModelRef, SystemClock, Tick};
use collector_engine::WorkloadHandle;
use dashmap::DashMap;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::case::Case;
use crate::hit::{HANDLE, KEYED};
use crate::peers::{
    FastHasher, Locked, Peer, entry_like_for_like, filled, key_of, read_like_for_like,
};
use crate::race::System;
use crate::report::Report;
use crate::workload::{self, collector_of, shuffled};

const SUITE: &str = "threads";
const THREADS: u32 = 2;
/// Reads of one thread in a run; long against the start of the threads.
const READS: u32 = 200_000;
const SPREAD: usize = 10_000;

/// Names of the cases.
pub(crate) const CASES: [&str; 2] = ["one hot key, like for like", "10 000 keys, like for like"];

/// Each way to read on two threads.
pub(crate) async fn cases() -> Result<[Case; 2]> {
    let [hot, spread] = CASES;
    Ok([
        Case::new(SUITE, hot, systems(&workload::models(1)).await?),
        Case::new(SUITE, spread, systems(&workload::models(SPREAD)).await?),
    ])
}

/// Measures them.
pub(crate) async fn measure(quick: bool, report: &mut Report) -> Result<()> {
    let rounds = if quick { 7 } else { 41 };
    for case in cases().await? {
        case.measure_threads(rounds, report)?;
    }
    Ok(())
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

/// Reads `READS` of the keys, each thread from an index of its own.
fn reads<K>(keys: &[K], thread: u32, read: impl Fn(&K) -> bool) -> Result<()> {
    let from = keys.len() / THREADS as usize * thread as usize;
    let order = keys.iter().cycle().skip(from).take(READS as usize);
    let found = order.filter(|key| read(black_box(key))).count();
    ensure!(found == READS as usize, "an entry is lost");
    Ok(())
}

async fn systems(models: &[ModelRef]) -> Result<Vec<System<'static>>> {
    let collector = collector_of(models).await?;
    let by_key = Arc::clone(&collector);
    let keys = shuffled(models.to_vec());
    let shared = keys.clone();
    Ok(vec![
        together(KEYED, move |thread| {
            reads(&keys, thread, |model| black_box(by_key.cached_replicas(model)).is_some())
        }),
        together(HANDLE, move |thread| {
            // Each thread has handles of its own, as each reconcile loop has.
            let handle = |model: &ModelRef| RefCell::new(collector.handle(model.clone(), None));
            let handles: Vec<RefCell<WorkloadHandle>> = shared.iter().map(handle).collect();
            reads(&handles, thread, |handle| black_box(handle.borrow_mut().replicas()).is_some())
        }),
        peer("dashmap", DashMap::with_hasher(FastHasher::default()), models),
        peer("RwLock<HashMap>", Locked::<_, FastHasher>::default(), models),
    ])
}

fn peer(
    name: &'static str,
    peer: impl Peer<Tick> + 'static,
    models: &[ModelRef],
) -> System<'static> {
    let clock = SystemClock::new();
    let now = clock.now();
    let peer = filled(peer, models, |model| entry_like_for_like(model, now));
    let keys: Vec<String> = shuffled(models.iter().map(key_of).collect());
    together(name, move |thread| {
        reads(&keys, thread, |key| black_box(read_like_for_like(&peer, key, &clock)).is_some())
    })
}
