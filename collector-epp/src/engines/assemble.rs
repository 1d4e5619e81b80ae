//! Decides which engine a page is of, and puts its rows together.

use std::sync::Arc;

use collector_core::{ModelId, PodName};

use super::cells::Cells;
use super::page::{
    EngineRow, Ignored, Matched, Page, PickerModel, PickerPage, PickerPool, ServerPage, UnknownPage,
};
use super::picker::PickerRead;
use super::quantity::{Fold, Quantity};
use super::reader::PageReader;
use super::rows::{RowId, RowKey};
use super::table::{Alias, Engine, Reads, RowKind, Table};
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
    match &engine.reads {
        Reads::Server { quantities, lora } => {
            let lora = std::mem::take(&mut reader.lora).into_adapters().filter(|_| *lora);
            let found = Found::new(reader, engine, summary);
            Page::Server(ServerPage {
                engine: engine.name.clone(),
                rows: server_rows(&found, quantities),
                lora,
                matched: found.matched(engine),
                ignored: found.ignored,
            })
        }
        Reads::Picker(reads) => {
            let found = Found::new(reader, engine, summary);
            Page::Picker(PickerPage {
                per_model: picker_models(&found, reads),
                per_pool: picker_pools(&found, reads),
                matched: found.matched(engine),
                ignored: found.ignored,
            })
        }
    }
}

/// The engine of which the page has most; the first of equals.
fn best<'a>(table: &'a Table, present: &[bool]) -> Option<&'a Engine> {
    let scored = table.engines.iter().map(|engine| (score(engine, present), engine));
    let best = scored.filter(|(score, _)| *score > 0).rev().max_by_key(|(score, _)| *score);
    best.map(|(_, engine)| engine)
}

/// How many of an engine's quantities stand on the page. A constant says nothing.
fn score(engine: &Engine, present: &[bool]) -> usize {
    let says = |alias: &Alias| alias.slots().next().is_some() && is_present(alias, present);
    engine.aliases().filter(|(_, aliases)| aliases.iter().any(says)).count()
}

fn is_present(alias: &Alias, present: &[bool]) -> bool {
    alias.slots().all(|slot| present[usize::from(slot)])
}

/// What was found of one engine.
struct Found<'a> {
    reader: &'a PageReader,
    /// For each of the engine's quantities its alias that counts, if one is on the page.
    chosen: Vec<Option<&'a Alias>>,
    cells: Cells,
    ignored: Ignored,
}

impl<'a> Found<'a> {
    fn new(reader: &'a mut PageReader, engine: &'a Engine, summary: &Summary) -> Self {
        let present = &reader.present;
        let first = |aliases: &'a [Alias]| aliases.iter().find(|alias| is_present(alias, present));
        let chosen: Vec<_> = engine.aliases().map(|(_, aliases)| first(aliases)).collect();
        let mut counts = vec![false; present.len()];
        for slot in chosen.iter().flatten().flat_map(|alias| alias.slots()) {
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
        Self { reader, chosen, cells, ignored }
    }

    /// The rows of one kind, with what they are about.
    fn rows(&self, kind: RowKind) -> impl Iterator<Item = (RowId, &RowKey)> {
        let rows = self.cells.rows().into_iter();
        rows.map(|id| (id, self.reader.rows.key(id))).filter(move |(_, key)| key.kind == kind)
    }

    fn matched(&self, engine: &Engine) -> Vec<Matched> {
        let both = engine.aliases().zip(&self.chosen);
        let matched = both.filter_map(|((quantity, _), alias)| {
            let spec = Arc::clone(&(*alias)?.spec);
            Some(Matched { quantity, spec })
        });
        matched.collect()
    }
}

fn server_rows(found: &Found<'_>, quantities: &[(Quantity, Vec<Alias>)]) -> Vec<EngineRow> {
    let rows = found.rows(RowKind::Server).map(|(id, RowKey { names: [model, rank], .. })| {
        let mut row = EngineRow {
            model: model.clone().map(ModelId::new),
            rank: rank.clone(),
            ..EngineRow::default()
        };
        for ((quantity, _), alias) in quantities.iter().zip(&found.chosen) {
            *quantity.of(&mut row) = alias.and_then(|alias| found.cells.value(alias, id));
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

fn picker_models(found: &Found<'_>, reads: &[(PickerRead, Vec<Alias>)]) -> Vec<PickerModel> {
    let rows = found.rows(RowKind::Model).map(|(id, RowKey { names: [model, target], .. })| {
        let mut row = PickerModel {
            model: model.clone().map(ModelId::new),
            target: target.clone().map(ModelId::new),
            ..PickerModel::default()
        };
        for ((read, _), alias) in reads.iter().zip(&found.chosen) {
            if let PickerRead::Model(quantity) = read {
                *quantity.of(&mut row) = alias.and_then(|alias| found.cells.value(alias, id));
            }
        }
        row
    });
    let mut rows: Vec<PickerModel> = rows.collect();
    rows.sort_by(|a, b| (&a.model, &a.target).cmp(&(&b.model, &b.target)));
    rows
}

fn picker_pools(found: &Found<'_>, reads: &[(PickerRead, Vec<Alias>)]) -> Vec<PickerPool> {
    let mut pools: Vec<PickerPool> = Vec::new();
    for (id, RowKey { names: [name, _], .. }) in found.rows(RowKind::Pool) {
        let mut pool = PickerPool { name: name.clone(), ..PickerPool::default() };
        for ((read, _), alias) in reads.iter().zip(&found.chosen) {
            if let PickerRead::Pool(quantity) = read {
                *quantity.of(&mut pool) = alias.and_then(|alias| found.cells.value(alias, id));
            }
        }
        pools.push(pool);
    }
    pools.sort_by(|a, b| a.name.cmp(&b.name));
    let queue = reads.iter().position(|(read, _)| *read == PickerRead::PodQueue);
    let queue = queue.and_then(|index| found.chosen[index]);
    for (id, RowKey { names: [name, pod], .. }) in found.rows(RowKind::Pod) {
        let (Some(alias), Some(pod)) = (queue, pod) else { continue };
        let Some(waiting) = found.cells.value(alias, id) else { continue };
        let at = pools.binary_search_by(|pool| pool.name.cmp(name)).unwrap_or_else(|at| {
            pools.insert(at, PickerPool { name: name.clone(), ..PickerPool::default() });
            at
        });
        pools[at].per_pod_queue.push((PodName::new(Arc::clone(pod)), waiting));
    }
    for pool in &mut pools {
        pool.per_pod_queue.sort_by(|a, b| a.0.cmp(&b.0));
    }
    pools
}
