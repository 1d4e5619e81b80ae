//! What a server holds: which engines, under which names and labels. Asked at the start, each hour, and
//! when something looks wrong.

mod ask;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use collector_engines::{Engine, Engines};

use crate::labels::{Labels, LabelsConfig};
use crate::plan::{Held, Plan};
use crate::promql::Filter;

pub(crate) use self::ask::ask;

/// Labels that may hold the model's id where an engine's own do not.
const MODEL_LABELS: [&str; 2] = ["model_name", "model"];

/// What a server holds.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Each engine that is there; where none is, the one that will most likely be the first.
    pub(crate) served: Vec<Arc<Served>>,
    /// Pods on the whole server; `None` when it did not say.
    pub(crate) pods: Option<u64>,
    /// What a router or gateway shows, where one is there.
    pub(crate) router: Option<&'static str>,
    /// The server answered; else this is what is exact for any server, at a cost.
    pub(crate) probed: bool,
    /// Some answer was incomplete, so that an engine, a series or a label may be there all the same.
    pub(crate) incomplete: bool,
    /// It was asked about one model alone.
    pub(crate) narrow: bool,
}

/// One engine on a server.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) engine: Engine,
    pub(crate) labels: Labels,
    pub(crate) plan: Plan,
    /// Series are there, and not just expected.
    pub(crate) is_there: bool,
    /// Pods; `None` when the server did not say.
    pub(crate) pods: Option<u64>,
    /// Some series are stored more than once.
    pub(crate) doubled: bool,
    /// One series with all of its labels, where it lacks one that is needed.
    pub(crate) example: Option<String>,
    /// How often series are scraped, where it could be learnt.
    pub(crate) interval: Option<Duration>,
    /// How often they are taken to be, where it could not.
    configured_interval: Duration,
    /// Names of native histograms that stand where classic ones are expected.
    pub(crate) native: Vec<Box<str>>,
}

/// What the user has set that a probe depends on.
#[derive(Clone, Debug)]
pub(crate) struct DiscoverySettings {
    pub(crate) engines: Engines,
    pub(crate) labels: LabelsConfig,
    /// Put before the engines' own names, in both spellings.
    pub(crate) name_prefix: Option<String>,
    /// Goes into every selector.
    pub(crate) matchers: Filter,
    /// Selectors say of which model series are whose labels cannot tell it.
    pub(crate) gives_models: bool,
    /// `W`, where the user has set it.
    pub(crate) window: Option<Duration>,
    pub(crate) scrape_interval: Duration,
}

impl DiscoverySettings {
    /// Every engine in every spelling that is known.
    fn engines(&self) -> Vec<Engine> {
        let own = self.engines.iter();
        let prefixed = self.name_prefix.iter().flat_map(|prefix| {
            self.engines
                .iter()
                .map(move |engine| engine.with_prefix(&format!("{prefix}{}", engine.prefix)))
        });
        prefixed.chain(own.cloned()).collect()
    }

    /// The window for series that are scraped so often.
    fn window(&self, interval: Option<Duration>) -> Duration {
        let interval = interval.unwrap_or(self.scrape_interval);
        self.window.unwrap_or_else(|| Duration::from_secs(60).max(interval * 4))
    }

    /// The labels that an engine's series may have.
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
    /// When the server would not say: vLLM under all of its names, with the labels that a PodMonitor
    /// attaches and those that are known besides; exact, at a cost.
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

    /// Whether any engine is there.
    pub(crate) fn has_engines(&self) -> bool {
        self.served.iter().any(|served| served.is_there)
    }

    /// The greatest number of selectors in one query.
    pub(crate) fn selectors(&self) -> usize {
        self.served.iter().map(|served| served.plan.selectors()).max().unwrap_or(1)
    }
}

impl Served {
    /// An engine of which nothing is there yet.
    fn expected(engine: Engine, terms: &DiscoverySettings) -> Option<Arc<Self>> {
        let names = engine.sample_names().map(Box::from).collect();
        let held = Held { names: &names, native: &HashSet::new() };
        let mut labels = terms.labels_of(&engine);
        // What a label is named that nobody has seen is named as most have it.
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

    /// How often its series are scraped.
    pub(crate) fn scrape_interval(&self) -> Duration {
        self.interval.unwrap_or(self.configured_interval)
    }

    /// What no series of this engine has a label for, so that no model can be told.
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
