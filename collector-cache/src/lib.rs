//! Caches of the metrics collector.
//!
//! - [`MemoryCache`] keeps entries in memory, within limits; reads take no lock. A [`Handle`] reads one
//!   key again and again.
//! - [`NoOpCache`] keeps nothing, for those who want every read to ask the backend.

mod books;
mod by_id;
mod due;
mod entries;
mod evict;
mod handle;
mod index;
#[cfg(all(test, loom))]
mod interleavings;
mod memory;
mod noop;
mod recent;
#[cfg(test)]
mod samples;
mod slot;
mod sync;
mod version;

pub use evict::Eviction;
pub use handle::{Handle, Shown};
pub use memory::MemoryCache;
pub use noop::NoOpCache;
pub use recent::Recent;
