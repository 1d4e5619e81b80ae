// SPDX-License-Identifier: Apache-2.0
//! Rates of counters over the window.

use std::collections::VecDeque;
use std::time::Duration;

use collector_core::{Tick, window};

use super::part_of;

/// `N` counters of a page, with their values in the window.
#[derive(Debug)]
pub(super) struct Counters<const N: usize> {
    /// The last value of each, and its total without resets; NaN before the first.
    last: [(f64, f64); N],
    /// The ends of the parts, oldest first, and at the back the newest sample.
    snapshots: VecDeque<Snapshot<N>>,
}

/// The totals at one moment; NaN if a counter is not on the page.
#[derive(Clone, Copy, Debug)]
struct Snapshot<const N: usize> {
    at: Tick,
    sums: [f64; N],
}

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self { last: [(f64::NAN, f64::NAN); N], snapshots: VecDeque::new() }
    }
}

impl<const N: usize> Counters<N> {
    /// Records the values of a page; `None` if a counter is not on the page. Values older than the previous ones are
    /// ignored.
    pub(super) fn record(&mut self, at: Tick, values: [Option<f64>; N], time: Duration) {
        if self.snapshots.back().is_some_and(|newest| at < newest.at) {
            return;
        }
        while self.snapshots.front().is_some_and(|oldest| oldest.at.age(at) > time) {
            self.snapshots.pop_front();
        }
        let mut sums = [f64::NAN; N];
        for (place, value) in values.into_iter().enumerate() {
            let Some(value) = value else { continue };
            let (last, sum) = self.last[place];
            sums[place] = if sum.is_nan() { 0.0 } else { sum + window::step(last, value) };
            self.last[place] = (value, sums[place]);
        }
        let snapshot = Snapshot { at, sums };
        if let Some(newest) = self.snapshots.back_mut().filter(|newest| newest.at == at) {
            *newest = snapshot;
            return;
        }
        let before = self.snapshots.len().checked_sub(2);
        match before.map(|before| self.snapshots[before].at) {
            // The newest sample does not end a part yet, so the next one replaces it.
            Some(part) if part.age(self.newest_at()) < part_of(time) => {
                if let Some(back) = self.snapshots.back_mut() {
                    *back = snapshot;
                }
            }
            _ => self.snapshots.push_back(snapshot),
        }
    }

    fn newest_at(&self) -> Tick {
        self.snapshots.back().map_or(Tick::MIN, |snapshot| snapshot.at)
    }

    /// Returns the rate of each per second, from its first to its last sample in the window; `None` without two
    /// samples.
    pub(super) fn rates(&self) -> [Option<f64>; N] {
        std::array::from_fn(|place| {
            let newest = self.snapshots.back().filter(|snapshot| !snapshot.sums[place].is_nan())?;
            let oldest = self.snapshots.iter().find(|snapshot| !snapshot.sums[place].is_nan())?;
            let increase = newest.sums[place] - oldest.sums[place];
            window::rate(increase, oldest.at.age(newest.at))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn at(millis: u64) -> Tick {
        Tick::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_rate_takes_two_pages_and_may_be_zero() {
        let mut counters = Counters::<1>::default();
        counters.record(at(0), [Some(1000.0)], WINDOW);
        assert_eq!(counters.rates(), [None]);
        counters.record(at(1000), [Some(1000.0)], WINDOW);
        assert_eq!(counters.rates(), [Some(0.0)]);
    }

    #[test]
    fn a_restart_counts_what_came_after_it() {
        let mut counters = Counters::<1>::default();
        for (second, value) in [(0, 1000.0), (10, 1100.0), (20, 50.0)] {
            counters.record(at(second * 1000), [Some(value)], WINDOW);
        }
        assert_eq!(counters.rates(), [Some(150.0 / 20.0)]);
    }

    #[test]
    fn a_counter_missing_on_the_page_has_no_rate() {
        let mut counters = Counters::<2>::default();
        counters.record(at(0), [Some(0.0), Some(0.0)], WINDOW);
        counters.record(at(1000), [Some(10.0), Some(5.0)], WINDOW);
        counters.record(at(2000), [None, Some(10.0)], WINDOW);
        assert_eq!(counters.rates(), [None, Some(5.0)]);
        counters.record(at(4000), [Some(40.0), Some(10.0)], WINDOW);
        assert_eq!(counters.rates(), [Some(10.0), Some(2.5)]);
    }

    #[test]
    fn counting_starts_again_after_a_gap_longer_than_the_window() {
        let mut counters = Counters::<1>::default();
        counters.record(at(0), [Some(0.0)], WINDOW);
        counters.record(at(1000), [Some(10.0)], WINDOW);
        counters.record(at(100_000), [Some(5000.0)], WINDOW);
        assert_eq!(counters.rates(), [None]);
        counters.record(at(101_000), [Some(5001.0)], WINDOW);
        assert_eq!(counters.rates(), [Some(1.0)]);
    }

    /// Short, so that many samples fit into it and a case is quick.
    const SHORT: Duration = Duration::from_secs(3);

    proptest! {
        #[test]
        fn memory_is_bounded_and_the_rate_covers_nearly_the_window(
            steps in prop::collection::vec(0_u8..50, 2..400),
            interval in 5_u64..2000,
        ) {
            let mut counters = Counters::<1>::default();
            let mut samples = Vec::new();
            let mut value = 0.0;
            for (i, step) in steps.iter().enumerate() {
                value += f64::from(*step);
                let now = at(interval * i as u64);
                samples.push((now, value));
                counters.record(now, [Some(value)], SHORT);
                prop_assert!(counters.snapshots.len() <= 18, "{}", counters.snapshots.len());
                let Some(rate) = counters.rates()[0] else {
                    prop_assert_eq!(i, 0);
                    continue;
                };
                let oldest = counters.snapshots[0].at;
                let in_window = samples.iter().filter(|(at, _)| *at >= oldest);
                let increase = window::increase(in_window.map(|(_, value)| *value)).unwrap();
                let exact = window::rate(increase, oldest.age(now)).unwrap();
                prop_assert!((rate - exact).abs() < 1e-6);
                // It covers all of the window but a part, or all there is.
                let first = samples.iter().find(|(at, _)| at.age(now) <= SHORT).unwrap().0;
                prop_assert!(first.age(oldest) <= part_of(SHORT) + Duration::from_millis(interval));
            }
        }
    }
}
