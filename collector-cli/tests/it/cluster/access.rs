// SPDX-License-Identifier: Apache-2.0
//! What the collector may do in a cluster: what the features that are on need, and nothing else.

use std::collections::BTreeSet;

use serde_json::Value;

use super::rendered::{Object, Tools, all, one};

/// The kinds that `kubernetes.enabled` watches.
const WATCHED: [&str; 12] = [
    "/pods",
    "apps/deployments",
    "apps/replicasets",
    "apps/statefulsets",
    "autoscaling/horizontalpodautoscalers",
    "discovery.k8s.io/endpointslices",
    "inference.networking.k8s.io/inferencepools",
    "inference.networking.x-k8s.io/inferencepools",
    "keda.sh/scaledobjects",
    "leaderworkerset.x-k8s.io/leaderworkersets",
    "llmd.ai/variantautoscalings",
    "serving.kserve.io/llminferenceservices",
];

/// The rights of a role: `verb group/resource` or `verb path`.
fn rights(role: &Value) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let texts = |key: &str| -> Vec<&str> {
            let list = rule.get(key).and_then(Value::as_array);
            list.into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
        };
        let resources = texts("resources");
        let resources = resources.iter().flat_map(|resource| {
            texts("apiGroups").into_iter().map(move |group| format!("{group}/{resource}"))
        });
        let paths = texts("nonResourceURLs").into_iter().map(str::to_owned);
        for what in resources.chain(paths) {
            rights.extend(texts("verbs").iter().map(|verb| format!("{verb} {what}")));
        }
    }
    assert!(rights.iter().all(|right| !right.contains('*')), "{rights:?}");
    rights
}

fn watching() -> BTreeSet<String> {
    let verbs = ["get", "list", "watch"];
    WATCHED.iter().flat_map(|kind| verbs.map(|verb| format!("{verb} {kind}"))).collect()
}

fn names_and_namespaces(objects: &[Object], kind: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let meta = |object: &Value| {
        (text(&object["metadata"]["name"]), text(&object["metadata"]["namespace"]))
    };
    all(objects, kind).into_iter().map(meta).collect()
}

/// The account of the pod, and whether it gets its token.
fn account(objects: &[Object]) -> (&str, bool) {
    let spec = &one(objects, "Deployment")["spec"]["template"]["spec"];
    let token = spec["automountServiceAccountToken"].as_bool().unwrap();
    (spec["serviceAccountName"].as_str().unwrap(), token)
}

#[test]
fn a_collector_that_asks_no_cluster_has_no_rights_and_no_token() {
    let Some(tools) = Tools::or_skip() else { return };
    for objects in tools.everything() {
        let of = &objects[0].of;
        let asks = ["everything", "kubernetes", "namespaced"].iter().any(|it| of.contains(it));
        assert_eq!(account(&objects).1, asks, "{of}");
        for kind in ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"] {
            assert!(asks || all(&objects, kind).is_empty(), "{of} has a {kind}");
        }
    }
}

#[test]
fn a_cluster_is_watched_and_nothing_is_changed() {
    let Some(tools) = Tools::or_skip() else { return };
    for objects in [tools.chart_with("kubernetes"), tools.kustomization("overlays/kubernetes")] {
        assert_eq!(rights(one(&objects, "ClusterRole")), watching(), "{}", objects[0].of);
        assert!(all(&objects, "Role").is_empty() && all(&objects, "RoleBinding").is_empty());
    }
}

#[test]
fn namespaces_are_watched_without_a_right_in_the_cluster() {
    let Some(tools) = Tools::or_skip() else { return };
    let objects = tools.chart_with("namespaced");
    assert!(
        all(&objects, "ClusterRole").is_empty() && all(&objects, "ClusterRoleBinding").is_empty()
    );
    let expected =
        ["chat", "search"].map(|namespace| ("collector".to_owned(), namespace.to_owned()));
    assert_eq!(names_and_namespaces(&objects, "Role"), expected);
    assert_eq!(names_and_namespaces(&objects, "RoleBinding"), expected);
    for role in all(&objects, "Role") {
        assert_eq!(rights(role), watching());
    }
}

#[test]
fn pickers_and_the_metrics_api_need_one_right_each() {
    let Some(tools) = Tools::or_skip() else { return };
    let objects = tools.chart_with("everything");
    let mut expected = watching();
    expected.insert("get /metrics".to_owned());
    expected.insert("create authorization.k8s.io/subjectaccessreviews".to_owned());
    assert_eq!(rights(one(&objects, "ClusterRole")), expected);
    // A role of Kubernetes' own, for the one ConfigMap.
    let binding = one(&objects, "RoleBinding");
    assert_eq!(binding["metadata"]["namespace"], "kube-system");
    assert_eq!(binding["roleRef"]["name"], "extension-apiserver-authentication-reader");
    assert!(all(&objects, "Role").is_empty());
    let service = &one(&objects, "APIService")["spec"]["service"];
    let services = names_and_namespaces(&objects, "Service");
    let text = |key: &str| service[key].as_str().unwrap().to_owned();
    assert!(services.contains(&(text("name"), text("namespace"))), "{services:?}");
}

#[test]
fn bindings_are_of_the_account_that_runs() {
    let Some(tools) = Tools::or_skip() else { return };
    for objects in tools.everything() {
        let of = &objects[0].of;
        let (account, _) = account(&objects);
        let made = names_and_namespaces(&objects, "ServiceAccount");
        if of == "chart, minimal" {
            assert_eq!((account, made.len()), ("default", 0));
        } else {
            assert_eq!(made, [(account.to_owned(), "monitoring".to_owned())], "{of}");
            assert_eq!(one(&objects, "ServiceAccount")["automountServiceAccountToken"], false);
        }
        let bindings = [all(&objects, "RoleBinding"), all(&objects, "ClusterRoleBinding")].concat();
        for binding in bindings {
            let subjects = binding["subjects"].as_array().unwrap();
            assert_eq!(subjects.len(), 1, "{of}");
            assert_eq!(subjects[0]["name"], account, "{of}");
            assert_eq!(subjects[0]["namespace"], "monitoring", "{of}");
            let (kind, name) = (&binding["roleRef"]["kind"], &binding["roleRef"]["name"]);
            let of_ours = objects.iter().any(|object| {
                object.kind() == kind.as_str().unwrap() && object.name() == name.as_str().unwrap()
            });
            assert!(of_ours || name == "extension-apiserver-authentication-reader", "{of}: {name}");
        }
    }
}
