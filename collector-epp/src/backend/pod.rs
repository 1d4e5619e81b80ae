// SPDX-License-Identifier: Apache-2.0
//! One target: its last scrape, and scraping it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{ErrorKind, GaugePage, ModelId, PodName, Tick};
use collector_engines::endpoint_picker::Routes;
use collector_transport::Cause;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::config::with_section;
use crate::discover::Target;
use crate::engines::{ENDPOINT_PICKER, Engines, Exposition, NoModel, ServerExposition};
use crate::rates::{History, PodIdentity, PodModel, ScrapeTime};
use crate::scan::Summary;
use crate::scrape::{Credential, Fetched, Reader, Scraped, Scraper, Settings};
use crate::selfmetrics;

/// Models and data-parallel engines of one page: four times what the largest deployments have.
const ROWS_MAX: usize = 256;
/// Bytes of a model's id.
const MODEL_BYTES_MAX: usize = 1024;
/// Names that a message quotes.
const NAMES_SHOWN: usize = 5;
/// Former models of a pod that are remembered.
const FORMER_MODELS_MAX: usize = 16;

/// A target.
pub(crate) struct Pod {
    pub(crate) target: Target,
    /// Held during a scrape: one at a time.
    work: tokio::sync::Mutex<Work>,
    seen: Mutex<Seen>,
    /// Notified when the pod must be scraped now, or its next scrape is due at another time.
    pub(super) wake: Notify,
    asked: AtomicBool,
}

struct Work {
    scraper: Scraper,
    history: History,
}

/// What is known of a target.
#[derive(Clone, Default, Debug)]
pub(crate) struct Seen {
    /// When its last scrape ended, successful or not.
    pub(crate) tried_at: Option<Tick>,
    pub(crate) outcome: Outcome,
    /// When it last answered.
    pub(super) answered_at: Option<Tick>,
    /// Failed scrapes in a row.
    pub(crate) failures: u64,
    /// Its content when it last answered.
    pub(crate) was: LastSeen,
    /// Its former models, and when it last served each.
    left: VecDeque<(ModelId, Tick)>,
    /// The gauges of its last page, if they are kept, and when that was requested.
    pub(crate) gauges: Option<(Arc<GaugePage>, Tick)>,
    /// By how many seconds its wall clock is ahead of ours.
    pub(crate) clock_ahead: Option<f64>,
    /// If true, a scrape without an answer does not count as failed.
    may_be_silent: bool,
}

/// How the last scrape ended.
#[derive(Clone, Default, Debug)]
pub(crate) enum Outcome {
    /// It was not scraped yet.
    #[default]
    Untried,
    Good(Arc<Good>),
    Failed(Arc<Cause>),
}

/// A page that was read.
#[derive(Debug)]
pub(crate) struct Good {
    pub(crate) asked_at: Tick,
    pub(crate) arrived_at: Tick,
    pub(crate) page: Exposition,
    /// The pod as a replica of each model that it serves; none for an endpoint picker.
    pub(crate) models: Vec<PodModel>,
    /// The previous page is older than the window, so no rate spans the two.
    pub(crate) is_first: bool,
    /// Several processes answer at this address in turns.
    pub(crate) in_turns: bool,
    pub(crate) malformed: u64,
    /// Its gauges as they are on the page, if they are kept.
    gauges: Option<Arc<GaugePage>>,
}

#[cfg(test)]
impl Good {
    /// A page of an endpoint picker.
    pub(super) fn of_picker(
        page: crate::endpoint_picker::EndpointPickerMetrics,
        asked_at: Tick,
    ) -> Self {
        Self {
            asked_at,
            arrived_at: asked_at,
            page: Exposition::EndpointPicker(page),
            models: Vec::new(),
            is_first: false,
            in_turns: false,
            malformed: 0,
            gauges: None,
        }
    }
}

/// What a target served when it last answered.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) enum LastSeen {
    /// It never answered.
    #[default]
    Unknown,
    /// A server of these models.
    Server {
        /// The models.
        models: Vec<ModelId>,
        /// Their ids are compared without case.
        ignore_case: bool,
        /// The names of its rows.
        rows: Vec<PodName>,
    },
    /// An endpoint picker, with where it routed requests: nowhere until it has answered.
    EndpointPicker(Routes),
}

