// SPDX-License-Identifier: Apache-2.0
//! The compiled table of engines: which numbers each sample name is read for.

use std::collections::HashMap;
use std::sync::Arc;

use collector_core::{EngineName, ModelId};
use collector_engines::{Expression, Fold, Quantity};

use super::bits::Bits;
use crate::endpoint_picker;
use crate::scan::{NameId, Wanted};

/// All engines, compiled.
#[derive(Debug)]
pub(super) struct Table {
    /// Every name that is read; ids are of this list.
    pub(super) with_buckets: Arc<Wanted>,
    /// The same without the buckets of histograms, which are most of the lines.
    pub(super) wanted: Arc<Wanted>,
    pub(super) slots: Vec<Slot>,
    /// The slots of each wanted name.
    pub(super) slots_of: Vec<Vec<SlotId>>,
    /// The slots of the buckets of histograms, which are no numbers of rows.
    pub(super) histograms: Vec<Slot>,
    /// The histograms of each name of buckets.
    pub(super) histograms_of: HashMap<NameId, Vec<SlotId>>,
    /// How the rows of slots are named.
    pub(super) labels: Vec<RowLabels>,
    /// What each wanted name is besides the name of slots.
    pub(super) uses: Vec<Use>,
    /// The wanted names that are gauges of model servers.
    pub(super) gauges: Vec<Option<Arc<str>>>,
    /// In order of preference if a page fits several equally well: users' own first.
    pub(super) engines: Vec<Engine>,
    /// The series of endpoint pickers.
    pub(super) endpoint_picker: endpoint_picker::Names,
}

/// What a sample is read for, besides the numbers of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Nothing.
    None,
    /// Its labels name LoRA adapters.
    Lora,
    /// Its value is the start time of the server's process.
    ProcessStart,
    /// Only the pages of this router have it.
    Router(&'static str),
    /// It is a bucket of a histogram.
    Bucket,
    /// It belongs to an endpoint picker.
    EndpointPicker,
}

/// One engine in one spelling of its names, compiled.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) name: EngineName,
    pub(super) reads: Vec<Read>,
    /// The slots that it reads.
    pub(super) slots: Bits,
    /// The quantities that it may report.
    pub(super) reports: Arc<[Quantity]>,
    /// Names that must be on the page.
    pub(super) required: Vec<NameId>,
    /// The model of all of its servers.
    pub(super) model: Option<ModelId>,
    /// Values of its model labels that are no model's id.
    pub(super) no_models: Vec<Box<str>>,
    /// Ids of its models are compared without case.
    pub(super) ignore_case: bool,
    /// The series whose labels name its LoRA adapters.
    pub(super) lora: Option<NameId>,
}

/// One number that is read of an engine's pages.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) quantity: Quantity,
    /// In order of preference.
    pub(super) alternatives: Vec<Alternative>,
}

/// One expression that may supply a quantity.
#[derive(Debug)]
pub(super) struct Alternative {
    pub(super) spec: Arc<Expression>,
    pub(super) compiled: Expression<SlotId>,
    /// The [histogram](Table::histograms) that the number counts the observations of.
    pub(super) histogram: Option<SlotId>,
}

pub(super) type SlotId = u32;
pub(super) type LabelsId = u8;

/// One number of each row, read from series of one name. Engines that read it in the same way share it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Slot {
    pub(super) series: collector_engines::Series,
    /// Which of [`Table::labels`] name its row.
    pub(super) labels: LabelsId,
    pub(super) fold: Fold,
    /// It is a gauge of a server, of which each of several processes may show its own part.
    pub(super) is_gauge: bool,
}

/// The labels that name the rows of some slots. The first label of each list that a series has is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RowLabels {
    /// Of the model, the rank and the replica.
    pub(super) names: [Vec<Box<str>>; 3],
    /// The label that says what the server does.
    pub(super) role: Option<Box<str>>,
}

impl Table {
    pub(super) fn slots_of(&self, name: NameId) -> &[SlotId] {
        &self.slots_of[name.index()]
    }

    pub(super) fn slot(&self, id: SlotId) -> &Slot {
        &self.slots[id as usize]
    }

    pub(super) fn labels(&self, slot: &Slot) -> &RowLabels {
        &self.labels[usize::from(slot.labels)]
    }
}

impl Engine {
    pub(super) fn names_model(&self, value: &str) -> bool {
        !value.is_empty() && !self.no_models.iter().any(|name| **name == *value)
    }

    fn read_of(&self, quantity: Quantity) -> Option<&Read> {
        self.reads.iter().find(|read| read.quantity == quantity)
    }

    /// Returns the index of the alternative that is used. `is_complete` returns whether one is on the page.
    pub(super) fn chosen(
        &self,
        read: &Read,
        is_complete: impl Fn(&Alternative) -> bool,
    ) -> Option<usize> {
        read.quantity.chosen_among(|quantity, index| {
            let read = self.read_of(quantity);
            let alternative = read.and_then(|read| read.alternatives.get(index));
            alternative.is_some_and(&is_complete)
        })
    }
}
