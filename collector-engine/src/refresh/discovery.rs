// SPDX-License-Identifier: Apache-2.0
//! Discovery: models that the backends list are tracked without a read.
//!
//! Each source is listed by a task of its own, so that one that hangs delays no other. Models are tracked for as long
//! as any source lists them. A source that fails keeps its last list: a failure untracks nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use collector_core::{DiscoveryState, ErrorKind, ModelRef, Namespace, Tick};
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::fetch::{LastListing, Listing, Source};

/// The usual time between two lists of a source that has models; `fetch_interval` if that is longer.
const LIST_INTERVAL: Duration = Duration::from_secs(60);

/// How soon a source that failed, or knows no model yet, is listed again; doubled until it has some.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// A list that another caller asked for is used if it is not older.
const LIST_MAX_AGE: Duration = Duration::from_secs(5);

/// How many namespaces a log line names.
const SHOWN: usize = 5;

/// Which models are tracked without a read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Discovery {
    /// True: every model that a backend lists is tracked for as long as it is listed. False: each backend is asked for
    /// its models until it has answered once, for the log and for
    /// [`CollectorState::discovery`](collector_core::CollectorState::discovery), and nothing is tracked.
    pub track: bool,
    /// The namespaces whose models are tracked. Default: none, which means all.
    pub namespaces: BTreeSet<Namespace>,
    /// The time between two lists of a source that has models. Default: none, which means a minute, or `fetch_interval`
    /// if that is longer.
    pub interval: Option<Duration>,
}

impl Default for Discovery {
    fn default() -> Self {
        Self { track: true, namespaces: BTreeSet::new(), interval: None }
    }
}

impl Discovery {
    fn includes(&self, model: &ModelRef) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(&model.namespace)
    }
}

/// The state of discovery in one collector.
pub(crate) struct Discoverer {
    config: Discovery,
    /// Models are tracked: it is configured, and something refreshes them.
    tracks: bool,
    /// How many sources have been asked once, well or badly.
    asked: AtomicUsize,
    totals: Mutex<Totals>,
}

/// What the last lists of all sources came to.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Totals {
    /// `None`: no source has listed its models yet.
    known: Option<usize>,
    /// Known models in namespaces that are not to be tracked.
    excluded: usize,
    /// Known models that are not tracked because of the limit.
    left_out: usize,
}

impl Discoverer {
    pub(crate) fn new(config: Discovery, refreshes: bool) -> Self {
        let tracks = config.track && refreshes;
        Self { config, tracks, asked: AtomicUsize::new(0), totals: Mutex::default() }
    }
}

/// How the last list of a source ended, for the log: each is logged when it begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    Models,
    NoModel,
    Failed,
    Unsupported,
}

impl Listed {
    fn of(listing: &Listing) -> Self {
        match listing {
            Ok(models) if models.is_empty() => Self::NoModel,
            Ok(_) => Self::Models,
            Err(error) if error.kind() == ErrorKind::Unsupported => Self::Unsupported,
            Err(_) => Self::Failed,
        }
    }
}

