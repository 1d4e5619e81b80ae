// SPDX-License-Identifier: Apache-2.0
//! Gauges of pods as their metrics pages show them, for readers that want series instead of readings.

use std::sync::Arc;

use crate::clock::Tick;
use crate::model::{Namespace, PodName};

/// The gauges of the metrics pages that a backend reads: see [`Backend::gauges`](crate::Backend::gauges).
pub trait PageGauges: Send + Sync {
    /// Starts to keep gauges. Pods that were found before are not affected, so call it before the first fetch.
    fn keep(&self);

    /// Whether the backend looks for gauges of this name.
    fn looks_for(&self, name: &str) -> bool;

    /// Returns what the pods of the selected namespaces last showed. Does not scrape.
    fn pods(&self, of: &dyn Fn(&Namespace) -> bool) -> PodsGauges;
}

/// What the pods of some namespaces last showed.
#[derive(Clone, PartialEq, Default, Debug)]
#[non_exhaustive]
pub struct PodsGauges {
    /// One for each metrics page.
    pub pods: Vec<PodGauges>,
    /// Why there may be more pods.
    pub unknown: Option<String>,
}

/// The gauges of one metrics page.
#[derive(Clone, PartialEq, Debug)]
pub struct PodGauges {
    /// The namespace of the pod.
    pub namespace: Namespace,
    /// The pod. Several of its ports may have a page each.
    pub pod: PodName,
    /// The last page that was read, and when it was requested. `None`: none was read yet.
    pub page: Option<(Arc<GaugePage>, Tick)>,
    /// Why that page is not current, if the last scrape failed. Without a page and a failure, the pod was not scraped
    /// yet.
    pub failure: Option<String>,
}

/// The gauges of a page.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct GaugePage {
    /// Each series once, ordered by name.
    pub samples: Vec<GaugeSample>,
    /// Series may be absent or not current, and why: there are too many, or some lines cannot be read.
    pub incomplete: Option<&'static str>,
}

/// One sample of a page.
#[derive(Clone, PartialEq, Debug)]
pub struct GaugeSample {
    /// The name of the metric.
    pub name: Arc<str>,
    /// Its labels as on the page, ordered by name.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The value, NaN and infinities included.
    pub value: f64,
}

impl GaugePage {
    /// Returns the samples of a metric.
    pub fn of(&self, name: &str) -> impl Iterator<Item = &GaugeSample> {
        let start = self.samples.partition_point(|sample| *sample.name < *name);
        let end = start + self.samples[start..].partition_point(|sample| *sample.name == *name);
        self.samples[start..end].iter()
    }
}
