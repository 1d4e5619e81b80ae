// SPDX-License-Identifier: Apache-2.0
//! The state that fetches, the live source and its tasks share.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use collector_core::{Answer, Answers, BackendError, Clock, ModelRef, Tick};
use collector_transport::ConfigError;
use tokio::sync::{Notify, watch};

use super::answers::{Wish, answers};
use super::fleet::Fleet;
use super::pod::{LastSeen, Pod, is_same};
use crate::SECTION;
use crate::config::EppConfig;
use crate::discover::{Discovery, Found, Sources};
use crate::engines::Engines;
use crate::scrape::Settings;

/// How often a pod that has never answered is tried, if pods that answered are not scraped again.
const UNKNOWN_INTERVAL_MIN: Duration = Duration::from_secs(15);

/// The state of the backend.
pub(crate) struct Shared {
    pub(crate) config: EppConfig,
    pub(crate) settings: Settings,
    pub(crate) sources: Sources,
    pub(crate) fleet: Fleet,
    pub(crate) engines: Engines,
    tracked: Mutex<Arc<HashSet<ModelRef>>>,
    /// Whether the live source runs.
    live: AtomicBool,
    /// Whether pods that are found keep the gauges of their pages.
    keeps_gauges: AtomicBool,
    /// The models whose answer changed since they were last pushed.
    changed: Mutex<HashSet<ModelRef>>,
    /// Notified when there are any.
    pub(crate) news: Notify,
    /// Changes with each scrape that ended, and each result of discovery.
    progress: watch::Sender<()>,
}

impl Shared {
    pub(crate) fn new(
        config: EppConfig,
        sources: Vec<Box<dyn Discovery>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        let engines = Engines::new(&config.engines)
            .map_err(|error| SECTION.error("engines", error.to_string()))?;
        let now = clock.now();
        Ok(Self {
            settings: Settings::new(&config, clock)?,
            sources: Sources::new(sources, config.max_targets, config.section),
            fleet: Fleet::new(config.window, config.max_targets, now),
            engines,
            tracked: Mutex::default(),
            live: AtomicBool::new(false),
            keeps_gauges: AtomicBool::new(false),
            changed: Mutex::default(),
            news: Notify::new(),
            progress: watch::Sender::new(()),
            config,
        })
    }

    pub(crate) fn now(&self) -> Tick {
        self.settings.clock.now()
    }

    /// Applies the result of discovery.
    pub(crate) fn take(&self, found: Found) {
        let (window, keeps_gauges) =
            (self.config.window, self.keeps_gauges.load(Ordering::Acquire));
        let make = |target| Pod::new(target, &self.engines, &self.settings, window, keeps_gauges);
        let vanished = self.fleet.set(found, self.now(), make);
        self.tell(vanished);
        self.progress.send_replace(());
    }

    /// Scrapes a pod, unless it was scraped since `since`.
    pub(crate) async fn scrape(&self, pod: &Pod, since: Tick) {
        let changed = pod.scrape(&self.settings, since).await;
        let of_pod = |model| ModelRef::new(model, pod.target.namespace.clone());
        let mut changed: Vec<ModelRef> = changed.into_iter().map(of_pod).collect();
        if pod.seen().was.ignores_case() {
            self.add_spellings(&mut changed);
        }
        if matches!(pod.seen().was, LastSeen::EndpointPicker(_)) {
            // It may hold requests for any model of its namespace.
            let tracked = self.tracked().into_iter();
            changed.extend(tracked.filter(|model| model.namespace == pod.target.namespace));
        }
        self.tell(changed);
        self.progress.send_replace(());
    }

    /// Adds models that are tracked under the same id in another case.
    fn add_spellings(&self, models: &mut Vec<ModelRef>) {
        let tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        let is_spelling = |tracked: &&ModelRef| {
            models.iter().any(|model| {
                model.namespace == tracked.namespace && is_same(&model.model, &tracked.model, true)
            })
        };
        let spellings: Vec<ModelRef> = tracked.iter().filter(is_spelling).cloned().collect();
        drop(tracked);
        models.extend(spellings);
    }

