//! Decides which engine a page is of, and puts its rows together.

use std::collections::BTreeMap;
use std::sync::Arc;

use collector_core::{ModelId, PodName};

use super::cells::Cells;
use super::page::{
    EngineRow, Ignored, Matched, Page, PickerModel, PickerPage, PickerPool, ServerPage, UnknownPage,
};
use super::picker::PickerRead;
use super::quantity::Fold;
use super::reader::PageReader;
use super::rows::{RowId, RowKey, Rows};
use super::table::{Alias, Engine, Read, RowKind, Table, What};
use crate::scan::Summary;

/// What the page of a reader says.
pub(super) fn page(reader: &mut PageReader, summary: &Summary) -> Page {
    let table = Arc::clone(&reader.table);
    let best = best(&table, &reader.present);
    let engine = match reader.forced {
        Some(forced) => Some(&table.engines[forced]).filter(|it| score(it, &reader.present) > 0),
        None => best,
    };
    let Some(engine) = engine else {
        let expected = reader.forced.map(|forced| table.engines[forced].name.clone());
        let looks_like = best.map(|engine| engine.name.clone());
        return Page::Unknown(UnknownPage { expected, looks_like });
    };
    let lora = std::mem::take(&mut reader.lora).into_adapters().filter(|_| engine.lora);
    let found = Found::new(reader, engine, summary);
    let (matched, ignored) = (found.matched(), found.ignored);
    if engine.is_picker() {
        let (per_model, per_pool) = (picker_models(&found), picker_pools(&found));
        Page::Picker(PickerPage { per_model, per_pool, matched, ignored })
    } else {
        let (engine, rows) = (engine.name.clone(), server_rows(&found));
        Page::Server(ServerPage { engine, rows, lora, matched, ignored })
    }
}

/// The engine of which the page has most; the first of equals.
fn best<'a>(table: &'a Table, present: &[bool]) -> Option<&'a Engine> {
    let scored = table.engines.iter().map(|engine| (score(engine, present), engine));
    let best = scored.filter(|(score, _)| *score > 0).rev().max_by_key(|(score, _)| *score);
    best.map(|(_, engine)| engine)
}

/// How many of an engine's numbers stand on the page. A constant says nothing.
fn score(engine: &Engine, present: &[bool]) -> usize {
    let says = |alias: &Alias| alias.slots().next().is_some() && is_present(alias, present);
    engine.reads.iter().filter(|read| read.aliases.iter().any(says)).count()
}

fn is_present(alias: &Alias, present: &[bool]) -> bool {
    alias.slots().all(|slot| present[usize::from(slot)])
}

/// What was found of one engine.
struct Found<'a> {
    rows: &'a Rows,
    /// The numbers that are on the page, each with the alias that counts.
    chosen: Vec<(What, &'a Alias)>,
    cells: Cells,
    ignored: Ignored,
}

impl<'a> Found<'a> {
    fn new(reader: &'a mut PageReader, engine: &'a Engine, summary: &Summary) -> Self {
        let present = &reader.present;
        let first = |read: &'a Read| {
            let alias = read.aliases.iter().find(|alias| is_present(alias, present))?;
            Some((read.what, alias))
        };
        let chosen: Vec<_> = engine.reads.iter().filter_map(first).collect();
        let mut counts = vec![false; present.len()];
        for slot in chosen.iter().flat_map(|(_, alias)| alias.slots()) {
            counts[usize::from(slot)] = true;
        }
        let mut readings = std::mem::take(&mut reader.readings);
        readings.retain(|reading| counts[usize::from(reading.slot)]);
        let mut used = vec![false; reader.rows.len()];
        for reading in &readings {
            used[usize::from(reading.row)] = true;
        }
        let homes = reader.rows.homes(&used);
        for reading in &mut readings {
            reading.row = homes[usize::from(reading.row)];
        }
        let cells = Cells::new(&mut readings, |slot| {
            let slot = &reader.table.slots[usize::from(slot)];
            let unknown = slot.fold == Fold::Sum && reader.is_spoiled(&slot.series.name, summary);
            (!unknown).then_some(slot.fold)
        });
        // Its room is for the next page.
        reader.readings = readings;
        let ignored = Ignored { repeated: cells.repeated, beyond_limit: reader.beyond_limit };
        Self { rows: &reader.rows, chosen, cells, ignored }
    }

    /// The rows of one kind, with what they are about.
    fn rows(&self, kind: RowKind) -> impl Iterator<Item = (RowId, &RowKey)> {
        let rows = self.cells.rows().into_iter();
        rows.map(|id| (id, self.rows.key(id))).filter(move |(_, key)| key.kind == kind)
    }

    fn matched(&self) -> Vec<Matched> {
        let matched = self
            .chosen
            .iter()
            .map(|(what, alias)| Matched { quantity: what.key(), spec: Arc::clone(&alias.spec) });
        matched.collect()
    }
}