impl LastSeen {
    /// Returns the state of a server that is these replicas.
    fn server(served: &[PodModel]) -> Self {
        let mut models: Vec<ModelId> = Vec::new();
        for pod in served {
            if !models.contains(&pod.model) {
                models.push(pod.model.clone());
            }
        }
        Self::Server {
            models,
            ignore_case: served.iter().any(|pod| pod.ignore_case),
            rows: served.iter().map(|pod| pod.replica.pod_name.clone()).collect(),
        }
    }

    /// Whether this model's replicas may be incomplete without the target.
    pub(crate) fn may_serve(&self, model: &ModelId) -> bool {
        match self {
            Self::Unknown => true,
            Self::Server { models, ignore_case, .. } => {
                models.iter().any(|known| is_same(known, model, *ignore_case))
            }
            Self::EndpointPicker(_) => false,
        }
    }

    /// Whether the ids of its models are compared without case.
    pub(crate) fn ignores_case(&self) -> bool {
        matches!(self, Self::Server { ignore_case: true, .. })
    }

    pub(crate) fn models(&self) -> &[ModelId] {
        match self {
            Self::Server { models, .. } => models,
            Self::Unknown | Self::EndpointPicker(_) => &[],
        }
    }

    /// Returns the names of the rows that its page is part of.
    pub(crate) fn rows(&self) -> &[PodName] {
        match self {
            Self::Server { rows, .. } => rows,
            Self::Unknown | Self::EndpointPicker(_) => &[],
        }
    }
}

/// Whether two ids are of one model.
pub(crate) fn is_same(known: &ModelId, asked: &ModelId, ignore_case: bool) -> bool {
    known == asked || (ignore_case && known.as_str().eq_ignore_ascii_case(asked.as_str()))
}

impl Seen {
    /// Returns the page of the last scrape, or why there is none since `since`.
    pub(crate) fn page(&self, since: Tick) -> Result<&Arc<Good>, Arc<Cause>> {
        match &self.outcome {
            Outcome::Good(good) if self.tried_at >= Some(since) => Ok(good),
            Outcome::Failed(cause) if self.tried_at >= Some(since) => Err(Arc::clone(cause)),
            _ => Err(Arc::new(Cause::new(ErrorKind::Timeout, "there was no time to scrape it"))),
        }
    }

    /// Whether it serves nothing, and nobody expects it to: it starts or terminates, and does not answer.
    pub(crate) fn is_out_of_service(&self) -> bool {
        self.may_be_silent && matches!(self.outcome, Outcome::Failed(_))
    }

    /// Whether the target served the model then or later.
    pub(crate) fn served_since(&self, model: &ModelId, since: Tick) -> bool {
        let serves = self.was != LastSeen::Unknown && self.was.may_serve(model);
        let now = self.answered_at.is_some_and(|at| at >= since) && serves;
        now || self.left.iter().any(|(left, at)| left == model && *at >= since)
    }
}

impl Pod {
    pub(crate) fn new(
        target: Target,
        engines: &Engines,
        settings: &Settings,
        window: Duration,
        keeps_gauges: bool,
    ) -> Self {
        let reader = Reader::of_target(engines, &target, settings.limits);
        let reader = reader.map(|it| if keeps_gauges { it.with_gauges() } else { it });
        let is_picker = target.engine.as_ref().is_some_and(|it| it.as_str() == ENDPOINT_PICKER);
        let (was, credential) = if is_picker {
            let routes = Routes::default().in_pool(target.pool.clone());
            (LastSeen::EndpointPicker(routes), Credential::EndpointPicker)
        } else {
            (LastSeen::Unknown, Credential::Token)
        };
        let scraper = Scraper::new(target.url.clone(), credential, reader);
        let may_be_silent = target.may_be_silent;
        Self {
            target,
            work: tokio::sync::Mutex::new(Work { scraper, history: History::new(window) }),
            seen: Mutex::new(Seen { was, may_be_silent, ..Seen::default() }),
            wake: Notify::new(),
            asked: AtomicBool::new(false),
        }
    }

