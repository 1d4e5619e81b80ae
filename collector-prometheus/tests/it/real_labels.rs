// SPDX-License-Identifier: Apache-2.0
//! Series that have other labels than namespace, pod and model_name, and clusters that share a server.

use collector_core::{Answer, Backend, CheckStatus, ErrorKind, ListAsk, SystemClock};

use crate::written::{
    LOAD, MODEL, Pod, Reader, Row, USUAL, changed, fleet, gauges_of, load, pod, scene, served,
    two_pods,
};

/// Three pods whose labels were changed.
fn three(change: impl Fn(&mut Row)) -> Vec<Row> {
    let pods = [0, 1, 2].map(|i| Pod::new(&format!("m-{i}"), 6 + i, 20 + i, 0.8));
    changed(pods.iter().flat_map(|pod| pod.rows(&[])).collect(), change)
}

/// Renames the labels of the namespace and of the pod.
fn renamed(namespace: &'static str, pod: &'static str) -> Vec<Row> {
    three(|row| {
        row.rename("namespace", namespace);
        row.rename("pod", pod);
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_pods_and_models_are_found_under_usual_and_configured_labels() {
    let scenes = [
        ("opentelemetry", renamed("k8s_namespace_name", "k8s_pod_name")),
        ("annotations", renamed("kubernetes_namespace", "kubernetes_pod_name")),
        ("older", renamed("namespace", "pod_name")),
        ("model", three(|row| row.rename("model_name", "model"))),
        ("own", renamed("tenant", "workload")),
    ];
    let rows: Vec<Row> = scenes.iter().flat_map(|(name, rows)| scene(name, rows.clone())).collect();
    let Some(server) = served(&rows, USUAL).await else { return };
    let expected = [pod("m-0", 6, 20, 80), pod("m-1", 7, 21, 80), pod("m-2", 8, 22, 80)].concat();
    for (name, _) in scenes {
        let reader = Reader::with(&server.url(), |config| {
            config.matchers = vec![format!("scene=\"{name}\"")];
            if name == "own" {
                config.labels.namespace = vec!["tenant".into()];
                config.labels.pod = vec!["workload".into()];
            }
        });
        let sample = reader.sample(MODEL).await;
        assert_eq!(gauges_of(&sample), expected, "{name}");
        assert_eq!(load(&sample)[0], Some(360), "{name}");
        assert_eq!(sample.replicas[0].total_kv_capacity_tokens(), Some(192_000), "{name}");
        assert_eq!(reader.check("metrics.labels").await.status, CheckStatus::Pass, "{name}");
        let models = reader.backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap();
        assert_eq!((models.len(), models[0].replicas), (1, Some(3)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_label_is_a_failure_with_an_example_and_never_missing() {
    let scenes = [
        (
            "instance alone",
            three(|row| ["namespace", "pod", "container"].iter().for_each(|it| row.set(it, ""))),
            "namespace",
        ),
        ("no namespace", three(|row| row.set("namespace", "")), "namespace"),
        ("no pod", three(|row| row.set("pod", "")), "pod"),
        ("no model", three(|row| row.set("model_name", "")), "model"),
    ];
    let rows: Vec<Row> =
        scenes.iter().flat_map(|(name, rows, _)| scene(name, rows.clone())).collect();
    let Some(server) = served(&rows, USUAL).await else { return };
    for (name, _, lacks) in scenes {
        let reader = Reader::of_scene(&server.url(), name);
        let failure = reader.failure().await;
        for part in [format!("prometheus.labels.{lacks}"), "instance=".into(), name.to_owned()] {
            assert!(failure.contains(&part), "{name}: {failure:?} lacks {part:?}");
        }
        let check = reader.check("metrics.labels").await;
        assert_eq!(check.status, CheckStatus::Fail, "{name}: {check:?}");
        assert!(check.detail.contains("instance="), "{name}: {check:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pods_own_label_counts_where_the_scrape_job_has_one_of_that_name() {
    // Some pods are scraped through an exporter with its own pod and namespace.
    let exported = changed(Pod::new("m-0", 6, 20, 0.8).rows(&[]), |row| {
        row.set("exported_pod", "m-0");
        row.set("exported_namespace", "prod");
        row.set("pod", "exporter-7");
        row.set("namespace", "monitoring");
    });
    let rows = [exported, Pod::new("m-1", 6, 20, 0.8).rows(&[])].concat();
    let Some(server) = served(&rows, USUAL).await else { return };
    let reader = Reader::new(&server.url());
    let sample = reader.sample(MODEL).await;
    assert_eq!(gauges_of(&sample), two_pods());
    assert_eq!(load(&sample), LOAD);
    assert_eq!(sample.replicas[0].num_gpu_blocks, Some(12_000));
    let models = reader.backend.list_models(ListAsk::new(&SystemClock::new())).await.unwrap();
    assert_eq!((models.len(), models[0].replicas), (1, Some(2)));
    let check = reader.check("metrics.labels").await;
    assert!(check.remedy.unwrap().contains("honorLabels"), "{}", check.detail);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_two_clusters_is_ambiguous_until_one_is_selected() {
    let cluster =
        |label: &'static str, name: &'static str, pods: &[&str], busy: bool| -> Vec<Row> {
            let pod = |name: &&str| {
                if busy {
                    Pod { requests: 10.0, ttft: 2.0, ..Pod::new(name, 40, 60, 0.95) }
                } else {
                    Pod::new(name, 2, 10, 0.3)
                }
            };
            pods.iter().map(pod).flat_map(|pod| pod.rows(&[(label, name)])).collect()
        };
    let scenes = [
        ("other pods", "cluster", ["a-0", "a-1"], ["b-0", "b-1"]),
        ("the same pods", "location", ["llama-0", "llama-1"], ["llama-0", "llama-1"]),
    ];
    let rows: Vec<Row> = scenes
        .iter()
        .flat_map(|(name, label, eu, us)| {
            let both = [cluster(label, "eu-west", eu, false), cluster(label, "us-east", us, true)]
                .concat();
            scene(name, both)
        })
        .collect();
    let Some(server) = served(&rows, USUAL).await else { return };
    for (name, label, eu, _) in scenes {
        let reader = Reader::of_scene(&server.url(), name);
        let Answer::Failed(error) = reader.answer(MODEL).await else { panic!("{name}: answered") };
        assert_eq!(error.kind(), ErrorKind::Ambiguous, "{name}");
        let text = error.to_string();
        for part in ["eu-west", "us-east", "prometheus.matchers", label] {
            assert!(text.contains(part), "{name}: {text:?} lacks {part:?}");
        }
        let check = reader.check("metrics.clusters").await;
        assert_eq!(check.status, CheckStatus::Fail, "{name}: {check:?}");

        let reader = Reader::with(&server.url(), |config| {
            config.matchers = vec![format!("scene=\"{name}\""), format!("{label}=\"eu-west\"")];
        });
        let sample = reader.sample(MODEL).await;
        assert_eq!(
            gauges_of(&sample),
            [pod(eu[0], 2, 10, 30), pod(eu[1], 2, 10, 30)].concat(),
            "{name}"
        );
        assert_eq!(load(&sample), LOAD, "{name}");
        assert_eq!(reader.check("metrics.clusters").await.status, CheckStatus::Pass, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_label_that_only_some_series_have_is_one_cluster() {
    let labelled = changed(fleet(), |row| {
        if row.get("pod") == "m-0" || row.name.contains("waiting") {
            row.set("cluster", "eu-west");
        }
    });
    let Some(server) = served(&labelled, USUAL).await else { return };
    let sample = Reader::new(&server.url()).sample(MODEL).await;
    assert_eq!(gauges_of(&sample), two_pods());
    assert_eq!(load(&sample), LOAD);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_whose_label_names_no_model_are_reported_by_the_check_of_labels() {
    let labels = [("namespace", "batch"), ("pod", "triton-0"), ("model", "tensorrt_llm")];
    let of_tensorrt = [&labels[..], &[("request_type", "scheduled")]].concat();
    let triton = [
        Row::still("nv_trt_llm_request_metrics", &of_tensorrt, 1.0),
        Row::still("nv_inference_pending_request_count", &labels, 1.0),
    ];
    let rows = scene("placeholder", [fleet(), triton.to_vec()].concat());
    let Some(server) = served(&rows, USUAL).await else { return };
    let check = Reader::of_scene(&server.url(), "placeholder").check("metrics.labels").await;
    assert_eq!(check.status, CheckStatus::Warn, "{check:?}");
    for part in ["1 pod,", "\"triton-0\"", "\"batch\"", "\"tensorrt_llm\" in the label model"] {
        assert!(check.detail.contains(part), "{check:?} lacks {part:?}");
    }
    // The model of the engine is configured: Triton's own series of the same pod need none.
    let named = Reader::with(&server.url(), |config| {
        let spec = serde_json::json!({
            "name": "gemma", "base": "triton-tensorrt-llm", "model": "org/gemma"
        });
        config.engines = vec![serde_json::from_value(spec).unwrap()];
    });
    assert_eq!(named.check("metrics.labels").await.status, CheckStatus::Pass);
}
