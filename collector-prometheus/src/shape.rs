// SPDX-License-Identifier: Apache-2.0
//! What a server holds: which engines, under which names and labels. Discovered at the start, each hour, and
//! when something looks wrong.

mod ask;
mod items;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use collector_engines::{Engine, Engines};

use crate::labels::{Labels, LabelsConfig};
use crate::plan::{Held, Plan};
use crate::promql::Filter;

pub(crate) use self::ask::ask;

/// Labels that may hold the model's id if an engine's own label is absent.
const MODEL_LABELS: [&str; 2] = ["model_name", "model"];

/// What a server holds.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Each engine present; if there is none, the most likely one.
    pub(crate) served: Vec<Arc<Served>>,
    /// Pods on the whole server; `None` if unknown.
    pub(crate) pods: Option<u64>,
    /// The router or gateway whose series are present.
    pub(crate) router: Option<&'static str>,
    /// Whether the server answered; otherwise this is correct for any server, but expensive.
    pub(crate) probed: bool,
    /// Whether some answer was incomplete, so that an engine, a series or a label may exist after all.
    pub(crate) incomplete: bool,
    /// Whether only one model was asked about.
    pub(crate) narrow: bool,
}

/// One engine on a server.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) engine: Engine,
    pub(crate) labels: Labels,
    pub(crate) plan: Plan,
    /// Whether its series exist, and are not just expected.
    pub(crate) is_there: bool,
    /// Pods; `None` if unknown.
    pub(crate) pods: Option<u64>,
    /// Whether some series are stored more than once.
    pub(crate) doubled: bool,
    /// One series with all of its labels, if a required label is absent.
    pub(crate) example: Option<String>,
    /// The discovered scrape interval.
    pub(crate) interval: Option<Duration>,
    /// The configured scrape interval.
    configured_interval: Duration,
    /// Names of native histograms in place of classic ones.
    pub(crate) native: Vec<Box<str>>,
}

/// The settings that discovery depends on.
#[derive(Clone, Debug)]
pub(crate) struct DiscoverySettings {
    pub(crate) engines: Engines,
    pub(crate) labels: LabelsConfig,
    /// Added before the engines' own names, in both spellings.
    pub(crate) name_prefix: Option<String>,
    /// Part of every selector.
    pub(crate) matchers: Filter,
    /// Whether the configuration assigns series to models by selectors.
    pub(crate) has_model_selectors: bool,
    /// The configured window `W`.
    pub(crate) window: Option<Duration>,
    pub(crate) scrape_interval: Duration,
}

impl DiscoverySettings {
    /// Returns every engine in every known spelling.
    fn engines(&self) -> Vec<Engine> {
        let own = self.engines.iter();
        let prefixed = self.name_prefix.iter().flat_map(|prefix| {
            self.engines
                .iter()
                .map(move |engine| engine.with_prefix(&format!("{prefix}{}", engine.prefix)))
        });
        prefixed.chain(own.cloned()).collect()
    }

    /// Returns the window for a scrape interval.
    fn window(&self, interval: Option<Duration>) -> Duration {
        let interval = interval.unwrap_or(self.scrape_interval);
        self.window.unwrap_or_else(|| Duration::from_secs(60).max(interval * 4))
    }

    /// Returns the labels that an engine's series may have.
    fn labels_of(&self, engine: &Engine) -> Labels {
        let boxed = |names: &[String]| names.iter().map(|name| Box::from(name.as_str())).collect();
        let mut model: Vec<Box<str>> = boxed(&self.labels.model);
        if model.is_empty() {
            model.clone_from(&engine.model_labels);
            for label in MODEL_LABELS.map(Box::from) {
                if !model.contains(&label) {
                    model.push(label);
                }
            }
        }
        let mut rank: Vec<Box<str>> = boxed(&self.labels.rank);
        if rank.is_empty() {
            rank.clone_from(&engine.rank_labels);
        }
        Labels {
            namespace: boxed(&self.labels.namespace),
            pod: boxed(&self.labels.pod),
            model,
            rank,
            cluster: boxed(&self.labels.cluster),
            replica: engine.replica_label.clone(),
            role: engine.role_label.clone(),
            apart: Vec::new(),
        }
    }
}

impl Shape {
    /// The shape of a server that does not answer: vLLM under all of its names, with all known labels.
    /// Correct, but expensive.
    pub(crate) fn unknown(terms: &DiscoverySettings) -> Self {
        let served = terms.engines().into_iter().find(|engine| engine.name.as_str() == "vllm");
        let served = served.or_else(|| terms.engines.iter().next().cloned());
        Self {
            served: served.and_then(|engine| Served::expected(engine, terms)).into_iter().collect(),
            pods: None,
            router: None,
            probed: false,
            incomplete: false,
            narrow: false,
        }
    }

    /// Returns whether any engine is present.
    pub(crate) fn has_engines(&self) -> bool {
        self.served.iter().any(|served| served.is_there)
    }

    /// Returns the greatest number of selectors in one query.
    pub(crate) fn selectors(&self) -> usize {
        self.served.iter().map(|served| served.plan.selectors()).max().unwrap_or(1)
    }
}

impl Served {
    /// Makes an engine that is expected, without any series yet.
    fn expected(engine: Engine, terms: &DiscoverySettings) -> Option<Arc<Self>> {
        let names = engine.sample_names().map(Box::from).collect();
        let held = Held { names: &names, native: &HashSet::new() };
        let mut labels = terms.labels_of(&engine);
        // Without evidence the most usual labels are expected.
        labels.namespace.retain(|label| !label.starts_with("exported_"));
        labels.namespace.truncate(1);
        labels.pod.retain(|label| !label.starts_with("exported_"));
        labels.pod.truncate(2);
        labels.model.truncate(1);
        labels.cluster.clear();
        labels.role = None;
        let plan = Plan::new(&engine, held, terms.window(None))?;
        Some(Arc::new(Self {
            labels,
            plan,
            is_there: false,
            pods: None,
            doubled: true,
            example: None,
            interval: None,
            configured_interval: terms.scrape_interval,
            native: Vec::new(),
            engine,
        }))
    }

    /// Returns the scrape interval of its series.
    pub(crate) fn scrape_interval(&self) -> Duration {
        self.interval.unwrap_or(self.configured_interval)
    }

    /// Returns which required label all of its series lack, so that no model can be identified.
    pub(crate) fn lacks(&self) -> Option<&'static str> {
        let lacks = [
            (self.labels.namespace.is_empty(), "namespace"),
            (self.labels.pod.is_empty() && self.labels.replica.is_none(), "pod"),
            (self.labels.model.is_empty() && self.engine.model.is_none(), "model"),
        ];
        lacks.into_iter().find_map(|(lacks, what)| (self.is_there && lacks).then_some(what))
    }
}

#[cfg(test)]
mod tests;
