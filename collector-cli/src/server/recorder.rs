// SPDX-License-Identifier: Apache-2.0
//! Keeps what is counted through the `metrics` facade, by this crate and those below.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::metrics::http;
use crate::exit::Failure;

const DURATION: &str = "wva_metrics_collection_duration_seconds";
const MAPPING_MISSES: &str = "wva_pod_mapping_miss_total";

/// Seconds. Users have dashboards with these.
const DURATION_BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Keeps what is counted through the `metrics` facade.
#[derive(Clone)]
pub(crate) struct Recorder(PrometheusHandle);

impl Recorder {
    /// Becomes the process's recorder, with its families at 0. Backends announce their own when they are
    /// built, so build them afterwards.
    ///
    /// # Errors
    /// When there is a recorder already.
    pub(crate) fn install() -> Result<Self, Failure> {
        let handle = builder().and_then(PrometheusBuilder::install_recorder);
        let handle =
            handle.map_err(|error| Failure::other(format!("cannot keep metrics: {error}")))?;
        announce();
        Ok(Self(handle))
    }

    /// A recorder that nothing is counted in but the families' zeros.
    #[cfg(test)]
    pub(crate) fn detached() -> Self {
        let recorder = builder().expect("the buckets are valid").build_recorder();
        metrics::with_local_recorder(&recorder, announce);
        Self(recorder.handle())
    }

    /// What was counted, in the text format. A gauge cannot be removed, so one that has no value any more is NaN here,
    /// and has no sample.
    pub(super) fn render(&self) -> String {
        let page = self.0.render();
        page.split_inclusive('\n').filter(|line| !line.ends_with(" NaN\n")).collect()
    }

    /// Moves samples into their buckets; without it they would pile up between scrapes.
    pub(crate) fn upkeep(&self) {
        self.0.run_upkeep();
    }

    /// The sum over the series of a counter; `None` when there is none.
    #[cfg(feature = "sim")]
    pub(crate) fn counter(&self, family: &str) -> Option<u64> {
        let page = self.0.render();
        let value = |line: &str| {
            let rest = line.strip_prefix(family)?;
            let (_, value) = rest.starts_with(['{', ' ']).then(|| rest.rsplit_once(' '))??;
            value.parse::<u64>().ok()
        };
        page.lines().filter_map(value).reduce(|sum, value| sum + value)
    }
}

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full(DURATION.to_owned()), &DURATION_BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(http::DURATION.to_owned()), &DURATION_BUCKETS)
}

fn announce() {
    metrics::describe_counter!(MAPPING_MISSES, "Pods that could not be assigned to a variant.");
    announce_namespace("");
    http::announce();
}

/// Shows a namespace's misses before there are any.
pub(super) fn announce_namespace(namespace: &str) {
    let labels = [("namespace", namespace.to_owned()), ("reason", "no_variant".to_owned())];
    metrics::counter!(MAPPING_MISSES, &labels).increment(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_that_has_no_value_any_more_has_no_sample() {
        let recorder = builder().unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::describe_gauge!("of_pool", "Help");
            metrics::gauge!("of_pool", "pool" => "here").set(0.0);
            metrics::gauge!("of_pool", "pool" => "gone NaN").set(f64::NAN);
        });
        let page = Recorder(recorder.handle()).render();
        assert_eq!(page, "# HELP of_pool Help\n# TYPE of_pool gauge\nof_pool{pool=\"here\"} 0\n\n");
    }
}
