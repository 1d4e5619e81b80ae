// SPDX-License-Identifier: Apache-2.0
//! Caches of the metrics collector.
//!
//! - [`MemoryCache`] keeps the records of models in memory, within limits.
//! - [`NoOpCache`] stores nothing, so that every read asks the backend.

#[cfg(all(test, loom))]
mod interleavings;
mod memory;
mod noop;
mod sync;

pub use memory::MemoryCache;
pub use noop::NoOpCache;
