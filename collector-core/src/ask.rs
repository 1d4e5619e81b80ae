// SPDX-License-Identifier: Apache-2.0
//! What the engine asks a backend, and what each request to its server costs: a permit.

use std::any::Any;
use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Clock;
use crate::error::BackendError;
use crate::model::ModelRef;

/// The time that a call has by default: three requests of the default limits, and 1 s.
const TIME_LEFT: Duration = Duration::from_secs(16);

/// Why a fetch is made; a backend may trade server load for delay by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// A caller waits for it.
    Waiting,
    /// The background refresh.
    Background,
}

/// The arguments of [`Backend::fetch`](crate::Backend::fetch).
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Ask<'a> {
    /// The models to fetch.
    pub models: &'a [ModelRef],
    /// The clock of the answers' ticks. Ticks of another clock than a `SystemClock` mean nothing to the caller.
    pub clock: &'a dyn Clock,
    /// Time left for the whole call.
    pub time_left: Duration,
    /// Gives the permit that each request to the server takes.
    pub permits: &'a dyn Permits,
    /// Why the fetch is made.
    pub urgency: Urgency,
    /// Also return how each value came about, in [`ModelSample::trace`](crate::ModelSample::trace).
    pub trace: bool,
    load_per_pod: Option<&'a HashSet<ModelRef>>,
}

impl<'a> Ask<'a> {
    /// An ask as a test or a wrapper makes it: the load of whole models, 16 s, no limit on requests.
    pub fn new(models: &'a [ModelRef], clock: &'a dyn Clock) -> Self {
        Self {
            models,
            clock,
            time_left: TIME_LEFT,
            permits: &Unlimited,
            urgency: Urgency::Waiting,
            trace: false,
            load_per_pod: None,
        }
    }

    /// Asks for the load of these models pod by pod.
    #[must_use]
    pub fn with_load_per_pod(self, models: &'a HashSet<ModelRef>) -> Self {
        Self { load_per_pod: Some(models), ..self }
    }

    /// Returns whether the load of this model is wanted as a row for each pod, because variants share the
    /// model; else one row for the whole model is enough.
    pub fn wants_load_per_pod(&self, model: &ModelRef) -> bool {
        self.load_per_pod.is_some_and(|models| models.contains(model))
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

/// The arguments of [`Backend::list_models`](crate::Backend::list_models).
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ListAsk<'a> {
    /// The caller's clock.
    pub clock: &'a dyn Clock,
    /// Time left for the whole call.
    pub time_left: Duration,
    /// Gives the permit that each request to the server takes.
    pub permits: &'a dyn Permits,
}

impl<'a> ListAsk<'a> {
    /// An ask as a test or a wrapper makes it: 16 s, no limit on requests.
    pub fn new(clock: &'a dyn Clock) -> Self {
        Self { clock, time_left: TIME_LEFT, permits: &Unlimited }
    }
}

impl fmt::Debug for ListAsk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListAsk").field("time_left", &self.time_left).finish_non_exhaustive()
    }
}

/// The arguments of [`Backend::probe`](crate::Backend::probe).
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct ProbeAsk<'a> {
    /// The caller's clock.
    pub clock: &'a dyn Clock,
    /// Time left for the whole call.
    pub time_left: Duration,
    /// Gives the permit that each request to the server takes.
    pub permits: &'a dyn Permits,
}

impl<'a> ProbeAsk<'a> {
    /// An ask as a test or a wrapper makes it: 16 s, no limit on requests.
    pub fn new(clock: &'a dyn Clock) -> Self {
        Self { clock, time_left: TIME_LEFT, permits: &Unlimited }
    }
}

impl fmt::Debug for ProbeAsk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeAsk").field("time_left", &self.time_left).finish_non_exhaustive()
    }
}

/// The engine's limit on requests to one backend: 8 in flight over all calls, and as many a second as the
/// backend's [limits](crate::Limits) allow.
///
/// Take a permit before each request, hold it until the answer was read, and drop it then. Never wait for a
/// permit while holding one: once 8 calls do that, none of them ever ends, and each fails when its time is
/// over.
#[async_trait]
pub trait Permits: Send + Sync {
    /// Waits for a permit to send one request.
    ///
    /// # Errors
    /// When no request may be sent for now, because the backend's circuit is open. Return this error as it
    /// is.
    ///
    /// # Cancel safety
    /// Dropping the future gives up its position in the queue.
    async fn acquire(&self) -> Result<Permit, BackendError>;
}

/// A permit to send one request, given back on drop.
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

/// A permit for every request, for tests and one-shot tools.
#[derive(Clone, Copy, Default, Debug)]
pub struct Unlimited;

#[async_trait]
impl Permits for Unlimited {
    async fn acquire(&self) -> Result<Permit, BackendError> {
        Ok(Permit::new(()))
    }
}
