//! The counters of a target series by series: by how much each went up since the page before.
//!
//! A restart of one of several workers is a fall of its own series, which the sum over all of them may
//! hide or take for a restart of everything.

use collector_core::{sanitize, window};

use super::table::SlotId;

/// Series of counters whose values are kept for the next page, two numbers each.
const SERIES_MAX: usize = 1 << 14;

/// The last value of each series.
#[derive(Default, Debug)]
pub(super) struct LastValues {
    /// By key, in order.
    last: Vec<(u64, f64)>,
    /// Those of the page that is being read.
    next: Vec<(u64, f64)>,
}

impl LastValues {
    /// The increase of a series since the page before: 0 where it is seen for the first time, `None`
    /// where its value cannot be a counter's.
    pub(super) fn increase(&mut self, slot: SlotId, series: u64, value: f64) -> Option<f64> {
        let value = sanitize::rate(value).ok()?;
        let key = key(slot, series);
        self.remember(key, value);
        Some(self.before(key).map_or(0.0, |before| window::step(before, value)))
    }

    /// Keeps the value of a series whose increase nobody can use this time.
    pub(super) fn keep(&mut self, slot: SlotId, series: u64) {
        let key = key(slot, series);
        if let Some(before) = self.before(key) {
            self.remember(key, before);
        }
    }

    /// Ends a page: what it did not have is forgotten.
    pub(super) fn end_page(&mut self) {
        self.next.sort_unstable_by_key(|(key, _)| *key);
        // No room is kept until the next page.
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
    fn a_series_counts_from_its_second_page_and_again_after_it_was_gone() {
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
    fn what_is_kept_counts_from_where_it_was() {
        let mut values = LastValues::default();
        values.increase(3, 7, 10.0);
        values.end_page();
        values.keep(3, 7);
        values.end_page();
        assert_eq!(values.increase(3, 7, 15.0), Some(5.0));
        assert_eq!(values.increase(4, 7, 15.0), Some(0.0), "another slot is another series");
    }
}