    /// What is known of it.
    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each change is one assignment, so a panic elsewhere leaves nothing half done.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whether it may be silent; returns whether that makes a difference.
    pub(crate) fn set_may_be_silent(&self, may_be_silent: bool) -> bool {
        let mut seen = self.seen();
        let before = std::mem::replace(&mut seen.may_be_silent, may_be_silent);
        before != may_be_silent && matches!(seen.outcome, Outcome::Failed(_))
    }

    /// Requests a scrape now from the task of the live source.
    pub(super) fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Closes its connection, unless it is being scraped.
    pub(super) fn disconnect(&self) {
        if let Ok(mut work) = self.work.try_lock() {
            work.scraper.disconnect();
        }
    }

    /// Returns whether a scrape was requested, and clears the request.
    pub(super) fn take_asked(&self) -> bool {
        self.asked.swap(false, Ordering::Relaxed)
    }

    /// Scrapes the pod, unless it was scraped since `since`. Returns the models whose answer changed.
    pub(super) async fn scrape(&self, settings: &Settings, since: Tick) -> Vec<ModelId> {
        let mut work = self.work.lock().await;
        if self.seen().tried_at.is_some_and(|tried_at| tried_at > since) {
            return Vec::new();
        }
        let began = Instant::now();
        let Work { scraper, history } = &mut *work;
        let has_buckets = history.is_due_for_buckets(settings.clock.now());
        let scraped = scraper.scrape(settings, has_buckets).await;
        let took = began.elapsed();
        let wall = settings.clock.wall();
        let now = settings.clock.now();
        let read = scraped.and_then(|scraped| {
            let Fetched { asked_at, clock_ahead, .. } = scraped.fetched;
            let time = ScrapeTime::new(asked_at, wall - asked_at.age(now), clock_ahead);
            self.read(scraped, history, time, has_buckets)
        });
        match &read {
            Ok((good, summary, _)) => {
                selfmetrics::scraped(took, summary.bytes, summary.malformed_count);
                self.log_malformed(good, summary);
            }
            Err(cause) => selfmetrics::failed(took, cause.kind),
        }
        self.keep(read.map(|(good, _, ahead)| (good, ahead)), settings)
    }

    /// Makes the pod's state of a page.
    fn read(
        &self,
        scraped: Scraped,
        history: &mut History,
        time: ScrapeTime,
        has_buckets: bool,
    ) -> Result<(Good, Summary, Option<f64>), Cause> {
        let Scraped { mut page, summary, fetched, gauges } = scraped;
        let Fetched { asked_at, arrived_at, clock_ahead, .. } = fetched;
        let is_first = !history.reaches(asked_at);
        let models = match &mut page {
            Exposition::Server(server) => {
                check_size(server)?;
                if let Some(no_model) = &server.no_model {
                    return Err(why_no_model(server, no_model));
                }
                let target = &self.target;
                let identity = PodIdentity {
                    name: target.row_name(),
                    role: target.role.as_ref(),
                    keeps_parts: target.is_one_of_several(),
                };
                let models = history.record(server, identity, time);
                if models.is_empty() {
                    return Err(why_no_model(server, &NoModel::NoLabel));
                }
                // They are recorded in the history, and not kept twice.
                for row in &mut server.rows {
                    row.increases = None;
                    row.buckets = Vec::new();
                }
                models
            }
            Exposition::EndpointPicker(_) => Vec::new(),
        };
        let malformed = match summary.malformed_count {
            own if has_buckets => own,
            // Those among the buckets are still there.
            own => own.max(self.malformed()),
        };
        let in_turns = history.is_in_turns(asked_at);
        let gauges = gauges.map(|mut gauges| {
            if in_turns {
                gauges.incomplete = Some("several processes answer at its address in turns");
            }
            Arc::new(gauges)
        });
        let good =
            Good { asked_at, arrived_at, page, models, is_first, in_turns, malformed, gauges };
        Ok((good, summary, clock_ahead))
    }

