// SPDX-License-Identifier: Apache-2.0
//! A read that the cache cannot answer: joins the fetch of its model at each source, or starts it, and waits.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use collector_core::Part;
use collector_core::raw::SourceState;
use collector_core::{
    BackendError, CollectError, ErrorKind, ModelRecord, ModelRef, Outcome, Reading, Tick,
};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::assess::{conclude, consult, pending as pending_error};
use crate::engine::Engine;
use crate::fetch::{Fetch, NewFetches, Source};
use crate::publish::next_fetch;
use crate::state::{Joined, State};

/// How long less preferred sources are waited for once one has the model: what they would fill in is not
/// worth the whole time-out of one that hangs.
const OTHERS_WAIT: Duration = Duration::from_secs(1);

/// A fetch ends by itself when the time of its callers is over. They wait a little longer for its error, which
/// says more than that time is over: that no permit came, for example.
const GRACE: Duration = Duration::from_millis(100);

/// The results that a caller waits for, of one model, by the indices of their sources.
type Results = Vec<watch::Receiver<Option<Arc<ModelRecord>>>>;

impl Engine {
    /// What is cached of a model, without asking anybody and without counting as a read.
    pub(crate) fn peek<T: Part>(
        &self,
        model: &ModelRef,
        name: &T::Name,
    ) -> Result<Reading<T>, CollectError> {
        let record = self.cache.get(model).ok_or_else(|| pending_error(model))?;
        conclude(&record, name, &self.config.freshness, self.now(), false)
    }

    /// Starts a refresh that nobody waits for at every source where one is due. Outside of a tokio runtime there is
    /// nothing to start it on, and the worker refreshes alone.
    #[cold]
    pub(super) fn refresh(self: &Arc<Self>, record: &ModelRecord, now: Tick) {
        if !record.claim_refresh(now) || Handle::try_current().is_err() {
            return;
        }
        let pace = self.pace(&record.model);
        for (index, source) in self.sources.iter().enumerate() {
            let state = record.cold.sources.iter().find(|state| state.backend == source.name);
            if state.is_some_and(|state| now < next_fetch(state, pace)) {
                continue;
            }
            let mut new = NewFetches::new(self, index);
            self.models.with(&record.model, |cell| {
                if let Joined::New(fetch) = cell.join(index, || Fetch::new(&record.model)) {
                    new.push(fetch);
                }
            });
        }
    }

    /// Waits for the fetches of a model: those in flight, or new ones.
    pub(crate) async fn ask<T: Part>(
        self: &Arc<Self>,
        model: &ModelRef,
        name: &T::Name,
    ) -> Result<Reading<T>, CollectError> {
        let joined = self.join(model, name, &mut self.new_fetches());
        match joined {
            Ok(results) => self.wait(model, name, results).await,
            Err(answered) => answered,
        }
    }

    /// The same for several models, whose new fetches are sent in one batch. Those that are cached by now are not asked
    /// for.
    pub(crate) async fn ask_all<T: Part>(
        self: &Arc<Self>,
        models: &[&ModelRef],
        name: &T::Name,
    ) -> Vec<Result<Reading<T>, CollectError>> {
        let joined: Vec<_> = {
            let mut new = self.new_fetches();
            models.iter().map(|model| self.join::<T>(model, name, &mut new)).collect()
        };
        join_all(joined.into_iter().zip(models).map(|(joined, model)| async move {
            match joined {
                Ok(results) => self.wait(model, name, results).await,
                Err(answered) => answered,
            }
        }))
        .await
    }

