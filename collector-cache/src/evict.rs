//! Who leaves when room is short: SIEVE, or the least recently read. Only writers see it; a read leaves
//! a mark in its cell, which is looked at here.

use std::collections::BTreeSet;

use crate::books::NONE;
use crate::by_id::ById;
use crate::slot::Slot;

/// How the entry is chosen that leaves when a cache is full.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Eviction {
    /// SIEVE (Zhang et al., NSDI 2024): entries stand in the order they came; a hand passes over those
    /// that were read since it last came by, from old to new, and takes the first that was not. A
    /// scan leaves as it came, without pushing out what is read again and again.
    #[default]
    Sieve,
    /// The least recently read leaves.
    Lru,
}

/// The order of the entries of each class, tracked or not.
pub(crate) enum Order {
    Sieve(Sieve),
    Lru(Lru),
}

impl Order {
    pub(crate) fn new(eviction: Eviction) -> Self {
        match eviction {
            Eviction::Sieve => Self::Sieve(Sieve::default()),
            Eviction::Lru => Self::Lru(Lru::default()),
        }
    }

    pub(crate) fn insert(&mut self, slot: &Slot, tracked: bool) {
        match self {
            Self::Sieve(sieve) => sieve.insert(slot.id(), tracked),
            Self::Lru(lru) => lru.insert(slot, tracked),
        }
    }

    pub(crate) fn remove(&mut self, id: u32, tracked: bool) {
        match self {
            Self::Sieve(sieve) => sieve.remove(id, tracked),
            Self::Lru(lru) => lru.remove(id, tracked),
        }
    }

    /// The entry of a class that is to leave, which is not `spared`. It stays in the order until it is
    /// removed.
    pub(crate) fn victim<'a>(
        &mut self,
        tracked: bool,
        spared: u32,
        slot_of: impl Fn(u32) -> &'a Slot,
    ) -> Option<u32> {
        match self {
            Self::Sieve(sieve) => sieve.victim(tracked, spared, |id| slot_of(id).take_visited()),
            Self::Lru(lru) => lru.victim(tracked, spared, slot_of),
        }
    }
}

/// A queue of each class.
#[derive(Default)]
pub(crate) struct Sieve {
    queues: [Queue; 2],
    /// Of both, because an entry is in one of them.
    links: ById<Link>,
}

/// A queue from old to new, and a hand in it.
struct Queue {
    oldest: u32,
    newest: u32,
    /// Where the hand goes on; at the oldest when it is nowhere.
    hand: u32,
    len: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self { oldest: NONE, newest: NONE, hand: NONE, len: 0 }
    }
}

#[derive(Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self { older: NONE, newer: NONE }
    }
}

impl Sieve {
    fn insert(&mut self, id: u32, tracked: bool) {
        let queue = &mut self.queues[usize::from(tracked)];
        self.links.set(id, Link { older: queue.newest, newer: NONE });
        match queue.newest {
            NONE => queue.oldest = id,
            newest => self.links[newest].newer = id,
        }
        queue.newest = id;
        queue.len += 1;
    }

    fn remove(&mut self, id: u32, tracked: bool) {
        let queue = &mut self.queues[usize::from(tracked)];
        let Link { older, newer } = self.links[id];
        match older {
            NONE => queue.oldest = newer,
            older => self.links[older].newer = newer,
        }
        match newer {
            NONE => queue.newest = older,
            newer => self.links[newer].older = older,
        }
        if queue.hand == id {
            queue.hand = newer;
        }
        queue.len -= 1;
    }

    fn victim(
        &mut self,
        tracked: bool,
        spared: u32,
        take_visited: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let queue = &mut self.queues[usize::from(tracked)];
        // After one round every mark is taken, so that the second finds an entry if there is any but
        // the spared one; a third would only be for readers that mark faster than this looks.
        for _ in 0..=2 * queue.len {
            let at = if queue.hand == NONE { queue.oldest } else { queue.hand };
            if at == NONE {
                return None;
            }
            if at != spared && !take_visited(at) {
                queue.hand = at;
                return Some(at);
            }
            queue.hand = self.links[at].newer;
        }
        let oldest = queue.oldest;
        let next = if oldest == spared { self.links[oldest].newer } else { oldest };
        (next != NONE).then_some(next)
    }
}

/// Entries by when they were last read, as far as this knows: reads move nothing here, so the one in
/// front may have been read since and is then put where it belongs.
#[derive(Default)]
pub(crate) struct Lru {
    orders: [BTreeSet<(u64, u32)>; 2],
    /// Where each entry stands in the order of its class.
    places: ById<u64>,
}

impl Lru {
    fn insert(&mut self, slot: &Slot, tracked: bool) {
        let (id, read) = (slot.id(), slot.last_read().to_nanos());
        self.places.set(id, read);
        self.orders[usize::from(tracked)].insert((read, id));
    }

    fn remove(&mut self, id: u32, tracked: bool) {
        self.orders[usize::from(tracked)].remove(&(self.places[id], id));
    }

    fn victim<'a>(
        &mut self,
        tracked: bool,
        spared: u32,
        slot_of: impl Fn(u32) -> &'a Slot,
    ) -> Option<u32> {
        let class = usize::from(tracked);
        // What is moved is moved behind its last read, so each is moved once, unless readers are faster.
        for _ in 0..=self.orders[class].len() {
            let mut others = self.orders[class].iter().filter(|(_, id)| *id != spared);
            let (place, id) = *others.next()?;
            let slot = slot_of(id);
            if slot.last_read().to_nanos() <= place {
                return Some(id);
            }
            self.remove(id, tracked);
            self.insert(slot, tracked);
        }
        self.orders[class].iter().map(|(_, id)| *id).find(|id| *id != spared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::{CacheKey, ModelRef, Tick};
    use std::cell::Cell;

    #[test]
    fn the_hand_goes_round_twice_at_most_however_fast_others_read() {
        let mut sieve = Sieve::default();
        (0..100).for_each(|id| sieve.insert(id, false));
        (0..98).for_each(|id| sieve.remove(id, false));
        let looked = Cell::new(0);
        let always_read = |_| {
            looked.set(looked.get() + 1);
            true
        };
        assert_eq!(sieve.victim(false, NONE, always_read), Some(98));
        assert!(looked.get() <= 5, "it looked at {} of two entries", looked.get());
        assert_eq!(sieve.victim(false, 98, always_read), Some(99));
        sieve.remove(99, false);
        assert_eq!(sieve.victim(false, 98, always_read), None);
    }

    #[test]
    fn the_least_recently_read_is_found_among_entries_that_are_read_all_the_time() {
        let key = CacheKey::replicas(&ModelRef::new("model", "prod"));
        let slots = [0, 1, 2].map(|id| Slot::new(key.clone(), 0, id, Tick::from_nanos(1)));
        let mut lru = Lru::default();
        for slot in &slots {
            lru.insert(slot, false);
        }
        let clock = Cell::new(10);
        let read_all_the_time = |id: u32| {
            let slot = &slots[id as usize];
            clock.set(clock.get() + 1);
            slot.touch(Tick::from_nanos(clock.get()));
            slot
        };
        for spared in [0, 1, 2] {
            let victim = lru.victim(false, spared, read_all_the_time);
            assert!(victim.is_some_and(|id| id != spared), "{victim:?}, and {spared} is spared");
        }
    }
}
