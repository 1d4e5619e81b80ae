// SPDX-License-Identifier: Apache-2.0
//! A backend that a test scripts, and that remembers what it was asked.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, BackendName, Check, CheckStatus, Clock, ErrorKind,
    KnownModel, Limits, ListAsk, LiveSource, LoadRates, LoadRows, ModelRef, ModelSample, Operation,
    PodName, Probe, ProbeAsk, ReplicaMetrics, Supports, Tick, Urgency,
};
use tokio::sync::{Semaphore, watch};

use crate::fake_live::Live;

/// A scriptable [`Backend`].
///
/// A model that was not scripted is missing. Clones share everything, so that a test keeps a handle
/// to the backend it gave away:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::sync::Arc;
/// use collector_core::{Ask, Backend, ErrorKind, ManualClock, ModelRef};
/// use collector_testkit::FakeBackend;
///
/// let clock = Arc::new(ManualClock::new());
/// let backend = FakeBackend::new(clock.clone());
/// let llama = ModelRef::new("llama", "prod");
/// backend.serve_pods(&llama, &["llama-0", "llama-1"]);
/// backend.fail_next(1, ErrorKind::Timeout);
///
/// let ask = Ask::new(std::slice::from_ref(&llama), &*clock);
/// assert!(backend.fetch(ask).await.is_err());
/// assert_eq!(backend.fetch(ask).await.unwrap().len(), 1);
/// assert_eq!(backend.fetches(), 2);
/// # }
/// ```
///
/// # Order within a fetch
/// It is recorded, takes its permits, notes its time, is announced to [`entered`](Self::entered),
/// waits while the backend [hangs](Self::hang), and only then reads the script: what the fetch will
/// say can still be changed while it hangs.
#[derive(Clone)]
pub struct FakeBackend {
    name: BackendName,
    supports: Supports,
    limits: Limits,
    requests_per_fetch: usize,
    pushes: bool,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Arc<dyn Clock>,
    script: Mutex<Script>,
    asks: Mutex<Vec<RecordedAsk>>,
    list_calls: AtomicUsize,
    in_flight: AtomicUsize,
    entered: Semaphore,
    hold: watch::Sender<Hold>,
    live: Live,
}

#[derive(Default)]
struct Script {
    replies: BTreeMap<ModelRef, Reply>,
    broken: Option<Failure>,
    fail_next: Option<(usize, Failure)>,
    panic_next: usize,
}

type MakeSample = Arc<dyn Fn(Tick) -> ModelSample + Send + Sync>;

#[derive(Clone)]
enum Reply {
    Found(MakeSample),
    Failed(Failure),
    Omitted,
}

/// Fetches wait until the number of releases has passed the one they found, so that a hold that is
/// closed again at once still lets them through.
#[derive(Clone, Copy, Default)]
struct Hold {
    closed: bool,
    releases: u64,
}

/// What one call of `fetch` asked for.
#[derive(Clone, Debug)]
pub struct RecordedAsk {
    /// The models, in the order asked.
    pub models: Vec<ModelRef>,
    /// Those whose load was wanted per pod.
    pub load_per_pod: HashSet<ModelRef>,
    /// Why the fetch was taken.
    pub urgency: Urgency,
    /// The time it was given.
    pub time_left: Duration,
    /// When it was asked.
    pub at: Tick,
}

/// How a fetch fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The kind of the error.
    pub kind: ErrorKind,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, retry_after: None }
    }
}

