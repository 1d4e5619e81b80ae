// SPDX-License-Identifier: Apache-2.0
//! What a server behind the API server (an extension API server) asks the cluster: how to recognise the API server, and what
//! users may do.

use std::collections::BTreeMap;

use collector_core::ErrorKind;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::cluster::Cluster;

/// Where every cluster has it.
const NAMESPACE: &str = "kube-system";
const CONFIG_MAP: &str = "extension-apiserver-authentication";

/// Where reviews are asked for.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

/// How the API server shows itself, and how it names users: the ConfigMap `extension-apiserver-authentication`.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RequestHeaders {
    /// Certificates (PEM) of the authorities that sign its certificate.
    pub client_ca: String,
    /// The common names that its certificate may have; empty: any.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name.
    pub username_headers: Vec<String>,
    /// Headers with the user's UID; clusters before 1.32 have none.
    pub uid_headers: Vec<String>,
    /// Headers with the user's groups.
    pub group_headers: Vec<String>,
    /// What the names of headers with the user's other attributes begin with.
    pub extra_header_prefixes: Vec<String>,
}

/// What a user wants to read: a resource of a group, in a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessQuestion<'a> {
    /// The user's name.
    pub user: &'a str,
    /// The user's UID; empty if there is none.
    pub uid: &'a str,
    /// The user's groups.
    pub groups: &'a [String],
    /// The user's other attributes.
    pub extra: &'a BTreeMap<String, Vec<String>>,
    /// What the user wants to do.
    pub verb: &'a str,
    /// The group of the API.
    pub group: &'a str,
    /// The version of the API.
    pub version: &'a str,
    /// The resource.
    pub resource: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

/// Whether a user may do what was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessAnswer {
    /// The user may.
    pub is_allowed: bool,
    /// Why, or why not, where the API server says so.
    pub reason: String,
}

impl Cluster {
    /// Reads how the API server shows itself.
    ///
    /// # Errors
    /// Why it is not known, in words.
    pub async fn request_headers(&self) -> Result<RequestHeaders, String> {
        let place = format!("ConfigMap {NAMESPACE}/{CONFIG_MAP}");
        let path = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{CONFIG_MAP}");
        let answer = self.ask_for(&path).await.map_err(|failure| match failure.kind {
            ErrorKind::Forbidden => format!(
                "{place} may not be read: bind the Role extension-apiserver-authentication-reader of {NAMESPACE} to the \
                 service account of the collector"
            ),
            _ => format!("{place} cannot be read: {}", failure.why),
        })?;
        let config_map = serde_json::from_slice::<ConfigMap>(&answer.1);
        let config_map = config_map.map_err(|error| format!("{place} cannot be read: {error}"))?;
        let data = config_map.data.unwrap_or_default();
        let Some(client_ca) = data.get("requestheader-client-ca-file") else {
            return Err(format!(
                "{place} has no requestheader-client-ca-file: the API server is not set up for aggregation"
            ));
        };
        let list = |key: &str| match data.get(key) {
            None => Ok(Vec::new()),
            Some(text) => serde_json::from_str::<Vec<String>>(text)
                .map_err(|error| format!("{place}: {key} is not a list of texts: {error}")),
        };
        Ok(RequestHeaders {
            client_ca: client_ca.clone(),
            allowed_names: list("requestheader-allowed-names")?,
            username_headers: list("requestheader-username-headers")?,
            uid_headers: list("requestheader-uid-headers")?,
            group_headers: list("requestheader-group-headers")?,
            extra_header_prefixes: list("requestheader-extra-headers-prefix")?,
        })
    }

    /// Asks the API server whether a user may do something (`SubjectAccessReview`).
    ///
    /// # Errors
    /// Why that is not known, in words.
    pub async fn review_access(
        &self,
        question: &AccessQuestion<'_>,
    ) -> Result<AccessAnswer, String> {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let spec = SubjectAccessReviewSpec {
            user: text(question.user),
            uid: text(question.uid),
            groups: Some(question.groups.to_vec()).filter(|groups| !groups.is_empty()),
            extra: Some(question.extra.clone()).filter(|extra| !extra.is_empty()),
            resource_attributes: Some(ResourceAttributes {
                verb: text(question.verb),
                group: text(question.group),
                version: text(question.version),
                resource: text(question.resource),
                namespace: text(question.namespace),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let unanswered = |why: &dyn std::fmt::Display| {
            format!("the API server did not answer a SubjectAccessReview: {why}")
        };
        let answer = self.post(REVIEWS, &review).await.map_err(|failure| match failure.kind {
            ErrorKind::Forbidden => {
                "the service account of the collector may not create subjectaccessreviews: bind the ClusterRole \
                 system:auth-delegator to it"
                    .to_owned()
            }
            _ => unanswered(&failure.why),
        })?;
        let answer = serde_json::from_slice::<SubjectAccessReview>(&answer);
        let Some(status) = answer.map_err(|error| unanswered(&error))?.status else {
            return Err(unanswered(&"it has no status"));
        };
        Ok(AccessAnswer {
            // Both at once is a contradiction, and no permission.
            is_allowed: status.allowed && status.denied != Some(true),
            reason: status.reason.or(status.evaluation_error).unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use collector_testkit::kubernetes;
    use serde_json::json;

    use super::*;

    fn config_map(data: &serde_json::Value) -> serde_json::Value {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"namespace": NAMESPACE, "name": CONFIG_MAP}, "data": data
        })
    }

    #[tokio::test]
    async fn the_config_map_says_how_the_api_server_shows_itself() {
        let server = kubernetes::Cluster::start().await.unwrap();
        let cluster = Cluster::of(&server);
        // Without aggregation there is no authority.
        let error = cluster.request_headers().await.unwrap_err();
        assert!(error.contains("has no requestheader-client-ca-file"), "{error}");
        server.apply(config_map(&json!({
            "requestheader-client-ca-file": "PEM",
            "requestheader-allowed-names": "[\"front-proxy-client\"]",
            "requestheader-username-headers": "[\"X-Remote-User\"]",
            "requestheader-group-headers": "[\"X-Remote-Group\"]",
            "requestheader-extra-headers-prefix": "[\"X-Remote-Extra-\"]"
        })));
        let expected = RequestHeaders {
            client_ca: "PEM".to_owned(),
            allowed_names: vec!["front-proxy-client".to_owned()],
            username_headers: vec!["X-Remote-User".to_owned()],
            uid_headers: Vec::new(),
            group_headers: vec!["X-Remote-Group".to_owned()],
            extra_header_prefixes: vec!["X-Remote-Extra-".to_owned()],
        };
        assert_eq!(cluster.request_headers().await, Ok(expected));
        for names in ["front-proxy-client", "{}", "[1]"] {
            server.apply(config_map(&json!({
                "requestheader-client-ca-file": "PEM", "requestheader-allowed-names": names
            })));
            let error = cluster.request_headers().await.unwrap_err();
            assert!(
                error.contains("requestheader-allowed-names is not a list of texts"),
                "{error}"
            );
        }
        server.allow(|_| false);
        let error = cluster.request_headers().await.unwrap_err();
        assert!(
            error.contains("bind the Role extension-apiserver-authentication-reader"),
            "{error}"
        );
        server.allow(|_| true);
        server.delete(collector_testkit::kubernetes::kinds::CONFIG_MAPS, NAMESPACE, CONFIG_MAP);
        let error = cluster.request_headers().await.unwrap_err();
        assert!(error.contains("cannot be read"), "{error}");
    }
}
