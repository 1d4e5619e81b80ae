// SPDX-License-Identifier: Apache-2.0
//! `CachingCollector`: any [`Backend`](collector_core::Backend) and any
//! [`MetricsCache`](collector_core::MetricsCache) make a
//! [`MetricsCollector`](collector_core::MetricsCollector).
//!
//! The engine decides when a backend is asked and what is kept:
//!
//! - a read comes from the cache; past its ttl it is answered all the same, with its true age, while
//!   a refresh runs ([`CachingCollector`]);
//! - concurrent misses of a model share one fetch, misses of several models one batch;
//! - a background worker refreshes what is tracked, in one batch a cycle, and with [`Discovery`] tracks what the
//!   backends list;
//! - a loop that reads one workload again and again holds a [`WorkloadHandle`];
//! - a failed refresh never removes a good value, and an invalidation never lets an older fetch
//!   store.

mod builder;
mod collector;
mod config;
mod counters;
mod directory;
mod engine;
mod fetch;
mod handover;
#[cfg(all(test, loom))]
mod interleavings;
mod publish;
mod read;
mod refresh;
mod snapshot;
mod state;
mod sync;

pub use builder::{Builder, DEFAULT_MAX_TRACKED, TimingErrors};
pub use collector::{CachingCollector, NoRuntime};
pub use config::{CacheConfig, EvictionPolicy, TimingError};
pub use directory::{InvalidPattern, StaticDirectory, VariantSpec};
pub use read::WorkloadHandle;
pub use refresh::{Discovery, adaptive};
