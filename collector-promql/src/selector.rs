// SPDX-License-Identifier: Apache-2.0
//! One selector of a query, on its own.

use collector_core::ModelRef;
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

/// The labels by which model servers name a model.
const NAMESPACE: &str = "namespace";
const MODEL_NAME: &str = "model_name";
/// Models that a selector may name one by one.
const NAMED_MAX: usize = 64;

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

    /// Returns the models that the selector names, each with its namespace, if it can select no others.
    pub(crate) fn named_models(&self) -> Option<Vec<ModelRef>> {
        let (namespaces, names) = (self.values(NAMESPACE)?, self.values(MODEL_NAME)?);
        let of_namespace = |namespace: &&str| {
            let namespace = (*namespace).to_owned();
            names.iter().map(move |name| ModelRef::new(*name, namespace.clone()))
        };
        let are_few = namespaces.len() * names.len() <= NAMED_MAX;
        are_few.then(|| namespaces.iter().flat_map(of_namespace).collect())
    }

    /// Returns whether the labels of a model match the selector. `None` if it selects by other labels too.
    pub(crate) fn selects_model(&self, model: &ModelRef) -> Option<bool> {
        let Matchers { matchers, or_matchers } = &self.parsed.matchers;
        let mut selects = true;
        for matcher in matchers {
            selects &= match matcher.name.as_str() {
                NAME => true,
                NAMESPACE => matcher.is_match(model.namespace.as_str()),
                MODEL_NAME => matcher.is_match(model.model.as_str()),
                _ => return None,
            };
        }
        or_matchers.is_empty().then_some(selects)
    }

    /// Returns the only values that a label may have.
    fn values(&self, label: &str) -> Option<Vec<&str>> {
        let Matchers { matchers, or_matchers } = &self.parsed.matchers;
        let of_label = matchers.iter().filter(|matcher| matcher.name == label);
        let values =
            of_label.filter(|_| or_matchers.is_empty()).find_map(|matcher| match matcher.op {
                MatchOp::Equal => Some(vec![matcher.value.as_str()]),
                MatchOp::Re(_) if !has_wildcard(&matcher.value) => {
                    Some(matcher.value.split('|').collect())
                }
                _ => None,
            })?;
        (!values.contains(&"")).then_some(values)
    }

    /// Returns whether the selector names one exporter: a service, a job, an instance, a pod or a pool.
    pub(crate) fn names_exporter(&self) -> bool {
        EXPORTER.iter().any(|label| self.names(label))
    }

    /// Returns whether the selector names one namespace.
    pub(crate) fn names_namespace(&self) -> bool {
        self.names(NAMESPACE)
    }

    fn names(&self, label: &str) -> bool {
        self.equal(label).is_some_and(|value| !value.is_empty())
    }

    /// Returns the labels of the matchers, sorted. Empty if the selector has alternatives (`or`).
    pub(crate) fn labels(&self) -> Vec<&str> {
        self.labels_of(|_| true)
    }

    /// Returns the labels whose matchers allow some values only: not `namespace!=""`, and not `model_name=~".+"`. Empty if
    /// the selector has alternatives (`or`).
    pub(crate) fn restricted_labels(&self) -> Vec<&str> {
        self.labels_of(|matcher| {
            matches!(matcher.op, MatchOp::Equal | MatchOp::Re(_))
                && !matcher.value.is_empty()
                && !matcher.is_match("no name of anything")
        })
    }

    fn labels_of(&self, is_wanted: impl Fn(&Matcher) -> bool) -> Vec<&str> {
        let Matchers { matchers, or_matchers } = &self.parsed.matchers;
        let matchers = matchers.iter().filter(|it| or_matchers.is_empty() && is_wanted(it));
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

/// Returns whether a regular expression is more than a list of texts.
fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['.', '*', '+', '?', '(', ')', '[', ']', '{', '}', '^', '$', '\\'])
}

/// Returns whether a label needs no quotes, which older servers do not support.
fn is_plain(label: &str) -> bool {
    label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Returns a selector of one metric with these matchers, as PromQL.
pub(crate) fn selector_text(name: &str, matchers: Vec<Matcher>) -> String {
    VectorSelector::new(Some(name.to_owned()), Matchers::new(matchers)).to_string()
}

#[cfg(test)]
mod tests {
    use crate::limits::Limits;
    use crate::query::Query;

    fn named(matchers: &str) -> Option<Vec<String>> {
        let query = Query::parse(&format!("a{{{matchers}}}"), &Limits::default()).unwrap();
        let models = query.selectors[0].named_models()?;
        Some(models.iter().map(|it| format!("{}/{}", it.namespace, it.model)).collect())
    }

    #[test]
    fn models_are_named_by_equality_or_by_a_list() {
        let one = Some(vec!["prod/org/m".to_owned()]);
        assert_eq!(named(r#"namespace="prod",model_name="org/m",pod="m-0""#), one);
        let several = named(r#"namespace=~"a|b",model_name=~"m|n",model_name!="x""#).unwrap();
        assert_eq!(several, ["a/m", "a/n", "b/m", "b/n"]);
    }

    #[test]
    fn a_selector_that_may_select_others_names_none() {
        for matchers in [
            r#"model_name="m""#,
            r#"namespace="prod""#,
            r#"namespace="prod",model_name="""#,
            r#"namespace="prod",model_name=~"m|""#,
            r#"namespace="prod",model_name=~"m.n""#,
            r#"namespace="prod",model_name=~"m-[0-9]""#,
            r#"namespace="prod",model_name!~"m""#,
            r#"namespace="prod",model_name="m" or model_name="n""#,
        ] {
            assert_eq!(named(matchers), None, "{matchers}");
        }
    }
}
