// SPDX-License-Identifier: Apache-2.0
//! Collects the samples of a metrics page as the scanner finds them. `assemble` makes rows of them when the page has
//! ended.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::SystemTime;

use collector_core::{EngineName, GaugePage, ModelId};
use collector_engines::LabelMatcher;
use foldhash::fast::RandomState;

use super::bits::Bits;
use super::buckets::{BOUND, BucketsSeen};
use super::cells::{NO_TIME, Reading};
use super::exposition::Matched;
use super::gauges::Gauges;
use super::lora::LoraSeen;
use super::rows::{RowId, Rows};
use super::series::LastValues;
use super::table::{LabelsId, RowLabels, Slot, SlotId, Table, Use};
use crate::endpoint_picker;
use crate::scan::{Labels, NameId, Sample, Summary};

/// Readings that are kept of one page: 6 MiB.
const READINGS_MAX: usize = 1 << 17;
/// Readings that memory is reserved for at once.
const READINGS_LIKELY: usize = 1 << 12;
/// The least time of a clock that was ever set: September 2001.
const CLOCK_IS_SET: f64 = 1e9;
/// The label that names one of several processes that share a page.
const PROCESS: &str = "pid";

/// Reads the metrics pages of one target, one after the other.
///
/// Call [`sample`](Self::sample) for each sample of a page and then [`finish`](Self::finish), or
/// [`reset`](Self::reset) if the page could not be read to its end.
#[derive(Debug)]
pub struct ExpositionReader {
    pub(super) table: Arc<Table>,
    /// The engine of every page, if it is known.
    pub(super) forced: Option<EngineName>,
    /// The model of every page, if it is known.
    pub(super) given: Option<ModelId>,
    /// The wall clock, in seconds since 1970.
    now: Option<f64>,
    pub(super) rows: Rows,
    pub(super) readings: Vec<Reading>,
    /// Number of readings on the previous page.
    likely: usize,
    /// The slots with a reading.
    pub(super) present: Bits,
    /// The slots of which only the part of one process was found.
    pub(super) per_process: Vec<SlotId>,
    /// Gauges with a process label, by the hash of their other labels.
    of_processes: HashSet<(SlotId, RowId, u64), RandomState>,
    /// Gauges of which several processes show their own part.
    pub(super) by_process: Vec<(SlotId, RowId)>,
    /// The names that were seen.
    pub(super) seen: Bits,
    pub(super) lora: LoraSeen,
    /// The buckets of the page are read.
    pub(super) has_buckets: bool,
    pub(super) buckets: BucketsSeen,
    pub(super) process_start: Option<f64>,
    /// The router that the page belongs to.
    pub(super) router: Option<&'static str>,
    pub(super) beyond_limit: u64,
    pub(super) endpoint_picker: endpoint_picker::Reader,
    /// The alternatives that were used on the previous page.
    pub(super) choice: Option<Arc<Choice>>,
    /// The counters of the previous page, if increases are wanted.
    pub(super) last_values: Option<LastValues>,
    /// The gauges of the page as they are on it, if they are kept.
    gauges: Option<Gauges>,
    hasher: RandomState,
    order: u32,
}

/// The alternative that is used for each number. A server writes the same series each time, so this is computed
/// once.
#[derive(Debug)]
pub(super) struct Choice {
    /// The index of the engine.
    pub(super) engine: usize,
    /// The slots with a reading.
    pub(super) present: Bits,
    /// The indices of the reads that are on the page, each with that of its alternative.
    pub(super) alternatives: Vec<(usize, usize)>,
    /// The slots of these.
    pub(super) counts: Bits,
    pub(super) matched: Arc<[Matched]>,
}

impl ExpositionReader {
    pub(super) fn new(table: Arc<Table>, forced: Option<EngineName>) -> Self {
        let slots = table.slots.len();
        let names = table.wanted.len();
        Self {
            table,
            forced,
            given: None,
            now: None,
            rows: Rows::default(),
            readings: Vec::new(),
            likely: 0,
            present: Bits::none(slots),
            per_process: Vec::new(),
            of_processes: HashSet::default(),
            by_process: Vec::new(),
            seen: Bits::none(names),
            lora: LoraSeen::default(),
            has_buckets: false,
            buckets: BucketsSeen::default(),
            process_start: None,
            router: None,
            beyond_limit: 0,
            endpoint_picker: endpoint_picker::Reader::default(),
            choice: None,
            last_values: None,
            gauges: None,
            hasher: RandomState::default(),
            order: 0,
        }
    }

