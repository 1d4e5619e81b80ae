// SPDX-License-Identifier: Apache-2.0
//! A cluster in the configuration, against an API server on loopback.

use std::sync::Arc;
use std::time::Duration;

use collector_config::Loader;
use collector_core::supply::PodState;
use collector_core::{Clock, MetricsCollector as _, ModelRef};
use collector_engine::Discovery;
use collector_testkit::kubernetes::{self, fixtures, kinds};
use collector_testkit::{FakeBackend, TokioClock};
use tempfile::NamedTempFile;

fn kubeconfig(url: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    let text = kubernetes::kubeconfig(url, &serde_json::json!({}));
    std::fs::write(file.path(), text).unwrap();
    file
}

fn loader(kubeconfig: &str) -> Loader {
    let loader = Loader::new().flag("prometheus.url", "https://prometheus", "--flag");
    let loader = loader.flag("kubernetes.enabled", "true", "--flag");
    loader.flag("kubernetes.kubeconfig", kubeconfig, "--flag")
}

#[tokio::test(start_paused = true)]
async fn models_of_the_cluster_are_tracked_and_their_pods_have_variants() {
    let server = kubernetes::Cluster::start().await.unwrap();
    server.apply_all(fixtures::deployment("prod", "d", 2));
    let hpa = fixtures::horizontal_pod_autoscaler("prod", "v", "d");
    server
        .apply(hpa.annotations(&[("llm-d.ai/model-id", "org/m"), ("llm-d.ai/variant-cost", "7")]));
    let file = kubeconfig(&server.url());
    let config = loader(&file.path().to_string_lossy()).load().unwrap().config;
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let measured = FakeBackend::new(Arc::clone(&clock));
    let model = ModelRef::new("org/m", "prod");
    measured.serve_pods(&model, &["d-5d4f8c7b9-0", "d-5d4f8c7b9-1"]);
    let mut backends = config.build_other_backends(Arc::clone(&clock), |_| Vec::new()).unwrap();
    let (name, cluster) = backends.pop().unwrap();
    assert_eq!(name, "kubernetes");
    let builder = config.builder_over(vec![Arc::new(measured), cluster], clock).unwrap();
    let collector = builder.discover(Discovery::default()).build().unwrap();
    collector.start_background_worker().await.unwrap();
    tokio::time::timeout(Duration::from_secs(120), async {
        while collector.tracked_names().is_empty() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .unwrap();
    let reading = collector.collect_allocation(&model, &"v".into()).await.unwrap();
    assert_eq!(reading.value().num_replicas, 2);
    let reading = collector.collect_replica_metrics(&model).await.unwrap();
    assert!(reading.value().replicas.iter().all(|replica| replica.cost == Some(7.0)));
    let supply = reading.value().supply.as_ref().unwrap();
    assert_eq!((supply.count(PodState::Ready), supply.wanted()), (2, Some(2)));
}

#[tokio::test(start_paused = true)]
async fn a_model_that_only_the_cluster_knows_is_tracked_until_its_objects_go() {
    let mut server = kubernetes::Cluster::start().await.unwrap();
    server.apply_all(fixtures::deployment("prod", "d", 0));
    let hpa = fixtures::horizontal_pod_autoscaler("prod", "v", "d");
    server.apply(hpa.annotations(&[("llm-d.ai/model-id", "org/m")]));
    let file = kubeconfig(&server.url());
    let config = loader(&file.path().to_string_lossy()).load().unwrap().config;
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let (_, cluster) = config
        .build_other_backends(Arc::clone(&clock), |_| Vec::new())
        .map(|mut backends| backends.pop().unwrap())
        .unwrap();
    let measured = Arc::new(FakeBackend::new(Arc::clone(&clock)));
    let builder = config.builder_over(vec![measured, cluster], clock).unwrap();
    let collector = builder.discover(Discovery::default()).build().unwrap();
    collector.start_background_worker().await.unwrap();
    let wait_for = async |count: usize| {
        let wait = async {
            while collector.tracked_names().len() != count {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(600), wait).await.unwrap();
    };
    wait_for(1).await;
    server.stop().await.unwrap();
    tokio::time::sleep(Duration::from_secs(900)).await;
    assert_eq!(collector.tracked_names().len(), 1, "an API server that is away untracks nothing");
    server.resume().unwrap();
    server.delete(kinds::HORIZONTAL_POD_AUTOSCALERS, "prod", "v");
    wait_for(0).await;
}

#[test]
fn a_kubeconfig_that_is_named_and_absent_is_an_error_with_its_key() {
    let config = loader("/absent/kubeconfig").load().unwrap().config;
    let clock: Arc<dyn Clock> = Arc::new(collector_core::ManualClock::new());
    let errors = config.build_backends(clock).map(|_| ()).unwrap_err().to_string();
    assert!(errors.contains("kubernetes.kubeconfig: cannot use /absent/kubeconfig"), "{errors}");
}
