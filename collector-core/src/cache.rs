// SPDX-License-Identifier: Apache-2.0
//! What the engine asks of a cache.

use std::sync::Arc;

use crate::model::ModelRef;
use crate::record::ModelRecord;

/// Keeps the records of models: synchronous and local.
///
/// A cache may forget a record at any time, those of tracked models last; it never returns an older record once a
/// newer one was put. The marks of reads are kept in the record itself ([`ModelRecord::touch`]), so there is
/// one way to read. Implementations are called from many threads, never block on I/O, and never call the
/// collector: they run under its locks.
///
/// Show that an implementation keeps this contract with `collector_testkit::conformance::cache`.
pub trait MetricsCache: Send + Sync + 'static {
    /// Whether this cache stores anything. If not, the engine neither tracks nor refreshes, and asks the backend
    /// at every read.
    fn retains(&self) -> bool;

    /// The record of a model, whatever its age.
    fn get(&self, model: &ModelRef) -> Option<Arc<ModelRecord>>;

    /// Replaces the record of a model, in one step.
    ///
    /// A cache of limited size makes room by evicting others, tracked ones last. An untracked record is not
    /// stored among records that are all tracked.
    fn put(&self, record: Arc<ModelRecord>);

    /// Removes and returns the record of a model.
    fn remove(&self, model: &ModelRef) -> Option<Arc<ModelRecord>>;

    /// Calls `keep` with every record, and removes those for which it returns false.
    fn retain(&self, keep: &mut dyn FnMut(&Arc<ModelRecord>) -> bool);

    /// Counters.
    fn stats(&self) -> CacheStats;
}

/// Counters of a cache since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct CacheStats {
    /// Records now.
    pub models: usize,
    /// Addresses now: the replicas of each model, and each allocation.
    pub entries: usize,
    /// About how many bytes the records hold, their values included; 0 where the cache does not count them.
    pub bytes: usize,
    /// Records removed to stay within the capacity.
    pub evictions: u64,
}

impl CacheStats {
    /// These counters.
    pub fn new(models: usize, entries: usize, bytes: usize, evictions: u64) -> Self {
        Self { models, entries, bytes, evictions }
    }
}
