// SPDX-License-Identifier: Apache-2.0
//! Asks a server what it holds. First the names that identify engines, by a pattern if the server allows
//! patterns, so that unknown prefixes are found too; then, per engine and by exact names, which series and
//! labels exist.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use collector_core::sanitize;
use collector_engines::{Engine, Engines, Quantity, Series};

use super::items::{Item, count_of, items, with_model};
use super::{DiscoverySettings, Served, Shape};
use crate::answer::{Row, RowLabels};
use crate::client::{Client, Query, RequestBudget};
use crate::config::DEFAULT_SCRAPE_INTERVAL;
use crate::failure::Failure;
use crate::labels::{INSTANCE, Labels, Level};
use crate::plan::{Held, Plan, QueryKind, WHAT, liveness, numbered, select, signs_of_life};
use crate::promql::{Filter, Matcher};
use crate::shard::QUERY_BYTES_MAX;

/// Suffixes of names that identify an engine with any prefix, with the built-in engine that uses them.
const SUFFIXES: [(&str, &str); 4] = [
    ("num_requests_running", "vllm"),
    ("num_requests_waiting", "vllm"),
    ("num_running_reqs", "sglang"),
    ("num_queue_reqs", "sglang"),
];

/// Most engines of one server that are queried.
const SERVED_MAX: usize = 32;

/// Groups of copies that are looked at: copies of some pods may differ in other labels than those of others.
const COPIES_MAX: usize = 8;

/// Rows whose labels are compared.
const LABEL_SETS_MAX: usize = 16;

/// Length of an example series, in characters.
const EXAMPLE_MAX: usize = 400;

/// Asks what the server holds. `narrow` is the namespace and id of the only model of a first fetch: only this
/// model is queried, if it exists under the usual labels.
pub(crate) async fn ask(
    client: &Client,
    budget: RequestBudget<'_>,
    terms: &DiscoverySettings,
    narrow: Option<(&str, &str)>,
) -> Result<Shape, Failure> {
    let prober = Prober { client, budget, terms, incomplete: AtomicBool::new(false) };
    let found = prober.names().await?;
    let router = Engines::router_names().find(|name| found.contains(*name));
    let mut shape = Shape {
        served: Vec::new(),
        pods: None,
        router: router.and_then(Engines::router_of),
        probed: true,
        incomplete: false,
        narrow: false,
    };
    let engines = engines_of(&found, terms);
    if engines.len() > SERVED_MAX {
        // The omitted engines may have the requested models.
        prober.incomplete.store(true, Ordering::Relaxed);
    }
    for engine in engines.into_iter().take(SERVED_MAX) {
        if let Some((served, was_narrow)) = prober.served(engine, &found, narrow).await? {
            shape.narrow |= was_narrow;
            shape.pods = served.pods.map(|pods| pods + shape.pods.unwrap_or(0)).or(shape.pods);
            shape.served.push(Arc::new(served));
        }
    }
    shape.incomplete = prober.incomplete.load(Ordering::Relaxed);
    // Series that all lack a label, next to engines that have it, come from a router or a recording rule,
    // unless the configuration assigns them.
    if !terms.has_model_selectors && shape.served.iter().any(|served| served.lacks().is_none()) {
        shape.served.retain(|served| served.lacks() != Some("model"));
    }
    // If several engines read the same names, the one that reads most of a pod owns it.
    shape.served.sort_by_key(|served| std::cmp::Reverse(served.plan.len()));
    if shape.served.is_empty() {
        // A server without a fleet does not show how its next fleet will be named.
        shape.served = Shape::unknown(terms).served;
    }
    Ok(shape)
}

/// Returns the engines whose names were found: those of the table, and those with another prefix.
pub(super) fn engines_of(found: &HashSet<String>, terms: &DiscoverySettings) -> Vec<Engine> {
    let table = terms.engines();
    let mut known: HashSet<String> = HashSet::new();
    let mut engines: Vec<Engine> = Vec::new();
    for engine in &table {
        let own: Vec<&str> = marks(engine).collect();
        known.extend(own.iter().map(|name| (*name).to_owned()));
        let required =
            engine.required.iter().all(|name| found.contains(&**name) || !own.contains(&&**name));
        let any = own.iter().any(|name| found.contains(*name));
        // One set of names is one engine, even if several in the table read it.
        let same = |other: &Engine| {
            other.prefix == engine.prefix && marks(other).any(|name| own.contains(&name))
        };
        if any && required && !engines.iter().any(same) {
            engines.push(engine.clone());
        }
    }
    for name in found.iter().filter(|name| !known.contains(*name)) {
        let Some((suffix, base)) = SUFFIXES.iter().find(|(suffix, _)| name.ends_with(suffix))
        else {
            continue;
        };
        let prefix = name.trim_end_matches(suffix);
        let base = table.iter().find(|engine| engine.name.as_str() == *base);
        if let Some(base) = base
            && !engines.iter().any(|engine| &*engine.prefix == prefix)
        {
            engines.push(base.with_prefix(prefix));
        }
    }
    engines
}

