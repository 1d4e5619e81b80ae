//! A read that the cache cannot answer: joins the fetch of its model at each source, or starts it, and
//! waits.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_core::{
    BackendError, CollectError, ErrorKind, KeyRef, ModelRef, Outcome, Reading, Replicas,
    SourceState, Stored, Tick,
};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::assess::{Kept, conclude, known_missing, usable};
use crate::cache::Cache;
use crate::engine::Engine;
use crate::flight::Landing;
use crate::publish::next_look;
use crate::readers::Reader;
use crate::source::Source;

/// How long less preferred sources are waited for once one has the model: what they would fill in is not
/// worth the whole time-out of one that hangs.
const OTHERS_WAIT: Duration = Duration::from_secs(1);

/// A fetch ends by itself when the time of its callers is over. They wait a little longer for its error, which
/// says more than that time is over: that no permit came, for example.
const GRACE: Duration = Duration::from_millis(100);

/// The fetches of one model that a caller waits for.
#[derive(Default)]
struct Landings {
    /// By the places of their sources.
    of_sources: Vec<(usize, watch::Receiver<Option<Landing>>)>,
    /// The caller has started one of them; else all were under way.
    started: bool,
}

impl Engine {
    /// A read of what is cached and was not read lately by this thread. `None` when there is no entry, or
    /// none that can be used.
    #[inline(never)]
    pub(crate) fn hit_anew<T: Kept>(
        self: &Arc<Self>,
        reader: &Reader,
        model: &ModelRef,
        key: KeyRef<'_>,
        now: Tick,
    ) -> Option<Reading<T>> {
        let (reading, is_due) = self.cached(key, now)?;
        if let Cache::Memory(cache) = &self.cache {
            reader.learn::<T>(cache, key);
        }
        reader.served(model, reading.source());
        if is_due {
            self.refresh(model, key, now);
        }
        Some(reading)
    }

    /// The cached reading, and whether a refresh is due.
    fn cached<T: Kept>(&self, key: KeyRef<'_>, now: Tick) -> Option<(Reading<T>, bool)> {
        self.cache.read(key, now, |stored| {
            let reading = usable(stored, &self.config.freshness, now)?;
            Some((reading, now >= stored.refresh_after))
        })?
    }

    /// The cached news that a model is missing.
    pub(crate) fn known_missing(
        &self,
        model: &ModelRef,
        key: KeyRef<'_>,
        now: Tick,
    ) -> Option<CollectError> {
        let nearest = self.cache.read(key, now, |stored| known_missing(stored, now))??;
        Some(CollectError::Missing { model: model.clone(), nearest })
    }

    /// An entry as it stands, without asking anybody and without counting as a read.
    pub(crate) fn peek<T: Kept>(
        &self,
        model: &ModelRef,
        key: KeyRef<'_>,
    ) -> Result<Reading<T>, CollectError> {
        match self.cache.peek(key) {
            Some(peeked) => {
                conclude(model, &peeked.stored, &self.config.freshness, self.clock.now(), false)
            }
            None => Err(CollectError::Pending { model: model.clone() }),
        }
    }

    /// Starts a refresh that nobody waits for at every source where it is due, unless one is under way.
    /// Of the reads of an entry that is due, one a second comes this far. Outside of a tokio runtime
    /// there is nothing to start it on, and the worker refreshes alone.
    pub(crate) fn refresh(self: &Arc<Self>, model: &ModelRef, read: KeyRef<'_>, now: Tick) {
        if !self.cache.may_refresh(read, now) || Handle::try_current().is_err() {
            return;
        }
        let pace = self.pace(model);
        let peeked = self.cache.peek(KeyRef::replicas(model));
        let states = peeked.iter().flat_map(|peeked| &peeked.stored.cold.sources);
        let is_due = |source: &Source| {
            let state = states.clone().find(|state| state.backend == source.name);
            state.is_none_or(|state| now >= next_look(state, pace))
        };
        for (place, source) in self.sources.iter().enumerate() {
            if !is_due(source) {
                continue;
            }
            let joined = source.flights.join(model, false, || None::<()>);
            if joined.is_ok_and(|joined| joined.opens_boarding) {
                self.open_boarding(place);
            }
        }
    }

