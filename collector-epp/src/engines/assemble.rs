// SPDX-License-Identifier: Apache-2.0
//! Recognises the engine of a metrics page, and makes rows of its samples.

use std::collections::HashMap;
use std::sync::Arc;

use collector_core::{EngineName, ModelId};
use collector_engines::{ENDPOINT_PICKER, Expression, Fold, Quantity, Series};

use super::bits::Bits;
use super::cells::{Cells, Reading};
use super::exposition::{
    Buckets, EngineRow, Exposition, Matched, NoModel, ServerExposition, UnknownExposition,
};
use super::reader::{Choice, ExpositionReader};
use super::rows::{RowId, Rows};
use super::table::{Alternative, Engine, Read, SlotId, Table};
use crate::scan::Summary;

impl ExpositionReader {
    /// Returns the content of the page, and is ready for the next one. `summary` is the scanner's: a sum that may
    /// lack a malformed line is unknown.
    ///
    /// # Errors
    /// The page belongs to no known engine, or not to the expected one.
    pub fn finish(&mut self, summary: &Summary) -> Result<Exposition, UnknownExposition> {
        let page = page(self, summary);
        self.reset();
        page
    }
}

fn page(reader: &mut ExpositionReader, summary: &Summary) -> Result<Exposition, UnknownExposition> {
    let table = Arc::clone(&reader.table);
    let best = best(reader, None);
    let of = match &reader.forced {
        Some(forced) => self::best(reader, Some(forced)),
        None => best,
    };
    let (Some(of), None) = (of, reader.router) else {
        let looks_like = best.map(|best| match best {
            Kind::Server(index) => table.engines[index].name.clone(),
            Kind::EndpointPicker => ENDPOINT_PICKER.into(),
        });
        let (expected, router) = (reader.forced.clone(), reader.router);
        return Err(UnknownExposition { expected, looks_like, router });
    };
    let Kind::Server(index) = of else {
        let mut endpoint_picker = std::mem::take(&mut reader.endpoint_picker);
        let may_lack = |name: &str| reader.may_lack(name, summary);
        let page = endpoint_picker.finish(&table.endpoint_picker, may_lack);
        return Ok(Exposition::EndpointPicker(page));
    };
    let engine = &table.engines[index];
    let choice = choice(reader, engine, index);
    let matched = Arc::clone(&choice.matched);
    let mut found = Found::new(reader, engine, &choice, summary);
    let (repeated, beyond_limit) = (found.cells.repeated, found.beyond_limit);
    let rows = server_rows(&mut found, &table);
    let reasons = found.per_process();
    let no_model = found.no_model.clone();
    let lora = std::mem::take(&mut reader.lora);
    Ok(Exposition::Server(ServerExposition {
        engine: engine.name.clone(),
        rows,
        no_model,
        ignore_case: engine.ignore_case,
        reports: Arc::clone(&engine.reports),
        reasons,
        process_start: reader.process_start,
        lora: engine.lora.and_then(|name| lora.into_adapters(name)),
        has_buckets: reader.has_buckets,
        matched,
        repeated,
        beyond_limit,
    }))
}

/// The kind of server that a page belongs to.
#[derive(Clone, Copy)]
enum Kind {
    /// A model server of the engine at this index of the table.
    Server(usize),
    EndpointPicker,
}

/// Returns the kind that fits a page best, among all or those with the forced name: first an engine whose model is
/// known, then one whose labels name a model rather than one that was given it, then the one with the most numbers.
/// Of equals the first is used; the endpoint picker comes last.
fn best(reader: &ExpositionReader, forced: Option<&EngineName>) -> Option<Kind> {
    let mut best: Option<((bool, bool, usize), Kind)> = None;
    let mut consider = |fit: (bool, bool, usize), kind| {
        if fit.2 > 0 && best.is_none_or(|(other, _)| fit > other) {
            best = Some((fit, kind));
        }
    };
    let is_asked = |name: &str| forced.is_none_or(|forced| forced.as_str() == name);
    for (index, engine) in reader.table.engines.iter().enumerate() {
        let score = if is_asked(engine.name.as_str()) { score(engine, reader) } else { 0 };
        if score > 0 {
            let labels = labels(engine, reader);
            let is_given = engine.model.is_some() || reader.given.is_some();
            let fit = (is_given || labels == Labels::Model, labels != Labels::None, score);
            consider(fit, Kind::Server(index));
        }
    }
    if is_asked(ENDPOINT_PICKER) {
        let numbers = reader.endpoint_picker.count(&reader.table.endpoint_picker);
        consider((true, true, numbers), Kind::EndpointPicker);
    }
    best.map(|(_, kind)| kind)
}

