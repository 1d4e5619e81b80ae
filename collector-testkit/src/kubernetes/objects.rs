// SPDX-License-Identifier: Apache-2.0
//! How objects are written: whole or their metadata alone, in lists and in events.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::store::Page;

/// What of the objects a request wants, by its `Accept` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Whole,
    /// `PartialObjectMetadata`.
    Metadata,
}

impl Form {
    pub(super) fn of_accept(accept: &str) -> Self {
        if accept.contains("as=PartialObjectMetadata") { Self::Metadata } else { Self::Whole }
    }

    /// An object by itself.
    pub(super) fn object(self, object: &Value) -> Value {
        match self {
            Self::Whole => object.clone(),
            Self::Metadata => json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"],
            }),
        }
    }

    /// A list, or one page of it.
    pub(super) fn list(self, kind: Kind, page: &Page) -> String {
        let (list, api_version) = match self {
            Self::Whole => (format!("{}List", kind.kind), kind.api_version()),
            Self::Metadata => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        let mut metadata = json!({ "resourceVersion": page.version.to_string() });
        if let Some(token) = &page.token {
            metadata["continue"] = json!(token);
        }
        if let Some(remaining) = page.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        let items: Vec<Value> = page.objects.iter().map(|object| self.item(kind, object)).collect();
        json!({ "kind": list, "apiVersion": api_version, "metadata": metadata, "items": items })
            .to_string()
    }

    fn item(self, kind: Kind, object: &Value) -> Value {
        match object.as_object() {
            Some(fields) if self == Self::Whole && kind.is_built_in() => {
                let kept = fields
                    .iter()
                    .filter(|(field, _)| !matches!(field.as_str(), "kind" | "apiVersion"));
                Value::Object(
                    kept.map(|(field, value)| (field.clone(), value.clone()))
                        .collect::<Map<_, _>>(),
                )
            }
            _ => self.object(object),
        }
    }
}

/// One line of a watch.
pub(super) fn event(event: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({ "type": event, "object": object })).into()
}

/// A bookmark: an object of the kind with nothing but a version.
pub(super) fn bookmark(kind: Kind, version: u64, ends_initial_events: bool) -> Bytes {
    let mut metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
    if ends_initial_events {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    event(
        "BOOKMARK",
        &json!({ "kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata }),
    )
}
