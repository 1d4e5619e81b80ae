// SPDX-License-Identifier: Apache-2.0
//! Joins all sources of targets.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use std::sync::Arc;

use collector_core::{ErrorKind, Namespace, PodName};
use futures_util::future::join_all;

use super::{Discovery, DiscoveryError, Target};
use crate::config::with_section;

/// The sources, and the last good set of each.
pub(crate) struct Sources {
    all: Vec<Source>,
    max_targets: usize,
    /// The duplicates that were last logged.
    logged: Mutex<HashSet<Duplicate>>,
}

struct Source {
    discovery: Box<dyn Discovery>,
    section: &'static str,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// `None` until it has returned its targets for the first time.
    targets: Option<Vec<Target>>,
    /// Why it failed last, which was logged once.
    failing: Option<DiscoveryError>,
}

/// What the sources say together.
#[derive(Default, Debug)]
pub(crate) struct Found {
    /// Each page once.
    pub(crate) targets: Vec<Target>,
    /// Targets that are left out because another one is the same server.
    pub(crate) duplicates: HashSet<Duplicate>,
    /// The errors of sources that have never returned their targets: there may be more.
    pub(crate) unknown: Vec<DiscoveryError>,
    /// The errors of sources whose targets are from before: there may be others by now.
    pub(crate) outdated: Vec<DiscoveryError>,
    /// The targets are all pods that there are.
    pub(crate) lists_pods: bool,
    /// Some source has not been asked yet.
    pub(crate) not_asked_yet: bool,
    /// How many targets each source has.
    pub(crate) counts: Vec<(String, usize)>,
}

/// A target that is left out because another one is the same server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Duplicate {
    pub(crate) namespace: Namespace,
    /// The pod of the other one.
    pub(crate) pod: PodName,
    pub(crate) problem: Arc<str>,
}

/// Which page a target is.
type EndpointId = (Namespace, String, Option<u16>, String);

fn page_id(target: &Target) -> EndpointId {
    let url = &target.url;
    let host = url.host_str().unwrap_or_default().to_owned();
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    (target.namespace.clone(), host, url.port_or_known_default(), path)
}

impl Sources {
    /// `section` is the name of the section of the configuration, for the log.
    pub(crate) fn new(
        sources: Vec<Box<dyn Discovery>>,
        max_targets: usize,
        section: &'static str,
    ) -> Self {
        let source = |discovery| Source { discovery, section, last: Mutex::default() };
        Self {
            all: sources.into_iter().map(source).collect(),
            max_targets,
            logged: Mutex::default(),
        }
    }

    /// What to check of the sources, each text once.
    pub(crate) fn remedies(&self) -> String {
        let remedies: BTreeSet<&str> =
            self.all.iter().map(|source| source.discovery.remedy()).collect();
        let remedies: Vec<&str> = remedies.into_iter().filter(|text| !text.is_empty()).collect();
        remedies.join(" ")
    }

    /// Asks every source.
    pub(crate) async fn find(&self) -> Found {
        join_all(self.all.iter().map(|source| self.ask(source))).await;
        self.found()
    }

    /// Asks each source now and whenever its targets may have changed, and calls `on_found` after each answer.
    pub(crate) async fn run(&self, on_found: impl Fn(Found)) {
        let watch = |source| {
            let on_found = &on_found;
            async move {
                loop {
                    self.ask(source).await;
                    on_found(self.found());
                    source.discovery.changed().await;
                }
            }
        };
        join_all(self.all.iter().map(watch)).await;
        // Without sources nothing ever changes.
        std::future::pending::<()>().await;
    }

    /// Returns why there may be more targets in a namespace than are known.
    pub(crate) fn unknown_in(&self, namespace: &Namespace) -> Option<DiscoveryError> {
        self.all.iter().find_map(|source| source.discovery.unknown_in(namespace))
    }

    async fn ask(&self, source: &Source) {
        let answer = source.discovery.targets().await.and_then(|targets| {
            let others: usize = self
                .all
                .iter()
                .filter(|other| !std::ptr::eq(*other, source))
                .map(|other| other.lock().targets.as_ref().map_or(0, Vec::len))
                .sum();
            if targets.len() + others > self.max_targets {
                let message = format!(
                    "{}: {} targets, with {others} of other sources, are more than epp.max_targets \
                     ({}); raise it, or share the fleet out among several collectors",
                    source.discovery.source(),
                    targets.len(),
                    self.max_targets
                );
                return Err(DiscoveryError::new(ErrorKind::Configuration, message));
            }
            Ok(targets)
        });
        source.keep(answer);
    }

    /// What is known now, without asking.
    pub(crate) fn found(&self) -> Found {
        let lists_pods = self.all.iter().all(|source| source.discovery.lists_pods());
        let mut found = Found { lists_pods, ..Found::default() };
        let mut servers = HashSet::new();
        let mut pages: HashMap<EndpointId, PodName> = HashMap::new();
        for source in &self.all {
            let last = source.lock();
            let Some(targets) = &last.targets else {
                let not_asked = || {
                    let message = format!("{}: no answer yet", source.discovery.source());
                    DiscoveryError::new(ErrorKind::Timeout, message)
                };
                found.not_asked_yet |= last.failing.is_none();
                found.unknown.push(last.failing.clone().unwrap_or_else(not_asked));
                continue;
            };
            found.outdated.extend(last.failing.clone());
            found.counts.push((source.discovery.source().to_owned(), targets.len()));
            for target in targets {
                let Target { namespace, pod, rank, .. } = target;
                let duplicate = |of: &PodName, problem: String| Duplicate {
                    namespace: namespace.clone(),
                    pod: of.clone(),
                    problem: problem.into(),
                };
                if let Some(other) = pages.get(&page_id(target)) {
                    if other != pod {
                        let problem = format!(
                            "the page {} is a target under two pod names, {other} and {pod}: it \
                             counts once, as {other}",
                            target.shown()
                        );
                        found.duplicates.insert(duplicate(other, problem));
                    }
                } else if servers.insert((namespace.clone(), pod.clone(), rank.clone())) {
                    pages.insert(page_id(target), pod.clone());
                    found.targets.push(target.clone());
                } else {
                    let problem = format!(
                        "the pod {pod} has several targets without a rank of their own, of which the \
                         first is scraped; give each a pod, or a rank"
                    );
                    found.duplicates.insert(duplicate(pod, problem));
                }
            }
        }
        self.log_duplicates(&found.duplicates);
        found
    }

