//! What one reader read lately, so that reading it again takes no look-up.

use std::cell::Cell;
use std::sync::Arc;

use collector_core::{KeyRef, Stored, Tick};

use crate::memory::MemoryCache;
use crate::version::Version;

/// How many entries a reader remembers: more than a loop reads hot, and 32 KB.
const PLACES: usize = 512;

/// What one reader of a [`MemoryCache`] has made of the entries that it read lately.
///
/// It stands in front of the map as a processor's first cache stands in front of its memory: small, of its
/// own, and right at any time, because it shows nothing of an entry that is not the newest any more. It
/// keeps no entry alive, unless what is made of them does.
///
/// An entry has two places that it may take. From one whose owner is still read it is kept out, so that
/// a walk over many more entries than there are places leaves alone those that are remembered.
pub struct Recent<V> {
    /// None until something is kept.
    places: Vec<Place<V>>,
}

/// A line of the processor's cache, if what is made of an entry takes at most 32 bytes.
#[repr(align(64))]
struct Place<V> {
    /// Of the key of what is remembered.
    mark: u32,
    seen: Option<Seen<V>>,
    /// The mark of the last key that would have this place, if its owner was not read since.
    rival: Cell<u32>,
}

struct Seen<V> {
    version: Version,
    made: V,
}

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Self { places: Vec::new() }
    }
}

impl<V> Recent<V> {
    /// What was made of the entry that stands under a key; counts as a read at `now`. `None` when it is
    /// not remembered, or is not the newest any more.
    #[inline]
    pub fn find(&self, key: KeyRef<'_>, now: Tick) -> Option<&V> {
        let mark = mark_of(key);
        let [first, second] = places_of(mark);
        let mut place = self.places.get(first)?;
        if place.mark != mark {
            place = self.places.get(second).filter(|place| place.mark == mark)?;
        }
        let seen = place.seen.as_ref()?;
        if !seen.version.is_of(key) || !seen.version.is_current() {
            return None;
        }
        seen.version.touch(now);
        if place.rival.get() != NOBODY {
            place.rival.set(NOBODY);
        }
        Some(&seen.made)
    }

    /// Remembers what `make` makes of the entry that stands under a key, if a place is free for it.
    #[cold]
    pub fn learn(
        &mut self,
        cache: &MemoryCache,
        key: KeyRef<'_>,
        make: impl FnOnce(&Arc<Stored>) -> Option<V>,
    ) {
        const { assert!(size_of::<Place<V>>() == 64, "what is made of an entry is too large") };
        if self.places.is_empty() {
            let empty = || Place { mark: NOBODY, seen: None, rival: Cell::new(NOBODY) };
            self.places.resize_with(PLACES, empty);
        }
        let mark = mark_of(key);
        let Some(place) = self.free_place(mark) else { return };
        let Some((version, stored)) = cache.resolve(key) else { return };
        let seen = make(&stored).map(|made| Seen { version, made });
        self.places[place] = Place { mark, seen, rival: Cell::new(NOBODY) };
    }

    /// The place of the same key, or of none; else that of one that was not read since the same key was
    /// last kept out.
    fn free_place(&self, mark: u32) -> Option<usize> {
        let both = places_of(mark);
        let is = |wanted: u32| both.into_iter().find(|place| self.places[*place].mark == wanted);
        is(mark).or_else(|| is(NOBODY)).or_else(|| {
            // Which of the two owners is challenged is up to the challenger, and always the same.
            let place = both[usize::from(mark.count_ones().is_multiple_of(2))];
            (self.places[place].rival.replace(mark) == mark).then_some(place)
        })
    }
}

/// The mark of no key.
const NOBODY: u32 = 0;

/// The two places that may be taken under a mark. Two that have the first in common seldom have the second,
/// so that of a hundred keys one finds both taken.
fn places_of(mark: u32) -> [usize; 2] {
    let mark = mark as usize;
    [mark % PLACES, mark / PLACES % PLACES]
}

