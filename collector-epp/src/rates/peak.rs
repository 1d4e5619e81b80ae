// SPDX-License-Identifier: Apache-2.0
//! The peak of a gauge over the window.

use std::collections::VecDeque;
use std::time::Duration;

use collector_core::Tick;

use super::part_of;

/// The samples that may become the peak: each is greater than all later ones.
#[derive(Debug, Default)]
pub(super) struct Peak {
    candidates: VecDeque<Candidate>,
}

#[derive(Debug)]
struct Candidate {
    /// The times of the first and the last sample that it represents.
    first: Tick,
    last: Tick,
    greatest: f64,
}

impl Peak {
    /// Records a sample, which must be newer than all before it.
    pub(super) fn record(&mut self, at: Tick, value: f64, window: Duration) {
        self.forget(at, window);
        let mut first = at;
        while let Some(last) = self.candidates.back() {
            if last.greatest > value {
                break;
            }
            // The samples that it represents are below this one, which is kept for longer.
            first = at;
            self.candidates.pop_back();
        }
        match self.candidates.back_mut() {
            // A greater sample close before represents this one too, which bounds their number.
            Some(near) if near.first.age(at) < part_of(window) => near.last = at,
            _ => self.candidates.push_back(Candidate { first, last: at, greatest: value }),
        }
    }

    /// Returns the peak of the window that ends now.
    pub(super) fn get(&mut self, now: Tick, window: Duration) -> Option<f64> {
        self.forget(now, window);
        self.candidates.front().map(|candidate| candidate.greatest)
    }

    fn forget(&mut self, now: Tick, window: Duration) {
        while self.candidates.front().is_some_and(|oldest| oldest.last.age(now) > window) {
            self.candidates.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use collector_core::window;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn at(millis: u64) -> Tick {
        Tick::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_peak_is_kept_for_the_window() {
        let mut peak = Peak::default();
        assert_eq!(peak.get(at(0), WINDOW), None);
        peak.record(at(0), 5.0, WINDOW);
        for second in 1..=60 {
            peak.record(at(second * 1000), 1.0, WINDOW);
            assert_eq!(peak.get(at(second * 1000), WINDOW), Some(5.0), "after {second} s");
        }
        // One part of the window later at most.
        peak.record(at(64_000), 1.0, WINDOW);
        assert_eq!(peak.get(at(64_000), WINDOW), Some(1.0));
        assert_eq!(peak.get(at(200_000), WINDOW), None);
    }

    /// Short, so that many samples fit into it and a case is quick.
    const SHORT: Duration = Duration::from_secs(3);

    proptest! {
        #[test]
        fn memory_is_bounded_and_the_peak_right_within_a_part(
            values in prop::collection::vec(0_u8..50, 1..400),
            step in 5_u64..2000,
        ) {
            let mut peak = Peak::default();
            let mut samples = Vec::new();
            for (i, value) in values.iter().enumerate() {
                let now = at(step * i as u64);
                samples.push((now, f64::from(*value)));
                peak.record(now, f64::from(*value), SHORT);
                prop_assert!(peak.candidates.len() <= 17, "{}", peak.candidates.len());
                let within = |time: Duration| {
                    window::peak(
                        samples.iter().filter(|(at, _)| at.age(now) <= time).map(|(_, value)| *value),
                    )
                };
                let got = peak.get(now, SHORT);
                prop_assert!(got >= within(SHORT));
                prop_assert!(got <= within(SHORT + part_of(SHORT)));
            }
        }
    }
}
