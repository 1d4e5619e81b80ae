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
use tokio::time::{Instant, timeout_at};

use super::super::settings::Settings;
use super::groups::{fail, skip};

/// How long the group may take; its parts run at the same time.
const GROUP_MAX: Duration = Duration::from_secs(20);
/// The parts that can end early do so this long before, with what they have.
const RESERVE: Duration = Duration::from_secs(1);

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
    let end = Instant::now() + GROUP_MAX;
    let (mut checks, is_reached) = server::connection(asked).await;
    if !is_reached {
        let ids =
            ["apis", "rbac", "lists", "objects", "series", "pods", "autoscalers", "metrics-api"];
        let skipped = |name| {
            skip(&format!("cluster.{name}"), "not asked, because the connection does not work")
        };
        checks.extend(ids.map(skipped));
        return checks;
    }
    let deadline = end - RESERVE;
    let rights = bounded("cluster.rbac", end, rights::checks(asked));
    let models = bounded("cluster.lists", end, models::checks(asked, deadline));
    #[cfg(feature = "promql")]
    let autoscalers = bounded("cluster.autoscalers", end, autoscalers::checks(asked, deadline));
    #[cfg(not(feature = "promql"))]
    let autoscalers = async { Vec::new() };
    let metrics_api = bounded("cluster.metrics-api", end, metrics_api::checks(asked));
    let (rights, models, autoscalers, metrics_api) =
        tokio::join!(rights, models, autoscalers, metrics_api);
    checks.extend(rights.into_iter().chain(models).chain(autoscalers).chain(metrics_api));
    checks
}

/// Whether what the cluster has could not be read.
pub(super) fn is_unknown(checks: &[Check]) -> bool {
    let of_reading = |check: &&Check| ["cluster.connection", "cluster.lists"].contains(&&*check.id);
    checks.iter().filter(of_reading).any(failed)
}

async fn bounded(id: &str, end: Instant, part: impl Future<Output = Vec<Check>>) -> Vec<Check> {
    timeout_at(end, part).await.unwrap_or_else(|_| {
        let detail = format!("not complete within {} s", GROUP_MAX.as_secs());
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

#[cfg(test)]
mod tests {
    use collector_config::Loader;
    use collector_core::{Clock, Limits};
    use collector_kubernetes::ClusterConfig;
    use collector_testkit::kubernetes::{self, fixtures};
    use collector_testkit::{FakeBackend, TokioClock};
    use serde_json::json;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slow_backend_leaves_its_part_unknown_when_the_time_of_the_group_ends() {
        let server = kubernetes::Cluster::start().await.unwrap();
        server.apply_all(fixtures::deployment("chat", "d", 1));
        let hpa = fixtures::horizontal_pod_autoscaler("chat", "v", "d");
        server.apply(hpa.annotations(&[("llm-d.ai/managed", "true"), ("llm-d.ai/model-id", "m")]));
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        let loader = Loader::new().flag("prometheus.url", "https://prometheus", "--flag");
        let settings = Settings { loaded: loader.load().unwrap(), clock: Arc::clone(&clock) };
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let text = kubernetes::kubeconfig(&server.url(), &json!({}));
        std::fs::write(kubeconfig.path(), text).unwrap();
        let kubeconfig = Some(kubeconfig.path().to_owned());
        let config = ClusterConfig { kubeconfig, ..ClusterConfig::default() };
        let cluster = Cluster::new(config, Arc::clone(&clock)).unwrap();
        let backend = FakeBackend::new(Arc::clone(&clock));
        backend.serve_pods(&ModelRef::new("m", "chat"), &["d-5d4f8c7b9-0"]);
        let backend = backend.with_limits(Limits::new(Duration::from_secs(60)));
        backend.hang();
        let backends: [Arc<dyn Backend>; 1] = [Arc::new(backend)];
        let collector =
            &Arc::new(CachingCollector::new(FakeBackend::new(Arc::clone(&clock))).unwrap());
        let asked = Asked {
            settings: &settings,
            cluster: &cluster,
            backends: &backends,
            collector,
            model: None,
        };
        let began = clock.now();
        let checks = Box::pin(checks(&asked)).await;
        assert!(began.age(clock.now()) <= GROUP_MAX);
        let of = |id| checks.iter().find(|check| check.id == id).unwrap();
        assert_eq!(of("cluster.lists").status, CheckStatus::Pass);
        assert_eq!(of("cluster.series").status, CheckStatus::Pass);
        assert_eq!(of("cluster.pods").status, CheckStatus::Skip);
        assert!(of("cluster.pods").detail.contains("timed out"), "{checks:?}");
    }
}
