// SPDX-License-Identifier: Apache-2.0
//! Who serves a group of the cluster's API: the group of External Metrics has one server in a cluster, which is often KEDA.

use collector_core::ErrorKind;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use crate::cluster::Cluster;

/// The APIService of External Metrics.
pub const EXTERNAL_METRICS: &str = "v1beta1.external.metrics.k8s.io";

/// Who serves a version of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ApiOwner {
    /// Nobody.
    None,
    /// The API server itself.
    ApiServer,
    /// A service of the cluster.
    Service(ApiServiceOwner),
}

/// The service that serves a version of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ApiServiceOwner {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Whether the API server reaches it; `None`: it does not say.
    pub is_available: Option<bool>,
    /// Why it does not, in the API server's words; empty if it does.
    pub problem: String,
}

impl ApiServiceOwner {
    /// A service that the API server reaches, or not, without saying why.
    pub fn new(namespace: &str, name: &str, port: u16, is_available: Option<bool>) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { namespace, name, port, is_available, problem: String::new() }
    }
}

impl Cluster {
    /// Reads who serves an APIService, for example [`EXTERNAL_METRICS`].
    ///
    /// # Errors
    /// Why that is not known, in words.
    pub async fn api_owner(&self, name: &str) -> Result<ApiOwner, String> {
        let path = format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}");
        let service = match self.ask_for(&path).await {
            Ok((_, text)) => serde_json::from_slice::<APIService>(&text)
                .map_err(|error| format!("APIService {name} cannot be read: {error}"))?,
            Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(ApiOwner::None),
            Err(failure) if failure.kind == ErrorKind::Forbidden => {
                return Err(format!(
                    "APIService {name} may not be read: allow get on apiservices (apiregistration.k8s.io)"
                ));
            }
            Err(failure) => {
                return Err(format!("APIService {name} cannot be read: {}", failure.why));
            }
        };
        Ok(owner_of(service))
    }
}

fn owner_of(service: APIService) -> ApiOwner {
    let Some(reference) = service.spec.and_then(|spec| spec.service) else {
        return ApiOwner::ApiServer;
    };
    let conditions = service.status.and_then(|status| status.conditions).unwrap_or_default();
    let available = conditions.into_iter().find(|condition| condition.type_ == "Available");
    let is_available = available.as_ref().map(|condition| condition.status == "True");
    let problem = available
        .filter(|_| is_available == Some(false))
        .and_then(|condition| condition.message.or(condition.reason));
    ApiOwner::Service(ApiServiceOwner {
        namespace: reference.namespace.unwrap_or_default(),
        name: reference.name.unwrap_or_default(),
        port: reference.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
        is_available,
        problem: problem.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use collector_testkit::kubernetes;
    use serde_json::{Value, json};

    use super::*;

    #[tokio::test]
    async fn the_owner_of_the_metrics_api_is_the_service_of_its_apiservice() {
        let server = kubernetes::Cluster::start().await.unwrap();
        let cluster = Cluster::of(&server);
        assert_eq!(cluster.api_owner(EXTERNAL_METRICS).await, Ok(ApiOwner::None));
        let apply = |service: Value, status: Value| {
            server.apply(json!({
                "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": {"name": EXTERNAL_METRICS},
                "spec": {
                    "group": "external.metrics.k8s.io", "version": "v1beta1", "service": service,
                    "groupPriorityMinimum": 100, "versionPriority": 100
                },
                "status": status
            }));
        };
        apply(Value::Null, json!({}));
        assert_eq!(cluster.api_owner(EXTERNAL_METRICS).await, Ok(ApiOwner::ApiServer));
        let keda = json!({"namespace": "keda", "name": "keda-operator-metrics-apiserver"});
        let mut expected = ApiServiceOwner {
            namespace: "keda".to_owned(),
            name: "keda-operator-metrics-apiserver".to_owned(),
            port: 443,
            is_available: None,
            problem: String::new(),
        };
        apply(keda.clone(), json!({}));
        let owner = cluster.api_owner(EXTERNAL_METRICS).await;
        assert_eq!(owner, Ok(ApiOwner::Service(expected.clone())));
        let condition = |status, message| {
            json!({"conditions": [
                {"type": "Other", "status": "True"},
                {"type": "Available", "status": status, "reason": "R", "message": message}
            ]})
        };
        apply(keda.clone(), condition("True", "all checks passed"));
        expected.is_available = Some(true);
        let owner = cluster.api_owner(EXTERNAL_METRICS).await;
        assert_eq!(owner, Ok(ApiOwner::Service(expected.clone())));
        apply(keda, condition("False", "connection refused"));
        expected.is_available = Some(false);
        expected.problem = "connection refused".to_owned();
        let owner = cluster.api_owner(EXTERNAL_METRICS).await;
        assert_eq!(owner, Ok(ApiOwner::Service(expected)));
        server.allow(|_| false);
        let error = cluster.api_owner(EXTERNAL_METRICS).await.unwrap_err();
        assert!(error.contains("allow get on apiservices"), "{error}");
    }
}
