// SPDX-License-Identifier: Apache-2.0
//! The changes of all tracked models: numbered in the sequence of generations, and written once for all listeners.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use collector_core::{Clock, Freshness, FreshnessThresholds, ModelRef, Tick, TrackedModel};
use collector_engine::CachingCollector;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, watch};
use tokio::task::yield_now;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{ModelEvent, RemovedEvent, event};
use crate::output::{SCHEMA_VERSION, allocation_items, replicas_item};
use crate::server::Lifecycle;
use crate::server::etag::PartState;

/// How long changes are collected before they are sent: a listener is written to about five times a second.
const BATCH_WINDOW: Duration = Duration::from_millis(200);

/// How long the bytes of a batch are sent: the ages in them are of the moment when they were made.
const SHARED_FOR: Duration = Duration::from_millis(500);

/// How often the tracked models are looked through for readings that have become stale or unavailable by age.
const AGEING_INTERVAL: Duration = Duration::from_secs(1);

/// Models of which one part of an answer has the changes.
const MODELS_IN_PART: usize = 32;

/// Bytes of batches that are kept for listeners that are a little behind.
const MAX_SHARED_BYTES: usize = 8 * 1024 * 1024;

/// Removed models that are remembered for listeners that come back.
const MAX_REMOVED: usize = 1024;

/// The events of a server. They go on when another collector takes the place of the one that they are from.
pub(crate) struct Events {
    clock: Arc<dyn Clock>,
    pub(super) lifecycle: watch::Receiver<Lifecycle>,
    source: watch::Sender<Option<Source>>,
    /// The source is followed from the first listener on.
    started: Once,
    log: Mutex<Log>,
    /// The number of the last change.
    pub(super) last: watch::Sender<u64>,
    pub(super) listeners: AtomicUsize,
}

/// Whose changes are followed.
#[derive(Clone)]
struct Source {
    collector: Arc<CachingCollector>,
    thresholds: FreshnessThresholds,
}

/// The last change of each model.
#[derive(Default)]
struct Log {
    models: HashMap<ModelRef, Change>,
    /// The models by the number of their last change.
    order: BTreeMap<u64, ModelRef>,
    /// The models that were removed, by the numbers of these changes.
    removed: BTreeMap<u64, ModelRef>,
    /// All changes have greater numbers.
    began: u64,
    /// A listener at a lower number may have missed a removal.
    forgotten: u64,
    /// The last changes as they are sent, each batch after the one before.
    shared: VecDeque<Batch>,
    shared_bytes: usize,
}

struct Change {
    number: u64,
    state: Vec<PartState>,
    /// When the status of a part changes by age, unless there is a newer sample.
    due: Tick,
}

struct Batch {
    /// The number of the change before.
    after: u64,
    until: u64,
    bytes: Bytes,
    made: Tick,
}

