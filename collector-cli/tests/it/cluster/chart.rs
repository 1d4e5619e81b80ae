// SPDX-License-Identifier: Apache-2.0
//! The Helm chart: its lint, its objects against the schemas of Kubernetes, the values that it refuses, its notes.

use serde_json::{Value, json};

use super::rendered::{CHART, Tools, configuration, one, value_files};
use crate::process::{collector, run};

/// The oldest version that the chart allows, and the newest whose schemas there are.
const VERSIONS: [&str; 2] = ["1.28", "1.37"];

/// Kinds that are not Kubernetes' own: what the Prometheus Operator defines.
const OF_OTHERS: [&str; 2] = ["ServiceMonitor", "PodMonitor"];

#[test]
fn helm_finds_nothing_to_complain_about() {
    let Some(tools) = Tools::or_skip() else { return };
    tools.helm(&["lint", "--strict", CHART]).unwrap();
    for values in value_files() {
        let file = format!("{CHART}/ci/{values}-values.yaml");
        tools.helm(&["lint", "--strict", CHART, "--values", &file]).unwrap();
    }
}

#[test]
fn every_object_is_as_kubernetes_describes_it() {
    let Some(tools) = Tools::or_skip() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (index, objects) in tools.everything().into_iter().enumerate() {
        let known = objects.iter().filter(|object| !OF_OTHERS.contains(&object.kind()));
        // JSON is YAML.
        let documents: Vec<String> = known.map(|object| object.value.to_string()).collect();
        let file = folder.path().join(format!("{index}.yaml"));
        std::fs::write(&file, documents.join("\n---\n")).unwrap();
        for version in VERSIONS {
            let said = tools.validate(version, &file).unwrap();
            assert_eq!(said, "", "{}, Kubernetes {version}", objects[0].of);
        }
    }
    // It does see mistakes.
    let file = folder.path().join("wrong.yaml");
    std::fs::write(
        &file,
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {prots: []}}",
    )
    .unwrap();
    assert!(tools.validate(VERSIONS[1], &file).is_err_and(|said| said.contains("prots")));
}

#[test]
fn monitors_keep_the_labels_of_the_models_and_select_what_is_there() {
    let Some(tools) = Tools::or_skip() else { return };
    for (values, kind, endpoints) in [
        ("keda", "ServiceMonitor", "endpoints"),
        ("everything", "ServiceMonitor", "endpoints"),
        ("namespaced", "PodMonitor", "podMetricsEndpoints"),
    ] {
        let objects = tools.chart_with(values);
        let monitor = one(&objects, kind);
        assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
        let endpoint = monitor["spec"][endpoints].as_array().unwrap();
        assert_eq!(endpoint.len(), 1, "{monitor}");
        assert_eq!(
            (&endpoint[0]["honorLabels"], &endpoint[0]["port"]),
            (&json!(true), &json!("http"))
        );
        let deployment = one(&objects, "Deployment");
        let labels = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
        assert!(!labels.is_empty());
        for (name, value) in labels {
            assert_eq!(&deployment["spec"]["template"]["metadata"]["labels"][name], value);
        }
        let known = [endpoints, "jobLabel", "selector"];
        let spec = monitor["spec"].as_object().unwrap();
        assert!(spec.keys().all(|key| known.contains(&key.as_str())), "{monitor}");
    }
}

/// Those that read a cluster are left out where the program does not.
#[test]
fn the_collector_takes_the_configuration_of_each() {
    let Some(tools) = Tools::or_skip() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("collector.yaml");
    for objects in tools.everything() {
        let of = &objects[0].of;
        let document: Value = serde_saphyr::from_str(configuration(&objects)).unwrap();
        if !cfg!(feature = "kubernetes") && document.get("kubernetes").is_some() {
            continue;
        }
        std::fs::write(&file, document.to_string()).unwrap();
        let mut command = collector();
        let ended = run(command.args(["validate", "--no-files"]).arg(&file), &[]);
        if of == "chart, default" {
            assert_eq!(ended.exit, 2, "{of}: there is no default for the address of a Prometheus");
            assert!(ended.stderr.contains("prometheus.url"), "{}", ended.stderr);
        } else {
            assert_eq!(ended.exit, 0, "{of}: {}{}", ended.stdout, ended.stderr);
            assert!(!ended.stdout.contains("warning"), "{of}: {}", ended.stdout);
        }
    }
}

#[test]
fn values_that_cannot_work_are_refused_with_the_reason() {
    let Some(tools) = Tools::or_skip() else { return };
    let external =
        "config.external_metrics.enabled=true,config.external_metrics.listen=0.0.0.0:9466";
    let api = "apiService.enabled=true,apiService.caBundle=QQ==";
    for (values, reason) in [
        ("replica=3".to_owned(), "additional properties 'replica' not allowed"),
        ("replicas=0".to_owned(), "minimum"),
        ("image.tag=latest".to_owned(), "name a version instead of latest"),
        ("config.server.listen=127.0.0.1:9464".to_owned(), "/config/server/listen"),
        ("config.keda.listen=9465".to_owned(), "/config/keda/listen"),
        ("config.server.drain=15".to_owned(), "/config/server/drain"),
        ("config.prometheus.bearer_token=secret".to_owned(), "/config/prometheus"),
        ("config.scrape.bearer_token=secret".to_owned(), "/config/scrape"),
        ("resources.limits=null".to_owned(), "limits"),
        ("monitor.kind=Probe".to_owned(), "/monitor/kind"),
        (api.to_owned(), "needs config.external_metrics.enabled"),
        (format!("{external},apiService.enabled=true"), "needs apiService.caBundle"),
        ("config.external_metrics.enabled=true".to_owned(), "/config/external_metrics"),
        (
            format!("{external},{api},config.keda.listen=0.0.0.0:9465"),
            "KEDA owns v1beta1.external.metrics.k8s.io",
        ),
    ] {
        let said = tools.chart(&["--set", &values]);
        let error = said.expect_err(&values);
        assert!(error.contains(reason), "{values}: {error}");
    }
}

#[test]
fn the_notes_say_what_to_do_next() {
    let Some(tools) = Tools::or_skip() else { return };
    let notes = |values: &[&str]| {
        let install = ["install", "collector", CHART, "-n", "monitoring", "--dry-run=client"];
        let said = tools.helm(&[&install, values].concat()).unwrap();
        said.split_once("NOTES:").unwrap().1.to_owned()
    };
    let default = notes(&[]);
    assert!(
        default.contains("No replica will start: config.prometheus.url is not set"),
        "{default}"
    );
    assert!(default.contains("set config.keda.listen=0.0.0.0:9465 first"), "{default}");
    let keda = notes(&["--values", &format!("{CHART}/ci/keda-values.yaml")]);
    assert!(!keda.contains("No replica will start"), "{keda}");
    assert!(keda.contains("scalerAddress: dns:///collector-keda.monitoring:9465\n"), "{keda}");
    assert!(keda.contains("serverAddress: http://collector.monitoring:9464\n"), "{keda}");
    let everything = notes(&["--values", &format!("{CHART}/ci/everything-values.yaml")]);
    assert!(
        everything.contains("https://collector.monitoring:8443/api/v1/replicas"),
        "{everything}"
    );
    let minimal = notes(&["--values", &format!("{CHART}/ci/minimal-values.yaml")]);
    assert!(minimal.contains("WARNING: every pod of the cluster can read everything"), "{minimal}");
    assert!(minimal.contains("With one replica"), "{minimal}");
}
