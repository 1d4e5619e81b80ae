// SPDX-License-Identifier: Apache-2.0
//! The examples for autoscalers: one for each signal, and each an object of Kubernetes.

use std::fs;

use serde_json::Value;

use super::rendered::{Tools, repository};

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
fn every_hpa_is_as_kubernetes_describes_it() {
    let Some(tools) = Tools::or_skip() else { return };
    for file in ["hpa.yaml", "signals-hpa.yaml"] {
        let path = repository().join("deploy/examples").join(file);
        assert_eq!(tools.validate("1.37", &path).unwrap(), "", "{file}");
    }
}
