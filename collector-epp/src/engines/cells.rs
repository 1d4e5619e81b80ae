// SPDX-License-Identifier: Apache-2.0
//! Folds the samples of a metrics page into one number for each slot and row.

use collector_engines::{Expression, Fold};

use super::rows::RowId;
use super::series::LastValues;
use super::table::SlotId;

/// The time of a sample without a timestamp: that of its page.
pub(super) const NO_TIME: i64 = i64::MAX;

/// One sample that a slot reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) slot: SlotId,
    pub(super) row: RowId,
    /// Position of the sample on its page.
    pub(super) order: u32,
    /// Hash of the sample's labels.
    pub(super) series: u64,
    /// `None` if the label that should hold the number does not.
    pub(super) value: Option<f64>,
    /// Milliseconds since 1970, or [`NO_TIME`].
    pub(super) time: i64,
}

/// One number.
#[derive(Debug)]
struct Cell {
    slot: SlotId,
    row: RowId,
    value: Option<f64>,
    /// Increase of its series since the previous page.
    increase: Option<f64>,
    /// The oldest of its samples.
    time: i64,
}

/// The numbers of a page, by slot and row.
#[derive(Debug)]
pub(super) struct Cells {
    cells: Vec<Cell>,
    /// Samples that repeat a series.
    pub(super) repeated: u64,
}

impl Cells {
    /// Folds the readings. Of a series that is there several times, the first reading is used.
    ///
    /// `fold` returns how the readings of a slot are folded; `None` makes the slot's numbers unknown. `before` has the
    /// series of the previous page, if increases are wanted.
    pub(super) fn new(
        readings: &mut Vec<Reading>,
        fold: impl Fn(SlotId) -> Option<Fold>,
        mut before: Option<&mut LastValues>,
    ) -> Self {
        readings.sort_unstable_by_key(|reading| {
            (reading.slot, reading.row, reading.series, reading.order)
        });
        let mut repeats = Vec::new();
        readings.dedup_by(|next, first| {
            let same = (next.slot, next.row, next.series) == (first.slot, first.row, first.series);
            if same {
                repeats.push(next.order);
            }
            same
        });
        repeats.sort_unstable();
        repeats.dedup();
        // Floats are added in page order: in another order a counter might seem to fall.
        readings.sort_unstable_by_key(|reading| (reading.slot, reading.row, reading.order));
        let mut cells: Vec<Cell> = Vec::new();
        for reading in &*readings {
            let Reading { slot, row, value, series, time, .. } = *reading;
            let fold = fold(slot);
            let increase = before.as_deref_mut().and_then(|before| match (fold, value) {
                (Some(Fold::Sum), Some(value)) => before.increase(slot, series, value),
                (None, _) => {
                    before.keep(slot, series);
                    None
                }
                _ => None,
            });
            match (cells.last_mut(), fold) {
                (_, None) => cells.push(Cell { slot, row, value: None, increase: None, time }),
                (Some(last), Some(fold)) if (last.slot, last.row) == (slot, row) => {
                    last.value = apply(fold, last.value, value);
                    last.increase = Some(()).and_then(|()| Some(last.increase? + increase?));
                    last.time = last.time.min(time);
                }
                _ => cells.push(Cell { slot, row, value, increase, time }),
            }
        }
        if let Some(before) = before {
            before.end_page();
        }
        Self { cells, repeated: repeats.len() as u64 }
    }

    /// The value of an expression in a row.
    pub(super) fn value(&self, expression: &Expression<SlotId>, row: RowId) -> Option<f64> {
        expression.evaluate(&mut |slot| self.cell(*slot, row)?.value)
    }

    /// The increase of a linear expression in a row since the previous page.
    pub(super) fn increase(&self, expression: &Expression<SlotId>, row: RowId) -> Option<f64> {
        expression.evaluate(&mut |slot| self.cell(*slot, row)?.increase)
    }

    /// When the oldest sample of an expression was taken, in milliseconds since 1970; `None`: with the
    /// page.
    pub(super) fn time(&self, expression: &Expression<SlotId>, row: RowId) -> Option<i64> {
        let slots = expression.series().into_iter();
        let times = slots.filter_map(|slot| Some(self.cell(*slot, row)?.time));
        times.min().filter(|time| *time != NO_TIME)
    }

    /// Whether a series is in a row, with a number or without.
    pub(super) fn has(&self, slot: SlotId, row: RowId) -> bool {
        self.cell(slot, row).is_some()
    }

    /// Whether a series is in a row but gave no number.
    pub(super) fn is_unreadable(&self, slot: SlotId, row: RowId) -> bool {
        self.cell(slot, row).is_some_and(|cell| cell.value.is_none())
    }

    /// Whether any sample carries a timestamp.
    pub(super) fn has_times(&self) -> bool {
        self.cells.iter().any(|cell| cell.time != NO_TIME)
    }

    fn cell(&self, slot: SlotId, row: RowId) -> Option<&Cell> {
        let found = self.cells.binary_search_by_key(&(slot, row), |cell| (cell.slot, cell.row));
        Some(&self.cells[found.ok()?])
    }

    /// The rows that have a number, or could have.
    pub(super) fn rows(&self) -> Vec<RowId> {
        let mut rows: Vec<RowId> = self.cells.iter().map(|cell| cell.row).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

/// Folds two numbers. An unknown part makes a sum unknown; NaN is ignored by the greatest.
fn apply(fold: Fold, one: Option<f64>, other: Option<f64>) -> Option<f64> {
    match fold {
        Fold::Sum => Some(one? + other?),
        Fold::Greatest => match (one, other) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        },
    }
}
