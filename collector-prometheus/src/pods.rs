//! The living pods of a model.

use std::cmp::Reverse;
use std::collections::HashMap;

use collector_core::{PodName, Tick};

use crate::memory::CacheConfig;

/// A living pod, and what the queries have told of it so far.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: PodName,
    pub(crate) sampled_at: Tick,
    pub(crate) kv_cache_usage: Option<f64>,
    pub(crate) queue_length: Option<u64>,
    pub(crate) running_requests: Option<u64>,
    pub(crate) hits: Option<f64>,
    pub(crate) queries: Option<f64>,
    pub(crate) engines: HashMap<Box<str>, Option<CacheConfig>>,
}

/// The living pods of a model, in order of their names once all are there.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    pods: Vec<Pod>,
    /// The one behind the last that was found. Each query tells of the pods in the same order.
    next: usize,
}

impl Pods {
    /// Adds a pod; [`settle`](Self::settle) comes before anything is looked for.
    pub(crate) fn add(&mut self, name: PodName, sampled_at: Tick) {
        self.pods.push(Pod {
            name,
            sampled_at,
            kv_cache_usage: None,
            queue_length: None,
            running_requests: None,
            hits: None,
            queries: None,
            engines: HashMap::new(),
        });
    }

    /// All pods are there: puts them in order. One that came twice is there once, as of the later time.
    pub(crate) fn settle(&mut self) {
        if !self.pods.is_sorted_by(|a, b| a.name < b.name) {
            self.pods.sort_unstable_by(|a, b| {
                (&a.name, Reverse(a.sampled_at)).cmp(&(&b.name, Reverse(b.sampled_at)))
            });
            self.pods.dedup_by(|later, first| later.name == first.name);
        }
    }

    /// The pod of that name.
    pub(crate) fn get_mut(&mut self, name: &str) -> Option<&mut Pod> {
        let at = match self.pods.get(self.next) {
            Some(pod) if pod.name.as_str() == name => self.next,
            _ => self.pods.binary_search_by(|pod| pod.name.as_str().cmp(name)).ok()?,
        };
        self.next = if at + 1 == self.pods.len() { 0 } else { at + 1 };
        self.pods.get_mut(at)
    }

    pub(crate) fn as_slice(&self) -> &[Pod] {
        &self.pods
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [Pod] {
        &mut self.pods
    }

    pub(crate) fn into_vec(self) -> Vec<Pod> {
        self.pods
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pods(names: &[(&str, u64)]) -> Pods {
        let mut pods = Pods::default();
        for (name, seconds) in names {
            let sampled_at = Tick::from_nanos(1 << 62) + Duration::from_secs(*seconds);
            pods.add((*name).into(), sampled_at);
        }
        pods.settle();
        pods
    }

    #[test]
    fn pods_are_found_in_whatever_order_they_are_asked_for() {
        let mut pods = pods(&[("c", 0), ("a", 0), ("d", 0), ("b", 0)]);
        let in_order: Vec<&str> = pods.as_slice().iter().map(|pod| pod.name.as_str()).collect();
        assert_eq!(in_order, ["a", "b", "c", "d"]);
        for name in "abcdabcddcbaacbbdd".chars().map(String::from) {
            assert_eq!(pods.get_mut(&name).unwrap().name.as_str(), name);
            assert!(pods.get_mut("bb").is_none());
        }
        assert!(Pods::default().get_mut("a").is_none());
    }

    #[test]
    fn a_pod_that_came_twice_is_there_once_as_of_the_later_time() {
        for twice in [[("b", 1), ("a", 2), ("b", 3)], [("b", 3), ("b", 1), ("a", 2)]] {
            let mut pods = pods(&twice);
            let latest = Tick::from_nanos(1 << 62) + Duration::from_secs(3);
            assert_eq!(pods.get_mut("b").unwrap().sampled_at, latest);
            assert_eq!(pods.into_vec().len(), 2);
        }
    }
}