    /// The same for a server of this model, whatever its pages name.
    #[must_use]
    pub fn with_model(mut self, model: Option<ModelId>) -> Self {
        self.given = model;
        self
    }

    /// The same with the increases of counters since the page before, in
    /// [`EngineRow::increases`](super::EngineRow::increases).
    #[must_use]
    pub fn with_increases(mut self) -> Self {
        self.last_values = Some(LastValues::default());
        self
    }

    /// The same with the gauges of each page, for [`take_gauges`](Self::take_gauges).
    #[must_use]
    pub(crate) fn with_gauges(mut self) -> Self {
        self.gauges = Some(Gauges::default());
        self
    }

    /// Returns the gauges of a page that has ended, before [`finish`](Self::finish); `None` if none are kept.
    pub(crate) fn take_gauges(&mut self, summary: &Summary) -> Option<GaugePage> {
        let mut gauges = self.gauges.take()?;
        let shown = summary.malformed.len() as u64;
        let is_gauge = |id: NameId| self.table.gauges[id.index()].is_some();
        let has_unread_lines = summary.malformed_count > shown
            || summary.malformed.iter().any(|malformed| is_gauge(malformed.name));
        let page = gauges.finish(has_unread_lines);
        self.gauges = Some(gauges);
        Some(page)
    }

