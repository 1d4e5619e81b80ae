//! Caches of the metrics collector.
//!
//! - [`MemoryCache`] keeps the records of models in memory, within limits.
//! - [`NoOpCache`] stores nothing, for those who want every read to ask the backend.

#[cfg(all(test, loom))]
mod interleavings;
mod memory;
mod noop;
mod sync;

pub use memory::MemoryCache;
pub use noop::NoOpCache;
