// SPDX-License-Identifier: Apache-2.0
//! Pods: what they may do and take, how they are replaced, and who finds them.

use serde_json::{Map, Value, json};

use super::rendered::{Object, Tools, all, one};

/// Whether labels have all that a selector wants.
fn selects(selector: &Value, labels: &Value) -> bool {
    let wanted = selector.as_object().unwrap();
    !wanted.is_empty() && wanted.iter().all(|(name, value)| &labels[name] == value)
}

fn pod(objects: &[Object]) -> &Value {
    &one(objects, "Deployment")["spec"]["template"]
}

/// The rules of Kubernetes' Pod Security Standard `restricted`, a read-only root, and limits.
#[test]
fn every_container_is_confined_and_limited() {
    let Some(tools) = Tools::or_skip() else { return };
    for objects in tools.everything() {
        let of = &objects[0].of;
        for kind in ["StatefulSet", "DaemonSet", "Pod", "Job", "CronJob"] {
            assert!(all(&objects, kind).is_empty(), "{of} has a {kind} that nobody looks at");
        }
        let spec = &pod(&objects)["spec"];
        let of_pod = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(spec["securityContext"], of_pod, "{of}");
        assert!(spec.get("initContainers").is_none(), "{of}");
        for key in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(spec.get(key).is_none(), "{of}: {key}");
        }
        let of_container = json!({
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        });
        for container in spec["containers"].as_array().unwrap() {
            assert_eq!(container["securityContext"], of_container, "{of}");
            assert!(container["resources"]["limits"]["memory"].is_string(), "{of}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{of}");
            let image = container["image"].as_str().unwrap();
            let (repository, version) = image.split_once([':', '@']).expect(image);
            assert!(repository.ends_with("collector"), "{of}: {image}");
            assert!(!version.is_empty() && version != "latest", "{of}: {image}");
            for mount in container["volumeMounts"].as_array().unwrap() {
                assert!(mount.get("subPath").is_none(), "{of}: a reload would find nothing");
                let writes = mount["name"] == "snapshot";
                assert_eq!(mount["readOnly"] == true, !writes, "{of}: {mount}");
            }
        }
        let kinds = ["name", "configMap", "secret", "emptyDir"];
        for volume in spec["volumes"].as_array().unwrap() {
            let known = volume.as_object().unwrap().keys().all(|key| kinds.contains(&key.as_str()));
            assert!(known, "{of}: {volume}");
        }
    }
}

#[test]
fn replicas_are_apart_and_replaced_one_after_the_other() {
    let Some(tools) = Tools::or_skip() else { return };
    for objects in tools.everything() {
        let of = &objects[0].of;
        let deployment = one(&objects, "Deployment");
        let replicas = deployment["spec"]["replicas"].as_u64().unwrap();
        let expected = match of.as_str() {
            "chart, minimal" => 1,
            "chart, everything" => 3,
            _ => 2,
        };
        assert_eq!(replicas, expected, "{of}");
        let strategy = json!({
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
        });
        assert_eq!(deployment["spec"]["strategy"], strategy, "{of}");
        let template = pod(&objects);
        let labels = &template["metadata"]["labels"];
        let spread = &template["spec"]["affinity"]["podAntiAffinity"];
        let spread = &spread["preferredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(spread.as_array().unwrap().len(), 2, "{of}");
        for term in spread.as_array().unwrap() {
            let term = &term["podAffinityTerm"];
            assert!(selects(&term["labelSelector"]["matchLabels"], labels), "{of}: {term}");
        }
        let budgets = all(&objects, "PodDisruptionBudget");
        assert_eq!(budgets.len(), usize::from(replicas > 1), "{of}");
        for budget in budgets {
            assert_eq!(budget["spec"]["maxUnavailable"], 1, "{of}");
            assert!(selects(&budget["spec"]["selector"]["matchLabels"], labels), "{of}");
        }
        // Longer than the collector takes: the drain, 3 s for requests in flight, and 1.5 s.
        let grace = template["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap();
        let drain = if of == "chart, everything" { 90 } else { 15 };
        assert_eq!(grace, drain + 10, "{of}");
        let container = &template["spec"]["containers"][0];
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz", "{of}");
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz", "{of}");
    }
}

#[test]
fn services_and_policies_select_the_pods_and_name_their_ports() {
    let Some(tools) = Tools::or_skip() else { return };
    for objects in tools.everything() {
        let of = &objects[0].of;
        let template = pod(&objects);
        let labels = &template["metadata"]["labels"];
        let selector = &one(&objects, "Deployment")["spec"]["selector"]["matchLabels"];
        assert!(selects(selector, labels), "{of}");
        let ports = template["spec"]["containers"][0]["ports"].as_array().unwrap();
        let names: Vec<&Value> = ports.iter().map(|port| &port["name"]).collect();
        let mut served = Vec::new();
        for service in all(&objects, "Service") {
            assert!(selects(&service["spec"]["selector"], labels), "{of}: {service}");
            for port in service["spec"]["ports"].as_array().unwrap() {
                assert!(names.contains(&&port["targetPort"]), "{of}: {port}");
                served.push(&port["targetPort"]);
            }
            let is_of_keda = service["metadata"]["name"].as_str().unwrap().ends_with("-keda");
            // KEDA counts an error for `fallback`, and a refused connection not always.
            assert_eq!(service["spec"]["clusterIP"] == "None", is_of_keda, "{of}");
            assert_eq!(service["spec"]["publishNotReadyAddresses"] == true, is_of_keda, "{of}");
        }
        assert_eq!(served, names, "{of}: each port has a Service");
        for policy in all(&objects, "NetworkPolicy") {
            assert!(selects(&policy["spec"]["podSelector"]["matchLabels"], labels), "{of}");
            let rules = policy["spec"]["ingress"].as_array().unwrap();
            let allowed = rules.iter().flat_map(|rule| rule["ports"].as_array().unwrap());
            let allowed: Vec<&Value> = allowed.map(|port| &port["port"]).collect();
            assert_eq!(allowed, names, "{of}: each port is let in, once");
            for rule in rules {
                // The API server is no pod; everybody else is named.
                let is_for_all = rule.get("from").is_none();
                assert_eq!(is_for_all, rule["ports"][0]["port"] == "ext-metrics", "{of}: {rule}");
            }
        }
        let policies = all(&objects, "NetworkPolicy").len();
        assert_eq!(policies, usize::from(of != "chart, minimal"), "{of}");
    }
}

#[test]
fn secrets_are_mounted_and_never_made() {
    let Some(tools) = Tools::or_skip() else { return };
    for objects in tools.everything() {
        assert!(all(&objects, "Secret").is_empty(), "{}", objects[0].of);
        let container = &pod(&objects)["spec"]["containers"][0];
        assert!(container.get("env").is_none() && container.get("envFrom").is_none());
    }
    let objects = tools.chart_with("everything");
    let volumes = pod(&objects)["spec"]["volumes"].as_array().unwrap();
    let secrets: Map<String, Value> = volumes
        .iter()
        .filter(|volume| volume.get("secret").is_some())
        .map(|volume| {
            (volume["name"].as_str().unwrap().to_owned(), volume["secret"]["secretName"].clone())
        })
        .collect();
    assert_eq!(
        Value::Object(secrets),
        json!({
            "secret-prometheus": "prometheus-token",
            "secret-read": "collector-read-token",
            "secret-tls": "collector-tls",
        })
    );
}
