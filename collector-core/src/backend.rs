//! What a backend author writes, and what a backend says.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Tick;
use crate::error::BackendError;
use crate::field::FieldReasons;
use crate::load::LoadRates;
use crate::metrics::{ReplicaMetrics, bytes_of_rows};
use crate::model::{ModelRef, PodName};
use crate::trace::TraceRow;

/// Somewhere metrics come from.
///
/// A backend says what a server said. It keeps no former values, does not retry a look, and knows
/// models and pods but no variants: the engine gives it caching, single-flight, background refresh,
/// tracking, freshness, retries, a circuit breaker and self-metrics. Splitting a query that is too
/// large, falling back from POST to GET and re-reading a token after a 401 are the backend's own,
/// within the permits and the time it was given.
///
/// Show that an implementation keeps this contract with `collector_testkit::conformance::backend`.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The backend's name in readings, errors, logs and metrics: short, lower case, always the same.
    fn name(&self) -> &str;

    /// What the backend can do. Also selects its conformance cases.
    fn supports(&self) -> Supports;

    /// How long its requests may take, and how many it sends. The collector's builder can set other limits.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// One look at the server for all models asked; it should cost the server little more than one
    /// model does.
    ///
    /// A model that is absent from the answer counts as failed, never as missing: say
    /// [`Answer::Missing`] when the server has no series of it. Duplicates in `ask.models` are
    /// answered once.
    ///
    /// # Errors
    /// When the look as a whole failed. A part of it that failed is told in the answers, in
    /// [`Answer::Failed`] or [`ModelSample::failed`].
    ///
    /// # Cancel safety
    /// The engine drops the future when the time is up; nothing may be left half done by that.
    async fn fetch(&self, ask: Ask<'_>) -> Result<Vec<(ModelRef, Answer)>, BackendError>;

    /// What exists, for discovery and for "did you mean". A permit is taken before each request to the
    /// server.
    ///
    /// # Errors
    /// When the server could not be asked, or the backend cannot list
    /// ([`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported)).
    async fn list_models(&self, permits: &dyn Permits) -> Result<Vec<KnownModel>, BackendError>;

    /// Checks what a user may have got wrong: reachability, credentials, names, clocks.
    ///
    /// What is wrong is told in the probe's checks; it is not an error of the probe.
    ///
    /// # Errors
    /// When the checks could not even begin.
    async fn probe(&self) -> Result<Probe, BackendError>;

    /// The other half of a backend that learns by itself (a scrape, a watch); `None` for one that
    /// only answers when asked.
    fn live(&self) -> Option<&dyn LiveSource>;
}

/// The part of a backend that pushes what it learns.
///
/// A source that pushes is not asked in the background; [`Backend::fetch`] is still called for a
/// model that nothing is known of yet, and when no push has come for a ttl.
#[async_trait]
pub trait LiveSource: Send + Sync {
    /// The whole tracked set: before [`run`](Self::run), and then whenever it changes.
    fn tracked(&self, models: Arc<HashSet<ModelRef>>);

    /// Works until dropped and pushes what it learns, coalesced per model. The engine spawns it,
    /// restarts it after a panic, and drops it at shutdown.
    ///
    /// Of a tracked model it also pushes that it is missing, or could not be looked at: silence would
    /// look like a value that merely ages.
    async fn run(&self, sink: Arc<dyn UpdateSink>);
}

/// Where a [`LiveSource`] pushes to. A push is stored exactly as an answer to a fetch is; one about a
/// model that is not tracked is dropped.
pub trait UpdateSink: Send + Sync {
    /// Hands over what was learnt. Never blocks on I/O.
    fn push(&self, answers: Vec<(ModelRef, Answer)>);

    /// Everything has been tried once since the last call, or since the start: well or badly, a cycle
    /// has ended. The collector is ready after the first.
    fn cycle_ended(&self);
}

/// What a backend can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Supports {
    /// It measures [`LoadRow`]s, so that allocations can be made.
    pub load: bool,
    /// It can give load per pod, so that variants that share a model are told apart.
    pub load_per_pod: bool,
    /// [`Backend::list_models`] works.
    pub list_models: bool,
}

