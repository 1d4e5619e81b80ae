// SPDX-License-Identifier: Apache-2.0
//! The promises of [`MetricsCache`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use collector_core::{Clock as _, ManualClock, MetricsCache, ModelRecord, ModelRef};

use super::print;
use crate::SampleRecord;

/// Checks every promise of [`MetricsCache`] on caches that `make` makes, a new one for each case.
///
/// They must hold 1000 entries. A cache that stores nothing
/// ([`retains`](MetricsCache::retains) is false) is checked for exactly that.
///
/// # Panics
/// When a promise is broken, or a case takes longer than 10 s; the message names the case.
pub fn cache<C: MetricsCache>(make: impl Fn() -> C) {
    let stores = make().retains();
    for (name, case) in CASES {
        if stores {
            run(name, make(), *case);
        } else {
            print("cache", name, "skipped, because retains() is false");
        }
    }
    if !stores {
        run("it_stores_nothing", make(), it_stores_nothing);
    }
}

/// The same for a cache of limited size, which `make` makes for a number of entries, and the promises about what
/// is evicted.
///
/// # Panics
/// As [`cache()`].
pub fn bounded_cache<C: MetricsCache>(make: impl Fn(usize) -> C) {
    cache(|| make(1000));
    for (name, case) in BOUNDED_CASES {
        run(name, make(LIMIT), *case);
    }
}

type Case = fn(&dyn MetricsCache);

macro_rules! cases {
    ($($case:ident),* $(,)?) => { &[$((stringify!($case), $case as Case)),*] };
}

const CASES: &[(&str, Case)] = cases![
    an_empty_cache_has_nothing,
    a_record_is_returned_as_it_was_put,
    models_are_distinguished,
    a_put_replaces_the_record_of_its_model,
    a_remove_returns_the_record_and_keeps_the_others,
    a_retain_sees_every_record_once,
    a_retain_removes_the_refused_records,
    what_was_removed_can_be_put_again,
    counts_agree,
    a_put_leaves_no_gap,
    no_reader_sees_an_older_record_after_a_newer_one,
    concurrent_changes_lose_no_record,
];

const BOUNDED_CASES: &[(&str, Case)] = cases![
    the_limit_holds,
    tracked_records_are_evicted_last,
    an_untracked_record_finds_no_room_among_tracked_ones,
];

/// How long one case may take. It takes milliseconds; Miri takes some thousand times as long.
const TIME_LIMIT: Duration = Duration::from_secs(if cfg!(miri) { 3600 } else { 10 });

