// SPDX-License-Identifier: Apache-2.0
//! What discovery asks about one engine, item by item, and the query that counts each.

use collector_engines::{Engine, Series};

use crate::labels::{Labels, Level};
use crate::plan::select;
use crate::promql::{Filter, Matcher};

/// One item that discovery asks about.
pub(super) enum Item {
    Name(Box<str>),
    Native(Box<str>),
    Label(Box<str>),
    /// Pods whose series have this label for the model.
    Pods(Option<Box<str>>),
    /// Ranks of such pods that are stored more than once.
    Doubled(Option<Box<str>>),
    /// Series of the only requested model, under other labels than the usual ones.
    Elsewhere(Filter),
}

/// Returns everything that discovery asks about an engine.
pub(super) fn items(engine: &Engine, candidates: &Labels) -> Vec<Item> {
    let mut names: Vec<&str> = engine.sample_names().collect();
    names.sort_unstable();
    names.dedup();
    let mut bases: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_suffix("_sum"))
        .filter(|base| names.contains(&&*format!("{base}_count")))
        .collect();
    bases.dedup();
    // A router has the servers' names without a model: its series belong to no pod.
    let model_labels: Vec<Option<Box<str>>> = match engine.model {
        Some(_) => vec![None],
        None => candidates.model.iter().cloned().map(Some).collect(),
    };
    let names = names.into_iter().map(|name| Item::Name(name.into()));
    let natives = bases.into_iter().map(|base| Item::Native(base.into()));
    let labels = candidates.all().cloned().map(Item::Label);
    names
        .chain(natives)
        .chain(labels)
        .chain(model_labels.iter().cloned().map(Item::Pods))
        .chain(model_labels.iter().cloned().map(Item::Doubled))
        .collect()
}

/// Returns the query that counts an item.
pub(super) fn count_of(
    item: &Item,
    engine: &Engine,
    lives: &Series,
    candidates: &Labels,
    filter: &Filter,
    without_model: &Filter,
) -> String {
    match item {
        Item::Name(name) | Item::Native(name) => {
            let is_info = |series: &&Series| series.name == *name && series.number_in.is_some();
            let info = engine.metrics().flat_map(|(_, alternatives)| alternatives);
            let carries_no_model = info.flat_map(|it| it.series()).any(|series| is_info(&series));
            let filter = if carries_no_model { without_model } else { filter };
            format!("count({name}{filter})")
        }
        Item::Label(label) => {
            let filter = filter.and([Matcher::present(label.to_string())]);
            format!("count({})", select(lives, &filter))
        }
        Item::Pods(label) => {
            let by = candidates.by(Level::Pod, false);
            let pods: Vec<&str> =
                by.into_iter().filter(|label| !is_model(candidates, label)).collect();
            let series = select(lives, &with_model(filter, label.as_deref()));
            format!("count(count by ({}) ({series}))", pods.join(","))
        }
        Item::Doubled(label) => {
            let by = candidates.by(Level::Rank, true).join(",");
            let series = select(lives, &with_model(filter, label.as_deref()));
            format!("count(count by ({by}) ({series}) > 1)")
        }
        Item::Elsewhere(filter) => format!("count({})", select(lives, filter)),
    }
}

/// Returns a filter that also demands the label of the model.
pub(super) fn with_model(filter: &Filter, label: Option<&str>) -> Filter {
    filter.and(label.map(|label| Matcher::present(label.to_owned())))
}

fn is_model(labels: &Labels, label: &str) -> bool {
    labels.model.iter().any(|model| **model == *label)
}
