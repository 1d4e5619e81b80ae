// SPDX-License-Identifier: Apache-2.0
//! Who serves the External Metrics API of the cluster, and whether that fits the configuration.

use collector_core::{Check, CheckStatus};
use collector_kubernetes::{ApiOwner, ApiServiceOwner, EXTERNAL_METRICS};

use super::super::groups::warn;
use super::Asked;

const ID: &str = "cluster.metrics-api";

pub(super) async fn checks(asked: &Asked<'_>) -> Vec<Check> {
    let owner = asked.cluster.api_owner(EXTERNAL_METRICS).await;
    let is_ours = asked.settings.loaded.config.external_metrics.enabled;
    vec![match owner {
        Ok(owner) => judge(&owner, is_ours),
        Err(why) => warn(ID, format!("who serves the External Metrics API is not known: {why}"))
            .with_remedy(
                "- apiGroups: [\"apiregistration.k8s.io\"]\n  resources: [\"apiservices\"]\n  verbs: [\"get\"]",
            ),
    }]
}

/// The programs that serve this API, by what their services are called.
const KNOWN: [(&str, &str); 4] = [
    ("keda", "KEDA"),
    ("prometheus-adapter", "prometheus-adapter"),
    ("custom-metrics", "prometheus-adapter"),
    ("collector", "the collector"),
];

/// Whether the owner fits `external_metrics.enabled`.
fn judge(owner: &ApiOwner, is_enabled: bool) -> Check {
    let check = |status, detail: String, remedy: &str| {
        let check = Check::new(ID, status, format!("{EXTERNAL_METRICS}: {detail}"));
        if remedy.is_empty() { check } else { check.with_remedy(remedy) }
    };
    let service = match owner {
        ApiOwner::None if is_enabled => {
            return check(
                CheckStatus::Fail,
                "nobody serves it, so no HPA reads external_metrics of this collector".to_owned(),
                "apply an APIService of that name with the collector's Service",
            );
        }
        ApiOwner::None => {
            let detail = "nobody serves it, and external_metrics.enabled is false";
            return check(CheckStatus::Pass, detail.to_owned(), "");
        }
        ApiOwner::ApiServer => {
            let detail = "the API server itself serves it, which none does by default";
            return check(
                CheckStatus::Warn,
                detail.to_owned(),
                "look at the APIService: it has no spec.service",
            );
        }
        ApiOwner::Service(service) => service,
    };
    let known = KNOWN
        .iter()
        .find(|(part, _)| service.name.contains(part) || service.namespace.contains(part));
    let ApiServiceOwner { namespace, name, problem, .. } = service;
    let who = match known {
        Some((_, program)) => format!("{program} serves it (Service {namespace}/{name})"),
        None => format!("Service {namespace}/{name} serves it"),
    };
    let is_collector = known.is_some_and(|(part, _)| *part == "collector");
    if service.is_available == Some(false) {
        let detail = format!("{who}, and the API server does not reach it: {problem}");
        let remedy = "is the Service there, with Ready pods and the certificate of caBundle? Until then every HPA on it holds";
        // Of another program it is not our failure.
        let status = if is_enabled || is_collector { CheckStatus::Fail } else { CheckStatus::Warn };
        return check(status, detail, remedy);
    }
    match (is_enabled, is_collector, known) {
        (false, true, _) => check(
            CheckStatus::Fail,
            format!("{who}, and external_metrics.enabled is false"),
            "set external_metrics.enabled = true, or delete the APIService",
        ),
        (true, false, Some(_)) => check(
            CheckStatus::Fail,
            format!(
                "{who}, and external_metrics.enabled is true: a cluster has one server of this API"
            ),
            "set external_metrics.enabled = false and scale with ScaledObjects on the collector, or let the APIService have the \
             collector's Service",
        ),
        (true, false, None) => check(
            CheckStatus::Warn,
            format!("{who}; whether that is this collector is not known"),
            "compare spec.service of the APIService with the collector's Service",
        ),
        _ => check(CheckStatus::Pass, who, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str, is_available: Option<bool>) -> ApiOwner {
        ApiOwner::Service(ApiServiceOwner::new(namespace, name, 443, is_available))
    }

    #[track_caller]
    fn check(owner: &ApiOwner, is_enabled: bool, status: CheckStatus, says: &str) {
        let check = judge(owner, is_enabled);
        assert!(check.status == status && check.detail.contains(says), "{check:?}");
        assert_eq!(check.remedy.is_some(), status != CheckStatus::Pass);
    }

    #[test]
    fn the_owner_fits_the_configuration_or_not() {
        use CheckStatus::{Fail, Pass, Warn};
        check(&ApiOwner::None, false, Pass, "nobody serves it");
        check(&ApiOwner::None, true, Fail, "nobody serves it");
        check(&ApiOwner::ApiServer, true, Warn, "the API server itself");
        let keda = service("keda", "keda-operator-metrics-apiserver", Some(true));
        check(&keda, false, Pass, "KEDA serves it (Service keda/keda-operator-metrics-apiserver)");
        check(&keda, true, Fail, "a cluster has one server of this API");
        check(&service("monitoring", "prometheus-adapter", None), true, Fail, "prometheus-adapter");
        let ours = service("llm", "collector", Some(true));
        check(&ours, true, Pass, "the collector serves it");
        check(&ours, false, Fail, "external_metrics.enabled is false");
        check(&service("x", "y", None), true, Warn, "is not known");
        check(&service("x", "y", None), false, Pass, "Service x/y serves it");
        let broken = service("keda", "keda", Some(false));
        check(&broken, false, Warn, "does not reach it");
        check(&service("llm", "collector", Some(false)), true, Fail, "does not reach it");
    }
}
