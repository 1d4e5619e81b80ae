//! What every backend and every cache must do, as suites of plain functions.
//!
//! A suite panics at the first promise that is broken. It prints each case before it runs and each
//! case it leaves out, with the reason: `cargo test -- --nocapture` shows them.

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
