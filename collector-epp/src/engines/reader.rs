//! Takes the samples of a page as the scanner finds them, and tells what the page says.

use std::borrow::Cow;
use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::assemble;
use super::cells::Reading;
use super::lora::LoraSeen;
use super::page::Page;
use super::rows::Rows;
use super::spec::Series;
use super::table::{Slot, Table};
use crate::scan::{Labels, NameId, Sample, Summary};

/// Readings that are held of one page: 4 MiB.
const READINGS_MAX: usize = 1 << 17;
/// Readings whose room is kept for the next page.
const READINGS_KEPT: usize = 1 << 12;

/// Reads one target's pages, one after the other.
///
/// Give it each sample of a page, then [`finish`](Self::finish); or [`reset`](Self::reset), when the
/// page could not be read to its end.
#[derive(Debug)]
pub struct PageReader {
    pub(super) table: Arc<Table>,
    /// The engine that every page is of, by its place in the table.
    pub(super) forced: Option<usize>,
    pub(super) rows: Rows,
    pub(super) readings: Vec<Reading>,
    /// The slots that something was read for.
    pub(super) present: Vec<bool>,
    pub(super) lora: LoraSeen,
    pub(super) beyond_limit: u64,
    hasher: RandomState,
    order: u32,
}

impl PageReader {
    pub(super) fn new(table: Arc<Table>, forced: Option<usize>) -> Self {
        let present = vec![false; table.slots.len()];
        Self {
            table,
            forced,
            rows: Rows::default(),
            readings: Vec::new(),
            present,
            lora: LoraSeen::default(),
            beyond_limit: 0,
            hasher: RandomState::default(),
            order: 0,
        }
    }

    /// Takes the next sample, found by a scanner for [`Engines::wanted`](super::Engines::wanted).
    pub fn sample(&mut self, sample: &Sample<'_>) {
        if self.table.lora == Some(sample.name) {
            self.lora.take(sample);
        }
        self.order += 1;
        let table = Arc::clone(&self.table);
        let mut series = None;
        for id in table.slots_of(sample.name) {
            let slot = &table.slots[usize::from(*id)];
            if !slot.is_of(&sample.labels) {
                continue;
            }
            self.present[usize::from(*id)] = true;
            let names = slot.names(&sample.labels);
            let names = names.each_ref().map(Option::as_deref);
            let row = self.rows.id_of(slot.kind, names);
            let (Some(row), true) = (row, self.readings.len() < READINGS_MAX) else {
                self.beyond_limit += 1;
                continue;
            };
            let series = *series.get_or_insert_with(|| self.hash(&sample.labels));
            let value = slot.number(sample);
            self.readings.push(Reading { slot: *id, row, order: self.order, series, value });
        }
    }

    /// Tells what the page says, and makes ready for the next one. `summary` is the scanner's: where
    /// a line was malformed, a sum that it may be a part of is unknown.
    pub fn finish(&mut self, summary: &Summary) -> Page {
        let page = assemble::page(self, summary);
        self.reset();
        page
    }

    /// Forgets what was read of a page that did not come to its end.
    pub fn reset(&mut self) {
        self.rows.clear();
        self.readings.clear();
        self.readings.shrink_to(READINGS_KEPT);
        self.present.fill(false);
        self.lora = LoraSeen::default();
        self.beyond_limit = 0;
        self.order = 0;
    }

    /// The same for the same labels in any order.
    fn hash(&self, labels: &Labels<'_>) -> u64 {
        labels.iter().fold(0, |sum, label| sum.wrapping_add(self.hasher.hash_one(label)))
    }

    /// Whether a number of this name may be missing from the page.
    pub(super) fn is_spoiled(&self, name: &str, summary: &Summary) -> bool {
        let shown = summary.malformed.len() as u64;
        let of_name = |id: NameId| self.table.wanted.name(id) == name;
        self.beyond_limit > 0
            || summary.malformed_count > shown
            || summary.malformed.iter().any(|malformed| of_name(malformed.name))
    }
}

impl Slot {
    fn is_of(&self, labels: &Labels<'_>) -> bool {
        let value = |label: &str| labels.get(label).unwrap_or_default();
        let Series { labels: wanted, number_in, .. } = &self.series;
        wanted.iter().all(|wanted| value(&wanted.label) == *wanted.value)
            && number_in.as_ref().is_none_or(|label| labels.get(label).is_some())
    }

    /// The names of its row. As in PromQL, an empty label is none.
    fn names<'a>(&self, labels: &Labels<'a>) -> [Option<Cow<'a, str>>; 2] {
        self.labels.each_ref().map(|label| labels.get(label).filter(|name| !name.is_empty()))
    }

    fn number(&self, sample: &Sample<'_>) -> Option<f64> {
        match &self.series.number_in {
            None => Some(sample.value),
            Some(label) => {
                let number = sample.labels.get(label)?.trim().parse().ok();
                // "None", and what else stands there before the server knows.
                number.filter(|number: &f64| number.is_finite())
            }
        }
    }
}
