//! The error document, the same on stdout and in HTTP answers.

use collector_core::{CollectError, ErrorKind, ModelRef, Nearest};
use serde::Serialize;

use super::documents::SCHEMA_VERSION;

/// Why there is no result.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ErrorDocument {
    schema_version: u32,
    error: ErrorBody,
}

/// The error itself; also an item of a list whose reading cannot be given.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ErrorBody {
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
    pub(crate) fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        ErrorBody {
            reason: reason.into(),
            message: message.into(),
            hints: Vec::new(),
            suggestions: Vec::new(),
        }
        .into()
    }

    /// Why the collector has no reading, with what to do about it.
    pub(crate) fn of(error: &CollectError) -> Self {
        ErrorBody::of(error).into()
    }

    /// Adds what to check or to change.
    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.error.hints.push(hint.into());
        self
    }

    /// What failed.
    pub(crate) fn message(&self) -> &str {
        &self.error.message
    }

    /// What to do.
    pub(crate) fn hints(&self) -> &[String] {
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
    pub(crate) fn of(error: &CollectError) -> Self {
        let suggestions = match error {
            CollectError::Missing { nearest, .. } => {
                let others = nearest.in_namespace.iter().filter(|it| !nearest.models.contains(it));
                nearest.models.iter().chain(others).map(ToString::to_string).collect()
            }
            CollectError::UnknownVariant { known, .. } => {
                known.iter().map(ToString::to_string).collect()
            }
            _ => Vec::new(),
        };
        Self {
            reason: error.reason_name(),
            message: error.to_string(),
            hints: hints(error),
            suggestions,
        }
    }
}

fn hints(error: &CollectError) -> Vec<String> {
    match error {
        CollectError::Missing { model, nearest } => missing_hints(model, nearest),
        CollectError::Unavailable { .. } => vec![
            "is the backend still scraping the model servers? `collector check` tells".to_owned(),
        ],
        CollectError::Backend(error) => backend_hints(error.kind(), error.remedy()),
        CollectError::UnknownVariant { known, .. } if known.is_empty() => {
            vec!["a [[variants]] entry in the configuration gives the model a variant".to_owned()]
        }
        CollectError::UnknownVariant { known, .. } => {
            let known: Vec<String> = known.iter().map(|name| format!("{name:?}")).collect();
            vec![format!("the model's variants are {}", known.join(", "))]
        }
        CollectError::TooManyModels { .. } => {
            vec!["models that nobody reads are untracked after 5 minutes".to_owned()]
        }
        _ => Vec::new(),
    }
}

fn missing_hints(model: &ModelRef, nearest: &Nearest) -> Vec<String> {
    let mut hints: Vec<String> = nearest
        .namespaces
        .iter()
        .map(|namespace| format!("the model exists in namespace {namespace:?}"))
        .collect();
    if nearest.last_seen.is_some() {
        hints.push("it is scaled to zero, or its pods are not scraped any more".to_owned());
    } else if nearest.known == Some(0) {
        hints.push(
            "the backend knows no model at all: is it scraping the model servers?".to_owned(),
        );
    } else if hints.is_empty() {
        hints.push(format!(
            "`collector get models` lists what exists; the id must equal the label model_name of \
             the model server's metrics, and {:?} the label namespace",
            model.namespace
        ));
    }
    hints
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
