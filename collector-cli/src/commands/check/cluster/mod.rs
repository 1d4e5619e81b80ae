// SPDX-License-Identifier: Apache-2.0
//! The group `cluster`: what the API server says of itself, of our rights and of its objects, and how that fits what the
//! backends measure.

#[cfg(feature = "promql")]
mod autoscalers;
mod metrics_api;
mod models;
mod rights;
mod server;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{Backend, Check, CheckStatus, ModelRef};
use collector_engine::CachingCollector;
use collector_kubernetes::Cluster;
use tokio::time::timeout;

use super::super::settings::Settings;
use super::groups::{fail, skip};

/// How long one part of the group may take; the parts run at the same time.
const PART_MAX: Duration = Duration::from_secs(40);

/// How many names are listed one by one.
const LISTED: usize = 5;

/// What is asked for.
pub(super) struct Asked<'a> {
    pub(super) settings: &'a Settings,
    pub(super) cluster: &'a Cluster,
    /// The backends that measure.
    pub(super) backends: &'a [Arc<dyn Backend>],
    #[cfg_attr(
        not(feature = "promql"),
        expect(dead_code, reason = "for the values of autoscalers")
    )]
    pub(super) collector: &'a Arc<CachingCollector>,
    pub(super) model: Option<&'a ModelRef>,
}

/// Returns the checks of the group.
pub(super) async fn checks(asked: &Asked<'_>) -> Vec<Check> {
    let (mut checks, is_reached) = server::connection(asked).await;
    if !is_reached {
        let ids =
            ["apis", "rbac", "lists", "objects", "series", "pods", "autoscalers", "metrics-api"];
        checks.extend(ids.map(not_asked));
        return checks;
    }
    let rights = bounded("cluster.rbac", rights::checks(asked));
    let models = bounded("cluster.lists", models::checks(asked));
    #[cfg(feature = "promql")]
    let autoscalers = bounded("cluster.autoscalers", autoscalers::checks(asked));
    #[cfg(not(feature = "promql"))]
    let autoscalers = async { Vec::new() };
    let metrics_api = bounded("cluster.metrics-api", metrics_api::checks(asked));
    let (rights, models, autoscalers, metrics_api) =
        tokio::join!(rights, models, autoscalers, metrics_api);
    checks.extend(rights.into_iter().chain(models).chain(autoscalers).chain(metrics_api));
    checks
}

/// Returns the checks of the group for the External Metrics API alone: nothing of the cluster is read for it.
pub(super) async fn checks_of_external_metrics(asked: &Asked<'_>) -> Vec<Check> {
    let (mut checks, is_reached) = server::connection(asked).await;
    if !is_reached {
        checks.extend(["rbac", "metrics-api"].map(not_asked));
        return checks;
    }
    let rights = bounded("cluster.rbac", rights::checks_of_external_metrics(asked));
    let metrics_api = bounded("cluster.metrics-api", metrics_api::checks(asked));
    let (rights, metrics_api) = tokio::join!(rights, metrics_api);
    checks.extend(rights.into_iter().chain(metrics_api));
    checks
}

fn not_asked(name: &str) -> Check {
    skip(&format!("cluster.{name}"), "not asked, because the connection does not work")
}

/// Whether what the cluster has could not be read.
pub(super) fn is_unknown(checks: &[Check]) -> bool {
    let of_reading = |check: &&Check| ["cluster.connection", "cluster.lists"].contains(&&*check.id);
    checks.iter().filter(of_reading).any(failed)
}

async fn bounded(id: &str, part: impl Future<Output = Vec<Check>>) -> Vec<Check> {
    timeout(PART_MAX, part).await.unwrap_or_else(|_| {
        let detail = format!("not complete within {} s", PART_MAX.as_secs());
        vec![fail(id, detail).with_remedy("is the API server, or the backend, overloaded?")]
    })
}

/// The first names, and how many more there are.
fn first(names: &[String]) -> String {
    let mut text = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(LISTED).filter(|more| *more > 0) {
        let _ = write!(text, " and {more} more");
    }
    text
}

fn failed(check: &Check) -> bool {
    check.status == CheckStatus::Fail
}
