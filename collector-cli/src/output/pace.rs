//! How often a model is refreshed, and why: the document, and its line for people.

use std::time::Duration;

use collector_core::{ModelRef, Pace, PaceReason, duration};
use serde::{Deserialize, Serialize};

use super::documents::SCHEMA_VERSION;
use super::printable;

/// How long a model's value counts as current, and why.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PaceDocument {
    schema_version: u32,
    /// `pace`.
    kind: String,
    pub(crate) model: String,
    pub(crate) namespace: String,
    /// How long a value counts as current, and after which the model is refreshed.
    ttl_seconds: f64,
    /// `configured`, `own` (a `fetch_interval` of a variant or of a caller), or with adaptive ttls
    /// `watched`, `still` or `moves`.
    reason: String,
    /// The same in words.
    because: String,
    /// Of `moves`: the field that moves most; else null.
    field: Option<String>,
    /// Of `moves`: by how much it is expected to be off after a minute, 0.01 for a point; else null.
    change_per_minute: Option<f64>,
}

impl PaceDocument {
    pub(crate) fn new(model: &ModelRef, pace: Pace) -> Self {
        let (field, change_per_minute) = match pace.reason {
            PaceReason::Moves { field, per_minute } => (Some(field.to_owned()), Some(per_minute)),
            _ => (None, None),
        };
        Self {
            schema_version: SCHEMA_VERSION,
            kind: "pace".to_owned(),
            model: model.model.to_string(),
            namespace: model.namespace.to_string(),
            ttl_seconds: pace.ttl.as_secs_f64(),
            reason: pace.reason.as_str().to_owned(),
            because: pace.reason.to_string(),
            field,
            change_per_minute,
        }
    }

    /// `ttl 15s: kvCacheUsage moves 4.1 points in a minute`.
    pub(crate) fn line(&self) -> String {
        let ttl = Duration::try_from_secs_f64(self.ttl_seconds).unwrap_or_default();
        format!("ttl {}: {}", duration::format(ttl), printable(&self.because))
    }
}
