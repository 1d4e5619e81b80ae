//! Random sequences of everything that can be done to a cache, held against a reference that is too
//! simple to be wrong.

mod order;
mod reference;
mod steps;

use std::fmt;
use std::sync::Arc;

use collector_cache::{Eviction, Handle, MemoryCache, NoOpCache, Recent};
use collector_core::{CacheKey, KeyRef, MetricsCache, Stored, Tick};
use proptest::prelude::*;

use order::Order;
use reference::{Entry, Id, Reference};
use steps::{KEYS, Read, Step, steps};

/// Cases of each machine. Miri takes some thousand times as long for a step.
const CASES: u32 = if cfg!(miri) { 2 } else { 128 };

/// A cache that a machine can drive.
trait Subject: MetricsCache {
    /// What reads one key again and again.
    type Handle;

    fn handle(&self, key: CacheKey) -> Self::Handle;

    fn read(&self, handle: &mut Self::Handle, now: Tick) -> Option<Arc<Stored>>;

    /// Reads what `recent` remembers, else the cache, and has it remembered.
    fn read_recent(
        &self,
        recent: &mut Recent<Arc<Stored>>,
        key: KeyRef<'_>,
        now: Tick,
    ) -> Option<Arc<Stored>>;
}

impl Subject for MemoryCache {
    type Handle = Handle;

    fn handle(&self, key: CacheKey) -> Handle {
        Self::handle(self, key)
    }

    fn read(&self, handle: &mut Handle, now: Tick) -> Option<Arc<Stored>> {
        handle.read(self, now).map(|(stored, _)| Arc::clone(stored))
    }

    fn read_recent(
        &self,
        recent: &mut Recent<Arc<Stored>>,
        key: KeyRef<'_>,
        now: Tick,
    ) -> Option<Arc<Stored>> {
        if let Some(stored) = recent.find(key, now) {
            return Some(Arc::clone(stored));
        }
        let stored = self.get(key, now);
        recent.learn(self, key, |stored| Some(Arc::clone(stored)));
        stored
    }
}

impl Subject for NoOpCache {
    type Handle = CacheKey;

    fn handle(&self, key: CacheKey) -> CacheKey {
        key
    }

    fn read(&self, handle: &mut CacheKey, now: Tick) -> Option<Arc<Stored>> {
        self.get(handle.as_ref(), now)
    }

    fn read_recent(
        &self,
        _: &mut Recent<Arc<Stored>>,
        key: KeyRef<'_>,
        now: Tick,
    ) -> Option<Arc<Stored>> {
        self.get(key, now)
    }
}

/// A cache beside its reference.
struct Machine<C: Subject> {
    cache: C,
    /// One on each key, kept over everything.
    handles: Vec<C::Handle>,
    recent: Recent<Arc<Stored>>,
    reference: Reference,
    now: Tick,
}

impl<C: Subject> Machine<C> {
    fn new(cache: C, reference: Reference) -> Self {
        let handles = KEYS.iter().map(|key| cache.handle(key.clone())).collect();
        let now = Tick::from_nanos(1 << 40);
        Self { cache, handles, recent: Recent::default(), reference, now }
    }

    fn run(mut self, steps: Vec<Step>) {
        for (number, step) in steps.into_iter().enumerate() {
            let shown = Shown(number, step.clone());
            self.take(step, &shown);
            self.compare(&shown);
        }
    }

    fn take(&mut self, step: Step, shown: &Shown) {
        match step {
            Step::Read { key, how, late } => {
                // Whoever reads the clock first may come second.
                let now = Tick::from_nanos(self.now.to_nanos() - late);
                let id = Id::of(&KEYS[key]);
                let read = self.read(key, how, now);
                let expected = self.reference.read(&id, now, how != Read::Peek);
                assert!(same(read.as_ref(), expected.as_ref()), "{shown}: another entry");
            }
            Step::Put { key, accelerator, entry } => {
                let key = steps::with_accelerator(key, accelerator);
                let stored = entry.stored(self.now);
                self.cache.put(key.clone(), Arc::clone(&stored), self.now);
                let kept = |id: &Id| self.cache.peek(id.key().as_ref()).is_some();
                self.reference.put(key, stored, self.now, kept, shown);
            }
            Step::Remove(scope) => {
                assert_eq!(self.cache.remove(&scope), self.reference.remove(&scope), "{shown}");
            }
            Step::Sweep => {
                let mut swept: Vec<Id> = self.cache.sweep(self.now).iter().map(Id::of).collect();
                swept.sort_unstable();
                assert_eq!(swept, self.reference.sweep(self.now), "{shown}");
            }
            Step::Wait(time) => self.now = self.now + time,
        }
    }

