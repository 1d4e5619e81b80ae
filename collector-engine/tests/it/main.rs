//! The engine over a fake backend, on paused time: tokio's timers and the collector's clock move
//! together, and no test sleeps for real.

mod allocations;
mod cached;
mod directory;
mod flights;
mod invalidation;
mod live;
mod merging;
mod outage;
mod panics;
mod readings;
mod refresh;
mod restart;
mod setup;
mod silence;
mod stopping;
mod tracking;
