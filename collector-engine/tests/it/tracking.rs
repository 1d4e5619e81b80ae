// SPDX-License-Identifier: Apache-2.0
//! Who is tracked, and until when.

use std::time::Duration;

use collector_core::{CollectError, KeyKind, MetricsCollector as _, ModelRef, Scope, VariantRef};
use futures_util::future::join_all;

use crate::setup::{config, llama, pass, secs, setup, setup_with, variant, variants};

#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_reads_for_five_minutes_is_untracked_and_dropped() {
    let setup = setup();
    let read_on = ModelRef::new("qwen", "prod");
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.serve_pods(&read_on, &["qwen-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    for _ in 0..7 {
        setup.read(&read_on).await;
        pass(secs(60)).await;
    }
    let tracked: Vec<_> = setup.collector.tracked().into_iter().map(|t| t.model).collect();
    assert_eq!(tracked, [read_on]);
    assert_eq!(setup.collector.cache_size(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_gone_is_untracked_like_any_other() {
    let setup = setup();
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    setup.read(&llama()).await;
    setup.backend.remove(&llama());
    pass(secs(361)).await;
    assert_eq!(setup.collector.state().tracked, 0);
}

#[tokio::test(start_paused = true)]
async fn a_misspelt_name_is_forgotten() {
    let setup = setup();
    setup.collector.start_background_worker().await.unwrap();
    for n in 0..50 {
        let typo = ModelRef::new(format!("typo-{n}"), "prod");
        assert!(setup.collector.collect_replica_metrics(&typo).await.is_err());
    }
    assert_eq!(setup.collector.cache_size(), 50);
    pass(secs(121)).await;
    assert_eq!(setup.collector.cache_size(), 0);
}

#[tokio::test(start_paused = true)]
async fn configured_variants_are_never_untracked_for_idleness() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(1000)).await;
    let tracked = setup.collector.tracked();
    assert_eq!(tracked.len(), 1);
    assert!(tracked[0].replicas.is_ok() && tracked[0].allocations[0].1.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_tracked_model_is_pending_before_its_first_fetch() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    let tracked = setup.collector.tracked();
    assert!(matches!(tracked[0].replicas, Err(CollectError::Pending { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_models_replicas_go_with_its_last_tracked_variant() {
    let specs = vec![variant("a", &llama(), "a-*"), variant("b", &llama(), "b-*")];
    let setup = setup_with(variants(specs));
    setup.backend.serve_pods(&llama(), &["a-0", "b-0"]);
    setup.read(&llama()).await;
    assert_eq!(setup.collector.cache_size(), 3);
    assert!(setup.collector.stop_tracking(&VariantRef::new("a", "prod")));
    assert!(!setup.collector.stop_tracking(&VariantRef::new("a", "prod")), "it was stopped before");
    assert!(!setup.collector.stop_tracking(&VariantRef::new("b", "elsewhere")));
    assert_eq!(setup.collector.cache_size(), 2);
    // The refresh does not bring the stopped one back.
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(100)).await;
    assert_eq!(setup.collector.cache_size(), 2);
    // A read does.
    assert!(setup.collector.collect_allocation(&llama(), &"a".into()).await.is_ok());
    assert_eq!(setup.collector.cache_size(), 3);
    setup.collector.stop_tracking(&VariantRef::new("a", "prod"));
    setup.collector.stop_tracking(&VariantRef::new("b", "prod"));
    assert_eq!(setup.collector.cache_size(), 0);
    assert!(setup.collector.tracked().is_empty());
    let asked = setup.backend.fetches();
    pass(secs(100)).await;
    assert_eq!(setup.backend.fetches(), asked);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_new_models_are_refused_and_known_ones_served() {
    let setup = setup_with(|builder| builder.max_tracked(1));
    let other = ModelRef::new("other", "prod");
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.backend.serve_pods(&other, &["other-0"]);
    setup.read(&llama()).await;
    let error = setup.collector.collect_replica_metrics(&other).await.unwrap_err();
    assert!(matches!(error, CollectError::TooManyModels { limit: 1 }));
    setup.collector.invalidate_cache(&llama());
    setup.read(&llama()).await;
}

#[tokio::test(start_paused = true)]
async fn a_scope_drops_its_kind_alone() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.read(&llama()).await;
    let scope = Scope::of_kind(KeyKind::Allocation).model("llama");
    assert_eq!(setup.collector.invalidate_by_prefix(&scope), 1);
    assert_eq!(setup.collector.cache_size(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_limit_holds_for_concurrent_first_reads() {
    let setup = setup_with(|builder| builder.max_tracked(5));
    let models: Vec<_> = (0..50).map(|n| ModelRef::new(format!("m-{n}"), "prod")).collect();
    for model in &models {
        setup.backend.serve_pods(model, &["p"]);
    }
    join_all(models.iter().map(|model| setup.collector.collect_replica_metrics(model))).await;
    assert_eq!(setup.collector.state().tracked, 5);
}

#[tokio::test(start_paused = true)]
async fn the_limit_is_no_failure_of_the_backend() {
    let setup = setup_with(|builder| builder.max_tracked(0));
    let answer = setup.collector.validate_metrics_availability(&llama()).await;
    assert_eq!(answer.reason_name(), "TooManyModels");
    assert!(answer.message.contains("server.max_tracked"), "{}", answer.message);
}

#[tokio::test(start_paused = true)]
async fn models_whose_entries_were_evicted_are_untracked_all_the_same() {
    let setup = setup_with(config(|config| config.max_entries = 10));
    let models: Vec<_> = (0..20).map(|n| ModelRef::new(format!("m-{n}"), "prod")).collect();
    for model in &models {
        setup.backend.serve_pods(model, &["p"]);
    }
    join_all(models.iter().map(|model| setup.collector.collect_replica_metrics(model))).await;
    setup.collector.start_background_worker().await.unwrap();
    pass(secs(3600)).await;
    assert_eq!(setup.collector.state().tracked, 0);
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_counts_as_a_read() {
    let setup = setup_with(config(|config| config.fetch_interval = Duration::ZERO));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    setup.collector.start_background_worker().await.unwrap();
    for _ in 0..59 {
        pass(secs(10)).await;
        setup.read(&llama()).await;
    }
    // The sweep comes at 600 s, when nothing of the entry is left that could say when it was read.
    pass(secs(8)).await;
    setup.collector.invalidate_cache(&llama());
    pass(secs(3)).await;
    assert_eq!(setup.collector.state().tracked, 1);
}

#[tokio::test(start_paused = true)]
async fn a_variant_that_was_stopped_and_read_again_can_be_stopped_again() {
    let setup = setup_with(variants(vec![variant("fast", &llama(), "*")]));
    setup.backend.serve_pods(&llama(), &["llama-0"]);
    for _ in 0..2 {
        assert!(setup.collector.collect_allocation(&llama(), &"fast".into()).await.is_ok());
        assert!(setup.collector.stop_tracking(&VariantRef::new("fast", "prod")));
        assert!(setup.collector.tracked().is_empty());
    }
}
