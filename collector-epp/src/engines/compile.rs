//! From the description of every engine to the table that a reader looks into.

use std::collections::HashMap;
use std::sync::Arc;

use collector_engines::{
    ENDPOINT_PICKER, Engines, Expression, Fold, LabelMatcher, MatchOperator, Quantity, Series,
};

use super::bits::Bits;
use super::picker::PickerRead;
use super::table::{
    Alternative, Engine, LabelsId, Read, RowKind, RowLabels, Slot, SlotId, Table, Use, What,
};
use crate::scan::{NameId, Wanted};

/// When a process was started, by its own clock: what the client libraries of all languages show.
const PROCESS_START: &str = "process_start_time_seconds";

/// The table of these engines and the Endpoint Picker.
pub(super) fn table(engines: &Engines) -> Table {
    let names = engines.iter().flat_map(|engine| {
        let required = engine.required.iter().chain(&engine.lora);
        engine.sample_names().map(Box::from).chain(required.cloned())
    });
    let of_picker = PickerRead::all().flat_map(PickerRead::aliases);
    let of_picker = of_picker.flat_map(|alias| {
        let series = picker_expression(&alias.spec);
        series.series().into_iter().map(|series| series.name.clone()).collect::<Vec<_>>()
    });
    let routers = Engines::router_names().map(Box::from);
    let mut names: Vec<Box<str>> =
        names.chain(of_picker).chain(routers).chain([PROCESS_START.into()]).collect();
    names.sort_unstable();
    names.dedup();
    let wanted = Arc::new(Wanted::new(names));

    let mut compiler = Compiler { slots: Vec::new(), known: HashMap::new(), labels: Vec::new() };
    let mut all: Vec<Engine> =
        engines.iter().map(|engine| compiler.server(engine, &wanted)).collect();
    all.push(compiler.picker());
    compiler.table(all, wanted)
}

fn picker_expression(text: &str) -> Expression {
    text.parse().expect("the Endpoint Picker's table can be read")
}

struct Compiler {
    slots: Vec<Slot>,
    known: HashMap<Slot, SlotId>,
    labels: Vec<RowLabels>,
}

impl Compiler {
    fn server(&mut self, engine: &collector_engines::Engine, wanted: &Wanted) -> Engine {
        let replica = engine.replica_label.iter().cloned().collect();
        let labels = self.labels(RowLabels {
            kind: RowKind::Server,
            names: [engine.model_labels.clone(), engine.rank_labels.clone(), replica],
            role: engine.role_label.clone(),
        });
        let reads = engine.metrics().map(|(quantity, alternatives)| {
            let alternatives = alternatives.iter().map(|spec| {
                let is_gauge = is_gauge(quantity);
                self.alternative(spec, labels, quantity.fold(), is_gauge)
            });
            Read { what: What::Server(quantity), alternatives: alternatives.collect() }
        });
        let id = |name: &str| wanted.id_of(name);
        Engine {
            name: engine.name.clone(),
            reads: reads.collect(),
            slots: Bits::none(0),
            reports: engine
                .metrics()
                .filter(|(_, alternatives)| !alternatives.is_empty())
                .map(|(quantity, _)| quantity)
                .collect(),
            required: engine.required.iter().filter_map(|name| id(name)).collect(),
            model: engine.model.clone(),
            no_models: engine.no_models.clone(),
            ignore_case: engine.ignore_case,
            lora: engine.lora.as_deref().and_then(id),
        }
    }