    /// Sets the wall-clock time of the next page, to recognise times in the future. A clock that was never set is
    /// ignored.
    pub fn set_time(&mut self, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).ok();
        self.now = since.map(|since| since.as_secs_f64()).filter(|now| *now >= CLOCK_IS_SET);
    }

    /// Sets whether the buckets of the next pages are read, which a scanner must
    /// [look for](super::Engines::wanted_with_buckets).
    pub fn set_buckets(&mut self, has_buckets: bool) {
        self.has_buckets = has_buckets;
    }

    /// Takes the next sample, found by a scanner for [`Engines::wanted`](super::Engines::wanted).
    pub fn sample(&mut self, sample: &Sample<'_>) {
        self.seen.insert(sample.name.index());
        match self.table.uses[sample.name.index()] {
            Use::Lora => self.lora.take(sample, self.now),
            Use::ProcessStart => self.process_start = Some(sample.value),
            Use::Router(router) => self.router = Some(router),
            Use::Bucket if self.has_buckets => self.bucket(sample),
            Use::EndpointPicker => self.endpoint_picker.take(&self.table.endpoint_picker, sample),
            Use::None | Use::Bucket => {}
        }
        if let Some(gauges) = &mut self.gauges
            && let Some(name) = &self.table.gauges[sample.name.index()]
        {
            gauges.take(name, sample);
        }
        if self.order == 0 {
            self.readings.reserve(self.likely);
        }
        self.order += 1;
        let table = Arc::clone(&self.table);
        let mut series = None;
        let mut process = None;
        // Slots with the same labels follow each other.
        let mut row_before: Option<(LabelsId, Option<RowId>)> = None;
        for id in table.slots_of(sample.name) {
            let slot = table.slot(*id);
            let has_process = slot.is_gauge
                && *process.get_or_insert_with(|| {
                    sample.labels.get(PROCESS).is_some_and(|process| !process.is_empty())
                });
            if !slot.is_of(&sample.labels) {
                let by_process = |matcher: &LabelMatcher| &*matcher.label == PROCESS;
                let is_new = !self.per_process.contains(id);
                if has_process && is_new && slot.series.matchers.iter().any(by_process) {
                    self.per_process.push(*id);
                }
                continue;
            }
            self.present.insert(*id as usize);
            let row = match row_before {
                Some((labels, row)) if labels == slot.labels => row,
                _ => row(&mut self.rows, table.labels(slot), &sample.labels),
            };
            row_before = Some((slot.labels, row));
            let (Some(row), true) = (row, self.readings.len() < READINGS_MAX) else {
                self.beyond_limit += 1;
                continue;
            };
            if has_process {
                let rest = self.hash(&sample.labels, |label| label != PROCESS);
                if !self.of_processes.insert((*id, row, rest)) {
                    self.by_process.push((*id, row));
                }
            }
            let series = *series.get_or_insert_with(|| self.hash(&sample.labels, |_| true));
            let value = slot.number(sample);
            let time = sample.timestamp_ms.unwrap_or(NO_TIME);
            self.readings.push(Reading { slot: *id, row, order: self.order, series, value, time });
        }
    }

    /// Takes a bucket of a histogram.
    fn bucket(&mut self, sample: &Sample<'_>) {
        let hash = self.hash(&sample.labels, |label| label != BOUND);
        let Self { table, rows, buckets, .. } = self;
        buckets.take(sample, hash, || {
            let all = table.histograms_of.get(&sample.name).into_iter().flatten();
            let of_series = all.map(|id| (*id, &table.histograms[*id as usize]));
            let of_series = of_series.filter(|(_, slot)| slot.is_of(&sample.labels));
            let place = |(id, slot): (SlotId, &Slot)| {
                Some((id, row(rows, table.labels(slot), &sample.labels)?))
            };
            of_series.map(place).collect()
        });
    }

    /// Discards the samples of a page that could not be read to its end.
    pub fn reset(&mut self) {
        self.rows.clear();
        // No memory is kept until the next page: only a few of a thousand pods are read at a time.
        self.likely = self.readings.len().min(READINGS_LIKELY);
        self.readings = Vec::new();
        self.present.clear();
        self.per_process.clear();
        self.of_processes.clear();
        self.by_process.clear();
        self.seen.clear();
        self.lora = LoraSeen::default();
        self.buckets = BucketsSeen::default();
        self.process_start = None;
        self.router = None;
        self.beyond_limit = 0;
        self.endpoint_picker = endpoint_picker::Reader::default();
        if let Some(gauges) = &mut self.gauges {
            *gauges = Gauges::default();
        }
        self.order = 0;
    }

    /// Returns a hash that is the same for the same labels in any order.
    fn hash(&self, labels: &Labels<'_>, counts: impl Fn(&str) -> bool) -> u64 {
        let labels = labels.iter().filter(|(name, _)| counts(name));
        labels.fold(0, |sum, label| sum.wrapping_add(self.hasher.hash_one(label)))
    }

    /// Whether samples of this name may be missing from the page.
    pub(super) fn may_lack(&self, name: &str, summary: &Summary) -> bool {
        // Of each name the first malformed line is listed.
        let of_name = |id: NameId| self.table.with_buckets.name(id) == name;
        self.beyond_limit > 0 || summary.malformed.iter().any(|malformed| of_name(malformed.name))
    }
}

/// Returns the row of a series with these labels; `None` if there are too many rows.
fn row(rows: &mut Rows, names: &RowLabels, labels: &Labels<'_>) -> Option<RowId> {
    let found = names.names.each_ref().map(|list| first(list, labels));
    let row = rows.id_of(found.each_ref().map(Option::as_deref))?;
    if let Some(role) = names.role.as_deref().and_then(|label| labels.get(label)) {
        rows.note_role(row, &role);
    }
    Some(row)
}

/// Returns the value of the first of these labels that a series has. An empty label is absent, as in PromQL.
fn first<'a>(names: &[Box<str>], labels: &Labels<'a>) -> Option<Cow<'a, str>> {
    names.iter().find_map(|name| labels.get(name).filter(|value| !value.is_empty()))
}

impl Slot {
    fn is_of(&self, labels: &Labels<'_>) -> bool {
        let value = |label: &str| labels.get(label).unwrap_or_default();
        let series = &self.series;
        series.matchers.iter().all(|matcher| matcher.accepts(&value(&matcher.label)))
            && series.number_in.as_ref().is_none_or(|label| labels.get(label).is_some())
    }

    fn number(&self, sample: &Sample<'_>) -> Option<f64> {
        match &self.series.number_in {
            None => Some(sample.value),
            Some(label) => {
                let number = sample.labels.get(label)?.trim().parse().ok();
                // Servers write "None" and the like before they know the number.
                number.filter(|number: &f64| number.is_finite())
            }
        }
    }
}
