// SPDX-License-Identifier: Apache-2.0
//! The rows of an answer that belong to the requested models, stored compactly. All other rows are dropped
//! while they are read.

use std::borrow::Cow;
use std::collections::HashSet;

use collector_core::{Namespace, PodName};

use crate::answer::Row;
use crate::labels::Labels;
use crate::plan::{LeafId, QueryKind, WHAT};
use crate::shape::Served;
use crate::shard::Requested;

/// Typical size of the names in a row.
const NAMES_BYTES: usize = 40;

/// A row of a requested model.
#[derive(Debug)]
pub(crate) struct Sample<'a> {
    /// Index of the model in [`Requested`].
    pub(crate) model: usize,
    /// The pod, or the replica in a pod with several; empty for a row about the model.
    pub(crate) replica: &'a str,
    /// The data-parallel rank; empty for values that are reported once per server.
    pub(crate) rank: &'a str,
    /// Identifies a server or copy; empty where the query does not group by it.
    pub(crate) key: &'a str,
    /// The series of the query that the row belongs to.
    pub(crate) leaf: LeafId,
    pub(crate) value: f64,
}

/// Rows of requested models, with all names in one text.
#[derive(Debug)]
pub(crate) struct Samples {
    kept: Vec<CompactRow>,
    names: String,
}

#[derive(Debug)]
struct CompactRow {
    model: u32,
    /// Where replica, rank and key end in `names`; the first one starts where the previous row ends.
    ends: [u32; 3],
    leaf: LeafId,
    value: f64,
}

impl Samples {
    fn with_room_for(rows: usize) -> Self {
        Self {
            kept: Vec::with_capacity(rows),
            names: String::with_capacity(rows.saturating_mul(NAMES_BYTES)),
        }
    }

    /// Iterates over the rows in the order of their arrival.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Sample<'_>> {
        let mut start = 0;
        self.kept.iter().map(move |kept| {
            let [replica, rank, key] = kept.ends.map(|end| end as usize);
            let sample = Sample {
                model: kept.model as usize,
                replica: &self.names[start..replica],
                rank: &self.names[replica..rank],
                key: &self.names[rank..key],
                leaf: kept.leaf,
                value: kept.value,
            };
            start = key;
            sample
        })
    }

    /// Returns the model of the last row.
    fn last_model(&self) -> Option<usize> {
        self.kept.last().map(|kept| kept.model as usize)
    }
}

/// A live server, or a copy of one, as the liveness query returns it.
#[derive(Debug)]
pub(crate) struct LiveRow {
    /// Index of the model in [`Requested`].
    pub(crate) model: usize,
    /// `None` if no label names a pod.
    pub(crate) replica: Option<PodName>,
    pub(crate) rank: Box<str>,
    pub(crate) key: Box<str>,
    pub(crate) role: Option<Box<str>>,
    /// The values of cluster labels, each with the index of its label.
    pub(crate) clusters: Vec<(usize, Box<str>)>,
    /// The sample time, in seconds of the server's clock.
    pub(crate) stamp: f64,
}

/// A row of an info series.
#[derive(Debug)]
pub(crate) struct InfoRow {
    pub(crate) namespace: Namespace,
    pub(crate) replica: PodName,
    pub(crate) rank: Box<str>,
    pub(crate) key: Box<str>,
    /// The numbers in its labels; NaN where a label holds no number.
    pub(crate) numbers: Vec<(LeafId, f64)>,
    /// Number of series with these labels; more than one are copies.
    pub(crate) copies: f64,
}

/// The rows of one answer that belong to the requested models.
#[derive(Debug)]
pub(crate) enum Rows {
    LiveRow(Vec<LiveRow>),
    Samples(Samples),
    Info(Vec<InfoRow>),
}

/// What a row is interpreted with.
#[derive(Clone, Copy)]
pub(crate) struct RowContext<'a> {
    pub(crate) kind: QueryKind,
    pub(crate) served: &'a Served,
    pub(crate) asked: &'a Requested,
    /// The model of all rows, whatever their labels say, as an index into `asked`.
    pub(crate) only_model: Option<usize>,
    /// Restricts the models whose rows count; `None` for all.
    pub(crate) only: Option<&'a HashSet<usize>>,
    /// The rows are grouped by server and copy.
    pub(crate) apart: bool,
}

