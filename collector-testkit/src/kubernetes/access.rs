// SPDX-License-Identifier: Apache-2.0
//! Access reviews: what the caller asks whether it may do.

use serde_json::{Value, json};

/// An action that is permitted or not: of a request, or of an access review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Who acts, in a `SubjectAccessReview`; empty for the client itself.
    pub user: String,
    /// As `list`.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// As `pods`.
    pub resource: String,
    /// The namespace; empty for all of them.
    pub namespace: String,
    /// The object; empty for all of them.
    pub name: String,
    /// The path of a request that belongs to no resource, as `/metrics`; else empty.
    pub path: String,
}

impl Access {
    /// What a `SelfSubjectAccessReview` or a `SubjectAccessReview` asks.
    pub(super) fn of_review(review: &Value) -> Self {
        let spec = &review["spec"];
        let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let text = |attributes: &Value, field: &str| {
            attributes[field].as_str().unwrap_or_default().to_owned()
        };
        Self {
            user: text(spec, "user"),
            verb: text(if resource.is_null() { path } else { resource }, "verb"),
            group: text(resource, "group"),
            resource: text(resource, "resource"),
            namespace: text(resource, "namespace"),
            name: text(resource, "name"),
            path: text(path, "path"),
        }
    }
}

/// The answer to a review: the review itself with its status.
pub(super) fn answer(mut review: Value, allowed: bool) -> Value {
    review["status"] = json!({ "allowed": allowed });
    if !allowed {
        review["status"]["reason"] = json!("no rule allows it");
    }
    review
}