    /// Logs targets that are the same server, each once.
    fn log_duplicates(&self, duplicates: &HashSet<Duplicate>) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Duplicate { namespace, problem, .. }) =
            duplicates.iter().find(|duplicate| !logged.contains(duplicate))
        {
            tracing::warn!(%namespace, problem = &**problem, all = duplicates.len(), "A target is left out");
        }
        logged.clone_from(duplicates);
    }
}

/// How many targets of the one list the other does not have.
fn beyond(targets: &[Target], others: &[Target]) -> usize {
    let others: HashSet<&str> = others.iter().map(|target| target.url.as_str()).collect();
    targets.iter().filter(|target| !others.contains(target.url.as_str())).count()
}

impl Source {
    fn lock(&self) -> std::sync::MutexGuard<'_, Last> {
        // Each change is one assignment, so a panic elsewhere leaves nothing half done.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, answer: Result<Vec<Target>, DiscoveryError>) {
        let source = with_section(self.section, self.discovery.source());
        let mut last = self.lock();
        match answer {
            Ok(targets) => {
                if last.failing.is_some() {
                    tracing::info!(
                        source,
                        targets = targets.len(),
                        "The source of targets answers again"
                    );
                } else if let Some(before) = last.targets.as_ref().filter(|it| **it != targets) {
                    let gained = beyond(&targets, before);
                    let absent = beyond(before, &targets);
                    tracing::info!(
                        source,
                        targets = targets.len(),
                        found = gained,
                        lost = absent,
                        "Targets have changed"
                    );
                }
                *last = Last { targets: Some(targets), failing: None };
            }
            Err(error) => {
                if last.failing.as_ref() != Some(&error) {
                    let error = with_section(self.section, &error.to_string());
                    match last.targets.as_ref().map(Vec::len) {
                        None => tracing::warn!(%error, "A source of targets has failed"),
                        Some(kept) => tracing::warn!(
                            %error, kept, "A source of targets has failed: its last targets are kept"
                        ),
                    }
                }
                last.failing = Some(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;

    use super::*;
    use crate::discover::TargetSpec;

    /// A source that says what a test lets it say.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Option<Vec<Target>>>>);

    impl Told {
        fn tell(&self, pods: Option<&[&str]>) {
            *self.0.lock().unwrap() = pods.map(|pods| pods.iter().map(|pod| target(pod)).collect());
        }
    }

    fn target(pod: &str) -> Target {
        let spec = TargetSpec {
            url: format!("http://{pod}/metrics"),
            namespace: "n".into(),
            pod: Some(pod.into()),
            ..TargetSpec::default()
        };
        spec.target().unwrap()
    }

    #[async_trait]
    impl Discovery for Told {
        fn source(&self) -> &'static str {
            "told"
        }

        async fn targets(&self) -> Result<Vec<Target>, DiscoveryError> {
            let broken = || DiscoveryError::new(ErrorKind::Dns, "told: broken");
            self.0.lock().unwrap().clone().ok_or_else(broken)
        }

        async fn changed(&self) {}
    }

    fn pods(found: &Found) -> Vec<&str> {
        found.targets.iter().map(|target| target.pod.as_str()).collect()
    }

    #[tokio::test]
    async fn a_source_that_fails_keeps_its_last_good_targets() {
        let told = Told::default();
        let sources = Sources::new(vec![Box::new(told.clone())], 10, "epp");
        let found = sources.find().await;
        assert_eq!((found.targets.len(), found.unknown.len()), (0, 1));
        assert_eq!(found.unknown[0].to_string(), "told: broken");
        told.tell(Some(&["a", "b"]));
        assert_eq!(pods(&sources.find().await), ["a", "b"]);
        told.tell(None);
        let found = sources.find().await;
        assert_eq!((pods(&found), found.unknown.len()), (vec!["a", "b"], 0));
        told.tell(Some(&[]));
        assert!(sources.find().await.targets.is_empty());
    }

    #[tokio::test]
    async fn a_pod_that_is_named_twice_counts_once() {
        let (one, two) = (Told::default(), Told::default());
        one.tell(Some(&["a", "b"]));
        two.tell(Some(&["b", "c"]));
        let sources = Sources::new(vec![Box::new(one), Box::new(two)], 10, "epp");
        assert_eq!(pods(&sources.find().await), ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn more_targets_than_allowed_are_refused_as_a_whole() {
        let told = Told::default();
        told.tell(Some(&["a", "b"]));
        let sources = Sources::new(vec![Box::new(told.clone())], 2, "epp");
        assert_eq!(sources.find().await.targets.len(), 2);
        told.tell(Some(&["a", "b", "c"]));
        // Two of three would pass for a fleet of two, so the two are from before.
        assert_eq!(pods(&sources.find().await), ["a", "b"]);
        let sources = Sources::new(vec![Box::new(told)], 2, "epp");
        let unknown = &sources.find().await.unknown;
        assert!(unknown[0].to_string().contains("epp.max_targets (2)"), "{unknown:?}");
    }
}
