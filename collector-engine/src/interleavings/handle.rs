//! A handle never shows less than a write that has ended, and in the end the newest.
//!
//! The handle stands in `collector-cache`, beside a map that loom cannot see into. So this is no model of
//! the code but of its protocol, line by line: that of `Handle::read`, `MemoryCache::resolve`, and of
//! what writers do to a `Slot` after they have changed the map.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::thread;

use super::world::explore;

/// The generation of a cell that is no longer in the map.
const GONE: u64 = u64::MAX;

/// What stands in the map, one after another: the cell and the entry beside it.
const ENTRIES: [(usize, u32); 4] = [(0, 0), (0, 1), (1, 2), (1, 3)];

/// The place of no entry.
const NONE: usize = usize::MAX;

struct Map {
    /// Which of [`ENTRIES`] is under the key. As papaya does it: one pointer, replaced as a whole.
    entry: AtomicUsize,
    /// Of each cell.
    generations: [AtomicU64; 2],
    /// How many writes have ended.
    ended: AtomicUsize,
}

impl Map {
    fn get(&self) -> Option<(usize, u32)> {
        ENTRIES.get(self.entry.load(Ordering::Acquire)).copied()
    }

    /// `Slot::generation`
    fn generation(&self, cell: usize) -> Option<u64> {
        let generation = self.generations[cell].load(Ordering::Acquire);
        (generation != GONE).then_some(generation)
    }

    /// `MemoryCache::resolve`
    fn resolve(&self) -> Option<Seen> {
        loop {
            let (before, _) = self.get()?;
            let Some(generation) = self.generation(before) else { continue };
            let (cell, stored) = self.get()?;
            if before == cell {
                return Some(Seen { cell, generation, stored });
            }
        }
    }

    /// `MemoryCache::replace`
    fn replace(&self, entry: usize) {
        let (cell, _) = ENTRIES[entry];
        self.entry.store(entry, Ordering::Release);
        let generation = self.generations[cell].load(Ordering::Relaxed);
        self.generations[cell].store(generation + 1, Ordering::Release);
        self.end();
    }

    /// `MemoryCache::drop_entry`
    fn remove(&self, cell: usize) {
        self.entry.store(NONE, Ordering::Release);
        self.generations[cell].store(GONE, Ordering::Release);
        self.end();
    }

    /// `MemoryCache::put_new`
    fn put_new(&self, entry: usize) {
        self.entry.store(entry, Ordering::Release);
        self.end();
    }

    fn end(&self) {
        self.ended.fetch_add(1, Ordering::Release);
    }
}

#[derive(Clone, Copy)]
struct Seen {
    cell: usize,
    generation: u64,
    stored: u32,
}

#[derive(Default)]
struct Handle {
    seen: Option<Seen>,
}

impl Handle {
    /// `Handle::read`
    fn read(&mut self, map: &Map) -> Option<u32> {
        let current =
            self.seen.is_some_and(|seen| map.generation(seen.cell) == Some(seen.generation));
        if !current {
            self.seen = map.resolve();
        }
        self.seen.map(|seen| seen.stored)
    }
}

/// Reads while `write` is under way, which takes the key through `states`, the first being the one that
/// `prepare` leaves; the handle has been read before or not.
fn check(read_before: bool, states: &'static [Option<u32>], prepare: fn(&Map), write: fn(&Map)) {
    explore(move || {
        let map = Arc::new(Map {
            entry: AtomicUsize::new(0),
            generations: [AtomicU64::new(0), AtomicU64::new(0)],
            ended: AtomicUsize::new(0),
        });
        prepare(&map);
        let prepared = map.ended.load(Ordering::Relaxed);
        let mut handle = Handle::default();
        if read_before {
            assert_eq!(handle.read(&map), states[0]);
        }
        let writer = {
            let map = Arc::clone(&map);
            thread::spawn(move || write(&map))
        };
        let ended = map.ended.load(Ordering::Acquire) - prepared;
        let shown = handle.read(&map);
        let seen = states.iter().position(|state| *state == shown);
        assert!(seen >= Some(ended), "{ended} writes have ended, and it shows {shown:?}");
        writer.join().unwrap();
        assert_eq!(handle.read(&map), states[states.len() - 1], "the newest, in the end");
    });
}

#[test]
fn a_handle_follows_what_is_put_over_its_entry() {
    for read_before in [true, false] {
        let states = &[Some(0), Some(1)];
        check(read_before, states, |_| {}, |map| map.replace(1));
    }
}

#[test]
fn a_handle_shows_nothing_that_was_removed_and_finds_what_is_put_next() {
    for read_before in [true, false] {
        let states = &[Some(1), None, Some(2), Some(3)];
        let write = |map: &Map| {
            map.remove(0);
            map.put_new(2);
            map.replace(3);
        };
        check(read_before, states, |map| map.replace(1), write);
    }
}
