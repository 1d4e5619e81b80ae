// SPDX-License-Identifier: Apache-2.0
//! The documents that say what the API server serves.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::kinds::Kind;
use super::store::Store;

/// The group of the access reviews, which are answered and not stored.
pub(super) const AUTHORIZATION: &str = "authorization.k8s.io";
/// The access reviews, with the names of their objects.
pub(super) const REVIEWS: [(&str, &str); 2] = [
    ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("subjectaccessreviews", "SubjectAccessReview"),
];

/// `/version`.
pub(super) fn version() -> Value {
    json!({
        "major": "1",
        "minor": "33",
        "gitVersion": "v1.33.0",
        "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "go1.24.2",
        "compiler": "gc",
        "platform": "linux/amd64",
    })
}

/// `/api`.
pub(super) fn core_versions() -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })
}

/// `/apis`.
pub(super) fn groups(store: &Store) -> Value {
    let groups: Vec<Value> =
        versions(store).iter().map(|(name, versions)| group_entry(name, versions)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/GROUP`.
pub(super) fn group(store: &Store, name: &str) -> Option<Value> {
    let mut group = group_entry(name, versions(store).get(name)?);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Some(group)
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(super) fn resources(store: &Store, group: &str, version: &str) -> Option<Value> {
    let mut resources: Vec<Value> = store
        .kinds()
        .filter(|kind| (kind.group, kind.version) == (group, version))
        .map(|Kind { plural, kind, namespaced, .. }| {
            json!({
                "name": plural,
                "singularName": kind.to_lowercase(),
                "namespaced": namespaced,
                "kind": kind,
                "verbs": ["get", "list", "watch"],
            })
        })
        .collect();
    if (group, version) == (AUTHORIZATION, "v1") {
        resources.extend(REVIEWS.iter().map(|(plural, kind)| {
            json!({ "name": plural, "singularName": "", "namespaced": false, "kind": kind, "verbs": ["create"] })
        }));
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    // The core group is there even if it serves nothing.
    (group.is_empty() || !resources.is_empty()).then(|| {
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources })
    })
}

/// The versions of each named group.
fn versions(store: &Store) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut groups = BTreeMap::from([(AUTHORIZATION, BTreeSet::from(["v1"]))]);
    for kind in store.kinds().filter(|kind| !kind.group.is_empty()) {
        groups.entry(kind.group).or_default().insert(kind.version);
    }
    groups
}

fn group_entry(name: &str, versions: &BTreeSet<&str>) -> Value {
    let entry =
        |version: &&str| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    let versions: Vec<Value> = versions.iter().map(entry).collect();
    json!({ "name": name, "preferredVersion": versions.first(), "versions": versions })
}
