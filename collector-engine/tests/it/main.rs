// SPDX-License-Identifier: Apache-2.0
//! The engine over a fake backend, on paused time: tokio's timers and the collector's clock move
//! together, and no test sleeps for real.

mod allocations;
mod budget;
mod cached;
mod directory;
mod discovery;
mod fetches;
mod handover;
mod invalidation;
mod large;
mod last_known_good;
mod live;
mod logs;
mod merging;
mod missing;
mod outage;
mod panics;
mod readings;
mod refresh;
mod restart;
mod scripted_cache;
mod setup;
mod silence;
mod stopping;
mod supply;
mod tracking;
