// SPDX-License-Identifier: Apache-2.0
//! Compiles the description of every engine into the table that a reader looks into.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use collector_core::EngineName;
use collector_engines::{
    ENDPOINT_PICKER, EngineSpec, Engines as Described, Expression, LabelMatcher, MatchOperator,
    Quantity, Series, SpecError,
};

use super::bits::Bits;
use super::reader::ExpositionReader;
use super::table::{Alternative, Engine, LabelsId, Read, RowLabels, Slot, SlotId, Table, Use};
use crate::endpoint_picker;
use crate::scan::{NameId, Wanted};

/// The built-in engines and those of the user, compiled into the series that a reader looks for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Engines(Arc<Table>);

/// The start time of a process, which the client libraries of all languages export.
const PROCESS_START: &str = "process_start_time_seconds";

impl Engines {
    /// The built-in engines.
    pub fn builtin() -> Self {
        Self::of(&Described::builtin())
    }

    /// The built-in engines, and those of a user.
    ///
    /// # Errors
    /// The first invalid setting, with the engine, the key and the position.
    pub fn new(specs: &[EngineSpec]) -> Result<Self, SpecError> {
        Ok(Self::of(&Described::new(specs)?))
    }

    /// These engines, compiled.
    pub fn of(engines: &Described) -> Self {
        Self(Arc::new(table(engines)))
    }

    /// Returns the sample names that a scanner must look for.
    pub fn wanted(&self) -> &Arc<Wanted> {
        &self.0.wanted
    }

    /// Whether a sample name is that of a gauge of a model server.
    pub(crate) fn has_gauge(&self, name: &str) -> bool {
        let id = self.0.wanted.id_of(name);
        id.is_some_and(|id| self.0.gauges[id.index()].is_some())
    }

    /// Returns the same names and those of the buckets of histograms, for a reader that
    /// [reads them](ExpositionReader::set_buckets).
    pub fn wanted_with_buckets(&self) -> &Arc<Wanted> {
        &self.0.with_buckets
    }

    /// The names of the engines, each once, and the endpoint picker's `epp`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let engines = &self.0.engines;
        let is_first =
            |at: usize| !engines[..at].iter().any(|other| other.name == engines[at].name);
        let first = (0..engines.len()).filter(move |at| is_first(*at));
        first.map(|at| engines[at].name.as_str()).chain([ENDPOINT_PICKER])
    }

    /// Returns the expressions of a quantity of an engine, in order of preference; none if there is no such engine
    /// or quantity.
    pub fn looked_for(&self, engine: &EngineName, quantity: Quantity) -> Vec<Arc<Expression>> {
        let engine = self.0.engines.iter().find(|known| known.name == *engine);
        let reads = engine.into_iter().flat_map(|engine| &engine.reads);
        reads
            .filter(|read| read.quantity == quantity)
            .flat_map(|read| &read.alternatives)
            .map(|alternative| Arc::clone(&alternative.spec))
            .collect()
    }

    /// Returns a reader that recognises the engine of each page.
    pub fn reader(&self) -> ExpositionReader {
        ExpositionReader::new(Arc::clone(&self.0), None)
    }

    /// Returns a reader for pages of one engine; `None` if there is no engine of this name.
    pub fn reader_of(&self, engine: &EngineName) -> Option<ExpositionReader> {
        let is_known = self.names().any(|known| known == engine.as_str());
        is_known.then(|| ExpositionReader::new(Arc::clone(&self.0), Some(engine.clone())))
    }
}

/// The table of these engines.
fn table(engines: &Described) -> Table {
    let names = engines.iter().flat_map(|engine| {
        let required = engine.required.iter().chain(&engine.lora);
        engine.sample_names().map(Box::from).chain(required.cloned())
    });
    let routers = Described::router_names().map(Box::from);
    let names: BTreeSet<Box<str>> = names
        .chain(endpoint_picker::Names::all())
        .chain(routers)
        .chain([PROCESS_START.into()])
        .collect();
    let buckets: BTreeSet<Box<str>> = engines.iter().flat_map(bucket_names).collect();
    let with_buckets = Wanted::new(names.union(&buckets).cloned());
    let wanted = with_buckets.only(|name| names.contains(name));

    let mut compiler = Compiler::default();
    let all = engines.iter().map(|engine| compiler.engine(engine, &with_buckets)).collect();
    compiler.table(all, Arc::new(with_buckets), Arc::new(wanted))
}

/// The names of the buckets of an engine's latencies.
fn bucket_names(engine: &collector_engines::Engine) -> Vec<Box<str>> {
    let of_count = |count| {
        let indices = 0..engine.alternatives(count).len();
        indices.filter_map(move |index| Some(engine.buckets(count, index)?.name))
    };
    Quantity::LATENCY_COUNTS.into_iter().flat_map(of_count).collect()
}

#[derive(Default)]
struct Compiler {
    slots: Slots,
    histograms: Slots,
    labels: Vec<RowLabels>,
}

/// Slots, each once.
#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    known: HashMap<Slot, SlotId>,
}

