// SPDX-License-Identifier: Apache-2.0
//! What is pushed while objects come, change and go.

use collector_core::{Answer, VariantDirectory as _};
use collector_kubernetes::{Cluster, ClusterConfig};
use collector_testkit::TokioClock;
use collector_testkit::kubernetes::{self, Verb, fixtures, kinds};
use std::sync::Arc;

use crate::fixture::{Kubeconfig, NAMESPACE, Watching, hpa, model, server, starting};

#[tokio::test(start_paused = true)]
async fn a_pod_is_seen_from_its_start_to_its_end() {
    let server = server(1).await;
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    server.apply(starting("p"));
    watching.wait_for("0=ready p=starting").await;
    server.apply(starting("p").ready(true));
    watching.wait_for("0=ready p=ready").await;
    server.apply(starting("p").ready(false));
    watching.wait_for("0=ready p=notReady").await;
    server.apply(starting("p").ready(true).terminating());
    watching.wait_for("0=ready p=terminating").await;
    server.delete(kinds::PODS, NAMESPACE, "p");
    watching.wait_for("0=ready").await;
    let is_told = |answer: &Answer| match answer {
        Answer::Found(sample) => sample.supply.as_ref().unwrap().deleted[0].0.as_str() == "p",
        _ => false,
    };
    watching.wait("the deleted pod", is_told).await;
}