    /// Records how a scrape ended, and returns the models whose answer changed.
    fn keep(&self, read: Result<(Good, Option<f64>), Cause>, settings: &Settings) -> Vec<ModelId> {
        let now = settings.clock.now();
        let mut seen = self.seen();
        seen.tried_at = Some(now);
        match read {
            Ok((good, clock_ahead)) => {
                let failures = std::mem::take(&mut seen.failures);
                if failures > 0 {
                    tracing::info!(url = %self.target.shown(), failures, "Target answers again");
                }
                let was = match &good.page {
                    Exposition::EndpointPicker(page) => {
                        let pool = self.target.pool.clone();
                        LastSeen::EndpointPicker(Routes::of(page).in_pool(pool))
                    }
                    Exposition::Server(_) => LastSeen::server(&good.models),
                };
                let mut changed = was.models().to_vec();
                let left = seen.was.models().iter().filter(|model| !changed.contains(model));
                let left: Vec<ModelId> = left.cloned().collect();
                if !left.is_empty() {
                    let url = self.target.shown();
                    tracing::info!(url, before = ?left, now = ?changed, "Target serves another model");
                }
                let last = seen.answered_at.unwrap_or(now);
                seen.left.extend(left.iter().map(|model| (model.clone(), last)));
                while seen.left.len() > FORMER_MODELS_MAX {
                    seen.left.pop_front();
                }
                changed.extend(left);
                seen.was = was;
                seen.answered_at = Some(now);
                seen.clock_ahead = clock_ahead;
                seen.gauges = good.gauges.clone().map(|gauges| (gauges, good.asked_at));
                seen.outcome = Outcome::Good(Arc::new(good));
                changed
            }
            Err(cause) => {
                seen.failures += 1;
                let is_new = seen.failures == 1;
                if is_new && seen.may_be_silent {
                    tracing::debug!(
                        url = %self.target.shown(), error = %cause,
                        "Target that starts or terminates does not answer"
                    );
                } else if is_new {
                    tracing::warn!(
                        url = %self.target.shown(), namespace = %self.target.namespace,
                        pod = %self.target.pod,
                        error = %with_section(settings.section, &cause.to_string()),
                        "Target cannot be scraped"
                    );
                }
                seen.outcome = Outcome::Failed(Arc::new(cause));
                // A further failure changes nothing.
                if is_new { seen.was.models().to_vec() } else { Vec::new() }
            }
        }
    }

    /// Malformed lines of the last page; 0 if the last scrape failed.
    fn malformed(&self) -> u64 {
        match &self.seen().outcome {
            Outcome::Good(before) => before.malformed,
            Outcome::Untried | Outcome::Failed(_) => 0,
        }
    }

    fn log_malformed(&self, good: &Good, summary: &Summary) {
        if let (0, Some(first)) = (self.malformed(), summary.malformed.first()) {
            tracing::warn!(
                url = %self.target.shown(), lines = good.malformed, line = first.line,
                reason = %first.reason, "Some lines of a page cannot be read and are left out"
            );
        }
    }
}

/// Returns the error of a page that belongs to no model.
fn why_no_model(page: &ServerExposition, no_model: &NoModel) -> Cause {
    let quote = collector_transport::quote;
    let engine = &page.engine;
    let (detail, remedy) = match no_model {
        NoModel::NoLabel => (
            format!("no series of its {engine} page names a model"),
            "has the server loaded a model? Where its series name none, give it: model = \"…\" on \
             the target or in [[engines]]",
        ),
        NoModel::NoId(name) => (
            format!("{:?} on its {engine} page is not a model id", quote(name)),
            "give the model: model = \"…\" on the target or in [[engines]]",
        ),
        NoModel::Several(names) => {
            let names: Vec<String> =
                names.iter().take(NAMES_SHOWN).map(|name| quote(name)).collect();
            let names = names.join(", ");
            (
                format!("its {engine} page names several models: {names}"),
                "a model may be given to a server of one model alone: leave model out",
            )
        }
    };
    Cause::new(ErrorKind::BadAnswer, detail).with_remedy(remedy)
}

/// Refuses a page with far more models and engines than any model server has, which would only cost memory.
fn check_size(page: &ServerExposition) -> Result<(), Cause> {
    let refuse = |detail: String| Err(Cause::new(ErrorKind::TooLarge, detail));
    if page.rows.len() > ROWS_MAX {
        return refuse(format!("its page tells of more than {ROWS_MAX} models and engines"));
    }
    let models = page.rows.iter().filter_map(|row| row.model.as_ref());
    if models.map(|model| model.as_str().len()).any(|bytes| bytes > MODEL_BYTES_MAX) {
        return refuse(format!("a model's name is longer than {MODEL_BYTES_MAX} bytes"));
    }
    Ok(())
}
