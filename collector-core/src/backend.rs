// SPDX-License-Identifier: Apache-2.0
//! What a backend author writes.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::answer::Answers;
use crate::ask::{Ask, ListAsk, ProbeAsk};
use crate::clock::Clock;
use crate::directory::VariantDirectory;
use crate::error::{BackendError, ErrorKind, Operation};
use crate::gauges::PageGauges;
use crate::model::{BackendName, ModelRef};

/// A source of metrics.
///
/// A backend returns what a server answered. It keeps no former values, does not retry a fetch, and knows
/// models and pods but no variants: the engine gives it caching, shared fetches, background refresh,
/// tracking, freshness, retries, a circuit breaker and self-metrics. Splitting a query that is too
/// large, falling back from POST to GET and re-reading a token after a 401 are the backend's own,
/// within the permits and the time it was given.
///
/// Each call brings the engine's [`Clock`], the time left and [`Permits`](crate::Permits): a backend
/// needs no clock of its own.
///
/// Show that an implementation keeps this contract with `collector_testkit::conformance::backend`.
#[async_trait]
pub trait Backend: Any + Send + Sync {
    /// Returns the backend's name in readings, errors, logs and metrics: at most 32 of a-z, 0-9 and hyphens,
    /// always the same.
    fn name(&self) -> &str;

    /// Returns what the backend can do. Also selects its conformance cases.
    fn supports(&self) -> Supports;

    /// Returns how long its requests may take, and how many it sends. The collector's builder can set other
    /// limits.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Asks the server about all models of `ask`; it should cost the server little more than one model does.
    ///
    /// A model without an answer counts as failed, never as missing: say
    /// [`Answer::Missing`](crate::Answer::Missing) when the server has no series of it.
    ///
    /// # Errors
    /// When the fetch as a whole failed. A part of it that failed is reported in the answers, in
    /// [`Answer::Failed`](crate::Answer::Failed) or [`ModelSample::failed`](crate::ModelSample::failed).
    ///
    /// # Cancel safety
    /// The engine drops the future when the time is up; nothing may be left half done by that, and no task
    /// may go on asking the server.
    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError>;

    /// Lists the models that exist, for discovery and for "did you mean". Says
    /// [`Unsupported`](ErrorKind::Unsupported) unless it is implemented.
    ///
    /// # Errors
    /// When the server could not be asked, when a part of the list may be absent, or when the backend cannot
    /// list ([`ErrorKind::Unsupported`]).
    async fn list_models(&self, _ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        let name = BackendName::from(self.name());
        Err(BackendError::new(ErrorKind::Unsupported, name, Operation::ListModels, "the backend"))
    }

    /// Checks what a user may have got wrong: reachability, credentials, names, clocks.
    ///
    /// What is wrong is reported in the probe's checks; it is not an error of the probe.
    ///
    /// # Errors
    /// When the checks could not even begin.
    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError>;

    /// Returns the other half of a backend that collects by itself (a scrape, a watch); `None` for one that
    /// only answers when asked.
    fn live(&self) -> Option<&dyn LiveSource> {
        None
    }

    /// Returns the gauges of the metrics pages that the backend reads; `None` for one that reads none.
    fn gauges(&self) -> Option<&dyn PageGauges> {
        None
    }

    /// Returns the directory of the variants that the backend finds; `None` for one that finds none.
    fn variants(&self) -> Option<Arc<dyn VariantDirectory>> {
        None
    }
}

/// A pointer to a backend is that backend.
macro_rules! forward_backend {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<B: Backend + ?Sized> Backend for $pointer<B> {
            fn name(&self) -> &str {
                (**self).name()
            }

            fn supports(&self) -> Supports {
                (**self).supports()
            }

            fn limits(&self) -> Limits {
                (**self).limits()
            }

            async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
                (**self).fetch(ask).await
            }

            async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
                (**self).list_models(ask).await
            }

            async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
                (**self).probe(ask).await
            }

            fn live(&self) -> Option<&dyn LiveSource> {
                (**self).live()
            }

            fn gauges(&self) -> Option<&dyn PageGauges> {
                (**self).gauges()
            }

            fn variants(&self) -> Option<Arc<dyn VariantDirectory>> {
                (**self).variants()
            }
        }
    )*};
}

forward_backend!(Arc, Box);

/// The part of a backend that pushes what it collects.
///
/// A source that pushes is not asked in the background; [`Backend::fetch`] is still called for a
/// model that nothing is known of yet, and when no push has come for a ttl.
#[async_trait]
pub trait LiveSource: Send + Sync {
    /// Sets the tracked models, all of them: before [`run`](Self::run), and then whenever they change.
    fn tracked(&self, models: Arc<HashSet<ModelRef>>);

    /// Works until dropped and pushes what it collects, coalesced per model. The engine spawns it,
    /// restarts it after a panic, and drops it at shutdown; no task may go on then.
    ///
    /// Of a tracked model it also pushes that it is missing, or could not be fetched: silence would
    /// look like a value that merely ages.
    async fn run(&self, context: LiveContext);
}

/// The arguments of [`LiveSource::run`].
#[derive(Clone)]
#[non_exhaustive]
pub struct LiveContext {
    /// Takes what is pushed.
    pub sink: Arc<dyn UpdateSink>,
    /// The engine's clock, that of the answers' ticks.
    pub clock: Arc<dyn Clock>,
}

impl LiveContext {
    /// A context as a test or a wrapper makes it.
    pub fn new(sink: Arc<dyn UpdateSink>, clock: Arc<dyn Clock>) -> Self {
        Self { sink, clock }
    }
}

impl fmt::Debug for LiveContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveContext").finish_non_exhaustive()
    }
}

/// Where a [`LiveSource`] pushes to. A push is stored exactly as an answer to a fetch is; one about a
/// model that is not tracked is dropped.
pub trait UpdateSink: Send + Sync {
    /// Hands over what was collected. Never blocks on I/O.
    fn push(&self, answers: Answers);

    /// Says that everything has been tried once since the last call, or since the start: well or badly, a
    /// cycle has ended, and each tracked model was pushed before. The collector is ready after the first.
    fn cycle_ended(&self);
}

/// What a backend can do. Begin with one of the constants, and set the fields that differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Supports {
    /// It measures [`LoadRow`](crate::LoadRow)s, so that allocations can be made.
    pub load: bool,
    /// It can give load per pod, so that variants that share a model are distinguished.
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

/// A model that a backend knows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub struct KnownModel {
    /// The model.
    pub model: ModelRef,
    /// Its live replicas, where the backend knows their number.
    pub replicas: Option<u32>,
}

impl KnownModel {
    /// A model with the number of its live replicas, where that is known.
    pub const fn new(model: ModelRef, replicas: Option<u32>) -> Self {
        Self { model, replicas }
    }
}

/// Outcome of a [`Check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CheckStatus {
    /// As it should be.
    Pass,
    /// Works, but should be checked.
    Warn,
    /// Broken.
    Fail,
    /// Not checked, because something else failed first or it does not apply.
    Skip,
}

/// One thing that was checked.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
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

/// What a backend found when it checked itself and its server.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Probe {
    /// The checks, in the order in which they build on each other.
    pub checks: Vec<Check>,
}

impl Probe {
    /// These checks, in the order in which they build on each other.
    pub const fn new(checks: Vec<Check>) -> Self {
        Self { checks }
    }
}
