// SPDX-License-Identifier: Apache-2.0
//! What a guard remembers: answers by query, and small facts that expire. Both are bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use collector_core::Tick;
use tokio::sync::watch;

use crate::refusal::Refusal;
use crate::upstream::Passed;

/// An answer that a client may get.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Bytes,
    /// When the server was asked.
    pub(crate) asked_at: Tick,
    /// When its ttl began: when it arrived or, if it was computed from whole metrics, when the server was asked.
    pub(crate) fresh_from: Tick,
}

/// The result of one evaluation.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Answered(Arc<Answer>),
    /// The server rejected the query, with a reason.
    Invalid(Arc<Passed>),
    Refused(Arc<Refusal>),
    /// The server returned nothing usable.
    Failed(Arc<str>),
}

/// An evaluation in flight: its callers wait for the outcome.
pub(crate) type InFlight = watch::Receiver<Option<Outcome>>;

/// What is known about one query.
#[derive(Default)]
pub(crate) struct Entry {
    /// The last answer.
    pub(crate) answer: Option<Arc<Answer>>,
    /// The last outcome, and when its ttl began.
    pub(crate) last: Option<(Outcome, Tick)>,
    pub(crate) in_flight: Option<InFlight>,
    last_used: Option<Tick>,
}

/// Entries by query, bounded in number and bytes.
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

    /// Returns the entry of a query, and marks it as used. Inserts an empty one if there is none.
    pub(crate) fn entry(&mut self, key: &str, now: Tick) -> &mut Entry {
        if !self.entries.contains_key(key) {
            self.bytes += key.len() + size_of::<Entry>();
            self.entries.insert(key.to_owned(), Entry::default());
            self.evict(key);
        }
        let entry = self.entries.entry(key.to_owned()).or_default();
        entry.last_used = Some(now);
        entry
    }

    /// Stores the outcome of an evaluation. A failure keeps the last answer.
    pub(crate) fn store(&mut self, key: &str, outcome: &Outcome, now: Tick) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.in_flight = None;
        let before = entry.bytes();
        match outcome {
            Outcome::Answered(answer) => entry.answer = Some(Arc::clone(answer)),
            // The series of the last answer are gone: it must not be returned in a later outage.
            Outcome::Refused(_) | Outcome::Invalid(_) => entry.answer = None,
            Outcome::Failed(_) => {}
        }
        let at = if let Outcome::Answered(answer) = outcome { answer.fresh_from } else { now };
        entry.last = Some((outcome.clone(), at));
        self.bytes = (self.bytes + entry.bytes()).saturating_sub(before);
        self.evict(key);
    }

    /// Removes the least recently used entries, a sixteenth at once, except for this one and those in flight.
    fn evict(&mut self, except: &str) {
        while self.entries.len() > self.max_entries || self.bytes > self.max_bytes {
            let is_idle =
                |(key, entry): &(&String, &Entry)| *key != except && entry.in_flight.is_none();
            let idle = self.entries.iter().filter(is_idle);
            let mut idle: Vec<(Option<Tick>, String)> =
                idle.map(|(key, entry)| (entry.last_used, key.clone())).collect();
            if idle.is_empty() {
                return;
            }
            idle.sort_unstable();
            for (_, key) in idle.iter().take(idle.len().div_ceil(16)) {
                if let Some(entry) = self.entries.remove(key) {
                    self.bytes =
                        self.bytes.saturating_sub(key.len() + size_of::<Entry>() + entry.bytes());
                }
            }
        }
    }
}

impl Entry {
    /// Returns the bytes of its answers. The last answer usually is the last outcome too, and counts once.
    fn bytes(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, |answer| answer.body.len());
        let last = match &self.last {
            Some((Outcome::Invalid(passed), _)) => passed.body.len(),
            Some((Outcome::Refused(refusal), _)) => refusal.text.len(),
            Some((Outcome::Failed(text), _)) => text.len(),
            Some((Outcome::Answered(_), _)) | None => 0,
        };
        answer + last
    }
}

/// A text, within one scope: clients with the same other parameters and headers.
pub(crate) type Scoped = (u64, String);

/// Bytes of a text that a fact is stored about; selectors of the field have a tenth of it.
const FACT_BYTES_MAX: usize = 1 << 10;

/// Facts about texts. Each expires after the same time, and there are at most `max` of them.
pub(crate) struct Facts<T> {
    known: HashMap<Scoped, (T, Tick)>,
    lifetime: Duration,
    max: usize,
}

impl<T> Facts<T> {
    pub(crate) fn new(lifetime: Duration, max: usize) -> Self {
        Self { known: HashMap::new(), lifetime, max }
    }

