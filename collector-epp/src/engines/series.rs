// SPDX-License-Identifier: Apache-2.0
//! The increase of each counter series of a target since the previous page.
//!
//! Restarts are detected series by series: the sum over several workers may hide that one of them restarted, or look
//! as if all had.

use collector_core::{sanitize, window};

use super::table::SlotId;

/// Counter series whose values are kept for the next page, 16 bytes each.
const SERIES_MAX: usize = 1 << 14;

/// The last value of each series.
#[derive(Default, Debug)]
pub(super) struct LastValues {
    /// Sorted by key.
    last: Vec<(u64, f64)>,
    /// Those of the current page.
    next: Vec<(u64, f64)>,
}

impl LastValues {
    /// Returns the increase of a series since the previous page: 0 for a new series, `None` if the value cannot be a
    /// counter's.
    pub(super) fn increase(&mut self, slot: SlotId, series: u64, value: f64) -> Option<f64> {
        let value = sanitize::rate(value).ok()?;
        let key = key(slot, series);
        self.remember(key, value);
        Some(self.before(key).map_or(0.0, |before| window::step(before, value)))
    }

    /// Keeps the value of a series whose increase is not used on this page.
    pub(super) fn keep(&mut self, slot: SlotId, series: u64) {
        let key = key(slot, series);
        if let Some(before) = self.before(key) {
            self.remember(key, before);
        }
    }

    /// Ends a page, and forgets series that it did not have.
    pub(super) fn end_page(&mut self) {
        self.next.sort_unstable_by_key(|(key, _)| *key);
        // No memory is kept until the next page.
        self.last = std::mem::take(&mut self.next);
    }

    fn before(&self, key: u64) -> Option<f64> {
        let place = self.last.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        Some(self.last[place].1)
    }

    fn remember(&mut self, key: u64, value: f64) {
        if self.next.is_empty() {
            self.next.reserve(self.last.len());
        }
        if self.next.len() < SERIES_MAX {
            self.next.push((key, value));
        }
    }
}

/// One number for a slot and the hash of a label set.
fn key(slot: SlotId, series: u64) -> u64 {
    series ^ (u64::from(slot) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_has_increases_from_its_second_page_on() {
        let mut values = LastValues::default();
        let mut page = |value: Option<f64>| {
            let increase = value.and_then(|value| values.increase(3, 7, value));
            values.end_page();
            increase
        };
        assert_eq!(page(Some(50_000.0)), Some(0.0));
        assert_eq!(page(Some(50_010.0)), Some(10.0));
        assert_eq!(page(Some(4.0)), Some(4.0), "it began again");
        assert_eq!(page(None), None);
        assert_eq!(page(Some(90.0)), Some(0.0));
        assert_eq!(page(Some(f64::NAN)), None);
        assert_eq!(page(Some(100.0)), Some(0.0));
    }

    #[test]
    fn a_kept_value_is_the_base_of_the_next_increase() {
        let mut values = LastValues::default();
        values.increase(3, 7, 10.0);
        values.end_page();
        values.keep(3, 7);
        values.end_page();
        assert_eq!(values.increase(3, 7, 15.0), Some(5.0));
        assert_eq!(values.increase(4, 7, 15.0), Some(0.0), "another slot is another series");
    }
}