/// Returns how many of an engine's numbers are on the page. Constants are not counted.
fn score(engine: &Engine, reader: &ExpositionReader) -> usize {
    let is_seen = engine.required.iter().all(|name| reader.seen.has(name.index()));
    if !is_seen || !engine.slots.meets(&reader.present) {
        return 0;
    }
    let says = |read: &&Read| {
        let complete = |alternative: &Alternative| {
            alternative.compiled.is_complete(|slot| reader.present.has(*slot as usize))
        };
        read.alternatives.iter().any(complete)
    };
    engine.reads.iter().filter(says).count()
}

/// The content of an engine's model labels on a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Labels {
    /// Nothing.
    None,
    /// Something that is no model's id.
    NoModel,
    /// The id of a model.
    Model,
}

fn labels(engine: &Engine, reader: &ExpositionReader) -> Labels {
    let mut found = Labels::None;
    for reading in &reader.readings {
        let [Some(name), ..] = reader.rows.key(reading.row) else { continue };
        if !engine.slots.has(reading.slot as usize) {
            continue;
        }
        if engine.names_model(name) {
            return Labels::Model;
        }
        found = Labels::NoModel;
    }
    found
}

/// The numbers of one engine on a page.
struct Found<'a> {
    rows: &'a Rows,
    per_process: &'a [SlotId],
    engine: &'a Engine,
    /// The numbers on the page, each with the alternative that is used.
    chosen: Vec<(Quantity, &'a Alternative)>,
    cells: Cells,
    /// The slots of which samples may be missing.
    lacking: Bits,
    /// The histograms of the page, by slot and row.
    histograms: HashMap<(SlotId, RowId), Buckets>,
    /// The model of all rows.
    given: Option<ModelId>,
    no_model: Option<NoModel>,
    with_increases: bool,
    beyond_limit: u64,
}

/// Returns the alternatives that are used: those of the previous page if this one has the same series.
fn choice(reader: &mut ExpositionReader, engine: &Engine, place: usize) -> Arc<Choice> {
    let same = |it: &&Arc<Choice>| it.engine == place && it.present == reader.present;
    if let Some(known) = reader.choice.as_ref().filter(same) {
        return Arc::clone(known);
    }
    let present = reader.present.clone();
    let complete = |alternative: &Alternative| {
        let compiled = &alternative.compiled;
        compiled.is_constant() || compiled.is_complete(|slot| present.has(*slot as usize))
    };
    let reads = engine.reads.iter().enumerate();
    let alternatives: Vec<(usize, usize)> =
        reads.filter_map(|(at, read)| Some((at, engine.chosen(read, complete)?))).collect();
    let mut counts = Bits::none(reader.table.slots.len());
    let mut matched = Vec::new();
    for (read, alternative) in &alternatives {
        let read = &engine.reads[*read];
        let Alternative { spec, compiled, .. } = &read.alternatives[*alternative];
        matched.push(Matched { quantity: read.quantity, spec: Arc::clone(spec) });
        compiled.series().into_iter().for_each(|slot| counts.insert(*slot as usize));
    }
    let matched = matched.into();
    let choice = Arc::new(Choice { engine: place, present, alternatives, counts, matched });
    reader.choice = Some(Arc::clone(&choice));
    choice
}

