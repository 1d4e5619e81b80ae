// SPDX-License-Identifier: Apache-2.0
//! The gauges of pods that are scraped directly, as series that PromQL queries select: under their own names and
//! labels, with the namespace and the pod that the target names.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{Backend, Clock, GaugeSample, Namespace, PageGauges, PodGauges, PodsGauges};
use collector_promql::{Gap, Held, HeldSample, KnownLabels, Labels, Part, Reason, Wanted};

/// The labels that targets attest. As in Prometheus, a label of the page with such a name is renamed.
const ATTESTED: [(&str, &str); 2] = [("namespace", "exported_namespace"), ("pod", "exported_pod")];

/// An older page belongs to a pod that is rarely scraped: its model is not tracked.
const CURRENT: Duration = Duration::from_secs(60);

/// The pods that are scraped directly.
pub(super) struct Pods {
    /// Empty if another backend may know pods that no target names.
    backends: Vec<Arc<dyn Backend>>,
    clock: Arc<dyn Clock>,
    /// A PromQL server is configured, which may have pods of namespaces without targets.
    has_server: bool,
}

impl Pods {
    /// Starts to keep gauges if direct scraping is the only backend.
    pub(super) fn new(
        backends: &[Arc<dyn Backend>],
        clock: Arc<dyn Clock>,
        has_server: bool,
    ) -> Self {
        let is_only = backends.iter().all(|backend| backend.gauges().is_some());
        let backends = if is_only { backends.to_vec() } else { Vec::new() };
        let pods = Self { backends, clock, has_server };
        pods.sources().for_each(PageGauges::keep);
        pods
    }

    /// Returns the labels that a selector's series can have; `None` if there may be series that are not held.
    pub(super) fn labels(&self, wanted: &Wanted<'_>) -> Option<KnownLabels> {
        if !self.sources().any(|source| source.looks_for(wanted.metric)) {
            return None;
        }
        let found = self.found(&|namespace| wanted.accepts("namespace", namespace));
        if self.has_server && (wanted.equal("namespace").is_none() || !self.is_known(&found)) {
            return None;
        }
        let pages = found.pods.iter().filter_map(|pod| pod.page.as_ref());
        let mut labels = labels_of(pages.flat_map(|(page, _)| page.of(wanted.metric)));
        let all;
        if labels.is_empty() {
            // No page has the metric. It would have the labels of the others.
            all = self.found(&|_| true);
            let pages = all.pods.iter().filter_map(|pod| pod.page.as_ref());
            labels = labels_of(pages.flat_map(|(page, _)| &page.samples));
        }
        labels.extend(ATTESTED.map(|(label, _)| label));
        Some(KnownLabels::Only(labels.into_iter().map(str::to_owned).collect()))
    }

    /// Returns what is held for a selector.
    pub(super) fn held(&self, wanted: &Wanted<'_>) -> Held {
        let mut held = Held::default();
        let found = self.found(&|namespace| wanted.accepts("namespace", namespace));
        if let Some(why) = found.unknown {
            let part = Part { labels: Labels::default(), is_one_series: false, text: why };
            held.gaps.push(Gap { part, reason: Reason::Backend });
        }
        for pod in found.pods.iter().filter(|it| wanted.accepts("pod", it.pod.as_str())) {
            self.add(&mut held, pod, wanted);
        }
        held
    }

    fn add(&self, held: &mut Held, pod: &PodGauges, wanted: &Wanted<'_>) {
        let (namespace, name) = (pod.namespace.as_str(), pod.pod.as_str());
        let gap = |why: &str, reason| {
            let labels = Labels::new([("namespace", namespace), ("pod", name)]);
            let text = format!("pod {name:?} in {namespace:?}: {why}");
            Gap { part: Part { labels, is_one_series: false, text }, reason }
        };
        let Some((page, asked_at)) = &pod.page else {
            let why = pod.failure.as_deref().unwrap_or("it was not scraped yet");
            held.gaps.push(gap(why, Reason::Backend));
            return;
        };
        if let Some(why) = &pod.failure {
            // It is unknown, not gone: a sum would need the series that it had.
            for sample in page.of(wanted.metric) {
                let mut gap = gap(why, Reason::Backend);
                gap.part.labels = labels(pod, sample);
                gap.part.is_one_series = true;
                held.gaps.push(gap);
            }
            return;
        }
        if let Some(why) = page.incomplete {
            held.gaps.push(gap(why, Reason::Partial));
        }
        let age = asked_at.age(self.clock.now());
        let samples = page.of(wanted.metric).filter(|sample| {
            // Series of the selected models that other matchers exclude show that a model is up.
            let mut models = sample.labels.iter().filter(|(name, _)| **name == *"model_name");
            models.all(|(name, value)| wanted.accepts(name, value))
        });
        held.samples.extend(samples.map(|sample| {
            let labels = labels(pod, sample);
            HeldSample { labels, value: sample.value, age }
        }));
    }

    /// Returns whether there are pods, and all of them are scraped all the time.
    fn is_known(&self, found: &PodsGauges) -> bool {
        let now = self.clock.now();
        let is_current = |pod: &PodGauges| match &pod.page {
            _ if pod.failure.is_some() => true,
            Some((_, asked_at)) => asked_at.age(now) < CURRENT,
            None => false,
        };
        !found.pods.is_empty() && found.unknown.is_none() && found.pods.iter().all(is_current)
    }

    /// Returns the pods of the selected namespaces.
    fn found(&self, of: &dyn Fn(&str) -> bool) -> PodsGauges {
        let mut all = PodsGauges::default();
        for source in self.sources() {
            let found = source.pods(&|namespace: &Namespace| of(namespace.as_str()));
            all.pods.extend(found.pods);
            all.unknown = all.unknown.or(found.unknown);
        }
        all
    }

    fn sources(&self) -> impl Iterator<Item = &dyn PageGauges> {
        self.backends.iter().filter_map(|backend| backend.gauges())
    }
}

fn labels_of<'a>(samples: impl IntoIterator<Item = &'a GaugeSample>) -> BTreeSet<&'a str> {
    let labels = samples.into_iter().flat_map(|sample| &sample.labels);
    labels.map(|(name, _)| renamed(name)).collect()
}

/// Returns the labels of a series: those of the page, and those that the target attests.
fn labels(pod: &PodGauges, sample: &GaugeSample) -> Labels {
    let of_page = sample.labels.iter().map(|(name, value)| (renamed(name).to_owned(), &**value));
    let attested = [("namespace", pod.namespace.as_str()), ("pod", pod.pod.as_str())];
    Labels::new(of_page.chain(attested.map(|(name, value)| (name.to_owned(), value))))
}

fn renamed(label: &str) -> &str {
    let attested = ATTESTED.iter().find(|(attested, _)| *attested == label);
    attested.map_or(label, |(_, renamed)| renamed)
}