    pub(crate) fn get(&self, key: &Scoped, now: Tick) -> Option<&T> {
        let (fact, learned_at) = self.known.get(key)?;
        (learned_at.age(now) < self.lifetime).then_some(fact)
    }

    /// Takes the facts of another, in the place of its own.
    pub(crate) fn take_over(&mut self, other: &Self)
    where
        T: Clone,
    {
        self.known.clone_from(&other.known);
    }

    /// Stores a fact, unless its text is long. If there are too many facts, the expired ones are removed, and if that
    /// is not enough, the oldest sixteenth.
    pub(crate) fn insert(&mut self, key: Scoped, fact: T, now: Tick) {
        if key.1.len() > FACT_BYTES_MAX {
            return;
        }
        if self.known.len() >= self.max && !self.known.contains_key(&key) {
            self.known.retain(|_, (_, learned_at)| learned_at.age(now) < self.lifetime);
            if self.known.len() >= self.max {
                let mut times: Vec<Tick> = self.known.values().map(|(_, at)| *at).collect();
                let oldest = times.len() / 16;
                let (_, oldest, _) = times.select_nth_unstable(oldest);
                self.known.retain(|_, (_, learned_at)| *learned_at > *oldest);
            }
        }
        self.known.insert(key, (fact, now));
    }
}

#[cfg(test)]
mod tests {
    use collector_core::{Clock as _, ManualClock};

    use super::*;

    fn answered(bytes: usize, asked_at: Tick) -> Outcome {
        Outcome::Answered(Arc::new(Answer {
            body: vec![b'x'; bytes].into(),
            asked_at,
            fresh_from: asked_at,
        }))
    }

    #[test]
    fn the_least_recently_used_entries_are_evicted() {
        let clock = ManualClock::new();
        let mut memory = Memory::new(16, usize::MAX);
        for number in 0..16 {
            memory.entry(&number.to_string(), clock.now());
            clock.advance(Duration::from_secs(1));
        }
        memory.entry("0", clock.now());
        memory.entry("one more", clock.now());
        assert_eq!(memory.entries.len(), 16);
        assert!(memory.entries.contains_key("0") && !memory.entries.contains_key("1"));
    }

    #[test]
    fn bytes_are_bounded_and_counted_exactly() {
        let clock = ManualClock::new();
        let mut memory = Memory::new(1000, 100_000);
        for number in 0..200 {
            let key = number.to_string();
            memory.entry(&key, clock.now());
            memory.store(&key, &answered(1000, clock.now()), clock.now());
            clock.advance(Duration::from_secs(1));
            assert!(memory.bytes <= 100_000, "{}", memory.bytes);
        }
        let of = |(key, entry): (&String, &Entry)| key.len() + size_of::<Entry>() + entry.bytes();
        assert_eq!(memory.bytes, memory.entries.iter().map(of).sum::<usize>());
        assert!(memory.entries.len() > 50, "{}", memory.entries.len());
    }

    #[test]
    fn a_failure_keeps_the_last_answer_and_a_refusal_removes_it() {
        let now = ManualClock::new().now();
        let mut memory = Memory::new(9, 9999);
        memory.entry("q", now);
        memory.store("q", &answered(1, now), now);
        memory.store("q", &Outcome::Failed("down".into()), now);
        assert!(memory.entry("q", now).answer.is_some());
        let refusal = Refusal::new(crate::refusal::Reason::Missing, "gone");
        memory.store("q", &Outcome::Refused(Arc::new(refusal)), now);
        assert!(memory.entry("q", now).answer.is_none());
    }

    #[test]
    fn facts_expire_and_are_bounded() {
        let clock = ManualClock::new();
        let mut facts = Facts::new(Duration::from_secs(10), 3);
        let key = |text: &str| (0, text.to_owned());
        facts.insert(key("old"), 1, clock.now());
        clock.advance(Duration::from_secs(9));
        assert_eq!(facts.get(&key("old"), clock.now()), Some(&1));
        assert_eq!(facts.get(&(1, "old".to_owned()), clock.now()), None, "another scope");
        facts.insert(key("a"), 2, clock.now());
        facts.insert(key("b"), 3, clock.now());
        clock.advance(Duration::from_secs(1));
        assert_eq!(facts.get(&key("old"), clock.now()), None);
        facts.insert(key("c"), 4, clock.now());
        assert_eq!((facts.known.len(), facts.get(&key("a"), clock.now())), (3, Some(&2)));
        clock.advance(Duration::from_secs(1));
        facts.insert(key("b"), 6, clock.now());
        assert_eq!(facts.known.len(), 3, "a known text takes no more room");
        facts.insert(key("d"), 5, clock.now());
        assert_eq!(facts.get(&key("a"), clock.now()), None, "none had expired");
        assert_eq!(facts.get(&key("b"), clock.now()), Some(&6));
    }
}