impl<'a> Found<'a> {
    fn new(
        reader: &'a mut ExpositionReader,
        engine: &'a Engine,
        choice: &Choice,
        summary: &Summary,
    ) -> Self {
        let alternative = |(read, alternative): &(usize, usize)| {
            let read = &engine.reads[*read];
            (read.quantity, &read.alternatives[*alternative])
        };
        let chosen: Vec<(Quantity, &Alternative)> =
            choice.alternatives.iter().map(alternative).collect();
        let mut readings = std::mem::take(&mut reader.readings);
        readings.retain(|reading| choice.counts.has(reading.slot as usize));
        // The model of a target overrides that of an engine, and both override the page.
        let given = reader.given.clone().or_else(|| engine.model.clone());
        let told = told_models(engine, &reader.rows, &readings);
        let no_model = match &given {
            Some(given) => keep_one_model(engine, given, &told, &reader.rows, &mut readings),
            None => no_model(engine, &told),
        };
        for reading in &mut readings {
            if reader.by_process.contains(&(reading.slot, reading.row)) {
                reading.value = None;
            }
        }
        let mut used = vec![false; reader.rows.len()];
        for reading in &readings {
            used[usize::from(reading.row)] = true;
        }
        let homes = reader.rows.homes(&used);
        let histograms = std::mem::take(&mut reader.buckets).histograms(
            &homes,
            |slot| chosen.iter().any(|(_, alternative)| alternative.histogram == Some(slot)),
            |name| reader.may_lack(reader.table.with_buckets.name(name), summary),
        );
        for reading in &mut readings {
            reading.row = homes[usize::from(reading.row)];
        }
        let mut last_values = reader.last_values.take();
        let fold = |slot: SlotId| {
            let slot = reader.table.slot(slot);
            let unknown = slot.fold == Fold::Sum && reader.may_lack(&slot.series.name, summary);
            (!unknown).then_some(slot.fold)
        };
        let cells = Cells::new(&mut readings, fold, last_values.as_mut());
        let with_increases = last_values.is_some();
        let mut lacking = Bits::none(reader.table.slots.len());
        for (place, slot) in reader.table.slots.iter().enumerate() {
            if choice.counts.has(place) && reader.may_lack(&slot.series.name, summary) {
                lacking.insert(place);
            }
        }
        reader.last_values = last_values;
        // Its memory is reused.
        reader.readings = readings;
        Self {
            rows: &reader.rows,
            per_process: &reader.per_process,
            engine,
            chosen,
            cells,
            lacking,
            histograms,
            given: given.filter(|_| no_model.is_none()),
            no_model,
            with_increases,
            beyond_limit: reader.beyond_limit,
        }
    }

    /// Returns the gauges that only single processes of the server report, with the reason.
    fn per_process(&self) -> Vec<(Quantity, Arc<str>)> {
        let lacks =
            |read: &&Read| !self.chosen.iter().any(|(quantity, _)| *quantity == read.quantity);
        let reason = |read: &Read| {
            let alternative = read.alternatives.iter().find(|alternative| {
                let slots = alternative.compiled.series();
                slots.into_iter().any(|slot| self.per_process.contains(slot))
            })?;
            let series = alternative.spec.series();
            Some((read.quantity, each_process(&series.first()?.name)))
        };
        self.engine.reads.iter().filter(lacks).filter_map(reason).collect()
    }
}

/// The reason why a gauge of several processes is unknown.
fn each_process(name: &str) -> Arc<str> {
    format!(
        "{name} has a value of each process (label pid) and none of the server: only the process that \
         wrote last is right"
    )
    .into()
}

/// Returns the distinct values of the model labels of these readings, in order.
fn told_models(engine: &Engine, rows: &Rows, readings: &[Reading]) -> Vec<Arc<str>> {
    let mut told: Vec<Arc<str>> = Vec::new();
    let mut rows_seen = vec![false; rows.len()];
    for reading in readings {
        let row = usize::from(reading.row);
        if std::mem::replace(&mut rows_seen[row], true) {
            continue;
        }
        if let [Some(model), ..] = rows.key(reading.row) {
            told.push(Arc::clone(model));
        }
    }
    told.sort_unstable();
    told.dedup();
    // Values that are no model's id come last, in the order in which the engine lists them.
    told.sort_by_key(|model| engine.no_models.iter().position(|name| **name == **model));
    told
}

fn no_model(engine: &Engine, told: &[Arc<str>]) -> Option<NoModel> {
    if told.iter().any(|model| engine.names_model(model)) {
        return None;
    }
    Some(match told.first() {
        Some(name) => NoModel::NoId((&**name).into()),
        None => NoModel::NoLabel,
    })
}

/// Keeps the readings of the given model: those under its own name, else those under the only name on the page, else
/// those under a name for the whole deployment. Readings without a model stay.
fn keep_one_model(
    engine: &Engine,
    given: &ModelId,
    told: &[Arc<str>],
    rows: &Rows,
    readings: &mut Vec<Reading>,
) -> Option<NoModel> {
    let own = told.iter().find(|model| ***model == *given.as_str());
    let mut names = told.iter().filter(|model| engine.names_model(model));
    let kept = match (own, names.next(), names.next()) {
        (Some(own), ..) => own,
        (None, Some(_), Some(_)) => {
            return Some(NoModel::Several(told.iter().map(|name| (&**name).into()).collect()));
        }
        (None, Some(only), None) => only,
        (None, None, _) => told.first()?,
    };
    readings.retain(|reading| {
        let [model, ..] = rows.key(reading.row);
        model.as_ref().is_none_or(|model| model == kept)
    });
    None
}