impl FakeBackend {
    /// A backend named `fake` that supports everything, knows no model and takes one permit for each
    /// fetch. `clock` says when a fetch was taken.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            name: "fake".into(),
            supports: Supports::ALL,
            limits: Limits::default(),
            requests_per_fetch: 1,
            pushes: false,
            shared: Arc::new(Shared {
                clock,
                script: Mutex::default(),
                asks: Mutex::default(),
                list_calls: AtomicUsize::new(0),
                in_flight: AtomicUsize::new(0),
                entered: Semaphore::new(0),
                hold: watch::Sender::new(Hold::default()),
                live: Live::default(),
            }),
        }
    }

    /// Another name; of this handle and the clones made from it.
    #[must_use]
    pub fn named(mut self, name: impl Into<BackendName>) -> Self {
        self.name = name.into();
        self
    }

    /// Other abilities; of this handle and the clones made from it.
    #[must_use]
    pub fn supporting(mut self, supports: Supports) -> Self {
        self.supports = supports;
        self
    }

    /// Takes this many permits in each fetch, one after the other; of this handle and the clones made
    /// from it.
    #[must_use]
    pub fn requests_per_fetch(mut self, requests: usize) -> Self {
        self.requests_per_fetch = requests;
        self
    }

    /// Asks for these limits; of this handle and the clones made from it.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Has a live half, which pushes what is scripted; of this handle and the clones made from it.
    #[must_use]
    pub fn pushing(mut self) -> Self {
        self.pushes = true;
        self
    }

    /// The model exists: `sample` is called at each fetch with the time of that fetch.
    pub fn serve(
        &self,
        model: &ModelRef,
        sample: impl Fn(Tick) -> ModelSample + Send + Sync + 'static,
    ) {
        self.reply(model, Reply::Found(Arc::new(sample)));
    }

    /// The model exists with these pods, sampled when they are fetched, under a small load: per
    /// pod 0.5 requests/s of 100 prompt and 20 generated tokens. The load is per pod where that is
    /// asked, else one row.
    pub fn serve_pods(&self, model: &ModelRef, pods: &[&str]) {
        let pods: Vec<PodName> = pods.iter().map(|pod| PodName::from(*pod)).collect();
        self.serve(model, move |as_of| {
            let replicas = pods
                .iter()
                .map(|pod| {
                    let mut replica = ReplicaMetrics::new(pod.clone(), as_of);
                    replica.kv_cache_usage = Some(0.25);
                    replica.queue_length = Some(1);
                    replica.running_requests = Some(2);
                    replica.num_gpu_blocks = Some(1000);
                    replica.block_size = Some(16);
                    replica.prefix_cache_hit_rate = Some(0.5);
                    replica
                })
                .collect();
            let mut sample = ModelSample::new(as_of, replicas);
            sample.load = pods.iter().map(|pod| (pod.clone(), small_load().into())).collect();
            sample
        });
    }

    /// Fetches of this model fail, others do not.
    pub fn fail_model(&self, model: &ModelRef, failure: impl Into<Failure>) {
        self.reply(model, Reply::Failed(failure.into()));
    }

    /// The answer says nothing at all about this model, which the engine must take for a failure.
    pub fn omit(&self, model: &ModelRef) {
        self.reply(model, Reply::Omitted);
    }

    /// The model does not exist (any more).
    pub fn remove(&self, model: &ModelRef) {
        self.script().replies.remove(model);
    }

    /// Every call fails as a whole until [`restore`](Self::restore): the server is down.
    pub fn fail(&self, failure: impl Into<Failure>) {
        self.script().broken = Some(failure.into());
    }

    /// The next `fetches` fetches fail as a whole; calls of `list_models` and `probe` do not.
    pub fn fail_next(&self, fetches: usize, failure: impl Into<Failure>) {
        self.script().fail_next = Some((fetches, failure.into()));
    }

    /// Ends every failure of calls as a whole.
    pub fn restore(&self) {
        let mut script = self.script();
        script.broken = None;
        script.fail_next = None;
    }

    /// The next `fetches` fetches panic.
    pub fn panic_next(&self, fetches: usize) {
        self.script().panic_next = fetches;
    }

    /// From now on fetches hang until they are [released](Self::release).
    pub fn hang(&self) {
        self.shared.hold.send_modify(|hold| hold.closed = true);
    }

    /// Lets go all fetches that hang, and no longer hangs.
    pub fn release(&self) {
        self.shared.hold.send_modify(|hold| {
            hold.closed = false;
            hold.releases += 1;
        });
    }

    /// Waits until a fetch has got as far as the place where it may hang. Each fetch is announced once:
    /// a second call waits for a second fetch.
    ///
    /// # Cancel safety
    /// A call that was dropped has consumed no fetch.
    pub async fn entered(&self) {
        // The semaphore is never closed, so this is never an error.
        if let Ok(fetch) = self.shared.entered.acquire().await {
            fetch.forget();
        }
    }

    /// Every call of `fetch` so far.
    pub fn asks(&self) -> Vec<RecordedAsk> {
        lock(&self.shared.asks).clone()
    }

    /// How many calls of `fetch` there were.
    pub fn fetches(&self) -> usize {
        lock(&self.shared.asks).len()
    }

    /// How many calls of `list_models` there were.
    pub fn list_calls(&self) -> usize {
        self.shared.list_calls.load(Ordering::SeqCst)
    }

    /// How many fetches have begun, and have neither ended nor been dropped.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::SeqCst)
    }

    fn reply(&self, model: &ModelRef, reply: Reply) {
        self.script().replies.insert(model.clone(), reply);
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.shared.script)
    }

    fn error(&self, failure: Failure, operation: Operation) -> BackendError {
        let error =
            BackendError::new(failure.kind, self.name.clone(), operation, "a scripted server");
        match failure.retry_after {
            Some(after) => error.with_retry_after(after),
            None => error,
        }
    }

    /// What the fetch does instead of answering, if anything. The lock is released before a panic.
    fn disturbance(&self) -> Option<Failure> {
        let mut script = self.script();
        if script.panic_next > 0 {
            script.panic_next -= 1;
            drop(script);
            panic!("this fetch was scripted to panic");
        }
        if let Some((left, failure)) = &mut script.fail_next
            && *left > 0
        {
            *left -= 1;
            return Some(*failure);
        }
        script.broken
    }

    pub(crate) fn live_half(&self) -> &Live {
        &self.shared.live
    }

    pub(crate) fn now(&self) -> Tick {
        self.shared.clock.now()
    }

    pub(crate) fn answer(&self, model: &ModelRef, per_pod: bool, as_of: Tick) -> Option<Answer> {
        let reply = self.script().replies.get(model).cloned();
        Some(match reply {
            Some(Reply::Found(sample)) => {
                Answer::Found(self.shape_load(sample(as_of), per_pod && self.supports.load_per_pod))
            }
            Some(Reply::Failed(failure)) => Answer::Failed(self.error(failure, Operation::Fetch)),
            Some(Reply::Omitted) => return None,
            None => Answer::Missing { as_of, last_seen: None },
        })
    }

    /// Sums rows of pods into one of the model unless they were asked for, as a server would.
    fn shape_load(&self, mut sample: ModelSample, per_pod: bool) -> ModelSample {
        if !self.supports.load {
            sample.load = LoadRows::None;
        } else if !per_pod && !sample.load.is_empty() {
            let rates = sample.load.iter().map(|row| row.rates);
            sample.load = LoadRows::Model(rates.fold(LoadRates::default(), LoadRates::plus).into());
        }
        sample
    }
}