/// Runs a case on a thread of its own, so that a cache that hangs is reported.
fn run<C: MetricsCache>(name: &str, cache: C, case: Case) {
    print("cache", name, "runs");
    let (ended, end) = mpsc::channel::<()>();
    let running = thread::spawn(move || {
        let _ended = ended;
        case(&cache);
    });
    let hangs = end.recv_timeout(TIME_LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
    assert!(!hangs, "{name}: the cache hangs: the case has not ended within {TIME_LIMIT:?}");
    if let Err(panic) = running.join() {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        panic!("{name}: {}", message.unwrap_or("it panicked"));
    }
}

fn model(name: &str) -> ModelRef {
    ModelRef::new(name, "prod")
}

fn numbered(name: &str, number: u64) -> Arc<ModelRecord> {
    SampleRecord { number, ..SampleRecord::new(&model(name)) }.build()
}

/// The number of the record that is stored for a model.
fn stored(cache: &dyn MetricsCache, model: &ModelRef) -> Option<u64> {
    cache.get(model).map(|record| SampleRecord::number_of(&record))
}

#[track_caller]
fn check(cache: &dyn MetricsCache, model: &ModelRef, expected: Option<u64>, when: &str) {
    let found = stored(cache, model);
    assert_eq!(found, expected, "get of {model} {when}: expected the record with the right number");
}

fn an_empty_cache_has_nothing(cache: &dyn MetricsCache) {
    check(cache, &model("llama"), None, "in an empty cache");
    assert!(cache.remove(&model("llama")).is_none(), "remove returned what was never put");
    cache.retain(&mut |record| panic!("retain showed {} in an empty cache", record.model));
    let stats = cache.stats();
    assert_eq!((stats.models, stats.entries), (0, 0), "models and entries of an empty cache");
}

fn a_record_is_returned_as_it_was_put(cache: &dyn MetricsCache) {
    let mut record = SampleRecord { number: 7, ..SampleRecord::new(&model("llama")) };
    // It expired long ago: that is not for the cache to judge.
    record.keep_until = record.last_read;
    record.keep_unread = Duration::ZERO;
    let record = record.build();
    cache.put(Arc::clone(&record));
    let got = cache.get(&record.model).expect("get of \"llama\" after put: expected its record");
    assert!(
        Arc::ptr_eq(&got, &record),
        "get of \"llama\" returned a copy: expected the very record, because reads are marked in it"
    );
    let now = ManualClock::new().now() + Duration::from_secs(5);
    got.touch(now);
    let last_read = cache.get(&record.model).map(|record| record.last_read());
    assert_eq!(last_read, Some(now), "the last read of \"llama\" after it was read");
}

fn models_are_distinguished(cache: &dyn MetricsCache) {
    let names = [
        ("llama", "prod"),
        ("llama", "production"),
        ("llama", "Prod"),
        ("llama-8b", "prod"),
        ("lla", "maprod"),
        ("llama:prod", "a"),
        ("llama", "prod:a"),
        ("", "llamaprod"),
        ("llamaprod", ""),
    ];
    let models = names.map(|(model, namespace)| ModelRef::new(model, namespace));
    for (number, model) in (0..).zip(&models) {
        cache.put(SampleRecord { number, ..SampleRecord::new(model) }.build());
    }
    for (number, model) in (0..).zip(&models) {
        check(cache, model, Some(number), "among models with similar names");
    }
}

fn a_put_replaces_the_record_of_its_model(cache: &dyn MetricsCache) {
    for number in 1..=3 {
        cache.put(numbered("llama", number));
        check(cache, &model("llama"), Some(number), "after it was put again");
        assert_eq!(cache.stats().models, 1, "models after \"llama\" was put {number} times");
    }
}

fn a_remove_returns_the_record_and_keeps_the_others(cache: &dyn MetricsCache) {
    cache.put(numbered("llama", 1));
    cache.put(numbered("llama-8b", 2));
    let elsewhere = ModelRef::new("llama", "dev");
    cache.put(SampleRecord { number: 3, ..SampleRecord::new(&elsewhere) }.build());
    let removed = cache.remove(&model("llama")).map(|record| SampleRecord::number_of(&record));
    assert_eq!(removed, Some(1), "remove of \"llama\": expected its record");
    check(cache, &model("llama"), None, "after it was removed");
    check(cache, &model("llama-8b"), Some(2), "after \"llama\" was removed");
    check(cache, &elsewhere, Some(3), "after \"llama\" of another namespace was removed");
    assert!(cache.remove(&model("llama")).is_none(), "remove of \"llama\" a second time");
}

fn put_many(cache: &dyn MetricsCache, count: u64) -> Vec<ModelRef> {
    let put = |number| {
        let record = numbered(&format!("model-{number:03}"), number);
        cache.put(Arc::clone(&record));
        record.model.clone()
    };
    (0..count).map(put).collect()
}

fn a_retain_sees_every_record_once(cache: &dyn MetricsCache) {
    let models = put_many(cache, 100);
    let mut seen = Vec::new();
    cache.retain(&mut |record| {
        seen.push(record.model.clone());
        true
    });
    seen.sort_unstable();
    assert_eq!(seen, models, "what retain showed");
    for (number, model) in (0..).zip(&models) {
        check(cache, model, Some(number), "after a retain that keeps everything");
    }
}

fn a_retain_removes_the_refused_records(cache: &dyn MetricsCache) {
    let models = put_many(cache, 100);
    cache.retain(&mut |record| SampleRecord::number_of(record).is_multiple_of(3));
    for (number, model) in (0..).zip(&models) {
        let expected = (number % 3 == 0).then_some(number);
        check(cache, model, expected, "after a retain that keeps every third");
    }
    assert_eq!(cache.stats().models, 34, "models after a retain that keeps every third of 100");
}

fn what_was_removed_can_be_put_again(cache: &dyn MetricsCache) {
    cache.put(numbered("llama", 1));
    cache.remove(&model("llama"));
    cache.put(numbered("llama", 2));
    check(cache, &model("llama"), Some(2), "put again after a remove");
    cache.retain(&mut |_| false);
    check(cache, &model("llama"), None, "after a retain that keeps nothing");
    cache.put(numbered("llama", 3));
    check(cache, &model("llama"), Some(3), "put again after a retain");
}

fn counts_agree(cache: &dyn MetricsCache) {
    let with = |allocations: usize| {
        let variant = |number| (format!("v-{number}").into(), None);
        let mut record = SampleRecord::new(&model("llama"));
        record.allocations = (0..allocations).map(variant).collect();
        record.build()
    };
    let counts = || (cache.stats().models, cache.stats().entries);
    for allocations in [0, 3, 1] {
        cache.put(with(allocations));
        let expected = (1, 1 + allocations);
        assert_eq!(counts(), expected, "models and entries of one with {allocations} allocations");
    }
    put_many(cache, 100);
    assert_eq!(counts(), (101, 102), "models and entries after 100 more models");
    assert_eq!(cache.stats().evictions, 0, "evictions below the limits");
    cache.remove(&model("llama"));
    assert_eq!(counts(), (100, 100), "models and entries after a remove");
    cache.retain(&mut |_| false);
    assert_eq!(counts(), (0, 0), "models and entries after a retain that keeps nothing");
    assert_eq!(cache.stats().evictions, 0, "evictions: what was removed was not evicted");
}

/// Rounds of each thread: enough for a lost update to show within some runs, few enough to take milliseconds.
const ROUNDS: u64 = if cfg!(miri) { 10 } else { 2000 };

/// Runs `watch` again and again while a thread puts records of "llama" with rising numbers.
fn while_it_is_put(cache: &dyn MetricsCache, mut watch: impl FnMut()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 1..=ROUNDS {
                cache.put(numbered("llama", number));
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            watch();
        }
    });
    check(cache, &model("llama"), Some(ROUNDS), "after the last put");
}

