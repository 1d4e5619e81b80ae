// SPDX-License-Identifier: Apache-2.0
//! All series that PromQL queries can select without a server.

use std::cell::LazyCell;
use std::sync::Arc;

use collector_core::ModelRef;
use collector_engine::CachingCollector;
use collector_promql::{Held, HeldSeries, KnownLabels, Wanted};

use super::pods::Pods;
use super::readings::{Metric, accepts};

/// The readings of tracked models, and the gauges of pods.
pub(super) struct Series {
    pub(super) collector: Arc<CachingCollector>,
    pub(super) pods: Pods,
}

impl HeldSeries for Series {
    fn labels(&self, wanted: &Wanted<'_>) -> Option<KnownLabels> {
        match Metric::find(wanted.metric) {
            Some(metric) => Some(KnownLabels::Only(metric.labels())),
            None => self.pods.labels(wanted),
        }
    }

    fn select(&self, wanted: &[Wanted<'_>]) -> Vec<Held> {
        // All selectors see the readings of one moment. Most queries name their model, so few are needed.
        let is_wanted = |model: &ModelRef| wanted.iter().any(|wanted| accepts(wanted, model));
        let tracked = LazyCell::new(|| self.collector.tracked_where(is_wanted));
        let of_selector = |wanted: &Wanted<'_>| match Metric::find(wanted.metric) {
            Some(metric) => metric.held(wanted, &tracked),
            None => self.pods.held(wanted),
        };
        wanted.iter().map(of_selector).collect()
    }
}
