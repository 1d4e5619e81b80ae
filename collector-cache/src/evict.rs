//! Who leaves when room is short: SIEVE, or the least recently read. Only writers see it; a read leaves
//! a mark in its cell, which is looked at here.

use std::collections::BTreeSet;

use crate::books::NONE;
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

/// The order of the entries of one class, tracked or not.
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

    pub(crate) fn insert(&mut self, slot: &Slot) {
        match self {
            Self::Sieve(sieve) => sieve.insert(slot.id()),
            Self::Lru(lru) => lru.insert(slot),
        }
    }

    pub(crate) fn remove(&mut self, id: u32) {
        match self {
            Self::Sieve(sieve) => sieve.remove(id),
            Self::Lru(lru) => lru.remove(id),
        }
    }

    /// The entry that is to leave, which is not `spared`. It stays in the order until it is removed.
    pub(crate) fn victim<'a>(
        &mut self,
        spared: u32,
        slot_of: impl Fn(u32) -> &'a Slot,
    ) -> Option<u32> {
        match self {
            Self::Sieve(sieve) => sieve.victim(spared, |id| slot_of(id).take_visited()),
            Self::Lru(lru) => lru.victim(spared, slot_of),
        }
    }
}

/// A queue from old to new, and a hand in it.
pub(crate) struct Sieve {
    links: Vec<Link>,
    oldest: u32,
    newest: u32,
    /// Where the hand goes on; at the oldest when it is nowhere.
    hand: u32,
    len: usize,
}

#[derive(Clone, Copy)]
struct Link {
    older: u32,
    newer: u32,
}

impl Default for Sieve {
    fn default() -> Self {
        Self { links: Vec::new(), oldest: NONE, newest: NONE, hand: NONE, len: 0 }
    }
}

impl Sieve {
    fn insert(&mut self, id: u32) {
        let place = id as usize;
        if self.links.len() <= place {
            self.links.resize(place + 1, Link { older: NONE, newer: NONE });
        }
        self.links[place] = Link { older: self.newest, newer: NONE };
        match self.newest {
            NONE => self.oldest = id,
            newest => self.links[newest as usize].newer = id,
        }
        self.newest = id;
        self.len += 1;
    }

    fn remove(&mut self, id: u32) {
        let Link { older, newer } = self.links[id as usize];
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
        if self.hand == id {
            self.hand = newer;
        }
        self.len -= 1;
    }

    fn victim(&mut self, spared: u32, take_visited: impl Fn(u32) -> bool) -> Option<u32> {
        // After one round every mark is taken, so that the second finds an entry if there is any but
        // the spared one; a third would only be for readers that mark faster than this looks.
        for _ in 0..=2 * self.len {
            let at = if self.hand == NONE { self.oldest } else { self.hand };
            if at == NONE {
                return None;
            }
            if at != spared && !take_visited(at) {
                self.hand = at;
                return Some(at);
            }
            self.hand = self.links[at as usize].newer;
        }
        let oldest = self.oldest;
        let next = if oldest == spared { self.links[oldest as usize].newer } else { oldest };
        (next != NONE).then_some(next)
    }
}

/// Entries by when they were last read, as far as this knows: reads move nothing here, so the one in
/// front may have been read since and is then put where it belongs.
#[derive(Default)]
pub(crate) struct Lru {
    order: BTreeSet<(u64, u32)>,
    /// Where each entry stands in the order.
    places: Vec<u64>,
}

impl Lru {
    fn insert(&mut self, slot: &Slot) {
        let (id, read) = (slot.id(), slot.last_read().to_nanos());
        if self.places.len() <= id as usize {
            self.places.resize(id as usize + 1, 0);
        }
        self.places[id as usize] = read;
        self.order.insert((read, id));
    }

    fn remove(&mut self, id: u32) {
        self.order.remove(&(self.places[id as usize], id));
    }

    fn victim<'a>(&mut self, spared: u32, slot_of: impl Fn(u32) -> &'a Slot) -> Option<u32> {
        // What is moved is moved behind its last read, so each is moved once, unless readers are faster.
        for _ in 0..=self.order.len() {
            let mut others = self.order.iter().filter(|(_, id)| *id != spared);
            let (place, id) = *others.next()?;
            let slot = slot_of(id);
            if slot.last_read().to_nanos() <= place {
                return Some(id);
            }
            self.remove(id);
            self.insert(slot);
        }
        self.order.iter().map(|(_, id)| *id).find(|id| *id != spared)
    }
}
