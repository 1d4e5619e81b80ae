// SPDX-License-Identifier: Apache-2.0
//! What a request asks for: the metric's name and the label selector, as the metadata that a trigger of KEDA would have.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use collector_core::text::quote;
use collector_keda::Signal;
use collector_keda::api::ScaledObjectRef;
use http::StatusCode;

use crate::answer::METRIC_PREFIX;
use crate::selector;

/// Labels of every metric.
const LABELS: [&str; 6] =
    ["model", "modelNamespace", "variant", "maxAge", "onMissing", "pendingCredit"];
/// What an HPA has of its own.
const OF_THE_HPA: [&str; 2] = ["target", "activation"];

/// An error with its status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refused {
    pub(crate) code: StatusCode,
    pub(crate) message: String,
}

impl Refused {
    pub(crate) fn new(code: StatusCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

/// What a request asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    /// The namespace of the HPA.
    namespace: String,
    /// The labels as metadata of a trigger, without the model.
    metadata: BTreeMap<String, String>,
    /// The label that stands for the model.
    model: Option<String>,
}

impl Question {
    /// Reads a metric's name and a label selector.
    ///
    /// # Errors
    /// There is no such metric, or a label that cannot be used: none is left out, because that would select more.
    pub(crate) fn of(namespace: &str, metric: &str, selector: &str) -> Result<Self, Refused> {
        let signal = metric.strip_prefix(METRIC_PREFIX).and_then(|signal| {
            let mut names = Signal::NAMES.into_iter();
            names.find(|name| *name == signal)
        });
        let Some(signal) = signal else {
            let names = Signal::NAMES.map(|name| format!("{METRIC_PREFIX}{name}")).join(", ");
            let message = format!("there is no metric \"{}\"; there are {names}", quote(metric));
            return Err(Refused::new(StatusCode::NOT_FOUND, message));
        };
        let labels = selector::parse(selector)
            .and_then(selector::values)
            .map_err(|error| Refused::bad(format!("the label selector cannot be used: {error}")))?;
        let mut question = Self {
            namespace: namespace.to_owned(),
            metadata: BTreeMap::from([("signal".to_owned(), signal.to_owned())]),
            model: None,
        };
        let mut signals = String::new();
        for (label, value) in labels {
            if signal == "composite" && Signal::NAMES.contains(&label.as_str()) {
                let comma = if signals.is_empty() { "" } else { "," };
                let _ = write!(signals, "{comma}{label}={value}");
                continue;
            }
            question.set(signal, label, value)?;
        }
        if !signals.is_empty() {
            question.metadata.insert("signals".to_owned(), signals);
        } else if signal == "composite" {
            return Err(Refused::bad(
                "collector-composite needs a label for each signal, with its target: queue: \"5\"",
            ));
        }
        Ok(question)
    }

    fn set(&mut self, signal: &str, label: String, value: String) -> Result<(), Refused> {
        let is_known =
            LABELS.contains(&label.as_str()) || labels_of(signal).contains(&label.as_str());
        if !is_known {
            let labels: Vec<_> = LABELS.iter().chain(labels_of(signal)).copied().collect();
            let why = if OF_THE_HPA.contains(&label.as_str()) {
                "an HPA has its own".to_owned()
            } else {
                format!("it has {}", labels.join(", "))
            };
            let label = quote(&label);
            let message = format!("{METRIC_PREFIX}{signal} has no label \"{label}\": {why}");
            return Err(Refused::bad(message));
        }
        match label.as_str() {
            // It must not widen what is asked for: a template had no value for it.
            _ if value.is_empty() => return Err(Refused::bad(format!("{label} is empty"))),
            "model" => self.model = Some(value),
            // A label cannot hold an equals sign.
            "onMissing" => {
                let value = value.replacen("hold-", "hold=", 1);
                self.metadata.insert(label, value);
            }
            _ => {
                self.metadata.insert(label, value);
            }
        }
        Ok(())
    }

    /// The namespace of the model.
    pub(crate) fn model_namespace(&self) -> &str {
        self.metadata.get("modelNamespace").unwrap_or(&self.namespace)
    }

    /// The label that stands for the model.
    pub(crate) fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The name of the variant.
    pub(crate) fn variant(&self) -> Option<&str> {
        self.metadata.get("variant").map(String::as_str)
    }

    /// The same as a trigger of KEDA has it.
    pub(crate) fn into_metadata(mut self, model: Option<&str>) -> ScaledObjectRef {
        if let Some(model) = model {
            self.metadata.insert("model".to_owned(), model.to_owned());
        }
        ScaledObjectRef {
            name: String::new(),
            namespace: self.namespace,
            scaler_metadata: self.metadata.into_iter().collect(),
        }
    }
}

/// Labels that a metric has besides.
fn labels_of(signal: &str) -> &'static [&'static str] {
    match signal {
        "backlog-seconds" | "composite" => &["peakPrefillThroughput"],
        "slo-ratio" => &["metric", "slo", "quantile"],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(metric: &str, selector: &str) -> Result<BTreeMap<String, String>, (u16, String)> {
        let question = Question::of("prod", metric, selector)
            .map_err(|refused| (refused.code.as_u16(), refused.message))?;
        let model = question.model().map(str::to_owned);
        Ok(question.into_metadata(model.as_deref()).scaler_metadata.into_iter().collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn labels_become_metadata_of_a_trigger() {
        for (metric, selector, expected) in [
            ("collector-queue", "model=m", &[("signal", "queue"), ("model", "m")][..]),
            (
                "collector-kv-max",
                "model in (m),variant=v,modelNamespace=n,maxAge=30s,onMissing=hold-10m",
                &[
                    ("signal", "kv-max"),
                    ("model", "m"),
                    ("variant", "v"),
                    ("modelNamespace", "n"),
                    ("maxAge", "30s"),
                    ("onMissing", "hold=10m"),
                ],
            ),
            (
                "collector-composite",
                "model=m,queue=5,kv-max=0.8",
                &[("signal", "composite"), ("model", "m"), ("signals", "kv-max=0.8,queue=5")],
            ),
            (
                "collector-slo-ratio",
                "model=m,metric=ttft,slo=500ms,quantile=0.99",
                &[
                    ("signal", "slo-ratio"),
                    ("model", "m"),
                    ("metric", "ttft"),
                    ("slo", "500ms"),
                    ("quantile", "0.99"),
                ],
            ),
        ] {
            assert_eq!(read(metric, selector), Ok(pairs(expected)), "{metric} {selector}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (metric, selector, code, part) in [
            ("queue", "model=m", 404, "there is no metric \"queue\"; there are collector-queue,"),
            ("collector-", "", 404, "no metric"),
            ("collector-queue", "model!=m", 400, "model!=m cannot be used"),
            ("collector-queue", "model=a/b", 400, "\"a/b\" is not the value of a label"),
            ("collector-queue", "model=", 400, "model is empty"),
            ("collector-queue", "modle=m", 400, "no label \"modle\": it has model, "),
            ("collector-queue", "model=m,slo=1s", 400, "collector-queue has no label \"slo\""),
            ("collector-queue", "model=m,target=5", 400, "\"target\": an HPA has its own"),
            ("collector-queue", "model=m,activation=5", 400, "an HPA has its own"),
            ("collector-queue", "model=m,queue=5", 400, "no label \"queue\""),
            ("collector-composite", "model=m", 400, "needs a label for each signal"),
        ] {
            let (got, message) = read(metric, selector).unwrap_err();
            assert_eq!(got, code, "{metric} {selector}: {message}");
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
    }
}
