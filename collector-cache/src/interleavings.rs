//! Models that loom runs through every interleaving of their threads: `cargo xtask loom`.
//!
//! They run the code itself: the cache over loom's lock and atomics, and over a map that loom sees into.

use std::sync::Arc;

use collector_core::{CacheKey, KeyRef, MetricsCache, ModelRef, Scope, Stored, Tick};
use collector_testkit::explore;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use crate::{Handle, MemoryCache, Recent, samples};

const NOW: Tick = Tick::from_nanos(1 << 40);

/// An entry that is known again by its number.
fn entry(number: u64) -> Arc<Stored> {
    Arc::new(Stored { current_until: Tick::from_nanos(number), ..samples::entry() })
}

fn number_of(stored: &Stored) -> u64 {
    stored.current_until.to_nanos()
}

/// A cache of one key.
struct Desk {
    cache: MemoryCache,
    model: ModelRef,
    /// How many writes have ended.
    ended: AtomicUsize,
}

impl Desk {
    fn new() -> Self {
        let model = ModelRef::new("llama", "prod");
        Self { cache: MemoryCache::new(1), model, ended: AtomicUsize::new(0) }
    }

    fn put(&self, number: u64) {
        self.cache.put(CacheKey::replicas(&self.model), entry(number), NOW);
        self.end();
    }

    fn remove(&self) {
        assert_eq!(self.cache.remove(&Scope::of_model(&self.model)), 1);
        self.end();
    }

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::Release);
    }
}

/// Who reads the key again and again.
trait Reader {
    fn of(desk: &Desk) -> Self;

    /// The number of the entry that is shown.
    fn read(&mut self, desk: &Desk) -> Option<u64>;
}

impl Reader for Handle {
    fn of(desk: &Desk) -> Self {
        desk.cache.handle(CacheKey::replicas(&desk.model))
    }

    fn read(&mut self, desk: &Desk) -> Option<u64> {
        Handle::read(self, &desk.cache, NOW).map(|(stored, _)| number_of(stored))
    }
}

impl Reader for Recent<u64> {
    fn of(_: &Desk) -> Self {
        Self::default()
    }

    /// What is remembered, else what the cache shows, which is remembered from then on.
    fn read(&mut self, desk: &Desk) -> Option<u64> {
        let key = KeyRef::replicas(&desk.model);
        if let Some(remembered) = self.find(key, NOW) {
            return Some(*remembered);
        }
        self.learn(&desk.cache, key, |stored| Some(number_of(stored)));
        desk.cache.read(key, NOW, number_of)
    }
}

/// Reads while `write` is under way, which takes the key through `states`, the first being the one that
/// `prepare` leaves; the reader has read before or not. It never shows less than a write that has ended,
/// and in the end the newest.
fn check<R: Reader>(states: &'static [Option<u64>], prepare: fn(&Desk), write: fn(&Desk)) {
    for read_before in [true, false] {
        explore(move || {
            let desk = Arc::new(Desk::new());
            prepare(&desk);
            let prepared = desk.ended.load(Ordering::Relaxed);
            let mut reader = R::of(&desk);
            if read_before {
                assert_eq!(reader.read(&desk), states[0]);
            }
            let writer = {
                let desk = Arc::clone(&desk);
                thread::spawn(move || write(&desk))
            };
            let ended = desk.ended.load(Ordering::Acquire) - prepared;
            let shown = reader.read(&desk);
            let seen = states.iter().position(|state| *state == shown);
            assert!(seen >= Some(ended), "{ended} writes have ended, and it shows {shown:?}");
            writer.join().unwrap();
            assert_eq!(reader.read(&desk), states[states.len() - 1], "the newest, in the end");
        });
    }
}

fn check_what_is_put<R: Reader>() {
    check::<R>(&[Some(0), Some(1)], |desk| desk.put(0), |desk| desk.put(1));
}

fn check_what_is_removed<R: Reader>() {
    let write = |desk: &Desk| {
        desk.remove();
        desk.put(2);
        desk.put(3);
    };
    // The cell that comes counts as far as the one that goes had counted.
    let prepare = |desk: &Desk| (0..=1).for_each(|number| desk.put(number));
    check::<R>(&[Some(1), None, Some(2), Some(3)], prepare, write);
}

#[test]
fn a_handle_follows_what_is_put_over_its_entry() {
    check_what_is_put::<Handle>();
}

#[test]
fn a_handle_shows_nothing_that_was_removed_and_finds_what_is_put_next() {
    check_what_is_removed::<Handle>();
}

#[test]
fn what_a_thread_remembers_is_not_shown_once_another_is_put() {
    check_what_is_put::<Recent<u64>>();
}

#[test]
fn what_a_thread_remembers_is_not_shown_once_it_is_removed() {
    check_what_is_removed::<Recent<u64>>();
}

#[test]
fn of_two_readers_one_sees_to_the_refresh() {
    explore(|| {
        let desk = Arc::new(Desk::new());
        desk.put(0);
        let claim = |desk: &Desk| desk.cache.claim_refresh(KeyRef::replicas(&desk.model), NOW);
        let other = {
            let desk = Arc::clone(&desk);
            thread::spawn(move || claim(&desk))
        };
        let one = claim(&desk);
        assert_ne!(one, other.join().unwrap());
    });
}
