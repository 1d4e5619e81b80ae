// SPDX-License-Identifier: Apache-2.0
//! The error document, the same on stdout and in HTTP answers.

use std::sync::Arc;

use collector_core::text::shortened;
use collector_core::{CollectError, ErrorKind, ModelRef, Nearest, VariantName};
use serde::Serialize;

use crate::SCHEMA_VERSION;
use crate::text::{nearest_first, quoted};

/// Why there is no result.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ErrorDocument {
    schema_version: u32,
    error: ErrorBody,
}

/// The error itself; also an item of a list whose reading cannot be given.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct ErrorBody {
    /// `MetricsMissing`, `MetricsStale`, `PrometheusError` (or another backend's), `BadRequest`,
    /// `NotFound`, `MethodNotAllowed`, `TooManyModels` and their like.
    reason: String,
    /// What failed, where and why, in one line.
    message: String,
    /// What to check or to change.
    hints: Vec<String>,
    /// Names that exist and are near the one asked for, nearest first.
    suggestions: Vec<String>,
}

impl ErrorDocument {
    /// A document without hints.
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        ErrorBody {
            reason: reason.into(),
            message: message.into(),
            hints: Vec::new(),
            suggestions: Vec::new(),
        }
        .into()
    }

    /// Why the collector has no reading, with what to do about it.
    pub fn of(error: &CollectError) -> Self {
        ErrorBody::of(error).into()
    }

    /// Adds the names that exist, nearest first.
    pub fn with_suggestions(mut self, names: Vec<String>) -> Self {
        self.error.suggestions = names;
        self
    }

    /// Adds what to check or to change.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.error.hints.push(hint.into());
        self
    }

    /// The error without its document, for a list.
    pub fn into_body(self) -> ErrorBody {
        self.error
    }

    /// What failed.
    pub fn message(&self) -> &str {
        &self.error.message
    }

    /// What to do.
    pub fn hints(&self) -> &[String] {
        &self.error.hints
    }
}

impl From<ErrorBody> for ErrorDocument {
    fn from(error: ErrorBody) -> Self {
        Self { schema_version: SCHEMA_VERSION, error }
    }
}

impl ErrorBody {
    /// Why the collector has no reading, with what to do about it.
    pub fn of(error: &CollectError) -> Self {
        let (message, hints, suggestions) = match error {
            CollectError::Missing { model, nearest } => {
                let others = nearest.in_namespace.iter().filter(|it| !nearest.models.contains(it));
                let suggestions =
                    nearest.models.iter().chain(others).map(ToString::to_string).collect();
                let (message, hints) = missing(model, nearest);
                (message, hints, suggestions)
            }
            CollectError::UnknownVariant { model, variant, known } => {
                unknown_variant(model, variant, known)
            }
            other => (other.to_string(), hints(other), Vec::new()),
        };
        Self { reason: error.reason_name(), message, hints, suggestions }
    }
}

fn hints(error: &CollectError) -> Vec<String> {
    match error {
        CollectError::Unavailable { .. } => {
            vec![
                "is the backend still scraping the model servers? Run `collector check`".to_owned(),
            ]
        }
        CollectError::Backend(error) => backend_hints(error.kind(), error.remedy()),
        CollectError::TooManyModels { .. } => {
            vec!["models that nobody reads are untracked after 5 minutes".to_owned()]
        }
        _ => Vec::new(),
    }
}

/// The message and the hints about a model without metrics. What the hints say is not in the message.
fn missing(model: &ModelRef, nearest: &Nearest) -> (String, Vec<String>) {
    let message = |nearest: Nearest| {
        CollectError::Missing { model: model.clone(), nearest: Arc::new(nearest) }.to_string()
    };
    if nearest.pods.is_some() {
        let hint = "is a backend scraping these pods? `collector check` tells what is wrong";
        return (message(nearest.clone()), vec![hint.to_owned()]);
    }
    if nearest.last_seen.is_some() {
        let hint = "it is scaled to zero, or its pods are not scraped any more";
        return (message(nearest.clone()), vec![hint.to_owned()]);
    }
    if !nearest.namespaces.is_empty() {
        let hint = |namespace| format!("the model exists in namespace {namespace:?}");
        return (message(Nearest::default()), nearest.namespaces.iter().map(hint).collect());
    }
    if nearest.known == Some(0) {
        let hint = "the backend knows no model at all: is it scraping the model servers?";
        return (message(Nearest::default()), vec![hint.to_owned()]);
    }
    let hint = format!(
        "`collector get models` lists what exists; the id must equal the label model_name of the model \
         server's metrics, and {:?} the label namespace",
        shortened(model.namespace.as_str())
    );
    (message(nearest.clone()), vec![hint])
}

/// The message, the hints and the suggestions about a variant that the model does not have.
fn unknown_variant(
    model: &ModelRef,
    variant: &VariantName,
    known: &[VariantName],
) -> (String, Vec<String>, Vec<String>) {
    let shown = shortened(variant.as_str());
    let message = format!("{model} has no variant {shown:?}");
    if known.is_empty() {
        let hint = variant_to_add(model, variant.as_str(), None);
        return (format!("{message}: none is configured for it"), vec![hint], Vec::new());
    }
    let nearest = nearest_first(variant.as_str(), known.iter().map(AsRef::as_ref));
    let message = format!("{message}; it has {}", quoted(nearest.iter().copied()));
    (message, Vec::new(), nearest.into_iter().map(str::to_owned).collect())
}

/// What to add to a configuration that has no variant of this model.
pub fn variant_to_add(model: &ModelRef, name: &str, accelerator: Option<&str>) -> String {
    // Strings of JSON are strings of TOML. A name that is too long to be shown is left to the reader.
    let text = |text: &str, instead: &str| {
        let fits = shortened(text) == text;
        serde_json::Value::from(if fits { text } else { instead }).to_string()
    };
    let accelerator = accelerator.map_or_else(String::new, |accelerator| {
        format!("accelerator = {}\n", text(accelerator, "ACCELERATOR"))
    });
    format!(
        "add it to the configuration file (TOML):\n[[variants]]\nname = {}\nnamespace = {}\nmodel = \
         {}\n{accelerator}pods = {}",
        text(name, "NAME"),
        text(model.namespace.as_str(), "NAMESPACE"),
        text(model.model.as_str(), "MODEL"),
        text(&format!("{name}-*"), "NAME-*"),
    )
}

fn backend_hints(kind: ErrorKind, remedy: &str) -> Vec<String> {
    if !remedy.is_empty() {
        vec![remedy.to_owned()]
    } else if kind == ErrorKind::CircuitOpen {
        vec!["it is tried again by itself; `collector check` tells what is wrong".to_owned()]
    } else {
        vec!["`collector check` tells what is wrong".to_owned()]
    }
}
