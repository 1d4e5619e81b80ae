// SPDX-License-Identifier: Apache-2.0
//! Engines under the names that monitors, pipelines and serving frameworks give their series.

use collector_core::{Answer, CheckStatus};
use collector_engines::EngineSpec;
use collector_prometheus::ModelSelector;

use crate::written::{
    LOAD, Pod, Reader, Row, USUAL, changed, fleet, gauges_of, load, pod, scene, served, two_pods,
};

/// Names without a colon.
fn without_colon(rows: Vec<Row>) -> Vec<Row> {
    changed(rows, |row| row.name = row.name.replace(':', "_"))
}

/// Names that do not begin with `vllm:`.
fn prefixed(prefix: &str) -> Vec<Row> {
    changed(fleet(), |row| row.name = format!("{prefix}{}", &row.name[5..]))
}

#[tokio::test(flavor = "multi_thread")]
async fn three_engines_on_one_server_are_each_read_in_both_spellings() {
    let engines = || -> Vec<Row> {
        let of = |name: &str, model, waiting| {
            let pod = |i| Pod { model, ..Pod::new(&format!("{name}-{i}"), waiting, 20, 0.5) };
            [pod(0), pod(1)]
        };
        let vllm = of("vllm", "org/v", 3).into_iter().flat_map(|pod| pod.rows(&[]));
        let sglang = of("sglang", "org/s", 5).into_iter().flat_map(|pod| pod.sglang(&[]));
        vllm.chain(sglang)
            .chain(of("trt", "org/t", 7).into_iter().flat_map(|pod| pod.tensorrt()))
            .collect()
    };
    let rows =
        [scene("as they are", engines()), scene("without", without_colon(engines()))].concat();
    let Some(server) = served(&rows, USUAL).await else { return };
    for spelling in ["as they are", "without"] {
        let reader = Reader::of_scene(&server.url(), spelling);
        for (model, engine, queue) in
            [("org/v", "vllm", 3), ("org/s", "sglang", 5), ("org/t", "trt", 7)]
        {
            let sample = reader.sample(model).await;
            let names = [format!("{engine}-0"), format!("{engine}-1")];
            let expected = [pod(&names[0], queue, 20, 50), pod(&names[1], queue, 20, 50)].concat();
            assert_eq!(gauges_of(&sample), expected, "{spelling}");
            assert_eq!(load(&sample), LOAD, "{spelling}: {model}");
            for replica in &sample.replicas {
                assert_eq!(
                    replica.total_kv_capacity_tokens(),
                    Some(192_000),
                    "{spelling}: {model}"
                );
            }
        }
        let check = reader.check("metrics.names").await;
        for engine in ["vllm", "sglang", "trtllm-serve"] {
            assert!(check.detail.contains(engine), "{spelling}: {}", check.detail);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vllm_is_read_under_whatever_prefix_and_says_so() {
    let ray = |prefix: &str| {
        changed(prefixed(prefix), |row| {
            row.set("WorkerId", "w1");
            let replica = row.get("pod").to_owned();
            row.set("ReplicaId", &replica);
        })
    };
    let nim = changed(prefixed(""), |row| {
        row.name = row.name.replace("kv_cache_usage", "gpu_cache_usage");
        row.name = row.name.replace("inter_token_latency", "time_per_output_token");
    });
    let scenes = [
        ("kserve", prefixed("kserve_vllm:"), "kserve-vllm"),
        ("ray", ray("ray_vllm_"), "ray-vllm"),
        ("ray with a colon", ray("ray_vllm:"), "ray-vllm"),
        ("colon lost", prefixed("vllm_"), "vllm"),
        ("no prefix", nim, "nim"),
        ("unknown prefix", prefixed("acme_llm:"), "vllm"),
    ];
    let rows: Vec<Row> =
        scenes.iter().flat_map(|(name, rows, _)| scene(name, rows.clone())).collect();
    let Some(server) = served(&rows, USUAL).await else { return };
    for (name, _, engine) in scenes {
        let reader = Reader::of_scene(&server.url(), name);
        let sample = reader.sample("org/model").await;
        assert_eq!(gauges_of(&sample), two_pods(), "{name}");
        assert_eq!(load(&sample), LOAD, "{name}");
        for replica in &sample.replicas {
            assert_eq!(replica.engine.as_ref().unwrap().as_str(), engine, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_prefix_is_read_before_the_own_names_of_every_engine() {
    let team = |rows: Vec<Row>| changed(rows, |row| row.name = format!("team_{}", row.name));
    let sglang = Pod { model: "org/s", ..Pod::new("s-0", 5, 20, 0.5) };
    let rows = team([fleet(), sglang.sglang(&[])].concat());
    let Some(server) = served(&rows, USUAL).await else { return };
    let reader = Reader::with(&server.url(), |config| config.name_prefix = Some("team_".into()));
    let sample = reader.sample("org/model").await;
    assert_eq!(gauges_of(&sample), two_pods());
    assert_eq!(load(&sample), LOAD);
    assert_eq!(gauges_of(&reader.sample("org/s").await), pod("s-0", 5, 20, 50));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_added_to_the_usage_leaves_it_unknown_with_the_reason() {
    let rows = changed(without_colon(fleet()), |row| {
        row.name = row.name.replace("usage_perc", "usage_perc_ratio");
    });
    let Some(server) = served(&rows, USUAL).await else { return };
    let sample = Reader::new(&server.url()).sample("org/model").await;
    for replica in &sample.replicas {
        assert_eq!((replica.queue_length, replica.running_requests), (Some(6), Some(20)));
        assert_eq!(replica.kv_cache_usage, None);
        let reason = replica.reasons.get(collector_core::Field::KvCacheUsage).unwrap();
        assert!(reason.contains("vllm_kv_cache_usage_perc"), "{reason}");
    }
    assert_eq!(load(&sample), LOAD);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_with_the_servers_names_is_no_pod_of_the_fleet() {
    let mut rows = fleet();
    for i in 0..2 {
        let server = format!("http://10.0.0.{i}:8000");
        let labels = [
            ("namespace", "prod"),
            ("pod", "router-0"),
            ("instance", "10.0.0.5:8000"),
            ("server", &*server),
        ];
        rows.push(Row::still("vllm:num_requests_running", &labels, 20.0));
        rows.push(Row::still("vllm:num_requests_waiting", &labels, 6.0));
        rows.push(Row::still("vllm:gpu_cache_usage_perc", &labels, 0.8));
        rows.push(Row::still("vllm:healthy_pods_total", &labels, 1.0));
    }
    let Some(server) = served(&rows, USUAL).await else { return };
    let reader = Reader::new(&server.url());
    let sample = reader.sample("org/model").await;
    assert_eq!(gauges_of(&sample), two_pods());
    assert_eq!(load(&sample), LOAD);
    assert_eq!(reader.check("metrics.duplicates").await.status, CheckStatus::Pass);
    let names = reader.check("metrics.names").await.detail;
    assert!(names.contains("the vLLM production-stack router"), "{names}");
    let labels = reader.check("metrics.labels").await.detail;
    assert!(labels.contains("2 pods of vllm"), "{labels}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_of_the_users_is_read_by_its_own_expressions() {
    let mut rows = Vec::new();
    for (name, load) in [("a-0", 1.0), ("a-1", 2.0)] {
        let of = |series: &str, more: &[(&str, &str)], value: f64| {
            let labels =
                [&[("namespace", "prod"), ("pod", name), ("model_name", "org/acme")], more];
            Row::still(series, &labels.concat(), value)
        };
        rows.push(of("acme_requests", &[("state", "waiting")], 3.0 * load));
        rows.push(of("acme_requests", &[("state", "running")], 7.0 * load));
        rows.push(of("acme_kv_used", &[], 100.0 * load));
        rows.push(of("acme_kv_pinned", &[], 50.0));
        rows.push(of("acme_kv_size", &[], 1000.0));
    }
    let Some(server) = served(&[rows, fleet()].concat(), USUAL).await else { return };
    let acme: EngineSpec = serde_json::from_value(serde_json::json!({
        "name": "acme",
        "metrics": {
            "waiting": "acme_requests{state=waiting}",
            "running": "acme_requests{state=running}",
            "kv_cache_usage": "(acme_kv_used + acme_kv_pinned) / acme_kv_size",
            "kv_capacity_tokens": "acme_kv_size",
        },
    }))
    .unwrap();
    let reader = Reader::with(&server.url(), |config| config.engines = vec![acme]);
    let sample = reader.sample("org/acme").await;
    assert_eq!(gauges_of(&sample), [pod("a-0", 3, 7, 15), pod("a-1", 6, 14, 25)].concat());
    assert_eq!(sample.replicas[1].tokens_in_use(), Some(250));
    assert_eq!(gauges_of(&reader.sample("org/model").await), two_pods(), "vLLM is read beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_label_is_configured_by_a_selector() {
    let of = |name: &str, queue: f64| {
        let labels = [("namespace", "prod"), ("pod", name)];
        vec![
            Row::still("tgi_queue_size", &labels, queue),
            Row::still("tgi_batch_current_size", &labels, 7.0),
            Row::still("tgi_batch_max_total_tokens", &labels, 64_000.0),
        ]
    };
    let rows = [of("tgi-0", 3.0), of("tgi-1", 4.0), of("else-0", 9.0), fleet()].concat();
    let Some(server) = served(&rows, USUAL).await else { return };
    let reader = Reader::with(&server.url(), |config| {
        let selector = r#"namespace="prod",pod=~"tgi-.*""#.to_owned();
        config.models = vec![ModelSelector { selector, model: "org/tgi".into() }];
    });
    let sample = reader.sample("org/tgi").await;
    let rows: Vec<_> = sample
        .replicas
        .iter()
        .map(|it| (it.pod_name.as_str(), it.queue_length, it.running_requests))
        .collect();
    assert_eq!(rows, [("tgi-0", Some(3), Some(7)), ("tgi-1", Some(4), Some(7))]);
    assert_eq!(sample.replicas[0].total_kv_capacity_tokens(), Some(64_000));
    assert_eq!(gauges_of(&reader.sample("org/model").await), two_pods());
    assert!(matches!(reader.answer("org/else").await, Answer::Missing { .. } | Answer::Failed(_)));
}