    /// Schedules these models to be pushed.
    pub(crate) fn tell(&self, models: Vec<ModelRef>) {
        if models.is_empty() || !self.is_live() {
            return;
        }
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).extend(models);
        self.news.notify_one();
    }

    /// Returns the models whose answer changed since the last call.
    pub(crate) fn take_changed(&self) -> Vec<ModelRef> {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *changed).into_iter().collect()
    }

    pub(crate) fn progress(&self) -> watch::Receiver<()> {
        self.progress.subscribe()
    }

    pub(crate) fn track(&self, models: Arc<HashSet<ModelRef>>) {
        *self.tracked.lock().unwrap_or_else(PoisonError::into_inner) = models;
        // The next scrape of some pods is due at another time now.
        for pod in self.fleet.pods(|_| true) {
            pod.wake.notify_one();
        }
    }

    /// Returns the scrape interval of a pod; `None` if it is not scraped again.
    pub(crate) fn interval(&self, pod: &Pod) -> Option<Duration> {
        let tracked = Arc::clone(&*self.tracked.lock().unwrap_or_else(PoisonError::into_inner));
        let namespace = &pod.target.namespace;
        let seen = pod.seen();
        let is_wanted = match &seen.was {
            LastSeen::Server { ignore_case: true, .. } => tracked
                .iter()
                .any(|model| model.namespace == *namespace && seen.was.may_serve(&model.model)),
            LastSeen::Server { models, .. } => models
                .iter()
                .any(|model| tracked.contains(&ModelRef::new(model.clone(), namespace.clone()))),
            // It may serve any model of its namespace, or route requests to its pods.
            LastSeen::Unknown | LastSeen::EndpointPicker(_) => {
                tracked.iter().any(|model| model.namespace == *namespace)
            }
        };
        let idle = self.config.idle_interval;
        match (is_wanted, &seen.was) {
            (true, _) => Some(self.config.scrape_interval),
            (false, _) if !idle.is_zero() => Some(idle),
            (false, LastSeen::Unknown) => {
                Some(self.config.scrape_interval.max(UNKNOWN_INTERVAL_MIN))
            }
            (false, LastSeen::Server { .. } | LastSeen::EndpointPicker(_)) => None,
        }
    }

    /// Whether every source was asked for its targets, and every target was tried.
    pub(crate) fn all_tried(&self) -> bool {
        !self.fleet.lock().not_asked_yet && self.fleet.count()[2] == 0
    }

    /// Returns the tracked models.
    pub(crate) fn tracked(&self) -> Vec<ModelRef> {
        let tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        tracked.iter().cloned().collect()
    }

    /// Returns the tracked models that no pod served when it last answered.
    pub(crate) fn unserved(&self) -> HashSet<ModelRef> {
        let tracked = self.tracked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unserved = HashSet::clone(&tracked);
        drop(tracked);
        for pod in self.fleet.pods(|_| true) {
            let seen = pod.seen();
            let namespace = &pod.target.namespace;
            if seen.was.ignores_case() {
                unserved.retain(|model| {
                    model.namespace != *namespace || !seen.was.may_serve(&model.model)
                });
            }
            for model in seen.was.models() {
                unserved.remove(&ModelRef::new(model.clone(), namespace.clone()));
            }
        }
        unserved
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    pub(crate) fn keep_gauges(&self) {
        self.keeps_gauges.store(true, Ordering::Release);
    }

    pub(crate) fn set_live(&self, live: bool) {
        self.live.store(live, Ordering::Release);
    }

    /// The answers about these models, as a caller reads them.
    pub(super) fn answers(&self, models: &[ModelRef], wish: Wish<'_>) -> Answers {
        let known = (&self.fleet, &self.sources);
        let answers = answers(known, models, wish, self.now()).into_iter();
        answers
            .map(|(model, answer)| match answer {
                Answer::Failed(error) => (model, Answer::Failed(self.in_users_words(error))),
                other => (model, other),
            })
            .collect()
    }

    /// The error with the name that the user's section has.
    pub(super) fn in_users_words(&self, error: BackendError) -> BackendError {
        let detail = self.config.with_section(error.detail());
        let remedy = self.config.with_section(error.remedy());
        error.with_detail(detail).with_remedy(remedy)
    }
}
