// SPDX-License-Identifier: Apache-2.0
//! What the collector may do in a cluster: what the features that are on need, and nothing else.

use std::collections::BTreeSet;

use collector_kubernetes::{ApiKind, PageSource, Selector};
use serde_json::Value;

use super::rendered::{Object, Tools, all, one, repository};

/// `get` on this alone, for `check`.
const API_SERVICE: &str = "get apiregistration.k8s.io/apiservices v1beta1.external.metrics.k8s.io";
const REVIEWS: &str = "create authorization.k8s.io/subjectaccessreviews";
const METRICS_PAGE: &str = "get /metrics";

/// The rights of a role: `verb group/resource` or `verb path`.
fn rights(role: &Value) -> BTreeSet<String> {
    let mut rights = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let texts = |key: &str| -> Vec<&str> {
            let list = rule.get(key).and_then(Value::as_array);
            list.into_iter().flatten().map(|text| text.as_str().unwrap()).collect()
        };
        let resources = texts("resources");
        let names = [vec![""], texts("resourceNames")].concat().join(" ");
        let names = names.as_str();
        let resources = resources.iter().flat_map(|resource| {
            texts("apiGroups").into_iter().map(move |group| format!("{group}/{resource}{names}"))
        });
        let paths = texts("nonResourceURLs").into_iter().map(str::to_owned);
        for what in resources.chain(paths) {
            rights.extend(texts("verbs").iter().map(|verb| format!("{verb} {what}")));
        }
    }
    assert!(rights.iter().all(|right| !right.contains('*')), "{rights:?}");
    rights
}

/// The rights to watch what the program watches, where direct scraping has these pages of the cluster, and others.
fn watching(pages: Option<&PageSource>, others: &[&str]) -> BTreeSet<String> {
    let kinds = ApiKind::all().filter(|kind| kind.is_watched_for(pages));
    let mut rights: BTreeSet<String> = others.iter().map(ToString::to_string).collect();
    for kind in kinds {
        for group in kind.groups() {
            rights
                .extend(["list", "watch"].map(|verb| format!("{verb} {group}/{}", kind.plural())));
        }
    }
    rights
}

fn slices() -> PageSource {
    PageSource::EndpointSlices(Selector::parse("app=vllm").unwrap())
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
        let asking = ["everything", "kubernetes", "namespaced", "pools", "slices"];
        let asks = asking.iter().any(|it| of.contains(it));
        assert_eq!(account(&objects).1, asks, "{of}");
        for kind in ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"] {
            assert!(asks || all(&objects, kind).is_empty(), "{of} has a {kind}");
        }
    }
}

#[test]
fn a_cluster_is_watched_and_nothing_is_changed() {
    let Some(tools) = Tools::or_skip() else { return };
    let expected = watching(None, &[API_SERVICE]);
    for objects in [tools.chart_with("kubernetes"), tools.kustomization("overlays/kubernetes")] {
        assert_eq!(rights(one(&objects, "ClusterRole")), expected, "{}", objects[0].of);
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
        assert_eq!(rights(role), watching(None, &[]));
    }
}

#[test]
fn direct_scraping_adds_what_it_finds_its_pods_by() {
    let Some(tools) = Tools::or_skip() else { return };
    let objects = tools.chart_with("pools");
    let expected = watching(Some(&PageSource::Pools), &[API_SERVICE, METRICS_PAGE]);
    assert_eq!(rights(one(&objects, "ClusterRole")), expected);
    let objects = tools.chart_with("slices");
    for role in all(&objects, "Role") {
        assert_eq!(rights(role), watching(Some(&slices()), &[]));
    }
    let url = "config.backend={scrape},config.kubernetes.enabled=true";
    for (set, pages, others) in [
        ("config.kubernetes.scrape=off", None, vec![API_SERVICE]),
        ("config.scrape.target_file=/t", None, vec![API_SERVICE]),
        ("config.scrape.token_path=/t", Some(PageSource::Pools), vec![API_SERVICE]),
    ] {
        let chart = tools.chart(&["--set", &format!("{url},{set}")]).unwrap();
        let objects = super::rendered::objects(set, &chart);
        let expected = watching(pages.as_ref(), &others);
        assert_eq!(rights(one(&objects, "ClusterRole")), expected, "{set}");
    }
}

#[test]
fn the_documentation_has_every_rule() {
    let page = std::fs::read_to_string(repository().join("docs/kubernetes.md")).unwrap();
    let text = page.split_once("## Rights").unwrap().1.split_once("```yaml").unwrap().1;
    let role: Value = serde_saphyr::from_str(text.split_once("```").unwrap().0).unwrap();
    let expected = watching(Some(&PageSource::Pools), &[API_SERVICE, METRICS_PAGE]);
    assert_eq!(rights(&role), expected);
}

#[test]
fn pickers_and_the_metrics_api_need_one_right_each() {
    let Some(tools) = Tools::or_skip() else { return };
    let objects = tools.chart_with("everything");
    // It names its targets.
    let expected = watching(None, &[API_SERVICE, METRICS_PAGE, REVIEWS]);
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

/// The API server is recognised by a file, and the cluster is asked what users may read, because it is read anyway.
#[test]
fn users_are_reviewed_where_a_file_names_the_front_proxy_and_the_cluster_is_read() {
    let Some(tools) = Tools::or_skip() else { return };
    let objects = tools.chart_with("slices");
    let expected = [API_SERVICE, REVIEWS].map(str::to_owned);
    assert_eq!(rights(one(&objects, "ClusterRole")), BTreeSet::from(expected));
    let bindings = names_and_namespaces(&objects, "RoleBinding");
    assert!(bindings.iter().all(|(_, namespace)| namespace != "kube-system"), "{bindings:?}");
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