fn server_rows(found: &mut Found<'_>, table: &Table) -> Vec<EngineRow> {
    let has_times = found.cells.has_times();
    let mut histograms = std::mem::take(&mut found.histograms);
    let found = &*found;
    let rows = found.cells.rows().into_iter().map(|id| {
        let [model, rank, replica] = found.rows.key(id);
        let mut row = EngineRow {
            model: found.given.clone().or_else(|| model.clone().map(ModelId::new)),
            rank: rank.clone(),
            replica: replica.clone(),
            role: found.rows.role(id),
            increases: found.with_increases.then(Box::default),
            ..EngineRow::default()
        };
        for (quantity, alternative) in &found.chosen {
            fill(&mut row, *quantity, alternative, id, found, table);
            if has_times && let Some(time) = found.cells.time(&alternative.compiled, id) {
                row.times.push((*quantity, time));
            }
            let buckets = alternative.histogram.and_then(|slot| histograms.remove(&(slot, id)));
            row.buckets.extend(buckets.map(|buckets| (*quantity, buckets)));
        }
        row
    });
    let mut rows: Vec<EngineRow> = rows.collect();
    rows.sort_by(|a, b| {
        // Ranks are sorted as numbers, before the row of the server.
        let number = |row: &EngineRow| {
            row.rank.as_deref().map_or(u64::MAX, |rank| rank.parse().unwrap_or(u64::MAX - 1))
        };
        (&a.model, &a.replica, number(a), &a.rank).cmp(&(&b.model, &b.replica, number(b), &b.rank))
    });
    rows
}

/// Sets one number of a row.
fn fill(
    row: &mut EngineRow,
    quantity: Quantity,
    alternative: &Alternative,
    id: RowId,
    found: &Found<'_>,
    table: &Table,
) {
    let Alternative { spec, compiled, .. } = alternative;
    // An optional part is 0 only if it is absent.
    let is_unknown = |slot: &SlotId| {
        let is_absent = !found.cells.has(*slot, id);
        found.cells.is_unreadable(*slot, id) || (is_absent && found.lacking.has(*slot as usize))
    };
    let is_unknown = compiled.reads_any(is_unknown);
    let value = if is_unknown { None } else { found.cells.value(compiled, id) };
    if value.is_none()
        && let Some(reason) = why_unknown(spec, compiled, id, found, table)
    {
        row.reasons.push((quantity, reason));
    }
    row.numbers[quantity] = value.map(|value| value * unit(quantity, spec));
    if let Some(increases) = row.increases.as_deref_mut()
        && quantity.is_counter()
    {
        increases[quantity] = found.cells.increase(compiled, id);
    }
}

/// Returns the factor that converts a number to its unit: a hit rate may be in percent.
fn unit(quantity: Quantity, spec: &Expression) -> f64 {
    let in_percent = |series: &&Series| series.name.contains("percent");
    let is_rate = quantity == Quantity::PrefixCacheHitRate;
    if is_rate && spec.series().iter().any(in_percent) { 0.01 } else { 1.0 }
}

/// Returns why a number is unknown although its series are on the page.
fn why_unknown(
    spec: &Expression,
    compiled: &Expression<SlotId>,
    id: RowId,
    found: &Found<'_>,
    table: &Table,
) -> Option<Arc<str>> {
    if !compiled.reads_any(|slot| found.cells.has(*slot, id)) {
        return None;
    }
    let slots = compiled.series();
    if let Some(slot) = slots.iter().find(|slot| found.cells.is_unreadable(***slot, id)) {
        let slot = table.slot(**slot);
        let name = &slot.series.name;
        return match &slot.series.number_in {
            Some(label) => Some(format!("the label {label} of {name} holds no number").into()),
            None if slot.is_gauge => Some(each_process(name)),
            None => None,
        };
    }
    let is_lacking =
        |slot: &&&SlotId| found.lacking.has(***slot as usize) && !found.cells.has(***slot, id);
    if let Some(slot) = slots.iter().find(is_lacking) {
        let name = &table.slot(**slot).series.name;
        return Some(format!("lines of {name} cannot be read").into());
    }
    let all_there = compiled
        .required()
        .iter()
        .all(|slot| found.cells.has(**slot, id) && !found.cells.is_unreadable(**slot, id));
    (all_there && !slots.is_empty()).then(|| format!("{spec} divides by 0").into())
}