/// Returns the names that identify an engine: its gauges, or other signs of life if it has none, and the
/// names that it requires.
fn marks(engine: &Engine) -> impl Iterator<Item = &str> {
    let quantities = [Quantity::Running, Quantity::Waiting, Quantity::KvCacheUsage];
    let gauges = quantities.into_iter().flat_map(|quantity| engine.alternatives(quantity));
    let mut series: Vec<&Series> = gauges.flat_map(|expression| expression.required()).collect();
    if series.is_empty() {
        series = signs_of_life(engine);
    }
    let required = engine.required.iter().map(|name| &**name);
    series.into_iter().map(|series| &*series.name).chain(required)
}

struct Prober<'a> {
    client: &'a Client,
    budget: RequestBudget<'a>,
    terms: &'a DiscoverySettings,
    incomplete: AtomicBool,
}

impl Prober<'_> {
    /// Returns the names that identify engines and exist on the server.
    async fn names(&self) -> Result<HashSet<String>, Failure> {
        match self.names_by_pattern().await {
            Err(failure) if !failure.is_of_the_server() => self.names_by_exact().await,
            outcome => outcome,
        }
    }

    fn exact_names(&self) -> Vec<String> {
        let engines = self.terms.engines();
        let marks = engines.iter().flat_map(marks).map(str::to_owned);
        let mut names: Vec<String> =
            marks.chain(Engines::router_names().map(str::to_owned)).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    async fn names_by_pattern(&self) -> Result<HashSet<String>, Failure> {
        let names = self.exact_names();
        let rest = names.iter().filter(|name| !SUFFIXES.iter().any(|(end, _)| name.ends_with(end)));
        let suffixes: Vec<&str> = SUFFIXES.iter().map(|(suffix, _)| *suffix).collect();
        let matcher = Matcher::ends_or_is("__name__", &suffixes, rest.map(String::as_str));
        let text = format!("count by (__name__) ({})", self.terms.matchers.and([matcher]));
        let mut found = HashSet::new();
        self.query(QueryKind::Names, &text, &mut |labels, _| {
            found.extend(labels.get("__name__").map(str::to_owned));
        })
        .await?;
        Ok(found)
    }

    async fn names_by_exact(&self) -> Result<HashSet<String>, Failure> {
        let names = self.exact_names();
        let counts: Vec<String> =
            names.iter().map(|name| format!("count({name}{})", self.terms.matchers)).collect();
        let found = self.count(QueryKind::Names, &counts).await?;
        let there = names.into_iter().zip(found).filter(|(_, count)| count.is_some());
        Ok(there.map(|(name, _)| name).collect())
    }

    /// Discovers one engine, and whether only one model was asked about; `None` if no series shows live pods.
    async fn served(
        &self,
        engine: Engine,
        found: &HashSet<String>,
        narrow: Option<(&str, &str)>,
    ) -> Result<Option<(Served, bool)>, Failure> {
        let Some(lives) = liveness(&engine, |series| found.contains(&*series.name)) else {
            return Ok(None);
        };
        if let Some((namespace, model)) = narrow
            && let Some(label) = engine.model_labels.first()
        {
            let namespaced = self.terms.matchers.and([Matcher::is("namespace", namespace)]);
            let filter = namespaced.and([Matcher::is(label.to_string(), model)]);
            let elsewhere = self.elsewhere(&engine, namespace, model);
            let filters = (&filter, &namespaced);
            let served = self.narrowed(engine.clone(), &lives, filters, elsewhere).await?;
            // The series that shows live pods may belong to other models.
            if let Some(served) = served.filter(|served| served.lacks().is_none()) {
                return Ok(Some((served, true)));
            }
        }
        let all = &self.terms.matchers;
        let served = self.narrowed(engine, &lives, (all, all), Vec::new()).await?;
        Ok(served.map(|served| (served, false)))
    }

    /// Returns selectors for a model by every pair of labels that may name it, except the usual ones.
    fn elsewhere(&self, engine: &Engine, namespace: &str, model: &str) -> Vec<Item> {
        let candidates = self.terms.labels_of(engine);
        let mut all = Vec::new();
        for namespace_label in &candidates.namespace {
            for model_label in &candidates.model {
                let usual = &**namespace_label == "namespace"
                    && engine.model_labels.first() == Some(model_label);
                if !usual {
                    all.push(Item::Elsewhere(self.terms.matchers.and([
                        Matcher::is(namespace_label.to_string(), namespace),
                        Matcher::is(model_label.to_string(), model),
                    ])));
                }
            }
        }
        all
    }

    /// Discovers one engine within filters: the first for all series, the second for those without a model.
    /// `None` as well if anything exists `elsewhere`.
    async fn narrowed(
        &self,
        engine: Engine,
        lives: &Series,
        (filter, without_model): (&Filter, &Filter),
        elsewhere: Vec<Item>,
    ) -> Result<Option<Served>, Failure> {
        let candidates = self.terms.labels_of(&engine);
        let mut items = items(&engine, &candidates);
        items.extend(elsewhere);
        let queries: Vec<String> = items
            .iter()
            .map(|item| count_of(item, &engine, lives, &candidates, filter, without_model))
            .collect();
        let counts = self.count(QueryKind::Shape, &queries).await?;
        let mut present: HashSet<Box<str>> = HashSet::new();
        let (mut names, mut native) = (HashSet::new(), HashSet::new());
        let (mut pods, mut doubled) = (None, false);
        for (item, count) in items.into_iter().zip(counts) {
            let Some(count) = count.filter(|count| *count > 0.0) else { continue };
            match item {
                Item::Name(name) => drop(names.insert(name)),
                Item::Native(name) => drop(native.insert(name)),
                Item::Label(label) => drop(present.insert(label)),
                Item::Pods(_) => {
                    pods = Some(pods.unwrap_or(0) + sanitize::count(count).unwrap_or(0));
                }
                Item::Doubled(_) => doubled = true,
                Item::Elsewhere(_) => return Ok(None),
            }
        }
        let mut labels = candidates.clone();
        labels.retain(|label| present.contains(label));
        if self.incomplete.load(Ordering::Relaxed) {
            // Grouping by an absent label changes nothing; not grouping by a present one would merge ranks.
            labels.rank.clone_from(&candidates.rank);
        }
        // A native histogram is ignored if its classic series exists.
        let classic = |base: &str| names.contains(&*format!("{base}_count"));
        native.retain(|base| !classic(base));
        if doubled {
            labels.apart = self.apart(lives, &labels, filter).await?;
        }
        let interval = self.interval(lives, filter).await?;
        let held = Held { names: &names, native: &native };
        let Some(plan) = Plan::new(&engine, held, self.terms.window(interval)) else {
            return Ok(None);
        };
        let mut native: Vec<Box<str>> = native.into_iter().collect();
        native.sort_unstable();
        let mut served = Served {
            engine,
            labels,
            plan,
            is_there: true,
            pods,
            doubled,
            example: None,
            interval,
            configured_interval: self.terms.scrape_interval,
            native,
        };
        if served.lacks().is_some() {
            served.example = self.example(lives, filter).await?;
        }
        Ok(Some(served))
    }

    /// Returns the labels besides `instance` that distinguish copies of one series.
    async fn apart(
        &self,
        lives: &Series,
        labels: &Labels,
        filter: &Filter,
    ) -> Result<Vec<Box<str>>, Failure> {
        let series = select(lives, &with_model(filter, labels.model.first().map(AsRef::as_ref)));
        let mut labels = labels.clone();
        for _ in 0..COPIES_MAX {
            let by = labels.by(Level::Rank, true).join(",");
            // One group that is stored more than once, with all of its labels.
            let text = format!("{series} and on ({by}) topk(1, count by ({by}) ({series}) > 1)");
            let rows = self.label_sets(QueryKind::Example, &text).await?;
            let mut keys: BTreeSet<&str> =
                rows.iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
            keys.retain(|key| rows.iter().any(|row| row.get(*key) != rows[0].get(*key)));
            keys.retain(|key| *key != INSTANCE && labels.apart.iter().all(|it| **it != **key));
            if keys.is_empty() {
                break;
            }
            labels.apart.extend(keys.into_iter().map(Box::from));
        }
        Ok(labels.apart)
    }

    /// Returns the scrape interval: the longer one of the most and the least scraped series of the last ten
    /// minutes.
    async fn interval(&self, lives: &Series, filter: &Filter) -> Result<Option<Duration>, Failure> {
        if self.terms.scrape_interval != DEFAULT_SCRAPE_INTERVAL {
            // The interval is configured. The default counts as not configured: what samples show is used.
            return Ok(None);
        }
        let series = select(lives, filter);
        let mut slowest = None;
        for pick in ["bottomk", "topk"] {
            let text = format!("{pick}(1, count_over_time({series}[10m]))");
            let labels = match self.label_sets(QueryKind::Scrapes, &text).await {
                Ok(mut rows) => rows.pop().unwrap_or_default(),
                Err(failure) if failure.is_of_the_server() => return Err(failure),
                Err(_) => return Ok(slowest),
            };
            if labels.is_empty() {
                return Ok(slowest);
            }
            let matchers = labels
                .iter()
                .filter(|(key, _)| *key != "__name__")
                .map(|(key, value)| Matcher::is(key.clone(), value));
            let text = format!("{}{}[10m]", lives.name, Filter(matchers.collect()));
            let query = Query { kind: QueryKind::Scrapes, text: &text, time: None };
            match self.client.sample_times(query, self.budget).await {
                Ok(times) => slowest = slowest.max(interval_of(&times)),
                Err(failure) if failure.is_of_the_server() => return Err(failure),
                Err(_) => return Ok(slowest),
            }
        }
        Ok(slowest)
    }

    /// Returns one series with all of its labels, to show it.
    async fn example(&self, lives: &Series, filter: &Filter) -> Result<Option<String>, Failure> {
        let text = format!("topk(1, {})", select(lives, filter));
        let rows = self.label_sets(QueryKind::Example, &text).await?;
        let example = rows.first().map(|labels| {
            let labels = labels.iter().filter(|(key, _)| *key != "__name__");
            let labels: Vec<String> = labels
                .map(|(key, value)| format!("{key}={:?}", collector_transport::quote(value)))
                .collect();
            let shown = format!("{}{{{}}}", lives.name, labels.join(","));
            collector_transport::quote(&shown).chars().take(EXAMPLE_MAX).collect()
        });
        Ok(example)
    }

    /// Returns the labels of the first rows of a query.
    async fn label_sets(
        &self,
        kind: QueryKind,
        text: &str,
    ) -> Result<Vec<BTreeMap<String, String>>, Failure> {
        let mut rows: Vec<BTreeMap<String, String>> = Vec::new();
        self.query(kind, text, &mut |labels, _| {
            if rows.len() < LABEL_SETS_MAX {
                rows.push(labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect());
            }
        })
        .await?;
        Ok(rows)
    }

    /// Returns the value of each query with one row, in as few requests as possible.
    async fn count(
        &self,
        kind: QueryKind,
        queries: &[String],
    ) -> Result<Vec<Option<f64>>, Failure> {
        let mut counts = vec![None; queries.len()];
        let mut start = 0;
        while start < queries.len() {
            let mut text = String::new();
            let mut end = start;
            while let Some(query) = queries.get(end) {
                let part = numbered(query, end);
                if !text.is_empty() && text.len() + part.len() + 4 > QUERY_BYTES_MAX {
                    break;
                }
                if !text.is_empty() {
                    text.push_str(" or ");
                }
                text.push_str(&part);
                end += 1;
            }
            let mut odd = None;
            self.query(kind, &text, &mut |labels, value| {
                let number = labels.get(WHAT).and_then(|what| what.parse::<usize>().ok());
                match number.and_then(|number| counts.get_mut(number)) {
                    Some(count) if value >= 1.0 && value.is_finite() => *count = Some(value),
                    Some(_) => odd = Some(format!("unexpected count of {value} series")),
                    None => {
                        odd = Some(
                            "a row of the answer lacks the label of its query part".to_owned(),
                        );
                    }
                }
            })
            .await?;
            if let Some(odd) = odd {
                return Err(Failure::bad_answer(odd));
            }
            start = end;
        }
        Ok(counts)
    }

    async fn query(
        &self,
        kind: QueryKind,
        text: &str,
        on_row: &mut (dyn FnMut(&RowLabels<'_>, f64) + Send),
    ) -> Result<(), Failure> {
        let query = Query { kind, text, time: None };
        let mut on_row = |row: &Row<'_>| on_row(&row.labels, row.value);
        let answered = self.client.query(query, self.budget, &mut on_row).await?;
        self.incomplete.fetch_or(answered.incomplete.is_some(), Ordering::Relaxed);
        Ok(())
    }
}

/// Returns the median distance between samples, so that a lost scrape does not matter.
pub(super) fn interval_of(times: &[f64]) -> Option<Duration> {
    let mut steps: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.retain(|step| step.is_finite() && *step > 0.0);
    steps.sort_by(f64::total_cmp);
    let median = steps.get(steps.len() / 2)?;
    // Scrapes are some milliseconds early or late.
    let interval = if *median > 2.0 { median.round() } else { *median };
    Duration::try_from_secs_f64(interval).ok()
}
