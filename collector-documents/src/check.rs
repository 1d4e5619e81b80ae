//! What `collector check` found.

use collector_core::{Check, CheckStatus};
use serde::Serialize;

use crate::SCHEMA_VERSION;

/// What `check` found.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct CheckDocument<'a> {
    schema_version: u32,
    checks: Vec<CheckItem<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
struct CheckItem<'a> {
    /// `group.name`, `connection.tls` for example: stable.
    id: &'a str,
    /// `pass`, `warn`, `fail` or `skip`.
    status: &'static str,
    /// What was found, in one line.
    detail: &'a str,
    /// What to do about it; null when there is nothing to do.
    remedy: Option<&'a str>,
}

impl<'a> CheckDocument<'a> {
    /// The document of these checks.
    pub fn new(checks: &'a [Check]) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            checks: checks
                .iter()
                .map(|check| CheckItem {
                    id: &check.id,
                    status: match check.status {
                        CheckStatus::Pass => "pass",
                        CheckStatus::Warn => "warn",
                        CheckStatus::Fail => "fail",
                        CheckStatus::Skip => "skip",
                    },
                    detail: &check.detail,
                    remedy: check.remedy.as_deref(),
                })
                .collect(),
        }
    }
}
