//! Takes the samples of a page as the scanner finds them. What they say together is found out in `assemble`,
//! when the page has ended.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::SystemTime;

use collector_core::{EngineName, ModelId};
use collector_engines::LabelMatcher;
use foldhash::fast::RandomState;

use super::bits::Bits;
use super::cells::{NO_TIME, Reading};
use super::lora::LoraSeen;
use super::page::Matched;
use super::rows::{RowId, Rows};
use super::series::LastValues;
use super::table::{LabelsId, RowLabels, Slot, SlotId, Table, Use};
use crate::endpoint_picker;
use crate::scan::{Labels, NameId, Sample, Summary};

/// Readings that are held of one page: 6 MiB.
const READINGS_MAX: usize = 1 << 17;
/// Readings that room is made for at once.
const READINGS_LIKELY: usize = 1 << 12;
/// What a clock says at least that was set: it is after September 2001.
const CLOCK_IS_SET: f64 = 1e9;
/// The label of a process among several that share a page.
const PROCESS: &str = "pid";

/// Reads one target's pages, one after the other.
///
/// Give it each sample of a page, then [`finish`](Self::finish); or [`reset`](Self::reset), when the
/// page could not be read to its end.
#[derive(Debug)]
pub struct PageReader {
    pub(super) table: Arc<Table>,
    /// The engine that every page is of.
    pub(super) forced: Option<EngineName>,
    /// The model that every page is of.
    pub(super) given: Option<ModelId>,
    /// The wall clock, in seconds since 1970.
    now: Option<f64>,
    pub(super) rows: Rows,
    pub(super) readings: Vec<Reading>,
    /// How many of them the last page had.
    likely: usize,
    /// The slots that something was read for.
    pub(super) present: Bits,
    /// The slots of which one process's part was seen alone.
    pub(super) per_process: Vec<SlotId>,
    /// Gauges that carry a process, by what else their labels say.
    of_processes: HashSet<(SlotId, RowId, u64), RandomState>,
    /// The gauges that several processes show side by side.
    pub(super) by_process: Vec<(SlotId, RowId)>,
    /// The names that were seen.
    pub(super) seen: Bits,
    pub(super) lora: LoraSeen,
    pub(super) process_start: Option<f64>,
    /// What else the page shows than its own server.
    pub(super) router: Option<&'static str>,
    pub(super) beyond_limit: u64,
    pub(super) endpoint_picker: endpoint_picker::Reader,
    /// What counted on the last page.
    pub(super) choice: Option<Arc<Choice>>,
    /// The counters of the page before, where increases are wanted.
    pub(super) last_values: Option<LastValues>,
    hasher: RandomState,
    order: u32,
}

/// Which alternative counts of each number. A server writes the same series each time, so that it is found
/// out once.
#[derive(Debug)]
pub(super) struct Choice {
    /// The place of the engine.
    pub(super) engine: usize,
    /// The slots that something was read for.
    pub(super) present: Bits,
    /// The places of the reads that are there, each with that of its alternative.
    pub(super) alternatives: Vec<(usize, usize)>,
    /// The slots of these.
    pub(super) counts: Bits,
    pub(super) matched: Arc<[Matched]>,
}

impl PageReader {
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
            process_start: None,
            router: None,
            beyond_limit: 0,
            endpoint_picker: endpoint_picker::Reader::default(),
            choice: None,
            last_values: None,
            hasher: RandomState::default(),
            order: 0,
        }
    }

    /// The same for a server of this model, whatever its pages say.
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

    /// Sets the time of the page that follows, to judge times on it by. Without it none is in the
    /// future; nor by a clock that was never set.
    pub fn set_time(&mut self, now: SystemTime) {
        let since = now.duration_since(SystemTime::UNIX_EPOCH).ok();
        self.now = since.map(|since| since.as_secs_f64()).filter(|now| *now >= CLOCK_IS_SET);
    }

    /// Takes the next sample, found by a scanner for [`Engines::wanted`](super::Engines::wanted).
    pub fn sample(&mut self, sample: &Sample<'_>) {
        self.seen.insert(sample.name.index());
        match self.table.uses[sample.name.index()] {
            Use::None => {}
            Use::Lora => self.lora.take(sample, self.now),
            Use::ProcessStart => self.process_start = Some(sample.value),
            Use::Router(router) => self.router = Some(router),
            Use::EndpointPicker => self.endpoint_picker.take(&self.table.endpoint_picker, sample),
        }
        if self.order == 0 {
            self.readings.reserve(self.likely);
        }
        self.order += 1;
        let table = Arc::clone(&self.table);
        let mut series = None;
        let mut process = None;
        // Slots whose rows have the same names follow each other.
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
                _ => self.row(table.labels(slot), &sample.labels),
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

    /// The row that a series with these labels is part of; `None` when there is no room for it.
    fn row(&mut self, names: &RowLabels, labels: &Labels<'_>) -> Option<RowId> {
        let found = names.names.each_ref().map(|list| first(list, labels));
        let row = self.rows.id_of(found.each_ref().map(Option::as_deref))?;
        if let Some(role) = names.role.as_deref().and_then(|label| labels.get(label)) {
            self.rows.note_role(row, &role);
        }
        Some(row)
    }

    /// Forgets what was read of a page that did not come to its end.
    pub fn reset(&mut self) {
        self.rows.clear();
        // No room is kept until the next page: of a thousand pods a few are read at a time.
        self.likely = self.readings.len().min(READINGS_LIKELY);
        self.readings = Vec::new();
        self.present.clear();
        self.per_process.clear();
        self.of_processes.clear();
        self.by_process.clear();
        self.seen.clear();
        self.lora = LoraSeen::default();
        self.process_start = None;
        self.router = None;
        self.beyond_limit = 0;
        self.endpoint_picker = endpoint_picker::Reader::default();
        self.order = 0;
    }

    /// The same for the same labels in any order.
    fn hash(&self, labels: &Labels<'_>, counts: impl Fn(&str) -> bool) -> u64 {
        let labels = labels.iter().filter(|(name, _)| counts(name));
        labels.fold(0, |sum, label| sum.wrapping_add(self.hasher.hash_one(label)))
    }

    /// Whether a number of this name may be missing from the page.
    pub(super) fn may_lack(&self, name: &str, summary: &Summary) -> bool {
        let shown = summary.malformed.len() as u64;
        let of_name = |id: NameId| self.table.wanted.name(id) == name;
        self.beyond_limit > 0
            || summary.malformed_count > shown
            || summary.malformed.iter().any(|malformed| of_name(malformed.name))
    }
}

/// The value of the first of these labels that there is. As in PromQL, an empty label is none.
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
                // "None", and what else stands there before the server knows.
                number.filter(|number: &f64| number.is_finite())
            }
        }
    }
}
