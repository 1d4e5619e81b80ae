// SPDX-License-Identifier: Apache-2.0
//! The present values of a ScaledObject's queries.

use collector_core::{Check, CheckStatus};
use collector_promql::{Guard, Limits, describe};

use super::super::present::{present, read_by_keda, read_by_strict_keda};
use super::ScaledObject;

impl ScaledObject {
    /// Runs the query of each trigger, except invalid ones, which the rules report. `guard` is needed if it
    /// [asks the server](Self::asks_server).
    pub(in super::super) async fn values(
        &self,
        guard: Option<&Guard>,
        limits: &Limits,
    ) -> Vec<Check> {
        let mut checks = Vec::new();
        for trigger in self.triggers.iter().filter(|trigger| trigger.kind == "prometheus") {
            let query = trigger.text("query").filter(|query| describe(query, limits).is_ok());
            let Some(query) = query else { continue };
            let (status, detail) = if let Some(guard) = guard {
                let read =
                    if trigger.fails_if_empty() { read_by_strict_keda } else { read_by_keda };
                present(guard, query, &trigger.parameters(), read).await
            } else {
                let detail = format!(
                    "{query} is not run: no server is set (prometheus.url), and `serve` alone answers queries from readings"
                );
                (CheckStatus::Skip, detail)
            };
            let detail = format!("trigger {}: {detail}", trigger.number());
            checks.push(self.check("value", status, detail));
        }
        checks
    }
}
