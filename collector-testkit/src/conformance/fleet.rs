// SPDX-License-Identifier: Apache-2.0
//! What the author of a test says of the fleet behind a backend.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{Clock, Field, FieldSet, LoadRates, ModelRef, PodName, ReplicaMetrics, Tick};

/// What exists behind the backend under test, described by the author of the test.
///
/// The more it describes, the more the suite checks: values of pods, ages, requests, secrets and breakages
/// are optional, and each that is left out is printed as skipped.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// Returns the clock that each call of the backend is given.
    fn clock(&self) -> Arc<dyn Clock>;

    /// Returns every model that the server has series of; at least one of them has pods.
    fn models(&self) -> Vec<FleetModel>;

    /// Returns how old the values of a fetch are when it ends, at least and at most. A backend that dates
    /// values by the time of the fetch is found out when the least age is more than zero.
    fn ages(&self) -> RangeInclusive<Duration> {
        Duration::ZERO..=Duration::from_secs(600)
    }

    /// Returns how many requests the server has received so far; `None` when nobody counts them.
    fn requests(&self) -> Option<u64> {
        None
    }

    /// Returns the texts that no error may show: tokens, passwords.
    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns a way to break the server and to restore it; `None` skips those cases.
    fn breakable(&self) -> Option<&dyn BreakableServer> {
        None
    }
}

/// A model that exists.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct FleetModel {
    /// The model.
    pub model: ModelRef,
    /// Its live pods, in any order.
    pub pods: Vec<FleetPod>,
}

impl FleetModel {
    /// A model with these live pods.
    pub fn new(model: ModelRef, pods: impl IntoIterator<Item = impl Into<FleetPod>>) -> Self {
        Self { model, pods: pods.into_iter().map(Into::into).collect() }
    }
}

/// A pod that lives. What is `None` in it is not checked.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct FleetPod {
    /// The values that its row must have; `sampled_at` does not count.
    pub row: ReplicaMetrics,
    /// The load that its row of load must have, within 5 %. Where every pod of a model has it, the model's
    /// must be the sum.
    pub load: LoadRates,
    /// The fields that the server does not have of it: they must be unknown, and not 0.
    pub unmeasured: FieldSet,
}

impl FleetPod {
    /// A pod of which nothing but its name is checked.
    pub fn new(name: impl Into<PodName>) -> Self {
        Self::from(ReplicaMetrics::new(name, Tick::MIN))
    }

    /// Adds its load.
    #[must_use]
    pub fn with_load(mut self, load: LoadRates) -> Self {
        self.load = load;
        self
    }

    /// Adds the fields that the server does not have of it.
    #[must_use]
    pub fn without(mut self, fields: impl IntoIterator<Item = Field>) -> Self {
        self.unmeasured = fields.into_iter().collect();
        self
    }
}

impl From<ReplicaMetrics> for FleetPod {
    fn from(row: ReplicaMetrics) -> Self {
        Self { row, load: LoadRates::default(), unmeasured: FieldSet::EMPTY }
    }
}

impl From<&str> for FleetPod {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

/// How a server is broken.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Breakage {
    /// It is down, or answers nonsense.
    Down,
    /// It takes requests and never answers.
    Stall,
    /// It refuses the credentials: 401 or 403.
    Unauthorized,
    /// It says that there are too many requests: 429.
    RateLimited,
    /// It cannot say this field of any pod or model; all else it can.
    Field(Field),
    /// It cannot say anything of this pod, and shows that something is absent.
    Pod(ModelRef, PodName),
}

/// A server that can be broken.
#[async_trait]
pub trait BreakableServer: Send + Sync {
    /// Breaks the server; returns `false`, and does nothing, where the test cannot break it in this way.
    async fn break_down(&self, how: &Breakage) -> bool;

    /// Undoes [`break_down`](Self::break_down); returns when the server answers again.
    async fn restore(&self);
}
