// SPDX-License-Identifier: Apache-2.0
//! What every backend and every cache must do, as suites of plain functions.
//!
//! A suite panics at the first promise that is broken, with the case, the model and what was expected. It prints
//! each case before it runs and each case that it skips, with the reason: `cargo test -- --nocapture` shows them.
//!
//! The author of a backend describes what its test server has. The more is described, the more is checked:
//!
//! ```
//! use std::sync::Arc;
//! use collector_core::{Clock, ModelRef, ReplicaMetrics, SystemClock, Tick};
//! use collector_testkit::conformance::{Fleet, FleetModel};
//!
//! struct TestServer;
//!
//! impl Fleet for TestServer {
//!     fn clock(&self) -> Arc<dyn Clock> {
//!         Arc::new(SystemClock::new())
//!     }
//!
//!     fn models(&self) -> Vec<FleetModel> {
//!         let mut pod = ReplicaMetrics::new("chat-0", Tick::MIN);
//!         pod.queue_length = Some(3);
//!         vec![FleetModel::new(ModelRef::new("org/chat", "prod"), [pod])]
//!     }
//! }
//! # fn requires_fleet(_: &dyn Fleet) {}
//! # requires_fleet(&TestServer);
//! ```
//!
//! and its test calls `conformance::backend(&backend, &TestServer).await`. A backend that blocks its thread for
//! ever blocks the suite with it: let the test runner have a time limit.

mod backend;
mod cache;
mod fleet;

pub use backend::backend;
pub use cache::{bounded_cache, cache};
pub use fleet::{BreakableServer, Breakage, Fleet, FleetModel, FleetPod};

#[expect(
    clippy::print_stdout,
    reason = "the test harness captures it, and shows it when the suite fails"
)]
fn print(suite: &str, case: &str, state: &str) {
    println!("conformance of the {suite}: {case}: {state}");
}
