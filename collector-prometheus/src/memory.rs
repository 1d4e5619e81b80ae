// SPDX-License-Identifier: Apache-2.0
//! What is remembered of a model between two fetches: quantities that rarely change and are not queried each
//! time. Pods are forgotten when they terminate, models when they are no longer fetched.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::{ModelRef, PodName, Tick, sanitize};
use collector_engines::Quantity;
use foldhash::fast::RandomState;

/// Interval of slow queries. The prefix-cache hit rate covers five minutes, and cache sizes are constant
/// while a pod lives, although a restarted pod may have another one. A little less than a minute, so that a
/// refresh every 30 s queries every second time in spite of its jitter.
const SLOW_INTERVAL: Duration = Duration::from_secs(55);
/// A model that was not fetched for this long is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// The capacity of one rank of a pod, as it was last reported.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct RankConfig {
    /// The data-parallel rank; empty for what is reported once per server.
    pub(crate) rank: Box<str>,
    /// Identifies servers and copies; empty where the query does not group by it.
    pub(crate) key: Box<str>,
    pub(crate) capacity_tokens: Option<u64>,
    pub(crate) num_gpu_blocks: Option<u64>,
    pub(crate) block_size: Option<u64>,
}

impl RankConfig {
    /// Makes a configuration from the values of its quantities.
    pub(crate) fn new(rank: &str, key: &str, value: impl Fn(Quantity) -> Option<f64>) -> Self {
        let count = |quantity| sanitize::count(value(quantity)?).ok();
        Self {
            rank: rank.into(),
            key: key.into(),
            capacity_tokens: count(Quantity::KvCapacityTokens),
            num_gpu_blocks: count(Quantity::NumGpuBlocks),
            block_size: count(Quantity::BlockSize),
        }
    }

    /// Returns the tokens that the KV cache of the rank holds: as reported, or blocks times block size.
    pub(crate) fn tokens(&self) -> Option<u64> {
        let blocks = || self.num_gpu_blocks?.checked_mul(self.block_size?);
        self.capacity_tokens.or_else(blocks)
    }
}

/// What is remembered of one pod.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct PodMemory {
    /// The prefix-cache hit rate, and when it was sampled.
    pub(crate) hit_rate: Option<(f64, Tick)>,
    pub(crate) config: Arc<[RankConfig]>,
    /// Its requests had a rate of their own, so later fetches must return one too.
    pub(crate) is_counted: bool,
}

/// What is remembered of one model.
#[derive(Clone, Debug)]
pub(crate) struct ModelMemory {
    /// Number of live pods at the last fetch.
    pub(crate) live: u32,
    /// Pods whose cache size is known, or known to be unknown, sorted by name.
    pub(crate) pods: Vec<(PodName, PodMemory)>,
    /// When hit rates were last queried.
    pub(crate) hit_rates_at: Option<Tick>,
    /// When cache sizes were last queried.
    pub(crate) cache_config_at: Option<Tick>,
    pub(crate) fetched_at: Tick,
}

impl ModelMemory {
    /// Returns what is remembered of a pod.
    pub(crate) fn pod(&self, name: &PodName) -> Option<&PodMemory> {
        debug_assert!(self.pods.is_sorted_by(|a, b| a.0 < b.0), "pods that would not be found");
        let at = self.pods.binary_search_by(|(known, _)| known.cmp(name)).ok()?;
        self.pods.get(at).map(|(_, memory)| memory)
    }

    /// Returns whether hit rates are due.
    pub(crate) fn hit_rates_due(&self, now: Tick) -> bool {
        self.hit_rates_at.is_none_or(|at| at.age(now) >= SLOW_INTERVAL)
    }

    /// Returns whether cache sizes are due, given the live pods.
    pub(crate) fn cache_config_due<'a>(
        &self,
        now: Tick,
        mut alive: impl Iterator<Item = &'a PodName>,
    ) -> bool {
        self.cache_config_at.is_none_or(|at| at.age(now) >= SLOW_INTERVAL)
            || alive.any(|pod| self.pod(pod).is_none())
    }
}

/// What is remembered of all models.
#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<Models>);

type Models = HashMap<ModelRef, Arc<ModelMemory>, RandomState>;

impl Memory {
    /// Returns what is remembered of a model.
    pub(crate) fn of(&self, model: &ModelRef) -> Option<Arc<ModelMemory>> {
        self.lock().get(model).cloned()
    }

    /// Returns how many pods a model had at the last fetch.
    pub(crate) fn pods_of(&self, model: &ModelRef) -> Option<u32> {
        Some(self.lock().get(model)?.live)
    }

    /// Replaces what is remembered of a model, and forgets models that are no longer fetched. The result of
    /// an older fetch that ends late is ignored.
    pub(crate) fn keep(&self, kept: Vec<(ModelRef, ModelMemory)>, now: Tick) {
        let mut models = self.lock();
        for (model, memory) in kept {
            let newer =
                models.get(&model).is_some_and(|known| known.fetched_at > memory.fetched_at);
            if !newer {
                models.insert(model, Arc::new(memory));
            }
        }
        models.retain(|_, memory| memory.fetched_at.age(now) < FORGET_AFTER);
    }

    fn lock(&self) -> MutexGuard<'_, Models> {
        // Each change is one insertion, so a panic elsewhere leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Tick {
        Tick::from_nanos(1 << 62) + Duration::from_secs(seconds)
    }

    fn memory(pods: &[&str], fetched_at: Tick) -> ModelMemory {
        ModelMemory {
            live: u32::try_from(pods.len()).unwrap(),
            pods: pods.iter().map(|pod| ((*pod).into(), PodMemory::default())).collect(),
            hit_rates_at: Some(fetched_at),
            cache_config_at: Some(fetched_at),
            fetched_at,
        }
    }

    #[test]
    fn slow_quantities_are_due_each_minute_and_cache_sizes_with_each_new_pod() {
        let memory = memory(&["a"], at(0));
        let pods: [PodName; 2] = ["a".into(), "b".into()];
        assert!(!memory.hit_rates_due(at(30)));
        assert!(memory.hit_rates_due(at(58)));
        assert!(!memory.cache_config_due(at(30), pods[..1].iter()));
        assert!(memory.cache_config_due(at(30), pods.iter()));
        assert!(memory.cache_config_due(at(58), pods[..1].iter()));
    }

    #[test]
    fn a_remembered_pod_is_found_among_terminated_and_new_ones() {
        let mut memory = memory(&["a", "c", "e", "f"], at(0));
        for (number, (_, kept)) in memory.pods.iter_mut().enumerate() {
            kept.hit_rate = Some((number as f64, at(0)));
        }
        let kept = ["b", "c", "d", "e", "g"].map(|pod| memory.pod(&pod.into())?.hit_rate);
        let rate = |rate| Some((rate, at(0)));
        assert_eq!(kept, [None, rate(1.0), None, rate(2.0), None]);
    }

    #[test]
    fn a_late_older_fetch_is_ignored_and_idle_models_are_forgotten() {
        let all = Memory::default();
        let model = ModelRef::new("m", "n");
        all.keep(vec![(model.clone(), memory(&["a", "b"], at(10)))], at(10));
        all.keep(vec![(model.clone(), memory(&["a"], at(5)))], at(11));
        assert_eq!(all.pods_of(&model), Some(2));
        all.keep(Vec::new(), at(700));
        assert_eq!(all.pods_of(&model), None);
    }
}