impl Rows {
    /// Returns the empty form for `kind`, with room for `likely` rows.
    pub(crate) fn of(kind: QueryKind, likely: usize) -> Self {
        match kind {
            QueryKind::Liveness => Self::LiveRow(Vec::with_capacity(likely)),
            QueryKind::CacheConfig => Self::Info(Vec::new()),
            _ => Self::Samples(Samples::with_room_for(likely)),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::LiveRow(living) => living.len(),
            Self::Samples(samples) => samples.kept.len(),
            Self::Info(rows) => rows.len(),
        }
    }

    /// Keeps a row if its model was requested.
    pub(crate) fn push(&mut self, row: &Row<'_>, reading: RowContext<'_>) {
        let labels = &reading.served.labels;
        match self {
            Self::Info(rows) => rows.extend(info_row(row, reading)),
            Self::LiveRow(living) => {
                let last = living.last().map(|last| last.model);
                let Some(model) = model_of(row, reading, last) else { return };
                let mut key = String::new();
                labels.write_key(&row.labels, &mut key);
                let clusters = labels.cluster.iter().enumerate();
                let clusters =
                    clusters.filter_map(|(at, label)| Some((at, row.labels.get(label)?.into())));
                living.push(LiveRow {
                    model,
                    replica: labels.replica_of(&row.labels).map(|name| PodName::from(&*name)),
                    rank: row.labels.first_of(&labels.rank).unwrap_or_default().into(),
                    key: key.into(),
                    role: labels.role.as_ref().and_then(|it| row.labels.get(it)).map(Into::into),
                    clusters: clusters.collect(),
                    stamp: row.value,
                });
            }
            Self::Samples(samples) => {
                let Some(model) = model_of(row, reading, samples.last_model()) else { return };
                let leaf = match row.labels.get(WHAT) {
                    Some(what) => what.parse().ok(),
                    None => Some(reading.served.plan.only_leaf(reading.kind)),
                };
                let Some(leaf) = leaf else { return };
                let mut ends = [0; 3];
                let names = &mut samples.names;
                names.push_str(&labels.replica_of(&row.labels).unwrap_or_default());
                ends[0] = end_of(names);
                names.push_str(row.labels.first_of(&labels.rank).unwrap_or_default());
                ends[1] = end_of(names);
                if reading.apart {
                    labels.write_key(&row.labels, names);
                }
                ends[2] = end_of(names);
                let model = u32::try_from(model).unwrap_or(u32::MAX);
                samples.kept.push(CompactRow { model, ends, leaf, value: row.value });
            }
        }
    }
}

/// Returns the length of a text of names, whose size is bounded with its answer.
fn end_of(names: &str) -> u32 {
    u32::try_from(names.len()).unwrap_or(u32::MAX)
}

/// Returns the model of a row if it was requested. Most rows belong to the model of the previous row.
fn model_of(row: &Row<'_>, reading: RowContext<'_>, last: Option<usize>) -> Option<usize> {
    let RowContext { served, asked, only_model, .. } = reading;
    let Labels { namespace, model, .. } = &served.labels;
    let namespace = row.labels.first_of(namespace)?;
    if let Some(model) = only_model {
        return (asked.models()[model].namespace.as_str() == namespace).then_some(model);
    }
    let name: Cow<'_, str> = if let Some(model) = &served.engine.model {
        model.as_str().into()
    } else {
        let name = row.labels.first_of(model)?;
        served.engine.names_model(name).then_some(name)?.into()
    };
    let ignore_case = served.engine.ignore_case;
    last.filter(|last| asked.is_at(*last, namespace, &name))
        .or_else(|| asked.position(namespace, &name))
        .or_else(|| asked.position_without_case(namespace, &name).filter(|_| ignore_case))
        .filter(|model| reading.only.is_none_or(|only| only.contains(model)))
}

fn info_row(row: &Row<'_>, reading: RowContext<'_>) -> Option<InfoRow> {
    let labels = &reading.served.labels;
    let namespace = reading.asked.namespace(row.labels.first_of(&labels.namespace)?)?;
    let replica = PodName::from(&*labels.replica_of(&row.labels)?);
    let mut key = String::new();
    if reading.apart {
        labels.write_key(&row.labels, &mut key);
    }
    let info = reading.served.plan.info()?;
    let numbers = info.numbers.iter().filter_map(|(leaf, label)| {
        // The text may be "None" while an engine has not measured its memory yet.
        let number = row.labels.get(label)?.parse().unwrap_or(f64::NAN);
        Some((*leaf, number))
    });
    Some(InfoRow {
        namespace,
        replica,
        rank: row.labels.first_of(&labels.rank).unwrap_or_default().into(),
        key: key.into(),
        numbers: numbers.collect(),
        copies: row.value,
    })
}