impl Slots {
    fn id_of(&mut self, slot: Slot) -> SlotId {
        if let Some(id) = self.known.get(&slot) {
            return *id;
        }
        let id = SlotId::try_from(self.all.len());
        let id = id.expect("engines, quantities and alternatives are limited to fewer");
        self.all.push(slot.clone());
        self.known.insert(slot, id);
        id
    }
}

impl Compiler {
    fn engine(&mut self, engine: &collector_engines::Engine, wanted: &Wanted) -> Engine {
        let replica = engine.replica_label.iter().cloned().collect();
        let labels = self.labels(RowLabels {
            names: [engine.model_labels.clone(), engine.rank_labels.clone(), replica],
            role: engine.role_label.clone(),
        });
        let reads = engine.metrics().map(|(quantity, alternatives)| {
            let alternatives = alternatives.iter().enumerate().map(|(index, spec)| {
                let is_latency = Quantity::LATENCY_COUNTS.contains(&quantity);
                let buckets = is_latency.then(|| engine.buckets(quantity, index)).flatten();
                self.alternative(spec, labels, quantity, buckets)
            });
            Read { quantity, alternatives: alternatives.collect() }
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

    fn alternative(
        &mut self,
        spec: &Expression,
        labels: LabelsId,
        quantity: Quantity,
        buckets: Option<Series>,
    ) -> Alternative {
        let (fold, is_gauge) = (quantity.fold(), is_gauge(quantity));
        let slot = |series| Slot { series, labels, fold, is_gauge };
        let compiled = spec.map(&mut |series: &Series| self.slots.id_of(slot(series.clone())));
        let histogram = buckets.map(|series| self.histograms.id_of(slot(series)));
        Alternative { spec: Arc::new(without_absent_labels(spec)), compiled, histogram }
    }

    fn labels(&mut self, labels: RowLabels) -> LabelsId {
        let known = self.labels.iter().position(|known| *known == labels);
        let at = known.unwrap_or_else(|| {
            self.labels.push(labels);
            self.labels.len() - 1
        });
        LabelsId::try_from(at).expect("there are fewer engines than ids")
    }

    fn table(
        self,
        mut engines: Vec<Engine>,
        with_buckets: Arc<Wanted>,
        wanted: Arc<Wanted>,
    ) -> Table {
        let (slots, histograms) = (self.slots.all, self.histograms.all);
        for engine in &mut engines {
            engine.slots = Bits::none(slots.len());
            let expressions = engine.reads.iter().flat_map(|read| &read.alternatives);
            for slot in expressions.flat_map(|it| it.compiled.series()) {
                engine.slots.insert(*slot as usize);
            }
        }
        let mut slots_of = vec![Vec::new(); with_buckets.len()];
        for (id, slot) in (0..).zip(&slots) {
            if let Some(name) = with_buckets.id_of(&slot.series.name) {
                slots_of[name.index()].push(id);
            }
        }
        for of_name in &mut slots_of {
            // Consecutive slots with the same labels look up their row once.
            of_name.sort_by_key(|id: &SlotId| slots[*id as usize].labels);
        }
        let mut histograms_of: HashMap<NameId, Vec<SlotId>> = HashMap::new();
        for (id, histogram) in (0..).zip(&histograms) {
            if let Some(name) = with_buckets.id_of(&histogram.series.name) {
                histograms_of.entry(name).or_default().push(id);
            }
        }
        let mut uses = vec![Use::None; with_buckets.len()];
        let mut set = |name: NameId, what| uses[name.index()] = what;
        for name in histograms_of.keys() {
            set(*name, Use::Bucket);
        }
        engines.iter().filter_map(|engine| engine.lora).for_each(|name| set(name, Use::Lora));
        with_buckets.id_of(PROCESS_START).into_iter().for_each(|name| set(name, Use::ProcessStart));
        for name in Described::router_names() {
            if let (Some(id), Some(router)) = (with_buckets.id_of(name), Described::router_of(name))
            {
                set(id, Use::Router(router));
            }
        }
        let mut gauges = vec![None; wanted.len()];
        for slot in slots.iter().filter(|slot| slot.is_gauge) {
            if let Some(name) = wanted.id_of(&slot.series.name) {
                gauges[name.index()] = Some(Arc::from(wanted.name(name)));
            }
        }
        let endpoint_picker = endpoint_picker::Names::new(&with_buckets);
        endpoint_picker.ids().for_each(|name| set(name, Use::EndpointPicker));
        Table {
            slots,
            slots_of,
            histograms,
            histograms_of,
            labels: self.labels,
            uses,
            gauges,
            engines,
            endpoint_picker,
            with_buckets,
            wanted,
        }
    }
}

/// Returns an expression as people write it: without the labels that its series must not have.
fn without_absent_labels(spec: &Expression) -> Expression {
    spec.map(&mut |series: &Series| {
        let is_absent = |matcher: &LabelMatcher| {
            matcher.operator == MatchOperator::Is && matcher.value.is_empty()
        };
        let matchers = series.matchers.iter().filter(|matcher| !is_absent(matcher));
        Series { matchers: matchers.cloned().collect(), ..series.clone() }
    })
}

/// Whether the number is a gauge of the moment: each process of a server knows only its own part of it.
fn is_gauge(quantity: Quantity) -> bool {
    !quantity.is_counter() && !quantity.is_configuration()
}
