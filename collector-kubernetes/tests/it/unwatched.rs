// SPDX-License-Identifier: Apache-2.0
//! Without the live source each fetch lists all objects; and namespaces that are not watched.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Answer, Ask, Backend as _, CheckStatus, Clock as _, ErrorKind, KnownModel, ListAsk, ModelRef,
    ProbeAsk, VariantDirectory as _,
};
use collector_kubernetes::{Cluster, ClusterConfig};
use collector_testkit::TokioClock;
use collector_testkit::kubernetes::fixtures::Object;
use collector_testkit::kubernetes::{Fault, Verb, kinds};

use crate::fixture::{Kubeconfig, Watching, hpa, model, server, shown};

#[tokio::test]
async fn a_fetch_lists_all_objects_and_leaves_no_watch() {
    let server = server(2).await;
    let clock = Arc::new(TokioClock::new());
    let kubeconfig = Kubeconfig::new(&server.url());
    let cluster = Cluster::new(kubeconfig.config(), clock.clone()).unwrap();
    let models = [model(), ModelRef::new("other", "chat")];
    let answers = cluster.fetch(Ask::new(&models, &*clock)).await.unwrap();
    assert_eq!(shown(answers.get(&model()).unwrap()).as_deref(), Some("0=ready 1=ready"));
    assert!(matches!(answers.get(&models[1]), Some(Answer::Missing { .. })));
    assert!(cluster.directory().variant_of(&model(), &"d-5d4f8c7b9-1".into()).is_some());
    server.delete(kinds::PODS, "chat", "d-5d4f8c7b9-0");
    let answers = cluster.fetch(Ask::new(&models, &*clock)).await.unwrap();
    assert_eq!(shown(answers.get(&model()).unwrap()).as_deref(), Some("1=ready"));
    assert_eq!(server.counters().requests(Verb::Watch, kinds::PODS), 0);
}

#[tokio::test]
async fn of_a_namespace_that_is_not_watched_nothing_is_known() {
    let server = server(1).await;
    let clock = Arc::new(TokioClock::new());
    let kubeconfig = Kubeconfig::new(&server.url());
    let config =
        ClusterConfig { namespaces: vec!["dev".into(), "chat".into()], ..kubeconfig.config() };
    let cluster = Cluster::new(config, clock.clone()).unwrap();
    let models = [model(), ModelRef::new("org/m", "prod"), ModelRef::new("other", "dev")];
    let answers = cluster.fetch(Ask::new(&models, &*clock)).await.unwrap();
    assert_eq!(shown(answers.get(&models[0]).unwrap()).as_deref(), Some("0=ready"));
    let Some(Answer::Failed(error)) = answers.get(&models[1]) else { panic!("{answers:?}") };
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let expected = "namespace \"prod\" is not watched, so nothing is known of its pods: add it to kubernetes.namespaces";
    assert!(error.to_string().contains(expected), "{error}");
    assert!(matches!(answers.get(&models[2]), Some(Answer::Missing { .. })), "it was looked at");
}

#[tokio::test(start_paused = true)]
async fn of_a_namespace_that_does_not_exist_nothing_is_known() {
    let server = server(1).await;
    server.serve(kinds::NAMESPACES);
    server.apply(Object::new(kinds::NAMESPACES, "", "dev"));
    let clock = Arc::new(TokioClock::new());
    let kubeconfig = Kubeconfig::new(&server.url());
    let namespaces = vec!["chat".into(), "dev".into(), "stagging".into()];
    let config = ClusterConfig { namespaces, ..kubeconfig.config() };
    let cluster = Cluster::new(config, clock.clone()).unwrap();
    let models = [model(), ModelRef::new("org/m", "stagging"), ModelRef::new("other", "dev")];
    let answers = cluster.fetch(Ask::new(&models, &*clock)).await.unwrap();
    assert_eq!(shown(answers.get(&models[0]).unwrap()).as_deref(), Some("0=ready"));
    let Some(Answer::Failed(error)) = answers.get(&models[1]) else { panic!("{answers:?}") };
    let expected = "namespace \"stagging\" of kubernetes.namespaces does not exist in the cluster";
    assert!(error.to_string().contains(expected), "{error}");
    assert!(matches!(answers.get(&models[2]), Some(Answer::Missing { .. })), "it is only empty");
    let probe = cluster.probe(ProbeAsk::new(&*clock)).await.unwrap();
    assert_eq!(probe.checks[1].status, CheckStatus::Warn, "{:?}", probe.checks);
    assert!(probe.checks[1].detail.starts_with("Namespace stagging: it does not exist"));
    // It is made while it is watched.
    server.apply(Object::new(kinds::NAMESPACES, "", "stagging"));
    let live = Watching::run(cluster.clone(), clock.clone());
    live.wait_for("0=ready").await;
    let ask = || cluster.fetch(Ask::new(&models, &*clock));
    let made = async {
        while !matches!(ask().await.unwrap().get(&models[1]), Some(Answer::Missing { .. })) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), made).await.unwrap();
    assert_eq!(cluster.conditions(), []);
    // Where we may not ask, an empty namespace is one.
    server.allow(|access| access.resource != "namespaces");
    let config = ClusterConfig { namespaces: vec!["void".into()], ..kubeconfig.config() };
    let cluster = Cluster::new(config, clock.clone()).unwrap();
    let models = [ModelRef::new("org/m", "void")];
    let answers = cluster.fetch(Ask::new(&models, &*clock)).await.unwrap();
    assert!(matches!(answers.get(&models[0]), Some(Answer::Missing { .. })));
}

