// SPDX-License-Identifier: Apache-2.0
//! The examples for autoscalers: one for each signal, and each an object of Kubernetes.

use std::fs;

use serde_json::Value;

use super::rendered::{Tools, all, one, repository};

fn objects(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(repository().join("deploy/examples").join(file)).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

/// The signals in the table of docs/keda.md, with their types.
fn documented() -> Vec<(String, String)> {
    let page = fs::read_to_string(repository().join("docs/keda.md")).unwrap();
    let table = page.split_once("| `signal` | unit |").unwrap().1;
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    // A supply is nothing to scale by alone.
    let rows = rows.filter(|row| !row.starts_with("| `supply-"));
    let cell = |text: &str| text.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
        (cell(cells[0]), cell(cells[cells.len() - 1]))
    })
    .collect()
}

#[test]
fn there_is_an_example_for_each_signal() {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value}")).to_owned();
    let keda: Vec<_> = objects("signals-keda.yaml")
        .iter()
        .map(|object| {
            let trigger = &object["spec"]["triggers"][0];
            assert_eq!(object["metadata"]["name"], trigger["metadata"]["signal"]);
            (text(&trigger["metadata"]["signal"]), text(&trigger["metricType"]))
        })
        .collect();
    assert_eq!(keda, documented());
    let hpas: Vec<_> = objects("signals-hpa.yaml")
        .iter()
        .map(|object| {
            let external = &object["spec"]["metrics"][0]["external"];
            let name = text(&external["metric"]["name"]);
            let signal = name.strip_prefix("collector-").unwrap().to_owned();
            assert_eq!(object["metadata"]["name"], signal);
            (signal, text(&external["target"]["type"]))
        })
        .collect();
    assert_eq!(hpas, documented());
}

#[test]
fn every_object_of_kubernetes_is_as_it_describes_it() {
    let Some(tools) = Tools::or_skip() else { return };
    for file in ["external-metrics.yaml", "hpa.yaml", "signals-hpa.yaml"] {
        let path = repository().join("deploy/examples").join(file);
        assert_eq!(tools.validate("1.37", &path).unwrap(), "", "{file}");
    }
}

#[test]
fn the_example_of_external_metrics_fits_the_chart() {
    let Some(tools) = Tools::or_skip() else { return };
    let example = objects("external-metrics.yaml");
    let of_kind = |kind: &str| example.iter().find(|object| object["kind"] == kind).unwrap();
    let chart = tools.chart_with("everything");
    let service = of_kind("Service");
    let of_chart = all(&chart, "Service").into_iter();
    let of_chart: Vec<&Value> =
        of_chart.filter(|it| it["metadata"]["name"] == service["metadata"]["name"]).collect();
    let port = |service: &Value| service["spec"]["ports"][0]["port"].clone();
    assert_eq!(port(service), port(of_chart[0]));
    let api = |service: &Value| service["spec"]["service"].clone();
    assert_eq!(api(of_kind("APIService")), api(one(&chart, "APIService")));
    // It lets in what the Service sends on, and reviews users by no more rights than the chart has.
    let target = &service["spec"]["ports"][0]["targetPort"];
    let policy = &of_kind("NetworkPolicy")["spec"]["ingress"][0];
    assert_eq!((&policy["ports"][0]["port"], policy.get("from")), (target, None));
    let rule = &of_kind("ClusterRole")["rules"][0];
    let rules = one(&chart, "ClusterRole")["rules"].as_array().unwrap();
    assert!(rules.contains(rule), "{rule}");
    // The certificate's name, as the API server verifies it.
    let page = fs::read_to_string(repository().join("docs/external-metrics.md")).unwrap();
    let name = |key: &str| service["metadata"][key].as_str().unwrap();
    assert!(page.contains(&format!("`{}.{}.svc`", name("name"), name("namespace"))));
}
