//! The table of engines that readers look into: from sample names to what is read of them.

use std::sync::Arc;

use collector_core::{EngineName, ModelId};
use collector_engines::{Expression, Fold, Quantity};

use super::bits::Bits;
use crate::endpoint_picker;
use crate::scan::{NameId, Wanted};

/// All engines, compiled.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) wanted: Arc<Wanted>,
    pub(super) slots: Vec<Slot>,
    /// The slots of each wanted name.
    pub(super) slots_of: Vec<Vec<SlotId>>,
    /// How the rows of slots are named.
    pub(super) labels: Vec<RowLabels>,
    /// What each wanted name is besides the name of slots.
    pub(super) uses: Vec<Use>,
    /// In order of preference where a page fits several equally well: users' own first.
    pub(super) engines: Vec<Engine>,
    /// The series of endpoint pickers.
    pub(super) endpoint_picker: endpoint_picker::Names,
}

/// What a sample is read for that is no number of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Use {
    /// Nothing.
    None,
    /// Its labels name LoRA adapters.
    Lora,
    /// When the process was started that shows the page.
    ProcessStart,
    /// It is there on the pages of this router alone.
    Router(&'static str),
    /// It is an endpoint picker's.
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

/// One place where a quantity may stand.
#[derive(Debug)]
pub(super) struct Alternative {
    pub(super) spec: Arc<Expression>,
    pub(super) compiled: Expression<SlotId>,
}

pub(super) type SlotId = u32;
pub(super) type LabelsId = u8;

/// One number of each row, read from series of one name. Engines that read it alike share it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Slot {
    pub(super) series: collector_engines::Series,
    /// Which of [`Table::labels`] name its row.
    pub(super) labels: LabelsId,
    pub(super) fold: Fold,
    /// It is a gauge of a server, which each of several processes may show as it last knew it.
    pub(super) is_gauge: bool,
}

/// The labels that name the rows of some slots; of each list the first that a series has counts.
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

    /// The place of the alternative of a number that counts where `is_complete` says which are on the page.
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