impl Events {
    /// The events of a server at its start. There are none before [`follow`](Self::follow).
    pub(crate) fn new(clock: Arc<dyn Clock>, lifecycle: watch::Receiver<Lifecycle>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            lifecycle,
            source: watch::Sender::default(),
            started: Once::new(),
            log: Mutex::default(),
            last: watch::Sender::default(),
            listeners: AtomicUsize::default(),
        })
    }

    /// The changes are those of this collector from now on.
    pub(crate) fn follow(
        &self,
        collector: &Arc<CachingCollector>,
        thresholds: FreshnessThresholds,
    ) {
        let collector = Arc::clone(collector);
        self.source.send_replace(Some(Source { collector, thresholds }));
    }

    /// Starts to follow, unless somebody has.
    pub(super) fn start(self: &Arc<Self>) {
        self.started.call_once(|| {
            let source = self.source.subscribe();
            let current = source.borrow().clone();
            if let Some(current) = current {
                // What listeners of another process have got is older.
                self.log().began = current.collector.next_generation();
                self.note(&current, self.all(&current));
            }
            tokio::spawn(Arc::clone(self).run(source));
        });
    }

    async fn run(self: Arc<Self>, mut source: watch::Receiver<Option<Source>>) {
        let stopping = Lifecycle::Stopping.reached(self.lifecycle.clone());
        tokio::pin!(stopping);
        loop {
            let current = source.borrow_and_update().clone();
            tokio::select! {
                biased;
                () = &mut stopping => return,
                changed = source.changed() => if changed.is_err() { return },
                () = self.run_with(current) => {}
            }
        }
    }

    /// Numbers the changes of one collector. Cancel safe: what was not numbered is found by the next one.
    async fn run_with(&self, source: Option<Source>) {
        let Some(source) = source else { return std::future::pending().await };
        let mut changes = source.collector.follow();
        self.note_each(&source, self.all(&source)).await;
        let mut ageing = interval(AGEING_INTERVAL);
        ageing.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let models = tokio::select! {
                biased;
                _ = ageing.tick() => self.due(),
                first = changes.recv() => {
                    sleep(BATCH_WINDOW).await;
                    match first {
                        Ok(first) => self.collect(&source, first, &mut changes),
                        Err(RecvError::Lagged(_)) => self.all(&source),
                        Err(RecvError::Closed) => std::future::pending().await,
                    }
                }
            };
            self.note_each(&source, models).await;
        }
    }

    /// The changes that have come.
    fn collect(
        &self,
        source: &Source,
        first: ModelRef,
        changes: &mut broadcast::Receiver<ModelRef>,
    ) -> HashSet<ModelRef> {
        let mut models = HashSet::from([first]);
        loop {
            match changes.try_recv() {
                Ok(model) => _ = models.insert(model),
                Err(TryRecvError::Lagged(_)) => return self.all(source),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return models,
            }
        }
    }

    /// The tracked models, and those that were.
    fn all(&self, source: &Source) -> HashSet<ModelRef> {
        let tracked = source.collector.tracked_names().into_iter();
        tracked.chain(self.log().models.keys().cloned()).collect()
    }

    /// The models of which a status has changed by age.
    fn due(&self) -> HashSet<ModelRef> {
        let now = self.clock.now();
        let log = self.log();
        let due = log.models.iter().filter(|(_, change)| change.due <= now);
        due.map(|(model, _)| model.clone()).collect()
    }

    /// Notes part after part, so that neither the log nor the thread is held for long.
    async fn note_each(&self, source: &Source, models: HashSet<ModelRef>) {
        let mut models = models.into_iter().peekable();
        while models.peek().is_some() {
            self.note(source, models.by_ref().take(MODELS_IN_PART));
            yield_now().await;
        }
    }

    /// Numbers what has changed of these models, and wakes the listeners.
    fn note(&self, source: &Source, models: impl IntoIterator<Item = ModelRef>) {
        let after = *self.last.borrow();
        let is_heard = self.last.receiver_count() > 0;
        let mut until = after;
        let mut text = String::new();
        let mut log = self.log();
        for model in models {
            let tracked = source.collector.tracked_model(&model);
            let state = tracked.as_ref().map(states);
            let former = log.models.get_mut(&model);
            if former.as_ref().map(|change| &change.state) == state.as_ref() {
                if let (Some(change), Some(tracked)) = (former, &tracked) {
                    change.due = due(tracked, &source.thresholds);
                }
                continue;
            }
            until = source.collector.next_generation();
            if is_heard {
                text.push_str(&self.event_of(&model, tracked.as_ref(), until));
            }
            let change = tracked.as_ref().zip(state).map(|(tracked, state)| Change {
                number: until,
                state,
                due: due(tracked, &source.thresholds),
            });
            log.replace(model, until, change);
        }
        if until > after {
            if is_heard {
                let made = self.clock.now();
                log.share(Batch { after, until, bytes: text.into(), made });
            }
            self.last.send_replace(until);
        }
    }

    /// All changes have greater numbers than this.
    pub(super) fn began(&self) -> u64 {
        self.log().began
    }

    /// Whether a listener at this number may have missed something that is no longer known.
    pub(super) fn has_forgotten(&self, cursor: u64) -> bool {
        let log = self.log();
        cursor > log.began && cursor < log.forgotten
    }

    /// How many models a listener that starts gets, where it starts, and the number of the last change.
    pub(super) fn begin(&self) -> (usize, u64, u64) {
        let log = self.log();
        let last = *self.last.borrow();
        // Where there is nothing to get, it waits for what comes next, like all others.
        let start = if log.models.is_empty() { last } else { 0 };
        (log.models.len(), start, last)
    }

    /// The bytes of the next changes after a number, and the number of the last of them; `None` if there is none. Models that
    /// were removed before `complete_to` are not known to the listener.
    pub(super) fn part_after(&self, cursor: u64, complete_to: u64) -> Option<(Bytes, u64)> {
        let source = self.source.borrow().clone()?;
        let next: Vec<(u64, ModelRef)> = {
            let log = self.log();
            if let Some(batch) = log.shared_after(cursor, self.clock.now()) {
                return Some((batch.bytes.clone(), batch.until));
            }
            let removed = log.removed.range(complete_to + 1..).take(MODELS_IN_PART);
            let changed = log.order.range(cursor + 1..).take(MODELS_IN_PART);
            let mut next: Vec<_> = changed.chain(removed).collect();
            next.sort_unstable_by_key(|(number, _)| **number);
            let next = next.into_iter().take(MODELS_IN_PART);
            next.map(|(number, model)| (*number, model.clone())).collect()
        };
        let until = next.last()?.0;
        // Read again, because what was sent to others then has aged since.
        let event = |(number, model): &(u64, ModelRef)| {
            let tracked = source.collector.tracked_model(model);
            self.event_of(model, tracked.as_ref(), *number)
        };
        Some((next.iter().map(event).collect::<String>().into(), until))
    }

    fn event_of(&self, model: &ModelRef, tracked: Option<&TrackedModel>, number: u64) -> String {
        let schema_version = SCHEMA_VERSION;
        let (name, namespace) = (model.model.as_str(), model.namespace.as_str());
        let Some(tracked) = tracked else {
            let data = RemovedEvent { schema_version, model: name, namespace };
            return event("removed", Some(number), &data);
        };
        let wall = self.clock.wall();
        let data = ModelEvent {
            schema_version,
            model: name,
            namespace,
            replicas: replicas_item(tracked, wall),
            allocations: allocation_items(tracked, wall).collect(),
        };
        event("model", Some(number), &data)
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    /// A model has changed; `None` if it was removed.
    fn replace(&mut self, model: ModelRef, number: u64, change: Option<Change>) {
        if let Some(former) = self.models.remove(&model) {
            self.order.remove(&former.number);
        } else {
            self.removed.retain(|_, removed| *removed != model);
        }
        if let Some(change) = change {
            self.models.insert(model.clone(), change);
            self.order.insert(number, model);
            return;
        }
        self.removed.insert(number, model);
        while self.removed.len() > MAX_REMOVED {
            if let Some((number, _)) = self.removed.pop_first() {
                self.forgotten = number;
            }
        }
    }

    fn share(&mut self, batch: Batch) {
        self.shared_bytes += batch.bytes.len();
        self.shared.push_back(batch);
        while self.shared_bytes > MAX_SHARED_BYTES {
            let Some(oldest) = self.shared.pop_front() else { return };
            self.shared_bytes -= oldest.bytes.len();
        }
    }

    /// The batch that follows on this number, while its ages are right.
    fn shared_after(&self, cursor: u64, now: Tick) -> Option<&Batch> {
        let index = self.shared.binary_search_by_key(&cursor, |batch| batch.after).ok()?;
        self.shared.get(index).filter(|batch| batch.made.age(now) < SHARED_FOR)
    }
}

/// When the status of a part of a model changes by age.
fn due(tracked: &TrackedModel, thresholds: &FreshnessThresholds) -> Tick {
    let next = |freshness: Freshness| match freshness {
        Freshness::Fresh => Some(thresholds.fresh_threshold),
        Freshness::Stale => Some(thresholds.unavailable_threshold),
        Freshness::Unavailable => None,
    };
    let allocations = tracked.allocations.iter().filter_map(|(_, part)| part.as_ref().ok());
    let replicas = tracked.replicas.as_ref().ok();
    let due = allocations
        .filter_map(|part| Some(part.value().oldest + next(part.freshness())?))
        .chain(replicas.and_then(|part| Some(part.value().oldest + next(part.freshness())?)));
    due.min().unwrap_or(Tick::MAX)
}

/// What an event is about, if it changes: the replicas, and each allocation.
fn states(tracked: &TrackedModel) -> Vec<PartState> {
    let allocations = tracked.allocations.iter().map(|(_, part)| part.into());
    std::iter::once(PartState::from(&tracked.replicas)).chain(allocations).collect()
}
