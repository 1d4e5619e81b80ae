//! What `MemoryCache` does beyond the promises of every cache: limits, eviction, handles.

use std::time::Duration;

use collector_core::{Clock, ManualClock, ModelRef, VariantName};

use super::*;
use crate::handle::Shown;
use crate::samples;

const SECOND: Duration = Duration::from_secs(1);

fn entry(tracked: bool) -> Arc<Stored> {
    Arc::new(Stored { tracked, ..samples::entry() })
}

fn model(number: usize) -> ModelRef {
    ModelRef::new(format!("m-{number}"), "prod")
}

/// A cache with a clock that moves with each step.
struct Desk {
    cache: MemoryCache,
    clock: ManualClock,
}

impl Desk {
    fn new(max_entries: usize, eviction: Eviction) -> Self {
        Self {
            cache: MemoryCache::with_limits(max_entries, usize::MAX, eviction),
            clock: ManualClock::new(),
        }
    }

    fn put(&self, number: usize, tracked: bool) {
        self.clock.advance(SECOND);
        self.cache.put(CacheKey::replicas(&model(number)), entry(tracked), self.clock.now());
    }

    fn read(&self, number: usize) -> bool {
        self.clock.advance(SECOND);
        self.cache.get(KeyRef::replicas(&model(number)), self.clock.now()).is_some()
    }

    fn kept(&self) -> Vec<usize> {
        (0..1000).filter(|n| self.cache.peek(KeyRef::replicas(&model(*n))).is_some()).collect()
    }
}

#[test]
fn sieve_spares_what_was_read_and_takes_the_oldest_of_the_rest() {
    let desk = Desk::new(4, Eviction::Sieve);
    (0..4).for_each(|n| desk.put(n, true));
    assert!(desk.read(0) && desk.read(2));
    desk.put(4, true);
    assert_eq!(desk.kept(), [0, 2, 3, 4]);
    // The hand goes on where it stood: it passes over 2 and does not come back to 0.
    desk.put(5, true);
    assert_eq!(desk.kept(), [0, 2, 4, 5]);
    desk.put(6, true);
    assert_eq!(desk.kept(), [0, 2, 5, 6]);
    assert_eq!(desk.cache.stats().evictions, 3);
}

#[test]
fn a_scan_pushes_out_nothing_that_is_read_again_under_sieve() {
    let desk = Desk::new(32, Eviction::Sieve);
    (0..8).for_each(|n| desk.put(n, true));
    for n in 100..500 {
        desk.put(n, true);
        (0..8).for_each(|hot| assert!(desk.read(hot), "{hot} at {n}"));
        assert!(desk.cache.len() <= 32);
    }
}

#[test]
fn lru_takes_the_least_recently_read() {
    let desk = Desk::new(3, Eviction::Lru);
    (0..3).for_each(|n| desk.put(n, true));
    assert!(desk.read(0));
    desk.put(3, true);
    assert_eq!(desk.kept(), [0, 2, 3]);
    assert!(desk.read(2));
    desk.put(4, true);
    assert_eq!(desk.kept(), [2, 3, 4]);
}

#[test]
fn what_is_tracked_leaves_last_and_for_nothing_that_is_not() {
    for eviction in [Eviction::Sieve, Eviction::Lru] {
        let desk = Desk::new(4, eviction);
        desk.put(0, true);
        (1..4).for_each(|n| desk.put(n, false));
        (1..4).for_each(|n| assert!(desk.read(n)));
        (10..13).for_each(|n| desk.put(n, true));
        assert_eq!(desk.kept(), [0, 10, 11, 12], "{eviction:?}: read or not, untracked ones go");
        desk.put(20, false);
        assert_eq!(desk.kept(), [0, 10, 11, 12], "{eviction:?}: no room for what is not tracked");
        assert_eq!(desk.cache.stats().evictions, 4);
        desk.put(0, false);
        desk.put(21, true);
        assert_eq!(desk.kept(), [10, 11, 12, 21], "{eviction:?}: it is no longer tracked");
    }
}

#[test]
fn bytes_are_bounded_and_come_back() {
    let one = Books::bytes_of(CacheKey::replicas(&model(0)).heap_bytes(), &entry(true));
    let cache = MemoryCache::with_limits(1000, one * 10, Eviction::Sieve);
    let clock = ManualClock::new();
    for n in 0..10 {
        cache.put(CacheKey::replicas(&model(n)), entry(true), clock.now());
    }
    assert_eq!((cache.len(), cache.stats().bytes), (10, one * 10));
    cache.put(CacheKey::replicas(&model(10)), entry(true), clock.now());
    assert_eq!(cache.len(), 9, "its name is a byte longer");
    let tiny = MemoryCache::with_limits(1000, 1, Eviction::Sieve);
    for n in 0..3 {
        tiny.put(CacheKey::replicas(&model(n)), entry(true), clock.now());
        assert!(tiny.peek(KeyRef::replicas(&model(n))).is_some());
        assert_eq!(tiny.len(), 1, "one is kept however large it is");
    }
    cache.remove(&Scope::all());
    assert_eq!((cache.len(), cache.stats().bytes), (0, 0));
}