    fn read(&mut self, key: usize, how: Read, now: Tick) -> Option<Arc<Stored>> {
        let key_ref = KEYS[key].as_ref();
        match how {
            Read::Get => self.cache.get(key_ref, now),
            Read::Peek => self.cache.peek(key_ref).map(|peeked| peeked.stored),
            Read::Handle => self.cache.read(&mut self.handles[key], now),
            Read::Recent => self.cache.read_recent(&mut self.recent, key_ref, now),
            Read::Visit => {
                // What is shown has no count of its own: it is known again by its place in memory.
                let peeked = self.cache.peek(key_ref).map(|peeked| peeked.stored);
                let mut shown = Vec::new();
                let found = self.cache.visit(key_ref, now, &mut |stored| {
                    shown.push(
                        peeked.as_ref().is_some_and(|is| std::ptr::eq(&raw const **is, stored)),
                    );
                });
                assert_eq!(shown, vec![true; usize::from(found)], "a visit shows one entry, once");
                peeked.filter(|_| found)
            }
        }
    }

    /// Everything that can be seen of the cache without changing it.
    fn compare(&self, shown: &Shown) {
        for key in KEYS.iter() {
            let peeked = self.cache.peek(key.as_ref());
            let expected = self.reference.entries.get(&Id::of(key));
            let seen = peeked.as_ref().map(|peeked| (&peeked.stored, peeked.last_read));
            let expected = expected.map(|entry: &Entry| (&entry.stored, entry.last_read));
            match (seen, expected) {
                (None, None) => {}
                (Some((seen, read)), Some((expected, expected_read))) => {
                    assert!(Arc::ptr_eq(seen, expected), "{shown}: another entry under {key}");
                    assert_eq!(read, expected_read, "{shown}: last read of {key}");
                }
                (seen, _) => panic!("{shown}: there is {:?} under {key}", seen.map(|_| "an entry")),
            }
        }
        let entries = self.reference.entries.len();
        assert_eq!(self.cache.len(), entries, "{shown}");
        assert_eq!(self.cache.is_empty(), entries == 0, "{shown}");
        let stats = self.cache.stats();
        assert_eq!(
            (stats.entries, stats.evictions),
            (entries, self.reference.evictions),
            "{shown}"
        );
        let least = self.reference.bytes();
        // What an entry costs besides is the cache's own to estimate.
        let about = least..=least + 512 * entries;
        assert!(about.contains(&stats.bytes), "{shown}: {} bytes, of {about:?}", stats.bytes);
    }
}

/// Where a machine stands; told when something is wrong.
struct Shown(usize, Step);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at step {}, {:?}", self.0, self.1)
    }
}

fn same(one: Option<&Arc<Stored>>, other: Option<&Arc<Stored>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig::with_cases(CASES);
    if cfg!(miri) {
        // It would look for its file, and Miri shows no file system.
        config.failure_persistence = None;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_memory_cache_with_room_for_all_does_what_a_map_does(steps in steps()) {
        Machine::new(MemoryCache::new(1000), Reference::without_limit()).run(steps);
    }

    #[test]
    fn a_small_memory_cache_evicts_as_sieve_says(steps in steps()) {
        for max_entries in [1, 4] {
            let cache = MemoryCache::with_limits(max_entries, usize::MAX, Eviction::Sieve);
            let reference = Reference::of_entries(max_entries, Order::Sieve(Default::default()));
            Machine::new(cache, reference).run(steps.clone());
        }
    }

    #[test]
    fn a_small_memory_cache_evicts_the_least_recently_read_under_lru(steps in steps()) {
        for max_entries in [1, 4] {
            let cache = MemoryCache::with_limits(max_entries, usize::MAX, Eviction::Lru);
            let reference = Reference::of_entries(max_entries, Order::Lru);
            Machine::new(cache, reference).run(steps.clone());
        }
    }

    #[test]
    fn a_memory_cache_of_few_bytes_evicts_within_the_rules(steps in steps()) {
        for eviction in [Eviction::Sieve, Eviction::Lru] {
            let max_bytes = 3000;
            let cache = MemoryCache::with_limits(1000, max_bytes, eviction);
            Machine::new(cache, Reference::of_bytes(max_bytes)).run(steps.clone());
        }
    }

    #[test]
    fn a_cache_that_keeps_nothing_does_what_no_map_does(steps in steps()) {
        Machine::new(NoOpCache, Reference::that_keeps_nothing()).run(steps);
    }
}
