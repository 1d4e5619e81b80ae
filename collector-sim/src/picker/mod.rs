//! The Endpoint Picker: what it counts of the requests it sends, and the page that tells of it.

mod counters;
mod flow;
mod page;
mod runtime;

use crate::spec::PickerNames;

pub(crate) use counters::{Answered, PickerCounters};
pub(crate) use flow::{Flow, FlowControl};

/// `DefaultQueueDepthThreshold` of the Gateway API Inference Extension's saturation detector: a pod
/// with so many requests waiting is saturated.
pub(crate) const QUEUE_DEPTH_THRESHOLD: usize = 5;
/// Its `DefaultKVCacheUtilThreshold`: so is one that uses so much of its KV cache.
const KV_CACHE_THRESHOLD: f64 = 0.8;

/// All that a picker's page tells, at one instant.
#[derive(Debug, Clone)]
pub(crate) struct PickerView {
    pub(crate) pool: String,
    pub(crate) namespace: String,
    pub(crate) names: PickerNames,
    /// When the process started, as seconds since the Unix epoch.
    pub(crate) started: f64,
    pub(crate) pods: Vec<PoolPod>,
    pub(crate) models: Vec<PoolModel>,
}

/// A pod as the picker sees it.
#[derive(Debug, Clone)]
pub(crate) struct PoolPod {
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) waiting: u32,
    pub(crate) running: u32,
    /// Of its fullest engine.
    pub(crate) kv_cache_usage: f64,
    /// Requests sent to it, in all its lives.
    pub(crate) sent: u64,
}

/// A model as the picker sees it.
#[derive(Debug, Clone)]
pub(crate) struct PoolModel {
    pub(crate) model: String,
    /// Requests that came.
    pub(crate) received: u64,
    /// Requests turned away.
    pub(crate) refused: u64,
    /// Requests held back.
    pub(crate) flows: [Flow; 2],
    /// What its pods have counted, those that are gone included.
    pub(crate) counters: Option<Box<PickerCounters>>,
}

impl PoolModel {
    /// Adds another variant of the same model.
    pub(crate) fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.refused += other.refused;
        self.flows.iter_mut().zip(&other.flows).for_each(|(flow, others)| flow.add(others));
        if let (Some(picker), Some(others)) = (&mut self.counters, &other.counters) {
            picker.add(others);
        }
    }
}

impl PickerView {
    pub(crate) fn render(&self) -> String {
        page::render(self)
    }

    /// Requests that came, over all models.
    fn received(&self) -> u64 {
        self.models.iter().map(|model| model.received).sum()
    }

    fn average(&self, of: impl Fn(&PoolPod) -> f64) -> f64 {
        // An empty pool's average is 0, and its ready pods say that it means nothing.
        if self.pods.is_empty() {
            return 0.0;
        }
        self.pods.iter().map(of).sum::<f64>() / self.pods.len() as f64
    }

    fn standard_deviation(&self, of: impl Fn(&PoolPod) -> f64) -> f64 {
        let mean = self.average(&of);
        self.average(|pod| (of(pod) - mean).powi(2)).sqrt()
    }

    /// The mean over the pods of how far the queue or the KV cache, whichever is nearer, is on its
    /// way to its threshold. A pool without pods is saturated.
    fn saturation(&self) -> f64 {
        if self.pods.is_empty() {
            return 1.0;
        }
        self.average(|pod| {
            let queue = f64::from(pod.waiting) / QUEUE_DEPTH_THRESHOLD as f64;
            queue.max(pod.kv_cache_usage / KV_CACHE_THRESHOLD)
        })
    }
}