/// What tells keys apart at a glance: their lengths, and how their names end. Keys that look alike compete
/// for a place, no more, so that this need not stand up to who chooses names.
#[inline]
fn mark_of(key: KeyRef<'_>) -> u32 {
    // Two odd numbers with as many ones as zeros: the fractional parts of the golden ratio and of e.
    const ONE: u64 = 0x9e37_79b9_7f4a_7c15;
    const OTHER: u64 = 0xb7e1_5162_8aed_2a6b;
    let model = key.model().as_bytes();
    let (front, end) = model.split_at(model.len().saturating_sub(8));
    let lengths = (model.len() as u64) << 32 | key.namespace().len() as u64;
    let one = fold(end_of(end) ^ lengths ^ ONE, end_of(front) ^ OTHER);
    let other = fold(
        end_of(key.namespace().as_bytes()) ^ ONE,
        end_of(key.variant().as_bytes()) ^ key.variant().len() as u64 ^ OTHER,
    );
    let both = one ^ other.rotate_left(32);
    (((both ^ both << 32) >> 32) as u32).max(NOBODY + 1)
}

/// The last eight bytes, or four.
#[inline]
fn end_of(text: &[u8]) -> u64 {
    match text.last_chunk() {
        Some(end) => u64::from_le_bytes(*end),
        None => text.last_chunk().map_or(0, |end| u64::from(u32::from_le_bytes(*end))),
    }
}