fn small_load() -> LoadRates {
    let rates = LoadRates::default().with_requests(0.5).with_tokens(50.0, 10.0);
    rates.with_ttft(0.1, 0.5).with_itl(0.2, 10.0)
}

/// A test that panicked elsewhere must not turn into a second, misleading panic here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for FakeBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeBackend")
            .field("name", &self.name)
            .field("fetches", &self.fetches())
            .finish_non_exhaustive()
    }
}

fn wanted_per_pod(ask: &Ask<'_>) -> HashSet<ModelRef> {
    ask.models.iter().filter(|model| ask.wants_load_per_pod(model)).cloned().collect()
}

/// Counts a fetch in flight, also when it is dropped or panics.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Backend for FakeBackend {
    fn name(&self) -> &str {
        self.name.as_str()
    }

    fn supports(&self) -> Supports {
        self.supports
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        let shared = &*self.shared;
        lock(&shared.asks).push(RecordedAsk {
            models: ask.models.to_vec(),
            load_per_pod: wanted_per_pod(&ask),
            urgency: ask.urgency,
            time_left: ask.time_left,
            at: shared.clock.now(),
        });
        let _in_flight = InFlight::begin(&shared.in_flight);
        if ask.models.is_empty() {
            return Ok(Answers::new());
        }
        for _ in 0..self.requests_per_fetch {
            let _permit = ask.permits.acquire().await?;
        }
        let as_of = shared.clock.now();

        let mut hold = shared.hold.subscribe();
        let found = *hold.borrow_and_update();
        shared.entered.add_permits(1);
        if found.closed {
            // The sender lives in `shared`, so the wait ends by a release or never.
            let _ = hold.wait_for(|hold| hold.releases > found.releases).await;
        }

        if let Some(failure) = self.disturbance() {
            return Err(self.error(failure, Operation::Fetch));
        }
        let answer = |model: &ModelRef| {
            Some((model.clone(), self.answer(model, ask.wants_load_per_pod(model), as_of)?))
        };
        Ok(ask.models.iter().filter_map(answer).collect())
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        self.shared.list_calls.fetch_add(1, Ordering::SeqCst);
        if !self.supports.list_models {
            return Err(self.error(ErrorKind::Unsupported.into(), Operation::ListModels));
        }
        let _permit = ask.permits.acquire().await?;
        let now = self.shared.clock.now();
        let script = self.script();
        if let Some(failure) = script.broken {
            return Err(self.error(failure, Operation::ListModels));
        }
        Ok(script
            .replies
            .iter()
            .filter_map(|(model, reply)| match reply {
                Reply::Found(sample) => Some(KnownModel::new(
                    model.clone(),
                    u32::try_from(sample(now).replicas.len()).ok(),
                )),
                Reply::Failed(_) | Reply::Omitted => None,
            })
            .collect())
    }

    async fn probe(&self, _ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        let check = match self.script().broken {
            None => Check::new("connection.script", CheckStatus::Pass, "answers as scripted"),
            Some(failure) => {
                Check::new("connection.script", CheckStatus::Fail, failure.kind.to_string())
                    .with_remedy("call FakeBackend::restore")
            }
        };
        Ok(Probe::new(vec![check]))
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        self.pushes.then_some(self as &dyn LiveSource)
    }
}
