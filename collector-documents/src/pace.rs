// SPDX-License-Identifier: Apache-2.0
//! How often a model is refreshed, and why.

use collector_core::{ModelRef, Pace, PaceReason};
use serde::{Deserialize, Serialize};

use crate::SCHEMA_VERSION;

document! {
    /// How long a model's value counts as current, and why.
    #[derive(Deserialize)]
    #[expect(missing_docs, reason = "the names of a model say what they are")]
    pub PaceDocument of (model: &ModelRef, pace: Pace);
    schema_version: u32 = SCHEMA_VERSION;
    /// `pace`.
    kind: String = "pace".to_owned();
    pub model: String = model.model.to_string();
    pub namespace: String = model.namespace.to_string();
    /// How long a value counts as current, and after which the model is refreshed.
    pub ttl_seconds: f64 = pace.ttl.as_secs_f64();
    /// `configured`, `own` (a `fetch_interval` of a variant or of a caller), or with adaptive ttls
    /// `watched`, `still` or `moves`.
    reason: String = pace.reason.as_str().to_owned();
    /// The same in words.
    pub because: String = pace.reason.to_string();
    /// Of `moves`: the field that moves most; else null.
    field: Option<String> = match pace.reason {
        PaceReason::Moves { field, .. } => Some(field.to_owned()),
        _ => None,
    };
    /// Of `moves`: by how much it is expected to be off after a minute, 0.01 for a point; else null.
    change_per_minute: Option<f64> = match pace.reason {
        PaceReason::Moves { per_minute, .. } => Some(per_minute),
        _ => None,
    };
}
