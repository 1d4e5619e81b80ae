//! All engines in one table, from sample names to what is read of them.

use std::sync::Arc;

use collector_core::EngineName;

use super::compile;
use super::picker::{PICKER, PickerRead};
use super::quantity::{Fold, Quantity};
use super::reader::PageReader;
use super::spec::{Operator, Series, Spec};
use super::user::{EngineSpec, SpecError};
use crate::scan::{NameId, Wanted};

/// What the pages of each engine mean: the built-in ones and those of the user. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engines(pub(super) Arc<Table>);

#[derive(Debug)]
pub(super) struct Table {
    pub(super) wanted: Arc<Wanted>,
    pub(super) slots: Vec<Slot>,
    /// The slots of each wanted name.
    pub(super) slots_of: Vec<Vec<SlotId>>,
    /// The series that tells LoRA adapters.
    pub(super) lora: Option<NameId>,
    /// In order of preference where a page fits several: users' own first.
    pub(super) engines: Vec<Engine>,
}

/// One engine, compiled.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) name: EngineName,
    pub(super) reads: Vec<Read>,
    /// Whether it tells its LoRA adapters.
    pub(super) lora: bool,
}

/// One number that is read of an engine's pages.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) what: What,
    /// In order of preference.
    pub(super) aliases: Vec<Alias>,
}

/// Which number it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    Server(Quantity),
    Picker(PickerRead),
}

/// One place where a quantity may stand.
#[derive(Debug)]
pub(super) struct Alias {
    pub(super) spec: Arc<Spec>,
    pub(super) left: Term,
    pub(super) right: Option<(Operator, Term)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Term {
    Number(f64),
    Slot(SlotId),
}

pub(super) type SlotId = u16;

/// One number of each row, read from series of one name. Engines that read it alike share it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Slot {
    pub(super) series: Series,
    pub(super) kind: RowKind,
    /// The labels that name its row; empty for none.
    pub(super) labels: [Box<str>; 2],
    pub(super) fold: Fold,
}

/// What the rows of a page are about, and what their two names are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum RowKind {
    /// Model and rank.
    Server,
    /// Model and target.
    Model,
    /// Pool.
    Pool,
    /// Pool and pod.
    Pod,
}

impl Engines {
    /// The engines that are known without being told.
    #[expect(clippy::missing_panics_doc, reason = "the built-in table is the same in every build")]
    pub fn builtin() -> Self {
        Self::new(&[]).expect("the built-in table can be read")
    }

    /// The built-in engines, and those of a user.
    ///
    /// # Errors
    /// The first thing that is wrong, with the engine, the key and the position.
    pub fn new(specs: &[EngineSpec]) -> Result<Self, SpecError> {
        Ok(Self(Arc::new(compile::table(specs)?)))
    }

    /// The sample names that a scanner must look for.
    pub fn wanted(&self) -> &Arc<Wanted> {
        &self.0.wanted
    }

    /// The names of the engines, the picker's `epp` included.
    pub fn names(&self) -> impl Iterator<Item = &EngineName> {
        self.0.engines.iter().map(|engine| &engine.name)
    }

    /// Where a quantity of an engine is looked for, in order of preference; nothing when there is no such
    /// engine or quantity.
    pub fn looked_for(&self, engine: &EngineName, quantity: &str) -> Vec<Arc<Spec>> {
        let engine = self.0.engines.iter().find(|known| known.name == *engine);
        let reads = engine.into_iter().flat_map(|engine| &engine.reads);
        let of_quantity = |read: &&Read| match read.what {
            What::Server(known) => known.key() == quantity,
            What::Picker(_) => false,
        };
        reads
            .filter(of_quantity)
            .flat_map(|read| &read.aliases)
            .map(|alias| Arc::clone(&alias.spec))
            .collect()
    }

    /// A reader that finds out from each page which engine it is of.
    pub fn reader(&self) -> PageReader {
        PageReader::new(Arc::clone(&self.0), None)
    }

    /// A reader of one engine's pages; `None` when there is no engine of this name.
    pub fn reader_of(&self, engine: &EngineName) -> Option<PageReader> {
        let index = self.0.engines.iter().position(|known| known.name == *engine)?;
        Some(PageReader::new(Arc::clone(&self.0), Some(index)))
    }
}

impl Table {
    pub(super) fn slots_of(&self, name: NameId) -> &[SlotId] {
        &self.slots_of[name.index()]
    }
}

impl Alias {
    pub(super) fn slots(&self) -> impl Iterator<Item = SlotId> + use<> {
        let right = self.right.map(|(_, term)| term);
        [Some(self.left), right].into_iter().flatten().filter_map(|term| match term {
            Term::Number(_) => None,
            Term::Slot(slot) => Some(slot),
        })
    }
}

impl Engine {
    pub(super) fn is_picker(&self) -> bool {
        self.name.as_str() == PICKER
    }
}

impl What {
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Server(quantity) => quantity.key(),
            Self::Picker(read) => read.key(),
        }
    }
}
