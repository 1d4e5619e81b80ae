//! From the samples of a page to one number for each quantity and row.

use super::quantity::Fold;
use super::rows::RowId;
use super::table::{Alias, SlotId, Term};

/// One sample that a slot reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    pub(super) slot: SlotId,
    pub(super) row: RowId,
    /// Place of the sample on its page.
    pub(super) order: u32,
    /// Hash of the sample's labels.
    pub(super) series: u64,
    /// `None`: the label that should hold it holds no number.
    pub(super) value: Option<f64>,
}

/// One number.
#[derive(Debug)]
struct Cell {
    slot: SlotId,
    row: RowId,
    value: Option<f64>,
}

/// The numbers of a page, by slot and row.
#[derive(Debug)]
pub(super) struct Cells {
    cells: Vec<Cell>,
    /// Samples that repeat a series.
    pub(super) repeated: u64,
}

impl Cells {
    /// Folds the readings; those of one series count once, as the first of them has it.
    ///
    /// `fold` tells how those of one slot go together; with `None` the slot's numbers are unknown.
    pub(super) fn new(readings: &mut Vec<Reading>, fold: impl Fn(SlotId) -> Option<Fold>) -> Self {
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
        // Floats add up in the order of the page: in another one a counter might seem to fall.
        readings.sort_unstable_by_key(|reading| (reading.slot, reading.row, reading.order));
        let mut cells: Vec<Cell> = Vec::new();
        for reading in &*readings {
            let Reading { slot, row, value, .. } = *reading;
            match (cells.last_mut(), fold(slot)) {
                (_, None) => cells.push(Cell { slot, row, value: None }),
                (Some(last), Some(fold)) if (last.slot, last.row) == (slot, row) => {
                    last.value = fold.apply(last.value, value);
                }
                _ => cells.push(Cell { slot, row, value }),
            }
        }
        Self { cells, repeated: repeats.len() as u64 }
    }

    /// The value of an alias in a row.
    pub(super) fn value(&self, alias: &Alias, row: RowId) -> Option<f64> {
        let left = self.term(alias.left, row)?;
        match alias.right {
            None => Some(left),
            Some((operator, right)) => Some(operator.apply(left, self.term(right, row)?)),
        }
    }

    fn term(&self, term: Term, row: RowId) -> Option<f64> {
        match term {
            Term::Number(number) => Some(number),
            Term::Slot(slot) => {
                let found = self.cells.binary_search_by_key(&(slot, row), |c| (c.slot, c.row));
                self.cells[found.ok()?].value
            }
        }
    }

    /// The rows that have a number, or could have.
    pub(super) fn rows(&self) -> Vec<RowId> {
        let mut rows: Vec<RowId> = self.cells.iter().map(|cell| cell.row).collect();
        rows.sort_unstable();
        rows.dedup();
        rows
    }
}

impl Fold {
    /// A part that is unknown makes a sum unknown; NaN is no greatest value.
    fn apply(self, one: Option<f64>, other: Option<f64>) -> Option<f64> {
        match self {
            Self::Sum => Some(one? + other?),
            Self::Greatest => match (one, other) {
                (Some(one), Some(other)) => Some(one.max(other)),
                (one, other) => one.or(other),
            },
        }
    }
}