/// Lists the models of a source again and again, until the worker is stopped.
pub(super) async fn run(engine: Arc<Engine>, index: usize, stop: CancellationToken) {
    let source = &engine.sources[index];
    let Some(discoverer) = &engine.discoverer else { return };
    let interval = discoverer.config.interval;
    let interval = interval.unwrap_or_else(|| LIST_INTERVAL.max(engine.config.fetch_interval));
    let mut retry_after = RETRY_AFTER;
    let mut before = None;
    loop {
        let limit = source.call_limit;
        let listing = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            listing = source.known.models(source, &*engine.clock, LIST_MAX_AGE, limit) => listing,
        };
        let listed = Listed::of(&listing);
        if before != Some(listed) {
            log_listing(source, &listing, discoverer.tracks);
        }
        super::worker::survive(&engine, "Tracking the listed models", || {
            engine.track_listed(discoverer);
        });
        if before.is_none() {
            // Whatever comes of it: a cycle that begins from here on has everything to try.
            discoverer.asked.fetch_add(1, Ordering::Relaxed);
            engine.paces.changed();
        }
        before = Some(listed);
        let wait = match listed {
            Listed::Unsupported => return,
            Listed::Models | Listed::NoModel if !discoverer.tracks => return,
            Listed::Models => {
                retry_after = RETRY_AFTER;
                interval
            }
            Listed::NoModel | Listed::Failed => {
                let wait = retry_after.min(interval);
                retry_after = wait * 2;
                wait
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
    }
}

fn log_listing(source: &Source, listing: &Listing, tracks: bool) {
    let backend = &source.name;
    match listing {
        Ok(models) if models.is_empty() => {
            let question = if source.backend.variants().is_some() {
                "does an object that it lists describe one?"
            } else {
                "does anything scrape the model servers, and do their series have a namespace and a model name?"
            };
            tracing::warn!(
                %backend,
                "The backend answers and knows no model: {question} `collector check` finds the cause"
            );
        }
        Ok(models) => {
            let namespaces: BTreeSet<_> =
                models.iter().map(|known| &known.model.namespace).collect();
            tracing::info!(
                %backend, models = models.len(), namespaces = namespaces.len(), "Listed the models of the backend"
            );
        }
        Err(error) if error.kind() == ErrorKind::Unsupported => tracing::info!(
            %backend, "The backend cannot list its models: they are tracked once they are read"
        ),
        Err(error) if source.known.last().listed.is_some() => tracing::warn!(
            %backend, %error, "Cannot list the models of the backend: those that it listed before stay tracked"
        ),
        Err(error) if tracks => tracing::warn!(
            %backend, %error,
            "Cannot list the models of the backend: until it answers, models are tracked once they are read"
        ),
        Err(error) => tracing::warn!(%backend, %error, "Cannot list the models of the backend"),
    }
}

impl Engine {
    /// Whether a cycle that begins now tries everything: the sources have been asked for their models.
    pub(crate) fn has_listed(&self) -> bool {
        let Some(discoverer) = &self.discoverer else { return true };
        !discoverer.tracks || discoverer.asked.load(Ordering::Relaxed) >= self.sources.len()
    }

    /// Whether a model is tracked for as long as it is listed.
    pub(crate) fn discovers(&self, model: &ModelRef) -> bool {
        let discoverer = self.discoverer.as_ref();
        discoverer.is_some_and(|discoverer| discoverer.tracks && discoverer.config.includes(model))
    }

    pub(crate) fn discovery_state(&self) -> Option<DiscoveryState> {
        let discoverer = self.discoverer.as_ref()?;
        let totals = *discoverer.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = DiscoveryState::default();
        state.tracks = discoverer.tracks;
        state.pending = !self.has_listed();
        state.known = totals.known;
        state.excluded = totals.excluded;
        state.left_out = totals.left_out;
        Some(state)
    }

    /// Tracks what the sources list, and releases what none of them lists any more.
    fn track_listed(&self, discoverer: &Discoverer) {
        // Held throughout: sources that are listed at the same time are judged one after the other.
        let mut totals = discoverer.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let lists: Vec<_> = self.sources.iter().map(|source| source.known.last()).collect();
        let models = lists.iter().filter_map(|last| last.listed.as_ref());
        let models = models.flat_map(|(_, models)| models.iter().map(|known| &known.model));
        let listed: BTreeSet<&ModelRef> = models.collect();
        let has_list = lists.iter().any(|last| last.listed.is_some());
        let before = *totals;
        *totals = Totals { known: has_list.then_some(listed.len()), ..Totals::default() };
        if !discoverer.tracks {
            return;
        }
        let now = self.clock.now();
        let mut newly_tracked = 0;
        for model in &listed {
            if !discoverer.config.includes(model) {
                totals.excluded += 1;
                continue;
            }
            let was_tracked = self.models.with(model, |cell| {
                let was_tracked = cell.tracked.is_some();
                self.track(cell, model, now);
                cell.tracked.as_mut()?.listed = true;
                Some(was_tracked)
            });
            match was_tracked {
                Some(true) => {}
                Some(false) => newly_tracked += 1,
                None => totals.left_out += 1,
            }
        }
        // A source that has never listed may have any model.
        if lists.iter().all(LastListing::is_settled) {
            self.release_unlisted(discoverer, &listed, now);
        }
        if newly_tracked > 0 {
            let tracked = self.models.tracked_count();
            tracing::info!(models = newly_tracked, tracked, "Began to track listed models");
            self.paces.changed();
        }
        log_totals(discoverer, before, *totals, self.max_tracked, &listed);
    }

    /// From here on, what no source lists is untracked like any other model, unless it is read.
    fn release_unlisted(&self, discoverer: &Discoverer, listed: &BTreeSet<&ModelRef>, now: Tick) {
        let is_listed =
            |model: &ModelRef| listed.contains(model) && discoverer.config.includes(model);
        let kept = self.models.all(|cell| cell.tracked.as_ref()?.listed.then_some(()));
        for (model, ()) in kept.into_iter().filter(|(model, ())| !is_listed(model)) {
            self.models.with(&model, |cell| {
                if let Some(tracked) = &mut cell.tracked {
                    tracked.listed = false;
                    tracked.since = now;
                }
            });
            tracing::debug!(
                model = ?model.model, namespace = ?model.namespace, "No backend lists the model any more"
            );
        }
    }
}

/// Logs what is not tracked, whenever that has changed.
fn log_totals(
    discoverer: &Discoverer,
    before: Totals,
    now: Totals,
    limit: usize,
    listed: &BTreeSet<&ModelRef>,
) {
    if now.left_out > 0 && now.left_out != before.left_out {
        tracing::warn!(
            leftOut = now.left_out,
            limit,
            "More models are listed than may be tracked, and those left out are refused: raise server.max_tracked, or \
             limit tracking.namespaces"
        );
    } else if now.left_out == 0 && before.left_out > 0 {
        tracing::info!("All listed models are tracked again");
    }
    let all_excluded =
        |totals: Totals| totals.excluded > 0 && Some(totals.excluded) == totals.known;
    if all_excluded(now) && !all_excluded(before) {
        let mut models_in: BTreeMap<&Namespace, usize> = BTreeMap::new();
        for model in listed {
            *models_in.entry(&model.namespace).or_default() += 1;
        }
        let existing: Vec<&Namespace> = models_in.keys().copied().take(SHOWN).collect();
        let configured: Vec<&Namespace> = discoverer.config.namespaces.iter().take(SHOWN).collect();
        tracing::warn!(
            known = listed.len(),
            ?configured,
            ?existing,
            "No listed model is in a namespace of tracking.namespaces"
        );
    }
}
