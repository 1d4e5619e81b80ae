// SPDX-License-Identifier: Apache-2.0
//! The description of the HTTP API: an OpenAPI 3.1 document, and its schemas each for itself.
//!
//! A test makes docs/openapi.json of the types of the documents and of a table of the paths, and compares it.

#[cfg(test)]
mod describe;

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Map, Value};

use super::respond::{Answered, Refusal, json};
use crate::output::ErrorDocument;

/// The OpenAPI document.
pub(super) const DOCUMENT: &str = include_str!("../../docs/openapi.json");

/// The schemas of the document by their names. They refer to each other below `$defs`, as in a schema that stands alone.
pub(super) static SCHEMAS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let text = DOCUMENT.replace("#/components/schemas/", "#/$defs/");
    let mut document: Value = serde_json::from_str(&text).unwrap_or_default();
    match document.pointer_mut("/components/schemas").map(Value::take) {
        Some(Value::Object(schemas)) => schemas,
        _ => Map::new(),
    }
});

/// Shows the OpenAPI document.
pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

/// Shows one schema, with those that it refers to.
pub(super) async fn schema(Path(name): Path<String>) -> Answered {
    if !SCHEMAS.contains_key(&name) {
        let name: String = name.chars().take(100).collect();
        let document = ErrorDocument::new("NotFound", format!("there is no schema {name:?}"));
        let names = SCHEMAS.keys().cloned().collect();
        return Err(Refusal::new(StatusCode::NOT_FOUND, document.with_suggestions(names)));
    }
    let schema = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": format!("#/$defs/{name}"),
        "$defs": &*SCHEMAS,
    });
    Ok(json(StatusCode::OK, &schema))
}
