//! What the author of a test tells of the fleet behind a backend.

use async_trait::async_trait;
use collector_core::{Clock, ModelRef, PodName};

/// What exists behind the backend under test, told by the author of the test.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// The clock that the backend was given.
    fn clock(&self) -> &dyn Clock;

    /// Every model that the server has series of; at least one, and at least one of them with pods.
    fn models(&self) -> Vec<FleetModel>;

    /// A way to break the server and to restore it; `None` leaves those cases out.
    fn breakable(&self) -> Option<&dyn BreakableServer>;
}

/// A model that exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FleetModel {
    /// The model.
    pub model: ModelRef,
    /// Its live pods, in any order.
    pub pods: Vec<PodName>,
}

/// A server that can be broken.
#[async_trait]
pub trait BreakableServer: Send + Sync {
    /// Stops the server, or makes it answer nonsense.
    async fn break_down(&self);

    /// Undoes [`break_down`](Self::break_down); returns when the server answers again.
    async fn restore(&self);
}
