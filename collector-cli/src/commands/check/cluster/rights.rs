// SPDX-License-Identifier: Apache-2.0
//! Which APIs there are, and whether we may do what the configuration needs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use collector_core::text::counted;
use collector_core::{BackendError, Check, Namespace};
use collector_kubernetes::{ApiKind, Cluster, Permission, group_of};
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};

use super::super::groups::{fail, pass, skip, warn};
use super::server::failure;
use super::{Asked, first};

/// How many permissions are asked for, and how many at the same time.
const REVIEWS_MAX: usize = 200;
const AT_A_TIME: usize = 8;

/// The checks of the APIs, and of the permissions for those that there are.
pub(super) async fn checks(asked: &Asked<'_>) -> Vec<Check> {
    let cluster = asked.cluster;
    let kinds = ApiKind::all().map(|kind| async move { (kind, cluster.served(kind).await) });
    let kinds = join_all(kinds).await;
    let mut checks = apis(cluster, &kinds);
    let needed = kinds.iter().filter(|(kind, _)| cluster.watches(*kind));
    let needed = needed.filter_map(|(kind, served)| match served {
        Ok(path) => path.map(|path| (group_of(path), kind.plural())),
        // What may be there needs its permission.
        Err(_) => kind.groups().first().map(|group| (*group, kind.plural())),
    });
    let needed = permissions(asked, &needed.collect::<Vec<_>>());
    checks.push(rbac(asked, needed).await);
    checks
}

/// The check of the permissions that the External Metrics API needs, where no objects are read.
pub(super) async fn checks_of_external_metrics(asked: &Asked<'_>) -> Vec<Check> {
    vec![rbac(asked, permissions(asked, &[])).await]
}

