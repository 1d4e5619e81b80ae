// SPDX-License-Identifier: Apache-2.0
//! The caches and maps that ours is compared with, each used as its callers use it.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use collector_core::raw::Label;
use collector_core::{
    Clock as _, Freshness, ModelRef, ModelValue, Reading, Replicas, Source, SystemClock, Tick,
};
use dashmap::DashMap;
use futures_util::FutureExt as _;
use moka::policy::EvictionPolicy;
use quick_cache::UnitWeighter;
use quick_cache::sync::DefaultLifecycle;

use crate::workload::{THRESHOLDS, TTL, value};

/// The hasher of a like-for-like comparison: seeded, and the one that ours has.
pub(crate) type FastHasher = foldhash::fast::RandomState;

/// What a caller keeps under a key: the value, and the two times without which it cannot be judged.
#[derive(Clone)]
pub(crate) struct Entry<T> {
    pub(crate) value: Arc<ModelValue>,
    pub(crate) sampled_at: T,
    pub(crate) expires_at: T,
}

/// A cache or a map with keys that are text.
pub(crate) trait Peer<T>: Send + Sync {
    fn get(&self, key: &str) -> Option<Entry<T>>;
    fn put(&self, key: String, entry: Entry<T>);
}

/// Where entries expire by themselves.
struct ByEntry;

impl<T> moka::Expiry<String, Entry<T>> for ByEntry {
    fn expire_after_create(&self, _: &String, _: &Entry<T>, _: Instant) -> Option<Duration> {
        Some(TTL)
    }

    fn expire_after_update(
        &self,
        _: &String,
        _: &Entry<T>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(TTL)
    }
}

/// moka, evicting the least recently used.
pub(crate) type MokaSync<T, S> = moka::sync::Cache<String, Entry<T>, S>;
pub(crate) type MokaFuture<T, S> = moka::future::Cache<String, Entry<T>, S>;
pub(crate) type Quick<T, S> = quick_cache::sync::Cache<String, Entry<T>, UnitWeighter, S>;
pub(crate) type Dash<T, S> = DashMap<String, Entry<T>, S>;
pub(crate) type Locked<T, S> = RwLock<HashMap<String, Entry<T>, S>>;

pub(crate) fn moka_sync<T, S>(capacity: usize, hasher: S) -> MokaSync<T, S>
where
    T: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    moka::sync::Cache::builder()
        .max_capacity(capacity as u64)
        .eviction_policy(EvictionPolicy::lru())
        .expire_after(ByEntry)
        .build_with_hasher(hasher)
}

pub(crate) fn moka_future<T, S>(capacity: usize, hasher: S) -> MokaFuture<T, S>
where
    T: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    moka::future::Cache::builder()
        .max_capacity(capacity as u64)
        .eviction_policy(EvictionPolicy::lru())
        .expire_after(ByEntry)
        .build_with_hasher(hasher)
}

pub(crate) fn quick<T: Clone, S: BuildHasher + Clone>(capacity: usize, hasher: S) -> Quick<T, S> {
    let lifecycle = DefaultLifecycle::default();
    quick_cache::sync::Cache::with(capacity, capacity as u64, UnitWeighter, hasher, lifecycle)
}

impl<T, S> Peer<T> for MokaSync<T, S>
where
    T: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    fn get(&self, key: &str) -> Option<Entry<T>> {
        self.get(key)
    }

    fn put(&self, key: String, entry: Entry<T>) {
        self.insert(key, entry);
    }
}

impl<T, S> Peer<T> for MokaFuture<T, S>
where
    T: Clone + Send + Sync + 'static,
    S: BuildHasher + Clone + Send + Sync + 'static,
{
    fn get(&self, key: &str) -> Option<Entry<T>> {
        // A hit never waits.
        self.get(key).now_or_never()?
    }

    fn put(&self, key: String, entry: Entry<T>) {
        let put = self.insert(key, entry).now_or_never();
        debug_assert!(put.is_some(), "its write log is full");
    }
}

impl<T, S> Peer<T> for Quick<T, S>
where
    T: Clone + Send + Sync,
    S: BuildHasher + Clone + Send + Sync,
{
    fn get(&self, key: &str) -> Option<Entry<T>> {
        self.get(key)
    }

    fn put(&self, key: String, entry: Entry<T>) {
        self.insert(key, entry);
    }
}

impl<T, S> Peer<T> for Dash<T, S>
where
    T: Clone + Send + Sync,
    S: BuildHasher + Clone + Send + Sync,
{
    fn get(&self, key: &str) -> Option<Entry<T>> {
        Some(self.get(key)?.value().clone())
    }

    fn put(&self, key: String, entry: Entry<T>) {
        self.insert(key, entry);
    }
}

impl<T, S> Peer<T> for Locked<T, S>
where
    T: Clone + Send + Sync,
    S: BuildHasher + Send + Sync,
{
    fn get(&self, key: &str) -> Option<Entry<T>> {
        self.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn put(&self, key: String, entry: Entry<T>) {
        self.write().unwrap_or_else(PoisonError::into_inner).insert(key, entry);
    }
}

/// The key as a caller of a cache with text keys makes it, at each read.
pub(crate) fn key_of(model: &ModelRef) -> String {
    let (model, namespace) = (model.model.as_str(), model.namespace.as_str());
    format!("replicas:{model}:{namespace}")
}

#[expect(clippy::disallowed_methods, reason = "the clock that a caller of these libraries reads")]
fn instant() -> Instant {
    Instant::now()
}

/// A read as a caller of the library writes it: text key, the clock of the standard library, ttl and
/// freshness checked by hand.
pub(crate) fn read_as_written(
    peer: &impl Peer<Instant>,
    model: &ModelRef,
) -> Option<(Arc<ModelValue>, Duration, Freshness)> {
    let entry = peer.get(&key_of(model))?;
    let now = instant();
    if now >= entry.expires_at {
        return None;
    }
    let age = now.duration_since(entry.sampled_at);
    Some((entry.value, age, THRESHOLDS.determine_status(age)))
}

/// The same with all that ours has and the library does not stand in the way of: the key is there
/// already, the clock is the coarse one.
pub(crate) fn read_like_for_like(
    peer: &impl Peer<Tick>,
    key: &str,
    clock: &SystemClock,
) -> Option<Reading<Replicas>> {
    let entry = peer.get(key)?;
    let now = clock.now();
    let label = Label::new(entry.sampled_at, now, &THRESHOLDS, Source::Cache);
    (now < entry.expires_at).then(|| Reading::in_model(entry.value, (), label))
}

/// An entry as it is kept where times are the standard library's.
pub(crate) fn entry_as_written(model: &ModelRef) -> Entry<Instant> {
    let now = instant();
    Entry { value: value(model, Tick::MIN), sampled_at: now, expires_at: now + TTL }
}

/// An entry as it is kept where times are ours.
pub(crate) fn entry_like_for_like(model: &ModelRef, now: Tick) -> Entry<Tick> {
    Entry { value: value(model, now), sampled_at: now, expires_at: now + TTL }
}

/// Puts every model in, under its text key.
pub(crate) fn filled<T, P: Peer<T>>(
    peer: P,
    models: &[ModelRef],
    entry: impl Fn(&ModelRef) -> Entry<T>,
) -> P {
    for model in models {
        peer.put(key_of(model), entry(model));
    }
    peer
}
