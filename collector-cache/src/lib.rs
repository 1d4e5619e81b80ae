//! Caches of the metrics collector.
//!
//! - [`MemoryCache`] keeps entries in memory; reads take no lock.
//! - [`NoOpCache`] keeps nothing, for those who want every read to ask the backend.

mod index;
mod memory;
mod noop;
mod slot;

pub use memory::MemoryCache;
pub use noop::NoOpCache;
