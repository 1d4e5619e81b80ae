//! All engines, compiled into one table from sample names to what is read of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use collector_core::EngineName;

use super::builtin::{self, Builtin};
use super::picker::{PICKER, PickerRead};
use super::quantity::{Fold, Quantity};
use super::reader::PageReader;
use super::spec::{Operand, Operator, Series, Spec};
use super::user::{EngineSpec, SpecError};
use crate::scan::{NameId, Wanted};

/// Engines that users may define.
const ENGINES_MAX: usize = 64;
/// Aliases that one quantity may have.
const ALIASES_MAX: usize = 16;

/// What the pages of each engine mean: the built-in ones and those of the user. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engines(pub(super) Arc<Table>);

#[derive(Debug)]
pub(super) struct Table {
    pub(super) wanted: Arc<Wanted>,
    pub(super) slots: Vec<Slot>,
    /// The slots of each wanted name.
    slots_of: Vec<Vec<SlotId>>,
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
        let mut compiler = Compiler::default();
        let mut engines = Vec::new();
        for definition in definitions(specs)? {
            engines.push(compiler.server(definition)?);
        }
        engines.push(compiler.picker());
        Ok(Self(Arc::new(compiler.table(engines))))
    }

    /// The sample names that a scanner must look for.
    pub fn wanted(&self) -> &Arc<Wanted> {
        &self.0.wanted
    }

    /// The names of the engines, the picker's `epp` included.
    pub fn names(&self) -> impl Iterator<Item = &EngineName> {
        self.0.engines.iter().map(|engine| &engine.name)
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

/// One engine with what it inherits, before it is compiled.
#[derive(Clone)]
struct Definition {
    name: EngineName,
    model_label: Box<str>,
    rank_label: Box<str>,
    metrics: BTreeMap<Quantity, Vec<String>>,
    lora: bool,
}

impl From<&Builtin> for Definition {
    fn from(builtin: &Builtin) -> Self {
        let specs = |specs: &[&str]| specs.iter().map(|spec| (*spec).to_owned()).collect();
        Self {
            name: builtin.name.into(),
            model_label: builtin.model_label.into(),
            rank_label: builtin.rank_label.into(),
            metrics: builtin.metrics.iter().map(|(key, list)| (*key, specs(list))).collect(),
            lora: builtin.lora,
        }
    }
}

/// The user's engines, then the built-in ones that they do not override.
fn definitions(specs: &[EngineSpec]) -> Result<Vec<Definition>, SpecError> {
    if specs.len() > ENGINES_MAX {
        return Err(SpecError::TooMany { what: "engines".to_owned(), limit: ENGINES_MAX });
    }
    let mut builtin: Vec<Definition> = builtin::ENGINES.iter().map(Definition::from).collect();
    let mut users: Vec<Definition> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        if spec.name.as_str().is_empty() {
            return Err(SpecError::NoName { position: index + 1 });
        }
        if spec.name.as_str() == PICKER {
            return Err(SpecError::Reserved { engine: spec.name.clone() });
        }
        if users.iter().any(|user| user.name == spec.name) {
            return Err(SpecError::Twice { engine: spec.name.clone() });
        }
        users.push(inherit(spec, users.iter().chain(&builtin))?);
    }
    builtin.retain(|builtin| !users.iter().any(|user| user.name == builtin.name));
    users.extend(builtin);
    Ok(users)
}

fn inherit<'a>(
    spec: &EngineSpec,
    known: impl Iterator<Item = &'a Definition> + Clone,
) -> Result<Definition, SpecError> {
    let base_name = spec.base.as_ref().unwrap_or(&spec.name);
    let base = known.clone().find(|known| known.name == *base_name);
    if let (Some(base), None) = (&spec.base, base) {
        return Err(SpecError::UnknownBase {
            engine: spec.name.clone(),
            base: base.clone(),
            known: known.map(|known| known.name.clone()).collect(),
        });
    }
    let mut definition = base.cloned().unwrap_or_else(|| Definition {
        name: spec.name.clone(),
        model_label: "model_name".into(),
        rank_label: Box::default(),
        metrics: BTreeMap::new(),
        lora: false,
    });
    definition.name = spec.name.clone();
    if let Some(label) = &spec.model_label {
        definition.model_label.clone_from(label);
    }
    if let Some(label) = &spec.rank_label {
        definition.rank_label.clone_from(label);
    }
    for (quantity, aliases) in &spec.metrics {
        definition.metrics.insert(*quantity, aliases.as_slice().to_vec());
    }
    Ok(definition)
}

