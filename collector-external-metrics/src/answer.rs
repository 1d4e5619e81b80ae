// SPDX-License-Identifier: Apache-2.0
//! The documents of the API, as Kubernetes has them.

use std::time::SystemTime;

use collector_core::text::printable;
use collector_keda::Signal;
use http::StatusCode;
use jiff::Timestamp;
use serde::Serialize;

pub(crate) const GROUP: &str = "external.metrics.k8s.io";
pub(crate) const GROUP_VERSION: &str = "external.metrics.k8s.io/v1beta1";
const VERSION: &str = "v1beta1";
/// The names of metrics are this and the name of a signal.
pub(crate) const METRIC_PREFIX: &str = "collector-";
/// The longest message, in characters.
const MESSAGE_MAX: usize = 1000;

/// The groups of the API, at `/apis`.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiGroupList {
    kind: &'static str,
    api_version: &'static str,
    groups: [ApiGroup; 1],
}

/// The group.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiGroup {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    name: &'static str,
    versions: [GroupVersion; 1],
    preferred_version: GroupVersion,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: &'static str,
    version: &'static str,
}

/// The metrics, at the path of the version.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApiResourceList {
    kind: &'static str,
    api_version: &'static str,
    group_version: &'static str,
    resources: Vec<ApiResource>,
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct ApiResource {
    name: String,
    singular_name: &'static str,
    namespaced: bool,
    kind: &'static str,
    verbs: [&'static str; 1],
}

/// One value. An HPA adds up the items, so there is never another one.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExternalMetricValueList {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    items: [ExternalMetricValue; 1],
}

#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
struct ExternalMetricValue {
    metric_name: String,
    metric_labels: Empty,
    timestamp: String,
    value: String,
}

/// An error.
#[derive(Serialize, Debug)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    kind: &'static str,
    api_version: &'static str,
    metadata: Empty,
    #[serde(rename = "status")]
    outcome: &'static str,
    message: String,
    reason: &'static str,
    code: u16,
}

#[derive(Serialize, Debug)]
struct Empty {}

const GROUP_VERSIONS: [GroupVersion; 1] = [THE_VERSION];
const THE_VERSION: GroupVersion = GroupVersion { group_version: GROUP_VERSION, version: VERSION };

pub(crate) fn groups() -> ApiGroupList {
    let group = ApiGroup { kind: None, api_version: None, ..group() };
    ApiGroupList { kind: "APIGroupList", api_version: "v1", groups: [group] }
}

pub(crate) fn group() -> ApiGroup {
    ApiGroup {
        kind: Some("APIGroup"),
        api_version: Some("v1"),
        name: GROUP,
        versions: GROUP_VERSIONS,
        preferred_version: THE_VERSION,
    }
}

pub(crate) fn resources() -> ApiResourceList {
    let resource = |signal| ApiResource {
        name: format!("{METRIC_PREFIX}{signal}"),
        singular_name: "",
        namespaced: true,
        kind: "ExternalMetricValueList",
        verbs: ["get"],
    };
    ApiResourceList {
        kind: "APIResourceList",
        api_version: "v1",
        group_version: GROUP_VERSION,
        resources: Signal::NAMES.into_iter().map(resource).collect(),
    }
}

/// A value that was sampled at a time of the wall clock.
pub(crate) fn value(
    metric: &str,
    quantity: String,
    sampled_at: SystemTime,
) -> ExternalMetricValueList {
    // Years beyond 9999 cannot be written; a wall clock that far off is shown as the epoch.
    let timestamp = Timestamp::try_from(sampled_at).unwrap_or_default();
    ExternalMetricValueList {
        kind: "ExternalMetricValueList",
        api_version: GROUP_VERSION,
        metadata: Empty {},
        items: [ExternalMetricValue {
            metric_name: metric.to_owned(),
            metric_labels: Empty {},
            timestamp: format!("{timestamp:.0}"),
            value: quantity,
        }],
    }
}

pub(crate) fn status(code: StatusCode, message: &str) -> Status {
    let reason = match code {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        _ => "InternalError",
    };
    Status {
        kind: "Status",
        api_version: "v1",
        metadata: Empty {},
        outcome: "Failure",
        message: printable(message).at_most(MESSAGE_MAX).to_string(),
        reason,
        code: code.as_u16(),
    }
}