impl Supports {
    /// Everything.
    pub const ALL: Self = Self { load: true, load_per_pod: true, list_models: true };
    /// Replicas alone.
    pub const REPLICAS_ONLY: Self = Self { load: false, load_per_pod: false, list_models: false };
}

/// How long a request of a backend may take, and how many it sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// What one request is given; a whole call, with its retries, takes at most 3 times as long and 1 s.
    pub timeout: Duration,
    /// Requests a second in the long run; 0: as many as are wanted, 8 at the same time.
    pub requests_per_second: u32,
    /// Requests that may be sent at once after a quiet time; 0 counts as 1.
    pub request_burst: u32,
}

impl Limits {
    /// So long for one request, and as many requests as are wanted.
    pub const fn new(timeout: Duration) -> Self {
        Self { timeout, requests_per_second: 0, request_burst: 0 }
    }

    /// The same with so many requests a second, and so many at once after a quiet time.
    #[must_use]
    pub const fn with_rate(self, requests_per_second: u32, request_burst: u32) -> Self {
        Self { requests_per_second, request_burst, ..self }
    }
}

/// 5 s for one request, and as many requests as are wanted.
impl Default for Limits {
    fn default() -> Self {
        Self::new(Duration::from_secs(5))
    }
}

/// Why a look is taken; a backend may trade server load for delay by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// Somebody waits for it.
    Waiting,
    /// The background refresh.
    Background,
}

/// One look that the engine asks for.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Ask<'a> {
    /// The models.
    pub models: &'a [ModelRef],
    /// Those of them whose load is wanted per pod, because variants share them.
    pub load_per_pod: &'a HashSet<ModelRef>,
    /// Time left for the whole look, counted from the call.
    pub time_left: Duration,
    /// Taken before each request to the server.
    pub permits: &'a dyn Permits,
    /// Why the look is taken.
    pub urgency: Urgency,
    /// Also tell how each value came about, in [`ModelSample::trace`].
    pub trace: bool,
}

impl<'a> Ask<'a> {
    /// An ask as a test or a wrapper makes it: no load per pod, no limit on requests.
    pub fn new(models: &'a [ModelRef], load_per_pod: &'a HashSet<ModelRef>) -> Self {
        Self {
            models,
            load_per_pod,
            time_left: Duration::from_secs(16),
            permits: &Unlimited,
            urgency: Urgency::Waiting,
            trace: false,
        }
    }
}

impl fmt::Debug for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ask")
            .field("models", &self.models)
            .field("load_per_pod", &self.load_per_pod)
            .field("time_left", &self.time_left)
            .field("urgency", &self.urgency)
            .field("trace", &self.trace)
            .finish_non_exhaustive()
    }
}

/// The engine's budget of requests to one backend: 8 at a time over all looks, and as many a second as its
/// [limits](Limits) let. Never wait for a permit while holding one: where all looks did so, none would end.
#[async_trait]
pub trait Permits: Send + Sync {
    /// Waits for leave to send one request; hold the permit until the answer was read.
    ///
    /// # Errors
    /// When no request may be sent for now, because the backend's circuit is open.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    async fn acquire(&self) -> Result<Permit, BackendError>;
}

/// Leave to send one request, given back on drop.
#[must_use = "the permit is given back when it is dropped"]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] Box<dyn Any + Send>);

