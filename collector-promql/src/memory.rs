//! The last answers, each with the flight that is getting the next one: bounded in number and bytes.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use collector_core::Tick;
use tokio::sync::watch;

use crate::refusal::Refusal;
use crate::upstream::Passed;

/// An answer that may be given.
#[derive(Debug)]
pub(crate) struct Good {
    pub(crate) body: Bytes,
    /// When the server was asked.
    pub(crate) asked_at: Tick,
}

/// How a flight ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Good(Arc<Good>),
    /// The server refuses the query, and says why.
    Invalid(Arc<Passed>),
    Refused(Arc<Refusal>),
    /// The server gave no answer that could be used.
    Failed(Arc<str>),
}

/// Where the callers of a flight wait for its end.
pub(crate) type Flight = watch::Receiver<Option<Outcome>>;

#[derive(Default)]
pub(crate) struct Entry {
    /// The last good answer.
    pub(crate) good: Option<Arc<Good>>,
    /// How the last flight ended, and when.
    pub(crate) last: Option<(Outcome, Tick)>,
    pub(crate) flight: Option<Flight>,
    used: Option<Tick>,
}

pub(crate) struct Memory {
    entries: HashMap<String, Entry>,
    bytes: usize,
    max_entries: usize,
    max_bytes: usize,
}

impl Memory {
    pub(crate) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self { entries: HashMap::new(), bytes: 0, max_entries, max_bytes }
    }

    /// The entry of a key, which is thereby used.
    pub(crate) fn entry(&mut self, key: &str, now: Tick) -> &mut Entry {
        if !self.entries.contains_key(key) {
            self.bytes += key.len() + size_of::<Entry>();
            self.entries.insert(key.to_owned(), Entry::default());
            self.make_room(key);
        }
        let entry = self.entries.entry(key.to_owned()).or_default();
        entry.used = Some(now);
        entry
    }

    /// Stores how a flight ended. The last good answer stays after a failure.
    pub(crate) fn landed(&mut self, key: &str, outcome: &Outcome, now: Tick) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.flight = None;
        let before = entry.bytes();
        match outcome {
            Outcome::Good(good) => entry.good = Some(Arc::clone(good)),
            // What was known of something that is gone is no answer to what is there now.
            Outcome::Refused(_) | Outcome::Invalid(_) => entry.good = None,
            Outcome::Failed(_) => {}
        }
        entry.last = Some((outcome.clone(), now));
        self.bytes = (self.bytes + entry.bytes()).saturating_sub(before);
        self.make_room(key);
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes the least recently used entries, a sixteenth at once, but for this one and those in flight.
    fn make_room(&mut self, but: &str) {
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let rest = self.entries.iter().filter(|(key, it)| *key != but && it.flight.is_none());
            let mut rest: Vec<(Option<Tick>, String)> =
                rest.map(|(key, entry)| (entry.used, key.clone())).collect();
            if rest.is_empty() {
                return;
            }
            rest.sort_unstable();
            for (_, key) in rest.iter().take(rest.len().div_ceil(16)) {
                if let Some(entry) = self.entries.remove(key) {
                    self.bytes =
                        self.bytes.saturating_sub(key.len() + size_of::<Entry>() + entry.bytes());
                }
            }
        }
    }
}

impl Entry {
    /// The bytes of its answers. The last good one is most often that of the last flight too.
    fn bytes(&self) -> usize {
        let good = self.good.as_ref().map_or(0, |good| good.body.len());
        let last = match &self.last {
            Some((Outcome::Invalid(passed), _)) => passed.body.len(),
            Some((Outcome::Refused(refusal), _)) => refusal.text.len(),
            Some((Outcome::Failed(text), _)) => text.len(),
            Some((Outcome::Good(_), _)) | None => 0,
        };
        good + last
    }
}

#[cfg(test)]
mod tests {
    use collector_core::{Clock as _, ManualClock};
    use std::time::Duration;

    use super::*;

    fn good(bytes: usize, asked_at: Tick) -> Outcome {
        Outcome::Good(Arc::new(Good { body: vec![b'x'; bytes].into(), asked_at }))
    }

    #[test]
    fn the_least_recently_used_go_when_there_are_too_many() {
        let clock = ManualClock::new();
        let mut memory = Memory::new(16, usize::MAX);
        for number in 0..16 {
            memory.entry(&number.to_string(), clock.now());
            clock.advance(Duration::from_secs(1));
        }
        memory.entry("0", clock.now());
        memory.entry("one more", clock.now());
        assert_eq!(memory.len(), 16);
        assert!(memory.entries.contains_key("0") && !memory.entries.contains_key("1"));
    }

    #[test]
    fn bytes_are_bounded_and_counted_exactly() {
        let clock = ManualClock::new();
        let mut memory = Memory::new(1000, 100_000);
        for number in 0..200 {
            let key = number.to_string();
            memory.entry(&key, clock.now());
            memory.landed(&key, &good(1000, clock.now()), clock.now());
            clock.advance(Duration::from_secs(1));
            assert!(memory.bytes() <= 100_000, "{}", memory.bytes());
        }
        let of = |(key, entry): (&String, &Entry)| key.len() + size_of::<Entry>() + entry.bytes();
        assert_eq!(memory.bytes(), memory.entries.iter().map(of).sum::<usize>());
        assert!(memory.len() > 50, "{}", memory.len());
    }

    #[test]
    fn a_failure_keeps_the_last_good_answer_and_a_refusal_does_not() {
        let now = ManualClock::new().now();
        let mut memory = Memory::new(9, 9999);
        memory.entry("q", now);
        memory.landed("q", &good(1, now), now);
        memory.landed("q", &Outcome::Failed("down".into()), now);
        assert!(memory.entry("q", now).good.is_some());
        let refusal = Refusal::new(crate::refusal::Reason::Missing, "gone");
        memory.landed("q", &Outcome::Refused(Arc::new(refusal)), now);
        assert!(memory.entry("q", now).good.is_none());
    }
}