#[derive(Default)]
struct Compiler {
    slots: Vec<Slot>,
    known: HashMap<Slot, SlotId>,
    lora: bool,
}

impl Compiler {
    fn server(&mut self, definition: Definition) -> Result<Engine, SpecError> {
        let Definition { name, model_label, rank_label, metrics, lora } = definition;
        let labels = [model_label, rank_label];
        let mut reads = Vec::new();
        for (quantity, specs) in metrics {
            if specs.len() > ALIASES_MAX {
                let what = format!("engine {name:?}, metrics.{}, aliases", quantity.key());
                return Err(SpecError::TooMany { what, limit: ALIASES_MAX });
            }
            let mut aliases = Vec::new();
            for text in specs {
                let spec: Spec = text.parse().map_err(|error| SpecError::Syntax {
                    engine: name.clone(),
                    quantity: quantity.key(),
                    spec: text,
                    error,
                })?;
                aliases.push(self.alias(spec, RowKind::Server, &labels, quantity.fold()));
            }
            reads.push(Read { what: What::Server(quantity), aliases });
        }
        let mut all = reads.iter().flat_map(|read| &read.aliases);
        if all.all(|alias| alias.slots().next().is_none()) {
            return Err(SpecError::ReadsNothing { engine: name });
        }
        self.lora |= lora;
        Ok(Engine { name, reads, lora })
    }

    fn picker(&mut self) -> Engine {
        let reads = PickerRead::all().map(|read| {
            let kind = match read {
                PickerRead::Model(_) => RowKind::Model,
                PickerRead::Pool(_) => RowKind::Pool,
                PickerRead::PodQueue => RowKind::Pod,
            };
            let aliases = read.aliases().into_iter().map(|alias| {
                let spec = alias.spec.parse().expect("the picker's table can be read");
                let labels = alias.labels.map(Into::into);
                self.alias(spec, kind, &labels, read.fold())
            });
            Read { what: What::Picker(read), aliases: aliases.collect() }
        });
        Engine { name: PICKER.into(), reads: reads.collect(), lora: false }
    }

    fn alias(&mut self, spec: Spec, kind: RowKind, labels: &[Box<str>; 2], fold: Fold) -> Alias {
        let mut term = |operand: &Operand| match operand {
            Operand::Number(number) => Term::Number(*number),
            Operand::Series(series) => {
                let series = series.clone();
                Term::Slot(self.slot(Slot { series, kind, labels: labels.clone(), fold }))
            }
        };
        let (left, right) = match &spec {
            Spec::Operand(operand) => (term(operand), None),
            Spec::Combined(left, operator, right) => (term(left), Some((*operator, term(right)))),
        };
        Alias { spec: Arc::new(spec), left, right }
    }

    fn slot(&mut self, slot: Slot) -> SlotId {
        if let Some(id) = self.known.get(&slot) {
            return *id;
        }
        let id = SlotId::try_from(self.slots.len());
        let id = id.expect("engines, quantities and aliases are limited to fewer");
        self.slots.push(slot.clone());
        self.known.insert(slot, id);
        id
    }

    fn table(self, engines: Vec<Engine>) -> Table {
        let names = self.slots.iter().map(|slot| slot.series.name.clone());
        let wanted = Wanted::new(names.chain(self.lora.then(|| builtin::LORA.into())));
        let mut slots_of = vec![Vec::new(); wanted.len()];
        for (id, slot) in (0..).zip(&self.slots) {
            if let Some(name) = wanted.id_of(&slot.series.name) {
                slots_of[name.index()].push(id);
            }
        }
        let lora = self.lora.then(|| wanted.id_of(builtin::LORA)).flatten();
        Table { wanted: Arc::new(wanted), slots: self.slots, slots_of, lora, engines }
    }
}
