// SPDX-License-Identifier: Apache-2.0
//! What `collector check` found.

use collector_core::{Check, CheckStatus};
use serde::Serialize;

use crate::SCHEMA_VERSION;

document! {
    /// What `check` found.
    pub CheckDocument<'a> of (checks: &'a [Check]);
    schema_version: u32 = SCHEMA_VERSION;
    checks: Vec<CheckItem<'a>> = checks.iter().map(CheckItem::new).collect();
}

document! {
    CheckItem<'a> of (check: &'a Check);
    /// `group.name`, `connection.tls` for example: stable.
    id: &'a str = &check.id;
    /// `pass`, `warn`, `fail` or `skip`.
    status: &'static str = match check.status {
        CheckStatus::Pass => "pass",
        CheckStatus::Warn => "warn",
        CheckStatus::Fail => "fail",
        CheckStatus::Skip => "skip",
    };
    /// What was found, in one line.
    detail: &'a str = &check.detail;
    /// What to do about it; null when there is nothing to do.
    remedy: Option<&'a str> = check.remedy.as_deref();
}