impl Permit {
    /// A permit that holds `guard` until it is dropped.
    pub fn new(guard: impl Send + 'static) -> Self {
        Self(Box::new(guard))
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// Leave for everything, for tests and one-shot tools.
#[derive(Clone, Copy, Default, Debug)]
pub struct Unlimited;

#[async_trait]
impl Permits for Unlimited {
    async fn acquire(&self) -> Result<Permit, BackendError> {
        Ok(Permit::new(()))
    }
}

/// What one look said about one model.
#[derive(Debug)]
pub enum Answer {
    /// Series of the model exist. No replica in it: the model is known and has no live pod.
    Found(ModelSample),
    /// The server answered, and has nothing of this model.
    Missing {
        /// When it was looked at.
        as_of: Tick,
        /// When something of it was last there, where the server or the backend remembers: then it has
        /// been scaled to zero, and is not misspelt.
        last_seen: Option<Tick>,
    },
    /// This model could not be looked at, others of the same look may have been.
    Failed(BackendError),
}

/// What one look said about one model that exists.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ModelSample {
    /// When it was looked at, on our clock: this orders answers.
    pub as_of: Tick,
    /// The live replicas.
    pub replicas: Vec<ReplicaMetrics>,
    /// The load: one row for the model, or one for each pod where that was asked.
    pub load: Vec<LoadRow>,
    /// Fields whose query failed, with the reason: unknown, which is not "not measured". They keep
    /// their former values.
    pub failed: FieldReasons,
    /// False when replicas may be absent: warnings, `isPartial`, a pod that hangs.
    pub complete: bool,
    /// Why an incomplete sample is: the server's warning, where it is one. What stays absent under one and
    /// the same warning for three fetches has left.
    pub warning: Option<Arc<str>>,
    /// The pods that an incomplete sample lacks, where the backend can name them: all others that are
    /// not in it are gone. Empty: any pod may be absent.
    pub unreached: Vec<PodName>,
    /// The time over which peaks and rates were taken; `None` when the backend does not say.
    pub window: Option<Duration>,
    /// Warnings about a reading whose values are right, as in
    /// [`Replicas::warnings`](crate::Replicas::warnings).
    pub warnings: Vec<Arc<str>>,
    /// How the values came about; empty unless [`Ask::trace`] was set.
    pub trace: Vec<TraceRow>,
}

impl ModelSample {
    /// About how many bytes the sample holds, but for the text of names, which is shared.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + bytes_of_rows(&self.replicas)
            + size_of_val(self.load.as_slice())
            + self.load.iter().map(|row| row.reasons.bytes()).sum::<usize>()
            + size_of_val(self.unreached.as_slice())
            + self.failed.bytes()
            + size_of_val(self.warnings.as_slice())
            + size_of_val(self.trace.as_slice())
    }

    /// A complete sample of these replicas, without load.
    pub fn new(as_of: Tick, replicas: Vec<ReplicaMetrics>) -> Self {
        Self {
            as_of,
            replicas,
            load: Vec::new(),
            failed: FieldReasons::NONE,
            complete: true,
            warning: None,
            unreached: Vec::new(),
            window: None,
            warnings: Vec::new(),
            trace: Vec::new(),
        }
    }
}

/// Load of a model or of one of its pods.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct LoadRow {
    /// The pod; `None` for the model as a whole.
    pub pod: Option<PodName>,
    /// Rates over the window.
    pub rates: LoadRates,
    /// Why rates are unknown, by the fields that are made of them, where the backend can say.
    pub reasons: FieldReasons,
}

impl LoadRow {
    /// The load of a pod; `None`: of the model as a whole.
    pub fn new(pod: Option<PodName>, rates: LoadRates) -> Self {
        Self { pod, rates, reasons: FieldReasons::NONE }
    }
}

/// A model that a backend knows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KnownModel {
    /// The model.
    pub model: ModelRef,
    /// Its live replicas, where the backend knows their number.
    pub replicas: Option<u32>,
}

/// Outcome of a [`Check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckStatus {
    /// As it should be.
    Pass,
    /// Works, and deserves a look.
    Warn,
    /// Broken.
    Fail,
    /// Not looked at, because something else failed first or it does not apply.
    Skip,
}

/// One thing that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// `group.name`, `connection.tls` for example: stable, for programs.
    pub id: String,
    /// Outcome.
    pub status: CheckStatus,
    /// What was found, in one line.
    pub detail: String,
    /// What to do about it; `None` when there is nothing to do.
    pub remedy: Option<String>,
}

impl Check {
    /// A check that needs no remedy.
    pub fn new(id: impl Into<String>, status: CheckStatus, detail: impl Into<String>) -> Self {
        Self { id: id.into(), status, detail: detail.into(), remedy: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// What a backend found when it looked at itself and its server.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Probe {
    /// The checks, in the order in which they build on each other.
    pub checks: Vec<Check>,
}
