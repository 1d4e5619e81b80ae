// SPDX-License-Identifier: Apache-2.0
//! The kustomizations, which are what the chart renders with the same configuration.

use std::collections::BTreeMap;

use serde_json::Value;

use super::rendered::{Object, Tools, repository};

/// The objects by kind and name, without what tells a release of Helm from others.
fn compared(objects: Vec<Object>) -> BTreeMap<String, Value> {
    let one = |mut object: Object| {
        without_release(&mut object.value);
        if let Some(text) = object.value.pointer_mut("/data/collector.yaml") {
            *text = serde_saphyr::from_str(text.as_str().unwrap()).unwrap();
        }
        (format!("{} {}", object.kind(), object.name()), object.value)
    };
    objects.into_iter().map(one).collect()
}

fn without_release(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| {
                let of_release = ["instance", "version", "managed-by"];
                let label = key.strip_prefix("app.kubernetes.io/");
                key != "helm.sh/chart" && !label.is_some_and(|label| of_release.contains(&label))
            });
            map.values_mut().for_each(without_release);
        }
        Value::Array(list) => list.iter_mut().for_each(without_release),
        // Roles of a cluster have the namespace in their names.
        Value::String(text) if text == "monitoring:collector" => "collector".clone_into(text),
        _ => {}
    }
}

#[test]
fn a_kustomization_is_what_the_chart_renders() {
    let Some(tools) = Tools::or_skip() else { return };
    let url =
        "config.prometheus.url=http://prometheus.monitoring:9090,config.prometheus.allow_http=true";
    for (folder, set) in [
        ("base", ""),
        ("overlays/keda", ",config.keda.listen=0.0.0.0:9465"),
        ("overlays/kubernetes", ",config.kubernetes.enabled=true"),
    ] {
        let chart = tools.chart(&["--set", &format!("{url}{set}")]).unwrap();
        let chart = compared(super::rendered::objects("chart", &chart));
        let kustomization = compared(tools.kustomization(folder));
        let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&kustomization), names(&chart), "{folder}");
        for (name, object) in kustomization {
            assert_eq!(object, chart[&name], "{folder}: {name}");
        }
    }
}

#[test]
fn chart_and_kustomization_are_of_the_version_of_the_collector() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, line) in [
        ("helm/collector/Chart.yaml", format!("version: {version}\n")),
        ("helm/collector/Chart.yaml", format!("appVersion: \"{version}\"\n")),
        ("kustomize/base/kustomization.yaml", format!("newTag: {version}\n")),
    ] {
        let text = std::fs::read_to_string(repository().join("deploy").join(file)).unwrap();
        assert!(text.contains(&line), "{file} does not have {line}");
    }
}
