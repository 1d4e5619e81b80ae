//! How often a model is refreshed, and why.

use collector_core::{ModelRef, Pace, PaceReason};
use serde::{Deserialize, Serialize};

use crate::SCHEMA_VERSION;

/// How long a model's value counts as current, and why.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
#[expect(missing_docs, reason = "the names of a model say what they are")]
pub struct PaceDocument {
    schema_version: u32,
    /// `pace`.
    kind: String,
    pub model: String,
    pub namespace: String,
    /// How long a value counts as current, and after which the model is refreshed.
    pub ttl_seconds: f64,
    /// `configured`, `own` (a `fetch_interval` of a variant or of a caller), or with adaptive ttls
    /// `watched`, `still` or `moves`.
    reason: String,
    /// The same in words.
    pub because: String,
    /// Of `moves`: the field that moves most; else null.
    field: Option<String>,
    /// Of `moves`: by how much it is expected to be off after a minute, 0.01 for a point; else null.
    change_per_minute: Option<f64>,
}

impl PaceDocument {
    /// The document of a model's pace.
    pub fn new(model: &ModelRef, pace: Pace) -> Self {
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
}