#[tokio::test]
async fn models_are_listed_and_the_probe_shows_what_is_wrong() {
    let server = server(2).await;
    server.apply(hpa("second", "d"));
    let clock = Arc::new(TokioClock::new());
    let kubeconfig = Kubeconfig::new(&server.url());
    let cluster = Cluster::new(kubeconfig.config(), clock.clone()).unwrap();
    let models = cluster.list_models(ListAsk::new(&*clock)).await.unwrap();
    assert_eq!(models, [KnownModel::new(model(), Some(2))]);
    let probe = cluster.probe(ProbeAsk::new(&*clock)).await.unwrap();
    let statuses: Vec<CheckStatus> = probe.checks.iter().map(|check| check.status).collect();
    assert_eq!(statuses, [CheckStatus::Pass, CheckStatus::Warn], "{:?}", probe.checks);
}

#[tokio::test]
async fn a_list_that_is_refused_is_an_error_and_no_missing_model() {
    let server = server(1).await;
    server.set_fault(kinds::DEPLOYMENTS, Fault::Forbidden);
    let clock = Arc::new(TokioClock::new());
    let kubeconfig = Kubeconfig::new(&server.url());
    let cluster = Cluster::new(kubeconfig.config(), clock.clone()).unwrap();
    let error = cluster.fetch(Ask::new(&[model()], &*clock)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forbidden);
    assert!(error.to_string().contains("deployments"), "{error}");
    assert!(cluster.list_models(ListAsk::new(&*clock)).await.is_err());
    let probe = cluster.probe(ProbeAsk::new(&*clock)).await.unwrap();
    assert_eq!(probe.checks[0].status, CheckStatus::Fail);
}

#[tokio::test(start_paused = true)]
async fn a_list_without_an_answer_takes_as_long_as_a_fetch_of_any_backend() {
    let server = server(1).await;
    server.set_fault(kinds::PODS, Fault::NoAnswer);
    let clock = Arc::new(TokioClock::new());
    let kubeconfig = Kubeconfig::new(&server.url());
    let cluster = Cluster::new(kubeconfig.config(), clock.clone()).unwrap();
    assert_eq!(cluster.limits().timeout, Duration::from_secs(5), "that of a Prometheus");
    let began = clock.now();
    let error = cluster.refresh(cluster.limits().timeout * 3).await.unwrap_err();
    assert_eq!(began.age(clock.now()).as_secs(), 14);
    assert_eq!(error.kind(), ErrorKind::Timeout);
    for part in ["timed out: pods could not be read: no list within 14.6s", "firewall"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    // Lists are not slow because one is.
    assert_eq!(server.counters().requests(Verb::List, kinds::DEPLOYMENTS), 1);
}

#[tokio::test]
async fn a_kind_that_is_forbidden_and_does_not_exist_is_not_needed() {
    let server = server(1).await;
    server.stop_serving(kinds::VARIANT_AUTOSCALINGS);
    server.set_fault(kinds::VARIANT_AUTOSCALINGS, Fault::Forbidden);
    server.allow(|access| access.resource != "variantautoscalings");
    let clock = Arc::new(TokioClock::new());
    let kubeconfig = Kubeconfig::new(&server.url());
    let cluster = Cluster::new(kubeconfig.config(), clock.clone()).unwrap();
    cluster.fetch(Ask::new(&[model()], &*clock)).await.unwrap();
}

#[tokio::test]
async fn without_a_client_a_fetch_says_so() {
    let clock = Arc::new(TokioClock::new());
    let cluster = Cluster::without_client(Vec::new(), clock.clone());
    let error = cluster.fetch(Ask::new(&[model()], &*clock)).await.unwrap_err();
    assert!(error.to_string().contains("no client has been given yet"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn lists_of_two_clusters_are_no_answer() {
    let (first, second) = (server(1).await, server(2).await);
    let clock = Arc::new(TokioClock::new());
    let kubeconfigs = [Kubeconfig::new(&first.url()), Kubeconfig::new(&second.url())];
    let cluster = Cluster::without_client(Vec::new(), clock.clone());
    cluster.set_client(kubeconfigs[0].config().connect().await.unwrap());
    let held = first.hold_pages(kinds::PODS);
    let models = [model()];
    let fetch = cluster.fetch(Ask::new(&models, &*clock));
    let exchange = async {
        first.wait_for(|counters| counters.held_pages(kinds::PODS) == 1).await;
        cluster.set_client(kubeconfigs[1].config().connect().await.unwrap());
        drop(held);
    };
    let error = tokio::join!(fetch, exchange).0.unwrap_err();
    assert!(error.to_string().contains("another client was given"), "{error}");
    let answers = cluster.fetch(Ask::new(&models, &*clock)).await.unwrap();
    assert_eq!(shown(answers.get(&model()).unwrap()).as_deref(), Some("0=ready 1=ready"));
}
