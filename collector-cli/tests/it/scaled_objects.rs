// SPDX-License-Identifier: Apache-2.0
//! `check --scaled-object` and `scaled-object` on pods that are scraped directly, without a Prometheus.

use std::path::Path;

use serde_json::Value;

use crate::pods::Pods;
use crate::process::{Ended, collector, run};

/// An object whose triggers are on the external scaler.
const OBJECT: &str = "kind: ScaledObject
metadata: {name: m, namespace: prod}
spec:
  minReplicaCount: 1
  triggers:
    - type: external
      metadata: {scalerAddress: 'collector:9465', model: org/model, signal: running}
    - type: external
      metricType: Value
      metadata: {scalerAddress: 'collector:9465', model: org/model, signal: saturation}
";

fn check(config: &Path, object: &str) -> Ended {
    let file = config.with_file_name("object.yaml");
    std::fs::write(&file, object).unwrap();
    let mut command = collector();
    command.arg("--config").arg(config).args(["-o", "json", "check", "--scaled-object"]);
    run(command.arg(file), &[])
}

/// The details of the checks with this id and status.
fn of(ended: &Ended, id: &str, status: &str) -> Vec<String> {
    let document = ended.json();
    let checks = document["checks"].as_array().unwrap().iter();
    let checks = checks.filter(|check| check["id"] == id && check["status"] == status);
    checks.map(|check: &Value| check["detail"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn external_triggers_are_checked_without_a_prometheus() {
    let pods = Pods::start().await;
    let config = pods.config("");
    let ended = check(&config, OBJECT);
    assert_eq!(ended.exit, 0, "{}{}", ended.stdout, ended.stderr);
    let values = of(&ended, "scaled-object.value", "pass");
    assert!(values[0].contains("trigger 1: signal running is "), "{values:?}");
    assert!(values[1].contains("trigger 2: signal saturation is "), "{values:?}");
    assert!(values.iter().all(|value| value.ends_with("in a reading of 3 pods")), "{values:?}");

    let zero = OBJECT.replace("minReplicaCount: 1", "minReplicaCount: 0");
    let values = of(&check(&config, &zero), "scaled-object.value", "fail");
    assert!(values[0].contains("trigger 1: no endpoint picker of"), "{values:?}");
    let mut command = collector();
    command.arg("--config").arg(&config);
    let ended = run(
        &mut command,
        &["scaled-object", "org/model", "-n", "prod", "--door", "keda", "--min", "0"],
    );
    assert_eq!((ended.exit, ended.stdout.as_str()), (2, ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("--min 0 needs an endpoint picker"), "{}", ended.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_queries_over_readings_need_no_prometheus() {
    let pods = Pods::start().await;
    let config = pods.config("");
    let with = |query: &str| {
        format!(
            "{OBJECT}    - type: prometheus\n      metadata: {{serverAddress: 'http://collector:9464', threshold: '5', query: \
             '{query}'}}\n"
        )
    };
    let ended = check(
        &config,
        &with(
            r#"sum(collector_replica_running_requests{namespace="prod",model_name="org/model"})"#,
        ),
    );
    assert_eq!(ended.exit, 0, "{}{}", ended.stdout, ended.stderr);
    let skipped = of(&ended, "scaled-object.value", "skip");
    assert!(skipped[0].contains("trigger 3: ") && skipped[0].contains("no server"), "{skipped:?}");
    assert_eq!(of(&ended, "scaled-object.value", "pass").len(), 2);
    let ended = check(&config, &with("sum(up)"));
    assert_eq!(ended.exit, 2, "{}", ended.stdout);
    assert!(ended.stderr.contains("nor prometheus.url is set"), "{}", ended.stderr);
}