    /// Waits for the model's fetches: those under way, or new ones. `pick` chooses the entry that was
    /// asked for.
    pub(crate) async fn ask<T: Kept>(
        self: &Arc<Self>,
        model: &ModelRef,
        key: KeyRef<'_>,
        pick: impl Fn(&Landing) -> Option<Arc<Stored>> + Send,
    ) -> Result<Reading<T>, CollectError> {
        let mut joined = self.join(&[model], |model| self.arrived(model, key));
        match joined.pop() {
            Some(joined) => self.landed(model, key, joined, pick).await,
            None => Err(CollectError::Pending { model: model.clone() }),
        }
    }

    /// The same for the replicas of several models, which board together.
    pub(crate) async fn ask_all(
        self: &Arc<Self>,
        models: &[&ModelRef],
    ) -> Vec<Result<Reading<Replicas>, CollectError>> {
        let arrived = |model: &ModelRef| self.arrived(model, KeyRef::replicas(model));
        let joined = self.join(models, arrived);
        let pick = |landing: &Landing| Some(Arc::clone(&landing.replicas));
        let each = models.iter().zip(joined);
        join_all(
            each.map(|(model, joined)| self.landed(model, KeyRef::replicas(model), joined, pick)),
        )
        .await
    }

    /// Joins the fetches of models at every source, those under way or new ones. Where the value has
    /// arrived meanwhile, or may not be asked for, that is returned instead.
    fn join<T: Kept>(
        self: &Arc<Self>,
        models: &[&ModelRef],
        arrived: impl Fn(&ModelRef) -> Option<Result<Reading<T>, CollectError>>,
    ) -> Vec<Result<Landings, Result<Reading<T>, CollectError>>> {
        let mut all: Vec<_> = models
            .iter()
            .map(|model| match self.refused(model) {
                Some(refused) => Err(Err(refused)),
                None => Ok(Landings::default()),
            })
            .collect();
        for (place, source) in self.sources.iter().enumerate() {
            let wanted: Vec<usize> = (0..all.len()).filter(|at| all[*at].is_ok()).collect();
            let asked: Vec<&ModelRef> = wanted.iter().map(|at| models[*at]).collect();
            for (at, joined) in wanted.into_iter().zip(source.flights.join_all(&asked, &arrived)) {
                match (joined, &mut all[at]) {
                    (Ok(joined), Ok(landings)) => {
                        landings.started |= !joined.coalesced;
                        landings.of_sources.push((place, joined.landing));
                        if joined.opens_boarding {
                            self.open_boarding(place);
                        }
                    }
                    (Ok(_), Err(_)) => {}
                    (Err(arrived), result) => *result = Err(arrived),
                }
            }
        }
        for (model, result) in models.iter().zip(&all) {
            if let Ok(landings) = result {
                self.count_miss(model, landings);
            }
        }
        all
    }

    /// Why a model that is not cached may not be asked for, if so.
    fn refused(&self, model: &ModelRef) -> Option<CollectError> {
        let full = self.cache.retains()
            && self.tracker.len() >= self.max_tracked
            && !self.tracker.contains(model);
        full.then_some(CollectError::TooManyModels { limit: self.max_tracked })
    }