#[tokio::test(start_paused = true)]
async fn no_pod_is_a_known_zero_and_no_model_is_missing() {
    let server = kubernetes::Cluster::start().await.unwrap();
    let watching = Watching::new(&server);
    watching
        .wait("that the model is missing", |answer| matches!(answer, Answer::Missing { .. }))
        .await;
    server.apply(hpa("v", "d"));
    watching.wait_for("").await;
    server.apply_all(fixtures::deployment(NAMESPACE, "d", 0));
    watching.wait_for("none").await;
    server.apply(starting("p"));
    watching.wait_for("p=starting").await;
    server.delete(kinds::HORIZONTAL_POD_AUTOSCALERS, NAMESPACE, "v");
    watching
        .wait("that the model is missing", |answer| matches!(answer, Answer::Missing { .. }))
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_directory_follows_the_objects() {
    let server = server(1).await;
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    let directory = watching.cluster.directory();
    let pod = "d-5d4f8c7b9-0".into();
    assert_eq!(directory.variant_of(&model(), &pod).unwrap().name.as_str(), "v");
    let before = directory.generation();
    server.apply(starting("p"));
    watching.wait_for("0=ready p=starting").await;
    assert_eq!(directory.generation(), before);
    server.delete(kinds::HORIZONTAL_POD_AUTOSCALERS, NAMESPACE, "v");
    server.apply(hpa("w", "d"));
    let is_renamed = |answer: &Answer| match answer {
        Answer::Found(sample) => {
            let supply = sample.supply.as_ref().unwrap();
            supply.workloads[0].variant.as_ref().is_some_and(|name| name.as_str() == "w")
        }
        _ => false,
    };
    watching.wait("the other variant", is_renamed).await;
    assert_ne!(directory.generation(), before);
    assert_eq!(directory.variants().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_served_later_is_found() {
    let server = server(1).await;
    server.stop_serving(kinds::SCALED_OBJECTS);
    server.delete(kinds::HORIZONTAL_POD_AUTOSCALERS, NAMESPACE, "v");
    let watching = Watching::new(&server);
    watching
        .wait("that the model is missing", |answer| matches!(answer, Answer::Missing { .. }))
        .await;
    server.serve(kinds::SCALED_OBJECTS);
    let object = fixtures::scaled_object(NAMESPACE, "v", "d");
    server.apply(object.annotations(&[("llm-d.ai/model-id", "org/m")]));
    watching.wait_for("0=ready").await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_served_no_longer_leaves_the_others() {
    let server = server(1).await;
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    server.stop_serving(kinds::LEADER_WORKER_SETS);
    tokio::time::sleep(std::time::Duration::from_secs(300)).await;
    server.apply(starting("p"));
    watching.wait_for("0=ready p=starting").await;
}

#[tokio::test(start_paused = true)]
async fn only_the_namespaces_that_are_configured_are_watched() {
    let server = server(1).await;
    server.allow(|access| access.namespace == NAMESPACE);
    let kubeconfig = Kubeconfig::new(&server.url());
    let namespaces = vec![NAMESPACE.into()];
    let watching = Watching::with_config(ClusterConfig { namespaces, ..kubeconfig.config() });
    watching.wait_for("0=ready").await;
    let all = Watching::new(&server);
    all.wait_for_failure("forbidden (403)").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_is_given_and_exchanged_while_the_watches_run() {
    let (first, second) = (server(1).await, server(2).await);
    let clock: Arc<dyn collector_core::Clock> = Arc::new(TokioClock::new());
    let cluster = Cluster::without_client(Vec::new(), Arc::clone(&clock));
    let watching = Watching::run(cluster, clock);
    watching.wait_for_failure("no client has been given yet").await;
    let kubeconfigs = [Kubeconfig::new(&first.url()), Kubeconfig::new(&second.url())];
    watching.cluster.set_client(kubeconfigs[0].config().connect().await.unwrap());
    watching.wait_for("0=ready").await;
    watching.cluster.set_client(kubeconfigs[1].config().connect().await.unwrap());
    watching.wait_for("0=ready 1=ready").await;
    first.wait_for(|counters| counters.open_watches(kinds::PODS) == 0).await;
    // One that is given while nothing runs is another cluster as well.
    let (cluster, clock) = (watching.cluster.clone(), Arc::clone(&watching.clock));
    drop(watching);
    second.wait_for(|counters| counters.open_watches(kinds::PODS) == 0).await;
    cluster.set_client(kubeconfigs[0].config().connect().await.unwrap());
    Watching::run(cluster, clock).wait_for("0=ready").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_objects_is_listed() {
    let server = server(1).await;
    server.apply(hpa("second", "d"));
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    let conditions = watching.cluster.conditions();
    assert_eq!(conditions.len(), 1, "{conditions:?}");
    assert!(conditions[0].problem.contains("so does HorizontalPodAutoscaler second"));
}

#[tokio::test(start_paused = true)]
async fn a_live_source_that_is_started_again_lists_nothing_again() {
    let server = server(1).await;
    let kubeconfig = Kubeconfig::new(&server.url());
    let first = Watching::with_config(kubeconfig.config());
    first.wait_for("0=ready").await;
    let (cluster, clock) = (first.cluster.clone(), Arc::clone(&first.clock));
    drop(first);
    server.wait_for(|counters| counters.open_watches(kinds::PODS) == 0).await;
    server.apply(starting("p"));
    let second = Watching::run(cluster, clock);
    second.wait_for("0=ready p=starting").await;
    assert_eq!(server.counters().requests(Verb::List, kinds::PODS), 1);
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_not_served_for_a_moment_keeps_its_objects() {
    let server = server(1).await;
    server.delete(kinds::HORIZONTAL_POD_AUTOSCALERS, NAMESPACE, "v");
    let object = || {
        let object = fixtures::scaled_object(NAMESPACE, "v", "d");
        object.annotations(&[("llm-d.ai/model-id", "org/m")])
    };
    server.apply(object());
    let watching = Watching::new(&server);
    watching.wait_for("0=ready").await;
    server.stop_serving(kinds::SCALED_OBJECTS);
    watching.wait_for_failure("scaledobjects").await;
    assert_eq!(watching.cluster.directory().variants().len(), 1);
    server.serve(kinds::SCALED_OBJECTS);
    server.apply(object());
    watching.wait_for("0=ready").await;
    server.stop_serving(kinds::SCALED_OBJECTS);
    let is_missing = |answer: &Answer| matches!(answer, Answer::Missing { .. });
    watching.wait("that the model is missing", is_missing).await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_named_twice_is_watched_once() {
    let server = server(1).await;
    let kubeconfig = Kubeconfig::new(&server.url());
    let namespaces = vec![NAMESPACE.into(), NAMESPACE.into()];
    let watching = Watching::with_config(ClusterConfig { namespaces, ..kubeconfig.config() });
    watching.wait_for("0=ready").await;
    assert_eq!(server.counters().requests(Verb::List, kinds::PODS), 1);
}