fn apis(
    cluster: &Cluster,
    kinds: &[(ApiKind, Result<Option<&'static str>, BackendError>)],
) -> Vec<Check> {
    const ID: &str = "cluster.apis";
    let mut checks = Vec::new();
    let (mut served, mut absent) = (Vec::new(), Vec::new());
    for (kind, answer) in kinds {
        match answer {
            Ok(Some(path)) => {
                let version = path.strip_prefix("/apis/").or(path.strip_prefix("/api/"));
                served.push(format!("{} ({})", kind.kind(), version.unwrap_or(path)));
            }
            Ok(None) if kind.is_built_in() => checks.push(
                fail(ID, format!("the API server has no {}, which every cluster has", kind.kind()))
                    .with_remedy("is the address that of a Kubernetes API server from 1.23 on?"),
            ),
            // One of its groups is enough.
            Ok(None) if has_another(kinds, *kind) => {}
            // Without it, which pods are scraped is not known.
            Ok(None) if cluster.watches(*kind) && !kind.is_watched_for(None) => checks.push(
                fail(ID, format!("the API server has no {}, which name the pods to scrape", kind.kind()))
                    .with_remedy(
                        "install the API of InferencePools, or set kubernetes.scrape to endpoint_slices or off",
                    ),
            ),
            Ok(None) => absent.push(kind.kind()),
            Err(error) => {
                let detail =
                    format!("whether there is {} is not known: {}", kind.kind(), error.kind());
                let remedy = "the ClusterRole system:discovery permits it to every service account";
                checks.push(warn(ID, detail).with_remedy(remedy));
            }
        }
    }
    if !served.is_empty() {
        checks.insert(0, pass(ID, format!("served: {}", served.join(", "))));
    }
    if !absent.is_empty() {
        let detail = format!("not installed, and not needed: {}", absent.join(", "));
        checks.push(skip(ID, &detail));
    }
    checks
}

/// Whether a kind is there in another group, or is said to be absent with the other group.
fn has_another(
    kinds: &[(ApiKind, Result<Option<&'static str>, BackendError>)],
    kind: ApiKind,
) -> bool {
    let mut others = kinds.iter().filter(|(other, _)| other.kind() == kind.kind());
    let is_first = others.clone().next().is_some_and(|(first, _)| *first == kind);
    !is_first || others.any(|(_, answer)| !matches!(answer, Ok(None)))
}

/// What the configuration needs of these resources, by group and name. The right to read `/metrics` is none of it: it is an
/// Endpoint Picker that asks for it, of the token that it is sent, and its refusal is shown with the scrape.
fn permissions(asked: &Asked<'_>, resources: &[(&'static str, &'static str)]) -> Vec<Permission> {
    let scopes: Vec<Option<Namespace>> = match asked.cluster.namespaces() {
        [] => vec![None],
        namespaces => namespaces.iter().cloned().map(Some).collect(),
    };
    let mut permissions = Vec::new();
    let of =
        |verb, group, resource| Permission { verb, group, resource, namespace: None, name: None };
    if asked.settings.loaded.config.external_metrics.enabled {
        permissions.push(of("create", "authorization.k8s.io", "subjectaccessreviews"));
        if asked.settings.loaded.config.external_metrics.front_proxy_ca_path.is_none() {
            permissions.push(Permission {
                namespace: Some("kube-system".into()),
                name: Some("extension-apiserver-authentication"),
                ..of("get", "", "configmaps")
            });
        }
    }
    for namespace in scopes {
        for (group, resource) in resources {
            for verb in ["list", "watch"] {
                let namespace = namespace.clone();
                permissions.push(Permission { namespace, ..of(verb, group, resource) });
            }
        }
    }
    permissions
}

async fn rbac(asked: &Asked<'_>, mut needed: Vec<Permission>) -> Check {
    const ID: &str = "cluster.rbac";
    let left_out = needed.len().saturating_sub(REVIEWS_MAX);
    needed.truncate(REVIEWS_MAX);
    let count = needed.len();
    let reviews = needed.into_iter().map(|permission| async {
        let answer = asked.cluster.may(&permission).await;
        (permission, answer)
    });
    let mut missing = Vec::new();
    let mut reviews = stream::iter(reviews).buffered(AT_A_TIME);
    while let Some((permission, answer)) = reviews.next().await {
        match answer {
            Ok(true) => {}
            Ok(false) => missing.push(permission),
            // The others would fail alike.
            Err(error) => return failure(ID, &error),
        }
    }
    if missing.is_empty() {
        let mut detail = format!(
            "all {} that are needed are granted",
            counted(count, "permission", "permissions")
        );
        if left_out > 0 {
            let _ = write!(detail, "; {left_out} more, of other namespaces, were not asked for");
        }
        return pass(ID, detail);
    }
    let names: Vec<String> = missing.iter().map(named).collect();
    let detail = format!("{} of {count} permissions are missing: {}", missing.len(), first(&names));
    fail(ID, detail).with_remedy(rules(&missing))
}

fn named(permission: &Permission) -> String {
    let Permission { verb, resource, namespace, .. } = permission;
    match namespace {
        Some(namespace) => format!("{verb} {resource} in {namespace}"),
        None => format!("{verb} {resource}"),
    }
}

/// The rules that grant what is missing, as roles have them.
fn rules(missing: &[Permission]) -> String {
    type Rule<'a> = (&'a str, Vec<&'a str>, Option<&'a str>);
    // Verbs by resource, then resources by rule: one rule for what is granted alike.
    let mut verbs: BTreeMap<_, Vec<&str>> = BTreeMap::new();
    for Permission { verb, group, resource, namespace, name } in missing {
        let namespace = namespace.as_ref().map(Namespace::as_str);
        verbs.entry((namespace, *group, *name, *resource)).or_default().push(verb);
    }
    let mut roles: BTreeMap<Option<&str>, BTreeMap<Rule<'_>, BTreeSet<&str>>> = BTreeMap::new();
    for ((namespace, group, name, resource), verbs) in verbs {
        let of_role = roles.entry(namespace).or_default();
        of_role.entry((group, verbs, name)).or_default().insert(resource);
    }
    let mut text = String::new();
    for (namespace, rules) in roles {
        let role = match namespace {
            Some(namespace) => format!("a Role of namespace {namespace}"),
            None => "a ClusterRole".to_owned(),
        };
        let _ = writeln!(text, "add to {role} that is bound to the collector's service account:");
        for ((group, verbs, name), resources) in rules {
            let resources = Vec::from_iter(resources);
            let _ = writeln!(text, "- apiGroups: [{group:?}]");
            let _ = writeln!(text, "  resources: {resources:?}").and_then(|()| match name {
                Some(name) => writeln!(text, "  resourceNames: [{name:?}]"),
                None => Ok(()),
            });
            let _ = writeln!(text, "  verbs: {verbs:?}");
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(
        verb: &'static str,
        resource: &'static str,
        namespace: Option<&str>,
    ) -> Permission {
        let namespace = namespace.map(Namespace::from);
        Permission { verb, group: "apps", resource, namespace, name: None }
    }

    #[test]
    fn what_is_missing_is_granted_by_as_few_rules_as_possible() {
        let missing = [
            permission("list", "deployments", None),
            permission("watch", "deployments", None),
            permission("list", "statefulsets", None),
            permission("watch", "statefulsets", None),
            permission("watch", "replicasets", Some("chat")),
        ];
        let expected = "add to a ClusterRole that is bound to the collector's service account:\n\
                        - apiGroups: [\"apps\"]\n  \
                          resources: [\"deployments\", \"statefulsets\"]\n  \
                          verbs: [\"list\", \"watch\"]\n\
                        add to a Role of namespace chat that is bound to the collector's service account:\n\
                        - apiGroups: [\"apps\"]\n  resources: [\"replicasets\"]\n  verbs: [\"watch\"]";
        assert_eq!(rules(&missing), expected);
    }
}