fn a_put_leaves_no_gap(cache: &dyn MetricsCache) {
    cache.put(numbered("llama", 0));
    while_it_is_put(cache, || {
        assert!(
            cache.get(&model("llama")).is_some(),
            "get of \"llama\" found nothing while it was replaced: expected the old record or the new"
        );
    });
}

fn no_reader_sees_an_older_record_after_a_newer_one(cache: &dyn MetricsCache) {
    let mut before = 0;
    while_it_is_put(cache, || {
        let now = stored(cache, &model("llama")).unwrap_or(before);
        assert!(now >= before, "\"llama\" went back from record {before} to record {now}");
        before = now;
    });
}

fn concurrent_changes_lose_no_record(cache: &dyn MetricsCache) {
    let together = Barrier::new(4);
    // Dropped when the last retain has ended. Until then records are put, so that each retain meets some.
    let retains = Arc::new(());
    let retaining = Arc::downgrade(&retains);
    let change = |change: &dyn Fn(u64)| {
        together.wait();
        let mut number = 1;
        change(number);
        while number < ROUNDS || retaining.strong_count() > 0 {
            number += 1;
            change(number);
        }
    };
    thread::scope(|scope| {
        for name in ["one", "two"] {
            scope.spawn(move || {
                change(&|number| {
                    cache.put(numbered(name, number));
                    let when = "right after its put, with others at work";
                    check(cache, &model(name), Some(number), when);
                });
            });
        }
        scope.spawn(move || {
            change(&|number| {
                cache.put(numbered("comes-and-goes", number));
                cache.remove(&model("comes-and-goes"));
            });
        });
        let together = &together;
        scope.spawn(move || {
            together.wait();
            for _ in 0..ROUNDS / 10 {
                cache.retain(&mut |_| true);
            }
            drop(retains);
        });
    });
    let stats = cache.stats();
    assert_eq!((stats.models, stats.entries), (2, 2), "models and entries after all");
}

/// The entries that bounded caches hold.
const LIMIT: usize = 32;

fn put_record(cache: &dyn MetricsCache, name: &str, tracked: bool) {
    cache.put(SampleRecord { tracked, ..SampleRecord::new(&model(name)) }.build());
}

fn the_limit_holds(cache: &dyn MetricsCache) {
    for number in 0..10 * LIMIT {
        let mut record = SampleRecord::new(&model(&number.to_string()));
        record.allocations = vec![("v".into(), None)];
        cache.put(record.build());
        let entries = cache.stats().entries;
        assert!(entries <= LIMIT, "{entries} entries are stored: the limit is {LIMIT}");
    }
    assert!(cache.stats().evictions > 0, "evictions are counted");
    let newest = model(&(10 * LIMIT - 1).to_string());
    check(cache, &newest, Some(0), "right after it was put into a full cache, all being tracked");
}

fn tracked_records_are_evicted_last(cache: &dyn MetricsCache) {
    let tracked: Vec<_> = (0..LIMIT / 2).map(|number| format!("tracked-{number}")).collect();
    for name in &tracked {
        put_record(cache, name, true);
    }
    for number in 0..10 * LIMIT {
        put_record(cache, &format!("untracked-{number}"), false);
    }
    for name in &tracked {
        check(cache, &model(name), Some(0), "tracked, after a flood of untracked models");
    }
}

fn an_untracked_record_finds_no_room_among_tracked_ones(cache: &dyn MetricsCache) {
    let tracked: Vec<_> = (0..LIMIT).map(|number| format!("tracked-{number}")).collect();
    for name in &tracked {
        put_record(cache, name, true);
    }
    put_record(cache, "untracked", false);
    for name in &tracked {
        check(cache, &model(name), Some(0), "tracked, after an untracked model was put");
    }
    check(cache, &model("untracked"), None, "untracked, in a cache full of tracked models");
}

fn it_stores_nothing(cache: &dyn MetricsCache) {
    cache.put(numbered("llama", 1));
    check(cache, &model("llama"), None, "in a cache that says that it stores nothing");
    an_empty_cache_has_nothing(cache);
}
