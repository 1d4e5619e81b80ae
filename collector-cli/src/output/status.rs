// SPDX-License-Identifier: Apache-2.0
//! The status of a model without a reading.

use collector_core::CollectError;

/// Missing, too old, not read yet and failed are different.
pub(crate) fn status_without_reading(error: &CollectError) -> &'static str {
    match error {
        CollectError::Missing { .. } => "missing",
        CollectError::Unavailable { .. } => "unavailable",
        CollectError::Pending { .. } => "pending",
        _ => "failed",
    }
}