    fn picker(&mut self) -> Engine {
        let reads = PickerRead::all().map(|read| {
            let kind = match read {
                PickerRead::Model(_) => RowKind::Model,
                PickerRead::Pool(_) => RowKind::Pool,
                PickerRead::PodQueue => RowKind::Pod,
            };
            let alternatives = read.aliases().into_iter().map(|alias| {
                let list = |label: &str| match label {
                    "" => Vec::new(),
                    label => vec![label.into()],
                };
                let [first, second] = alias.labels.map(list);
                let names = [first, second, Vec::new()];
                let labels = self.labels(RowLabels { kind, names, role: None });
                self.alternative(&picker_expression(&alias.spec), labels, read.fold(), false)
            });
            Read { what: What::Picker(read), alternatives: alternatives.collect() }
        });
        Engine {
            name: ENDPOINT_PICKER.into(),
            reads: reads.collect(),
            slots: Bits::none(0),
            reports: [].into(),
            required: Vec::new(),
            model: None,
            no_models: Vec::new(),
            ignore_case: false,
            lora: None,
        }
    }

    fn alternative(
        &mut self,
        spec: &Expression,
        labels: LabelsId,
        fold: Fold,
        is_gauge: bool,
    ) -> Alternative {
        let compiled = spec.map(&mut |series: &Series| {
            self.slot(Slot { series: series.clone(), labels, fold, is_gauge })
        });
        Alternative { spec: Arc::new(without_absent_labels(spec)), compiled }
    }

    fn labels(&mut self, labels: RowLabels) -> LabelsId {
        let known = self.labels.iter().position(|known| *known == labels);
        let at = known.unwrap_or_else(|| {
            self.labels.push(labels);
            self.labels.len() - 1
        });
        LabelsId::try_from(at).expect("there are fewer engines than ids")
    }

    fn slot(&mut self, slot: Slot) -> SlotId {
        if let Some(id) = self.known.get(&slot) {
            return *id;
        }
        let id = SlotId::try_from(self.slots.len());
        let id = id.expect("engines, quantities and alternatives are limited to fewer");
        self.slots.push(slot.clone());
        self.known.insert(slot, id);
        id
    }

    fn table(self, mut engines: Vec<Engine>, wanted: Arc<Wanted>) -> Table {
        for engine in &mut engines {
            engine.slots = Bits::none(self.slots.len());
            let expressions = engine.reads.iter().flat_map(|read| &read.alternatives);
            for slot in expressions.flat_map(|it| it.compiled.series()) {
                engine.slots.insert(*slot as usize);
            }
        }
        let mut slots_of = vec![Vec::new(); wanted.len()];
        for (id, slot) in (0..).zip(&self.slots) {
            if let Some(name) = wanted.id_of(&slot.series.name) {
                slots_of[name.index()].push(id);
            }
        }
        for slots in &mut slots_of {
            // Slots whose rows have the same names look a row up once.
            slots.sort_by_key(|id: &SlotId| self.slots[*id as usize].labels);
        }
        let mut uses = vec![Use::None; wanted.len()];
        let mut set = |name: NameId, what| uses[name.index()] = what;
        engines.iter().filter_map(|engine| engine.lora).for_each(|name| set(name, Use::Lora));
        wanted.id_of(PROCESS_START).into_iter().for_each(|name| set(name, Use::ProcessStart));
        for name in Engines::router_names() {
            if let (Some(id), Some(router)) = (wanted.id_of(name), Engines::router_of(name)) {
                set(id, Use::Router(router));
            }
        }
        Table { slots: self.slots, slots_of, labels: self.labels, uses, engines, wanted }
    }
}

/// An expression as people are told it: without the labels that its series must not have.
fn without_absent_labels(spec: &Expression) -> Expression {
    spec.map(&mut |series: &Series| {
        let is_absent = |matcher: &LabelMatcher| {
            matcher.operator == MatchOperator::Is && matcher.value.is_empty()
        };
        let matchers = series.matchers.iter().filter(|matcher| !is_absent(matcher));
        Series { matchers: matchers.cloned().collect(), ..series.clone() }
    })
}

/// Whether the number is of the moment, so that each process of a server knows only its own part.
fn is_gauge(quantity: Quantity) -> bool {
    !quantity.is_counter() && !quantity.is_configuration()
}
