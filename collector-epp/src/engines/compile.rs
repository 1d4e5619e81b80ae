//! From what is said about engines, by us and by users, to the table.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use collector_core::EngineName;

use super::builtin::{self, Builtin};
use super::picker::{PICKER, PickerRead};
use super::quantity::{Fold, Quantity};
use super::spec::{Operand, Spec};
use super::table::{Alias, Engine, Read, RowKind, Slot, SlotId, Table, Term, What};
use super::user::{EngineSpec, SpecError};
use crate::scan::Wanted;

/// Engines that users may define.
const ENGINES_MAX: usize = 64;
/// Aliases that one quantity may have.
const ALIASES_MAX: usize = 16;

/// The table of the built-in engines and those of a user.
pub(super) fn table(specs: &[EngineSpec]) -> Result<Table, SpecError> {
    let mut compiler = Compiler::default();
    let mut engines = Vec::new();
    for definition in definitions(specs)? {
        engines.push(compiler.server(definition)?);
    }
    engines.push(compiler.picker());
    Ok(compiler.table(engines))
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
