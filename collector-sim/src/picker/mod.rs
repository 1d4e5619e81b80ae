// SPDX-License-Identifier: Apache-2.0
//! The Endpoint Picker: its counters of requests, and its metrics page.

mod counters;
mod flow;
mod page;
mod runtime;

use crate::spec::PickerNames;

pub(crate) use counters::{Answered, PickerCounters};
pub(crate) use flow::{Flow, FlowControl};

/// `DefaultQueueDepthThreshold` of the Gateway API Inference Extension's saturation detector: a pod with this
/// many waiting requests is saturated.
pub(crate) const QUEUE_DEPTH_THRESHOLD: usize = 5;
/// Its `DefaultKVCacheUtilThreshold`: a pod with this KV-cache usage is saturated too.
const KV_CACHE_THRESHOLD: f64 = 0.8;

/// Everything that a picker's page shows at one instant.
#[derive(Debug, Clone)]
pub(crate) struct PickerView {
    pub(crate) pool: String,
    pub(crate) namespace: String,
    pub(crate) names: PickerNames,
    /// The start of the process, in seconds since the Unix epoch.
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
    /// Usage of its fullest engine.
    pub(crate) kv_cache_usage: f64,
    /// Requests sent to it, over all restarts.
    pub(crate) sent: u64,
}

/// A model as the picker sees it.
#[derive(Debug, Clone)]
pub(crate) struct PoolModel {
    pub(crate) model: String,
    /// Received requests.
    pub(crate) received: u64,
    /// Rejected requests.
    pub(crate) refused: u64,
    /// Queued requests.
    pub(crate) flows: [Flow; 2],
    /// The counters of its pods, including removed ones.
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

    /// Returns the received requests, over all models.
    fn received(&self) -> u64 {
        self.models.iter().map(|model| model.received).sum()
    }

    fn average(&self, of: impl Fn(&PoolPod) -> f64) -> f64 {
        // The average of an empty pool is 0; its number of ready pods shows that it is meaningless.
        if self.pods.is_empty() {
            return 0.0;
        }
        self.pods.iter().map(of).sum::<f64>() / self.pods.len() as f64
    }

    fn standard_deviation(&self, of: impl Fn(&PoolPod) -> f64) -> f64 {
        let mean = self.average(&of);
        self.average(|pod| (of(pod) - mean).powi(2)).sqrt()
    }

    /// Returns the mean saturation of the pods: the greater of queue and KV cache relative to their
    /// thresholds. A pool without pods is saturated.
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