#[test]
fn a_group_is_found_whatever_came_and_left_before() {
    let cache = MemoryCache::new(10_000);
    let now = ManualClock::new().now();
    let (l4, h100) = ("L4".into(), "H100".into());
    for n in 0..300 {
        let model = ModelRef::new(format!("m-{}", n % 10), format!("ns-{}", n % 30));
        let variant = VariantName::from(format!("v-{n}"));
        let accelerator = if n % 3 == 0 { &l4 } else { &h100 };
        cache.put(CacheKey::allocation(&model, &variant, Some(accelerator)), entry(true), now);
        cache.put(CacheKey::replicas(&model), entry(true), now);
    }
    assert_eq!(cache.len(), 330);
    assert_eq!(cache.remove(&Scope::all().accelerator("L4")), 100);
    assert_eq!(cache.remove(&Scope::all().accelerator("L4")), 0);
    assert_eq!(cache.remove(&Scope::of_model(&ModelRef::new("m-1", "ns-11"))), 1 + 10);
    assert_eq!(cache.remove(&Scope::all().model("m-1")), 2 + 10);
    assert_eq!(cache.remove(&Scope::all().namespace("ns-11")), 0);
    assert_eq!(cache.remove(&Scope::all().namespace("ns-2")), 1 + 10);
    cache.put(CacheKey::replicas(&ModelRef::new("m-2", "ns-2")), entry(true), now);
    assert_eq!(cache.remove(&Scope::all().namespace("ns-2")), 1);
    assert_eq!(cache.len(), 330 - 100 - 11 - 12 - 11);
}

#[test]
fn a_sweep_leaves_alone_what_is_not_due_and_finds_it_when_it_is() {
    let clock = ManualClock::new();
    let cache = MemoryCache::new(10_000);
    let until = |seconds| {
        let stored =
            Stored { keep_until: clock.now() + SECOND * seconds, ..(*entry(true)).clone() };
        Arc::new(stored)
    };
    for n in 0..1000 {
        let seconds = if n % 2 == 0 { 10 } else { 1000 };
        cache.put(CacheKey::replicas(&model(n)), until(seconds), clock.now());
    }
    // One is kept longer than its list says, another leaves sooner.
    cache.put(CacheKey::replicas(&model(0)), until(500), clock.now());
    cache.put(CacheKey::replicas(&model(1)), until(5), clock.now());
    clock.advance(SECOND * 5);
    assert_eq!(cache.sweep(clock.now()).len(), 1);
    clock.advance(SECOND * 5);
    assert_eq!(cache.sweep(clock.now()).len(), 499);
    assert_eq!(cache.sweep(clock.now()).len(), 0);
    clock.advance(SECOND * 490);
    assert_eq!(cache.sweep(clock.now()), [CacheKey::replicas(&model(0))]);
    clock.advance(SECOND * 500);
    assert_eq!(cache.sweep(clock.now()).len(), 499);
    assert!(cache.is_empty());
}

#[test]
fn a_handle_shows_the_newest_entry_and_survives_a_removal() {
    let clock = ManualClock::new();
    let cache = MemoryCache::new(10);
    let key = CacheKey::replicas(&model(0));
    let mut handle = cache.handle(key.clone());
    assert!(handle.read(&cache, clock.now()).is_none());
    let first = entry(true);
    cache.put(key.clone(), Arc::clone(&first), clock.now());
    clock.advance(SECOND);
    for shown in [Shown::New, Shown::Again, Shown::Again] {
        let (stored, how) = handle.read(&cache, clock.now()).unwrap();
        assert!(Arc::ptr_eq(stored, &first) && how == shown);
    }
    let peeked = cache.peek(key.as_ref()).unwrap();
    assert_eq!(peeked.last_read, clock.now(), "it counts as a read");
    let second = entry(false);
    cache.put(key.clone(), Arc::clone(&second), clock.now());
    let (stored, how) = handle.read(&cache, clock.now()).unwrap();
    assert!(Arc::ptr_eq(stored, &second) && how == Shown::New);
    cache.remove(&Scope::all());
    assert!(handle.read(&cache, clock.now()).is_none());
    cache.put(key, Arc::clone(&first), clock.now());
    let (stored, how) = handle.read(&cache, clock.now()).unwrap();
    assert!(Arc::ptr_eq(stored, &first) && how == Shown::New);
}

#[test]
fn a_handle_follows_an_entry_whose_cell_can_count_no_further() {
    let clock = ManualClock::new();
    let cache = MemoryCache::new(10);
    let key = CacheKey::replicas(&model(0));
    cache.put(key.clone(), entry(true), clock.now());
    let (version, _) = cache.resolve(key.as_ref()).unwrap();
    version.wear_out();
    clock.advance(SECOND);
    let mut handle = cache.handle(key.clone());
    for _ in 0..3 {
        assert!(handle.read(&cache, clock.now()).is_some());
        let newer = entry(true);
        cache.put(key.clone(), Arc::clone(&newer), clock.now());
        let (stored, shown) = handle.read(&cache, clock.now()).unwrap();
        assert!(Arc::ptr_eq(stored, &newer) && shown == Shown::New);
        assert_eq!(cache.peek(key.as_ref()).unwrap().last_read, clock.now());
    }
    assert_eq!(cache.len(), 1);
}

#[test]
fn a_refresh_is_claimed_once_a_second_and_anew_when_another_entry_is_put() {
    let clock = ManualClock::new();
    let cache = MemoryCache::new(10);
    let model = model(0);
    let claim = |at| cache.claim_refresh(KeyRef::replicas(&model), at);
    assert!(!claim(clock.now()), "there is none");
    cache.put(CacheKey::replicas(&model), entry(true), clock.now());
    // By whole days, and by some weeks more than what a cell keeps of a tick can tell apart.
    for days in [0, 1, 100, 3650] {
        clock.advance(SECOND * 86_400 * days);
        let now = clock.now();
        assert!(claim(now) && !claim(now));
        assert!(!claim(now + SECOND / 2) && !claim(now - SECOND / 2), "{days}");
        assert!(claim(now + SECOND) && !claim(now + SECOND), "{days}");
        cache.put(CacheKey::replicas(&model), entry(true), now);
        assert!(claim(now) && !claim(now), "{days}");
    }
}
