// SPDX-License-Identifier: Apache-2.0
//! The LoRA adapters of an engine's requests, and their past combinations.
//!
//! vLLM sets one series per combination of running and waiting adapters to the current time, and never
//! removes it. A page therefore has many old series, and the greatest value is the current one.

use std::collections::BTreeMap;
use std::time::Duration;

/// vLLM keeps all; a page here keeps the latest, to bound its size.
const KEPT: usize = 32;

/// Adapters in use at the same time, as sorted indices.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Combination {
    pub(crate) running: Vec<u16>,
    pub(crate) waiting: Vec<u16>,
}

/// The combinations of one engine since its start.
#[derive(Debug)]
pub(crate) struct LoraLog {
    /// How many requests use each adapter.
    running: BTreeMap<u16, u32>,
    waiting: BTreeMap<u16, u32>,
    /// Start of the current combination.
    since: Duration,
    /// The end of each former combination.
    former: BTreeMap<Combination, Duration>,
}

impl LoraLog {
    pub(crate) fn new() -> Self {
        Self {
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            since: Duration::ZERO,
            former: BTreeMap::new(),
        }
    }

    pub(crate) fn arrive(&mut self, at: Duration, adapter: u16) {
        self.change(at, |log| *log.waiting.entry(adapter).or_default() += 1);
    }

    pub(crate) fn admit(&mut self, at: Duration, adapter: u16) {
        self.change(at, |log| {
            leave(&mut log.waiting, adapter);
            *log.running.entry(adapter).or_default() += 1;
        });
    }

    pub(crate) fn finish(&mut self, at: Duration, adapter: u16) {
        self.change(at, |log| leave(&mut log.running, adapter));
    }

    fn change(&mut self, at: Duration, change: impl FnOnce(&mut Self)) {
        let before = self.present();
        change(self);
        if before == self.present() {
            return;
        }
        // A combination without a duration was never shown.
        if self.since < at {
            self.former.insert(before, at);
            if self.former.len() > KEPT {
                let oldest = self.former.iter().min_by_key(|(_, ended)| **ended);
                if let Some(oldest) = oldest.map(|(combination, _)| combination.clone()) {
                    self.former.remove(&oldest);
                }
            }
        }
        self.since = at;
    }

    /// Returns the adapters in use.
    pub(crate) fn present(&self) -> Combination {
        let of = |counts: &BTreeMap<u16, u32>| counts.keys().copied().collect();
        Combination { running: of(&self.running), waiting: of(&self.waiting) }
    }

    /// Returns each combination with the time when it last existed; `now` for the current one.
    pub(crate) fn shown(&self, now: Duration) -> Vec<(Combination, Duration)> {
        let mut all = self.former.clone();
        all.insert(self.present(), now);
        all.into_iter().collect()
    }
}

/// Removes a request that uses the adapter.
fn leave(counts: &mut BTreeMap<u16, u32>, adapter: u16) {
    if let Some(count) = counts.get_mut(&adapter) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&adapter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn combination(running: &[u16], waiting: &[u16]) -> Combination {
        Combination { running: running.to_vec(), waiting: waiting.to_vec() }
    }

    #[test]
    fn the_current_combination_has_the_greatest_time() {
        let mut log = LoraLog::new();
        // Admitted on arrival, so it was never shown as waiting.
        log.arrive(10 * MS, 1);
        log.admit(10 * MS, 1);
        log.arrive(20 * MS, 0);
        log.finish(50 * MS, 1);
        assert_eq!(
            log.shown(60 * MS),
            [
                (combination(&[], &[]), 10 * MS),
                (combination(&[], &[0]), 60 * MS),
                (combination(&[1], &[]), 20 * MS),
                (combination(&[1], &[0]), 50 * MS),
            ]
        );
    }

    #[test]
    fn the_number_of_former_combinations_is_bounded() {
        let mut log = LoraLog::new();
        for adapter in 0..500 {
            log.arrive(MS * u32::from(adapter + 1), adapter);
        }
        assert_eq!(log.shown(Duration::from_secs(1)).len(), KEPT + 1);
        assert_eq!(log.shown(Duration::from_secs(1)).last().unwrap().0.waiting.len(), 500);
    }
}