/// Both halves of a product, mixed.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "to its lower half")]
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use collector_core::{CacheKey, MetricsCache as _, ModelRef, Scope, VariantName};
    use std::collections::HashSet;
    use std::time::Duration;

    const NOW: Tick = Tick::from_nanos(1 << 40);

    /// A cache of models with these numbers, and what one reader remembers of them: the number.
    struct Desk {
        cache: MemoryCache,
        recent: Recent<usize>,
    }

    fn model(number: usize) -> ModelRef {
        ModelRef::new(format!("org/model-{number}"), "prod")
    }

    impl Desk {
        fn new(numbers: std::ops::Range<usize>) -> Self {
            let desk = Self { cache: MemoryCache::new(100_000), recent: Recent::default() };
            numbers.for_each(|number| desk.put(number));
            desk
        }

        fn put(&self, number: usize) {
            self.cache.put(CacheKey::replicas(&model(number)), Arc::new(samples::entry()), NOW);
        }

        /// Whether it is remembered; takes note of it when it is not.
        fn read(&mut self, number: usize) -> bool {
            let model = model(number);
            let key = KeyRef::replicas(&model);
            if let Some(remembered) = self.recent.find(key, NOW) {
                assert_eq!(*remembered, number);
                return true;
            }
            self.recent.learn(&self.cache, key, |_| Some(number));
            false
        }
    }

    #[test]
    fn what_was_read_is_remembered_until_another_is_put() {
        let mut desk = Desk::new(0..2);
        assert!(!desk.read(0));
        assert!(desk.read(0) && !desk.read(1) && desk.read(1));
        desk.put(0);
        assert!(!desk.read(0), "what stood there before is shown");
        assert!(desk.read(0) && desk.read(1));
    }

    #[test]
    fn what_is_removed_is_not_shown_and_what_is_put_in_its_place_is_learnt() {
        let mut desk = Desk::new(0..1);
        desk.read(0);
        desk.cache.remove(&Scope::of_model(&model(0)));
        assert!(!desk.read(0) && !desk.read(0), "it is shown after its removal");
        desk.put(0);
        assert!(!desk.read(0) && desk.read(0));
    }

    #[test]
    fn reading_what_is_remembered_counts_as_a_read() {
        let mut desk = Desk::new(0..1);
        desk.read(0);
        let (model, later) = (model(0), NOW + Duration::from_secs(1));
        let key = KeyRef::replicas(&model);
        assert!(desk.recent.find(key, later).is_some());
        assert_eq!(desk.cache.peek(key).unwrap().last_read, later);
    }

    #[test]
    fn a_walk_over_more_than_there_is_room_for_leaves_alone_what_is_read_in_between() {
        let mut desk = Desk::new(0..20 * PLACES);
        (0..100).for_each(|hot| _ = desk.read(hot));
        let kept: Vec<_> = (0..100).filter(|hot| desk.read(*hot)).collect();
        assert!(kept.len() > 90, "a hundred have room: {}", kept.len());
        for other in 100..20 * PLACES {
            desk.read(other);
            if other % 100 == 0 {
                assert!(kept.iter().all(|hot| desk.read(*hot)), "{other} has pushed one out");
            }
        }
    }

    #[test]
    fn what_nobody_reads_any_more_makes_room_for_what_is_read_again_and_again() {
        let mut desk = Desk::new(0..4 * PLACES);
        (0..2 * PLACES).for_each(|former| _ = desk.read(former));
        let next = 2 * PLACES;
        for _ in 0..2 {
            desk.read(next);
        }
        assert!(desk.read(next));
    }

    #[test]
    fn keys_that_look_alike_are_told_apart() {
        // They differ only where a mark does not look.
        let models = [1, 2, 3].map(|n| ModelRef::new(format!("m-{n}-a-long-common-end"), "prod"));
        let marks = models.each_ref().map(|model| mark_of(KeyRef::replicas(model)));
        assert!(marks.iter().all(|mark| *mark == marks[0]), "{marks:?}");
        let mut desk = Desk::new(0..0);
        for (number, model) in models.iter().enumerate() {
            desk.cache.put(CacheKey::replicas(model), Arc::new(samples::entry()), NOW);
            for _ in 0..2 {
                desk.recent.learn(&desk.cache, KeyRef::replicas(model), |_| Some(number));
            }
        }
        for (number, model) in models.iter().enumerate() {
            let remembered = desk.recent.find(KeyRef::replicas(model), NOW);
            assert!(remembered.is_none_or(|it| *it == number));
        }
        assert_eq!(desk.recent.find(KeyRef::replicas(&models[2]), NOW), Some(&2));
    }

    #[test]
    fn names_that_end_alike_and_differ_in_length_have_marks_of_their_own() {
        let of = |model: usize, namespace: usize, variant: usize| {
            let text = |length: usize| format!("{}-common-end-of-them", "x".repeat(length));
            let model = ModelRef::new(text(model), text(namespace));
            mark_of(KeyRef::allocation(&model, &text(variant).into()))
        };
        let lengths = [0, 1, 2, 3, 8, 16, 17];
        let one = lengths.map(|length| of(length, 0, 0));
        let other = lengths.map(|length| of(0, length, 0));
        let third = lengths.map(|length| of(0, 0, length));
        for marks in [one, other, third] {
            assert_eq!(HashSet::from(marks).len(), lengths.len(), "{marks:x?}");
        }
        let all: HashSet<u32> = [one, other, third].concat().into_iter().collect();
        assert_eq!(all.len(), 3 * lengths.len() - 2, "a longer model is taken for another name");
    }

    #[test]
    fn who_shares_one_place_with_another_seldom_shares_both() {
        let places: Vec<[usize; 2]> =
            (0..2000).map(|n| places_of(mark_of(KeyRef::replicas(&model(n))))).collect();
        let different: HashSet<_> = places.iter().collect();
        assert!(different.len() > 1950, "{} pairs of places", different.len());
        for second in [0, 1] {
            let taken: HashSet<usize> = places.iter().map(|both| both[second]).collect();
            assert!(taken.len() > PLACES * 9 / 10, "{} places are taken", taken.len());
        }
    }

    #[test]
    fn marks_of_the_names_of_a_fleet_differ() {
        let mut marks = HashSet::new();
        let variants = ["", "llama-8b-h100", "llama-8b-l4", "v"].map(VariantName::from);
        for model in ["org/Llama-3.1-8B-Instruct", "org/Llama-3.1-70B-Instruct", "m", "org/lora"] {
            for number in 0..1000 {
                for namespace in ["prod", "inference-prod", "d"] {
                    let model = ModelRef::new(format!("{model}-{number}"), namespace);
                    for variant in &variants {
                        marks.insert(mark_of(KeyRef::allocation(&model, variant)));
                    }
                }
            }
        }
        assert!(marks.len() > 4 * 1000 * 3 * 4 * 98 / 100, "{}", marks.len());
    }
}
