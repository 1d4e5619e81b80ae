//! `CachingCollector`: any [`Backend`](collector_core::Backend) and any
//! [`MetricsCache`](collector_core::MetricsCache) make a
//! [`MetricsCollector`](collector_core::MetricsCollector).

mod config;
mod directory;

pub use config::{CacheConfig, TimingError};
pub use directory::{InvalidPattern, StaticDirectory, VariantSpec};
