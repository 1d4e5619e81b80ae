//! Which LoRA adapters an engine's requests use, and which combinations there have been.
//!
//! vLLM sets one series to the present time for each combination of running and waiting adapters,
//! and never removes it. So a page has many stale ones, and the greatest value is the present one.

use std::collections::BTreeMap;
use std::time::Duration;

/// vLLM keeps all; a page here keeps the latest, so that it does not grow for ever.
const KEPT: usize = 32;

/// Adapters in use at the same time, as sorted numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Combination {
    pub(crate) running: Vec<u16>,
    pub(crate) waiting: Vec<u16>,
}

/// The combinations of one engine, from its start on.
#[derive(Debug)]
pub(crate) struct LoraLog {
    /// How many requests use each adapter.
    running: BTreeMap<u16, u32>,
    waiting: BTreeMap<u16, u32>,
    /// Since when the present combination has been so.
    since: Duration,
    /// When each former combination ended.
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
        // What lasted no time was never shown.
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

    /// The adapters in use.
    pub(crate) fn present(&self) -> Combination {
        let of = |counts: &BTreeMap<u16, u32>| counts.keys().copied().collect();
        Combination { running: of(&self.running), waiting: of(&self.waiting) }
    }

    /// Every combination kept with the time at which it was last so; `now` for the present one.
    pub(crate) fn shown(&self, now: Duration) -> Vec<(Combination, Duration)> {
        let mut all = self.former.clone();
        all.insert(self.present(), now);
        all.into_iter().collect()
    }
}

/// One request less uses the adapter.
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
    fn the_present_combination_has_the_greatest_time_and_former_ones_stay() {
        let mut log = LoraLog::new();
        // Admitted as it comes: that it waited was never shown.
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