    fn new_fetches(self: &Arc<Self>) -> Vec<NewFetches<'_>> {
        (0..self.sources.len()).map(|index| NewFetches::new(self, index)).collect()
    }

    /// Joins the fetches of a model at every source, in one step. `Err`: what has arrived since the cache was read, or
    /// why the model may not be asked for.
    fn join<T: Part>(
        &self,
        model: &ModelRef,
        name: &T::Name,
        new: &mut [NewFetches<'_>],
    ) -> Result<Results, Result<Reading<T>, CollectError>> {
        self.models.with(model, |cell| {
            let now = self.clock.now();
            if let Some(record) = self.cache.get(model) {
                record.touch(now);
                if let Some(answer) = consult(&record, name, &self.config.freshness, now) {
                    return Err(answer);
                }
            }
            let limit = self.max_tracked;
            let full = cell.tracked.is_none() && self.models.tracked_count() >= limit;
            if full && self.cache.retains() {
                return Err(Err(CollectError::TooManyModels { limit }));
            }
            Ok(self.join_all_sources(cell, model, new))
        })
    }

    fn join_all_sources(
        &self,
        cell: &mut State<Fetch>,
        model: &ModelRef,
        new: &mut [NewFetches<'_>],
    ) -> Results {
        let mut started = false;
        let join = |(index, new): (usize, &mut NewFetches<'_>)| {
            let joined = cell.join(index, || Fetch::new(model));
            let result = joined.fetch().subscribe();
            if let Joined::New(fetch) = joined {
                started = true;
                new.push(fetch);
            } else {
                self.sources[index].hurry();
            }
            result
        };
        let results = new.iter_mut().enumerate().map(join).collect();
        tracing::debug!(model = ?model.model, namespace = ?model.namespace, "Cache miss");
        self.counters.misses.fetch_add(1, Ordering::Relaxed);
        if !started {
            self.counters.coalesced_misses.fetch_add(1, Ordering::Relaxed);
        }
        results
    }

    /// Waits for the results of one model.
    async fn wait<T: Part>(
        &self,
        model: &ModelRef,
        name: &T::Name,
        results: Results,
    ) -> Result<Reading<T>, CollectError> {
        let waits = results.into_iter().enumerate();
        let waits = waits.map(|(index, result)| self.result_of(index, model, result)).collect();
        let (results, error) = self.results(waits).await;
        let Some(record) = self.together(model, results) else {
            let error = error.unwrap_or_else(|| gone(&self.sources[0], model));
            return Err(self.without_result::<T>(model, name, error));
        };
        let now = self.clock.now();
        match (conclude(&record, name, &self.config.freshness, now, true), error) {
            // The sources that have answered do not have it, and the one that may have it has not answered.
            (Err(CollectError::Pending { .. }), Some(error)) => {
                Err(CollectError::Backend(Arc::new(error)))
            }
            (concluded, _) => concluded,
        }
    }

    /// The results that are worth waiting for: all of them, or, once a source has the model, those that
    /// come soon.
    async fn results<F>(
        &self,
        mut waits: FuturesUnordered<F>,
    ) -> (Vec<(&Source, Arc<ModelRecord>)>, Option<BackendError>)
    where
        F: Future<Output = (usize, Result<Arc<ModelRecord>, BackendError>)>,
    {
        let mut awaited: BTreeSet<usize> = (0..self.sources.len()).collect();
        let mut results = Vec::new();
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
            let Some((index, result)) = next else { break };
            awaited.remove(&index);
            match result {
                Ok(record) => {
                    if record.outcome == Outcome::Found {
                        let (best, since) = found.unwrap_or((index, Instant::now()));
                        found = Some((best.min(index), since));
                    }
                    results.push((&self.sources[index], record));
                }
                Err(gone) => error = error.or(Some(gone)),
            }
            if let Some((best, since)) = found {
                let patience = |index: &usize| {
                    if *index < best { self.sources[*index].patience } else { OTHERS_WAIT }
                };
                enough_at = awaited.iter().map(patience).max().map(|patience| since + patience);
            }
        }
        (results, error)
    }

    /// Waits for a result, as long as a call may.
    async fn result_of(
        &self,
        index: usize,
        model: &ModelRef,
        mut result: watch::Receiver<Option<Arc<ModelRecord>>>,
    ) -> (usize, Result<Arc<ModelRecord>, BackendError>) {
        let source = &self.sources[index];
        let wait = result.wait_for(Option::is_some);
        let result = match timeout(source.call_limit + GRACE, wait).await {
            Ok(Ok(record)) => record.clone().ok_or_else(|| gone(source, model)),
            Ok(Err(_gone)) => Err(gone(source, model)),
            Err(_elapsed) => {
                let limit = humantime::format_duration(source.call_limit);
                Err(source
                    .error(ErrorKind::Timeout, model.to_string())
                    .with_detail(format!("no answer within {limit}"))
                    .with_remedy("is the server overloaded? If it needs longer, raise its timeout"))
            }
        };
        (index, result)
    }

    /// One record of those of all sources. Each knows what its own source said last; of a source that has not
    /// answered, what it said before is taken from the others.
    fn together(
        &self,
        model: &ModelRef,
        mut results: Vec<(&Source, Arc<ModelRecord>)>,
    ) -> Option<Arc<ModelRecord>> {
        if results.len() <= 1 {
            return results.pop().map(|(_, record)| record);
        }
        let mut states: Vec<SourceState> = Vec::new();
        for (source, record) in &results {
            states.extend(record.cold.sources.iter().find(|s| s.backend == source.name).cloned());
        }
        for former in results.iter().flat_map(|(_, record)| &record.cold.sources) {
            if states.iter().all(|state| state.backend != former.backend) {
                states.push(former.clone());
            }
        }
        let now = self.clock.now();
        let mut record =
            self.models.with(model, |cell| self.publisher(cell, model, now).record(states, now));
        self.number(&mut record, self.cache.get(model).as_deref());
        Some(Arc::new(record))
    }

    /// Nothing has come. A value that is too old to be used still says since when.
    fn without_result<T: Part>(
        &self,
        model: &ModelRef,
        name: &T::Name,
        error: BackendError,
    ) -> CollectError {
        let cause = Arc::new(error);
        match self.peek::<T>(model, name) {
            Err(CollectError::Unavailable { model, age, threshold, .. }) => {
                CollectError::Unavailable { model, age, threshold, cause: Some(cause) }
            }
            _ => CollectError::Backend(cause),
        }
    }
}

/// The task of a fetch has ended without a result, which callers learn at once.
fn gone(source: &Source, model: &ModelRef) -> BackendError {
    source
        .error(ErrorKind::Panicked, model.to_string())
        .with_detail("the fetch ended without an answer")
}