fn server_rows(found: &Found<'_>) -> Vec<EngineRow> {
    let rows = found.rows(RowKind::Server).map(|(id, RowKey { names: [model, rank], .. })| {
        let mut row = EngineRow {
            model: model.clone().map(ModelId::new),
            rank: rank.clone(),
            ..EngineRow::default()
        };
        for (what, alias) in &found.chosen {
            if let What::Server(quantity) = what {
                *quantity.of(&mut row) = found.cells.value(alias, id);
            }
        }
        row
    });
    let mut rows: Vec<EngineRow> = rows.collect();
    rows.sort_by(|a, b| {
        // Ranks count, and come before what is given per server.
        let number = |row: &EngineRow| {
            row.rank.as_deref().map_or(u64::MAX, |rank| rank.parse().unwrap_or(u64::MAX - 1))
        };
        (&a.model, number(a), &a.rank).cmp(&(&b.model, number(b), &b.rank))
    });
    rows
}

fn picker_models(found: &Found<'_>) -> Vec<PickerModel> {
    let rows = found.rows(RowKind::Model).map(|(id, RowKey { names: [model, target], .. })| {
        let mut row = PickerModel {
            model: model.clone().map(ModelId::new),
            target: target.clone().map(ModelId::new),
            ..PickerModel::default()
        };
        for (what, alias) in &found.chosen {
            if let What::Picker(PickerRead::Model(quantity)) = what {
                *quantity.of(&mut row) = found.cells.value(alias, id);
            }
        }
        row
    });
    let mut rows: Vec<PickerModel> = rows.collect();
    rows.sort_by(|a, b| (&a.model, &a.target).cmp(&(&b.model, &b.target)));
    rows
}

fn picker_pools(found: &Found<'_>) -> Vec<PickerPool> {
    let mut pools: BTreeMap<Option<Arc<str>>, PickerPool> = BTreeMap::new();
    let named =
        |name: &Option<Arc<str>>| PickerPool { name: name.clone(), ..PickerPool::default() };
    for (id, RowKey { names: [name, _], .. }) in found.rows(RowKind::Pool) {
        let pool = pools.entry(name.clone()).or_insert_with(|| named(name));
        for (what, alias) in &found.chosen {
            if let What::Picker(PickerRead::Pool(quantity)) = what {
                *quantity.of(pool) = found.cells.value(alias, id);
            }
        }
    }
    let queue = found.chosen.iter().find(|(what, _)| *what == What::Picker(PickerRead::PodQueue));
    for (id, RowKey { names: [name, pod], .. }) in found.rows(RowKind::Pod) {
        let waiting = queue.and_then(|(_, alias)| found.cells.value(alias, id));
        if let (Some(pod), Some(waiting)) = (pod, waiting) {
            let pool = pools.entry(name.clone()).or_insert_with(|| named(name));
            pool.per_pod_queue.push((PodName::new(Arc::clone(pod)), waiting));
        }
    }
    let mut pools: Vec<PickerPool> = pools.into_values().collect();
    for pool in &mut pools {
        pool.per_pod_queue.sort_by(|a, b| a.0.cmp(&b.0));
    }
    pools
}
