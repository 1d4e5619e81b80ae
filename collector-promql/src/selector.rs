//! One selector of a query, on its own.

use promql_parser::label::{MatchOp, Matcher, Matchers};
use promql_parser::parser::VectorSelector;

/// The label that holds the name of a metric.
const NAME: &str = "__name__";
/// The labels that name a model.
const MODEL: [&str; 2] = ["model_name", "target_model_name"];
/// Labels that a scrape configuration adds to all series of an exporter.
const SCRAPE: [&str; 9] = [
    "namespace",
    "service",
    "job",
    "instance",
    "pod",
    "container",
    "endpoint",
    "cluster",
    "inference_pool",
];

/// Labels by which an endpoint picker has several series of one metric. Any other label is of the exporter.
const OF_SERIES: [&str; 4] = ["model_name", "target_model_name", "fairness_id", "priority"];

/// Labels of the scrape configuration that identify an exporter.
const EXPORTER: [&str; 5] = ["service", "job", "instance", "pod", "inference_pool"];

/// A selector without its range, offset and time.
#[derive(Clone, Debug)]
pub(crate) struct Selector {
    /// The selector as PromQL: one text for all orders of its matchers.
    text: String,
    parsed: VectorSelector,
}

impl Selector {
    pub(crate) fn new(selector: &VectorSelector) -> Self {
        let parsed = VectorSelector { offset: None, at: None, ..selector.clone() };
        Self { text: parsed.to_string(), parsed }
    }

    /// The selector as PromQL.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns the metric's name, if the selector selects one metric.
    pub(crate) fn name(&self) -> Option<&str> {
        let of_matcher = || self.equal(NAME);
        self.parsed.name.as_deref().or_else(of_matcher)
    }

    /// Returns the model that the selector names, if any.
    pub(crate) fn model(&self) -> Option<&str> {
        MODEL.iter().find_map(|label| self.equal(label)).filter(|model| !model.is_empty())
    }

    /// Returns the matchers on labels of the scrape configuration and on these others. `None` if the selector has
    /// alternatives (`or`).
    pub(crate) fn scrape_matchers(&self, others: &[&str]) -> Option<Vec<Matcher>> {
        self.matchers(|label| SCRAPE.contains(&label) || others.contains(&label))
    }

    /// Returns the matchers except those on labels by which an endpoint picker has several series. `None` if the selector
    /// has alternatives (`or`).
    pub(crate) fn exporter_matchers(&self) -> Option<Vec<Matcher>> {
        self.matchers(|label| label != NAME && !OF_SERIES.contains(&label))
    }

    fn matchers(&self, is_kept: impl Fn(&str) -> bool) -> Option<Vec<Matcher>> {
        let Matchers { matchers, or_matchers } = &self.parsed.matchers;
        let kept = || matchers.iter().filter(|matcher| is_kept(&matcher.name)).cloned().collect();
        or_matchers.is_empty().then(kept)
    }

    /// Returns whether the selector names one exporter: a service, a job, an instance, a pod or a pool.
    pub(crate) fn names_exporter(&self) -> bool {
        EXPORTER.iter().any(|label| self.equal(label).is_some_and(|value| !value.is_empty()))
    }

    /// Returns the labels of the matchers, sorted. Empty if the selector has alternatives (`or`).
    pub(crate) fn labels(&self) -> Vec<&str> {
        let Matchers { matchers, or_matchers } = &self.parsed.matchers;
        let matchers = matchers.iter().filter(|_| or_matchers.is_empty());
        let mut labels: Vec<&str> = matchers.map(|matcher| matcher.name.as_str()).collect();
        labels.retain(|label| *label != NAME && is_plain(label));
        labels.sort_unstable();
        labels.dedup();
        labels
    }

    /// Returns the selector without its matchers on a label. `None` if nothing else would restrict it.
    pub(crate) fn without(&self, label: &str) -> Option<String> {
        let mut rest = self.parsed.clone();
        rest.matchers.matchers.retain(|matcher| matcher.name != label);
        let selects =
            rest.name.is_some() || rest.matchers.matchers.iter().any(|it| it.name == NAME);
        selects.then(|| rest.to_string())
    }

    /// Returns the matchers on a label as PromQL.
    pub(crate) fn matcher_text(&self, label: &str) -> Option<String> {
        let matchers = self.parsed.matchers.matchers.iter();
        let texts: Vec<String> =
            matchers.filter(|matcher| matcher.name == label).map(ToString::to_string).collect();
        (!texts.is_empty()).then(|| texts.join(","))
    }

    /// Returns the value that a label must equal.
    fn equal(&self, label: &str) -> Option<&str> {
        let Matchers { matchers, or_matchers } = &self.parsed.matchers;
        let is_it = |matcher: &&Matcher| matcher.name == label && matcher.op == MatchOp::Equal;
        let matcher = matchers.iter().find(is_it).filter(|_| or_matchers.is_empty())?;
        Some(&matcher.value)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Returns whether a label needs no quotes, which older servers do not support.
fn is_plain(label: &str) -> bool {
    label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Returns a selector of one metric with these matchers, as PromQL.
pub(crate) fn selector_text(name: &str, matchers: Vec<Matcher>) -> String {
    VectorSelector::new(Some(name.to_owned()), Matchers::new(matchers)).to_string()
}