    fn count_miss(&self, model: &ModelRef, landings: &Landings) {
        tracing::debug!(modelID = ?model.model, namespace = ?model.namespace, "Cache miss");
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        if !landings.started {
            self.counters.coalesced_misses.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for the landings of one model, unless joining has told already.
    async fn landed<T: Kept>(
        &self,
        model: &ModelRef,
        key: KeyRef<'_>,
        joined: Result<Landings, Result<Reading<T>, CollectError>>,
        pick: impl Fn(&Landing) -> Option<Arc<Stored>> + Send,
    ) -> Result<Reading<T>, CollectError> {
        let landings = match joined {
            Ok(landings) => landings,
            Err(told) => return told,
        };
        let waits = landings.of_sources.into_iter();
        let waits = waits.map(|(place, landing)| self.landing_of(place, model, landing)).collect();
        let (landed, error) = self.landings(waits).await;
        let Some(landing) = self.together(model, landed) else {
            let error = error.unwrap_or_else(|| gone(&self.sources[0], model));
            return Err(self.without_landing::<T>(model, key, error));
        };
        let Some(stored) = pick(&landing) else {
            // Stopped being tracked while the fetch was under way.
            return Err(CollectError::Pending { model: model.clone() });
        };
        let concluded = conclude(model, &stored, &self.config.freshness, self.clock.now(), true);
        match (concluded, error) {
            // Whoever has answered does not have it, and the one who may have it has not answered.
            (Err(CollectError::Pending { .. }), Some(error)) => {
                Err(CollectError::Backend(Arc::new(error)))
            }
            (concluded, _) => concluded,
        }
    }

    /// The landings that are worth waiting for: all of them, or, once a source has the model, those that
    /// come soon.
    async fn landings<F>(
        &self,
        mut waits: FuturesUnordered<F>,
    ) -> (Vec<(&Source, Landing)>, Option<BackendError>)
    where
        F: Future<Output = (usize, Result<Landing, BackendError>)>,
    {
        let mut awaited: BTreeSet<usize> = (0..self.sources.len()).collect();
        let mut landed = Vec::new();
        let mut error = None;
        let mut found: Option<(usize, Instant)> = None;
        let mut enough_at = None;
        loop {
            let enough = async {
                match enough_at {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let next = tokio::select! {
                next = waits.next() => next,
                () = enough => None,
            };
            let Some((place, result)) = next else { break };
            awaited.remove(&place);
            match result {
                Ok(landing) => {
                    if landing.replicas.outcome == Outcome::Found {
                        let (best, since) = found.unwrap_or((place, Instant::now()));
                        found = Some((best.min(place), since));
                    }
                    landed.push((&self.sources[place], landing));
                }
                Err(gone) => error = error.or(Some(gone)),
            }
            if let Some((best, since)) = found {
                let patience = |place: &usize| {
                    if *place < best { self.sources[*place].patience } else { OTHERS_WAIT }
                };
                enough_at = awaited.iter().map(patience).max().map(|patience| since + patience);
            }
        }
        (landed, error)
    }

    /// Waits for a landing, as long as a call may.
    async fn landing_of(
        &self,
        place: usize,
        model: &ModelRef,
        mut landing: watch::Receiver<Option<Landing>>,
    ) -> (usize, Result<Landing, BackendError>) {
        let source = &self.sources[place];
        let wait = landing.wait_for(Option::is_some);
        let landed = match timeout(source.call_limit + GRACE, wait).await {
            Ok(Ok(landing)) => landing.clone().ok_or_else(|| gone(source, model)),
            Ok(Err(_gone)) => Err(gone(source, model)),
            Err(_elapsed) => {
                let limit = humantime::format_duration(source.call_limit);
                Err(source
                    .error(ErrorKind::Timeout, model.to_string())
                    .with_detail(format!("no answer within {limit}"))
                    .with_remedy("is the server overloaded? If it needs longer, raise its timeout"))
            }
        };
        (place, landed)
    }

    /// What has arrived since the cache was looked into, if anything has.
    fn arrived<T: Kept>(
        &self,
        model: &ModelRef,
        key: KeyRef<'_>,
    ) -> Option<Result<Reading<T>, CollectError>> {
        let now = self.clock.now();
        match self.cached(key, now) {
            Some((reading, _)) => Some(Ok(reading)),
            None => self.known_missing(model, key, now).map(Err),
        }
    }

    /// One landing of those of all sources. Each of them knows what its own source said last; of a
    /// source that has not landed, what it said before is taken from the others'.
    fn together(&self, model: &ModelRef, mut landed: Vec<(&Source, Landing)>) -> Option<Landing> {
        if landed.len() <= 1 {
            return landed.pop().map(|(_, landing)| landing);
        }
        let states_of = |landing: &'_ Landing| landing.replicas.cold.sources.clone();
        let mut states: Vec<SourceState> = Vec::new();
        for (source, landing) in &landed {
            states.extend(states_of(landing).into_iter().filter(|s| s.backend == source.name));
        }
        for former in landed.iter().flat_map(|(_, landing)| states_of(landing)) {
            if states.iter().all(|state| state.backend != former.backend) {
                states.push(former);
            }
        }
        let tracked = self.tracker.get(model);
        let publisher = self.publisher(model, tracked.as_ref(), self.clock.now());
        Some(publisher.entries(states).into())
    }

    /// Nothing has come. A value that is too old to be used still says since when.
    fn without_landing<T: Kept>(
        &self,
        model: &ModelRef,
        key: KeyRef<'_>,
        error: BackendError,
    ) -> CollectError {
        let cause = Arc::new(error);
        match self.peek::<T>(model, key) {
            Err(CollectError::Unavailable { model, age, threshold, .. }) => {
                CollectError::Unavailable { model, age, threshold, cause: Some(cause) }
            }
            _ => CollectError::Backend(cause),
        }
    }
}

/// Whoever waits is never given up: the task of the fetch is gone.
fn gone(source: &Source, model: &ModelRef) -> BackendError {
    source
        .error(ErrorKind::Panicked, model.to_string())
        .with_detail("the fetch ended without an answer")
}
