// SPDX-License-Identifier: Apache-2.0
//! The description of the HTTP API: an OpenAPI 3.1 document, and its schemas each for itself.
//!
//! A test makes docs/openapi.json of the types of the documents and of a table of the paths, and compares it.

#[cfg(test)]
mod describe;

use std::collections::BTreeMap;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::Value;

use super::respond::{Answered, Refusal, json};
use crate::output::ErrorDocument;

/// The OpenAPI document.
pub(super) const DOCUMENT: &str = include_str!("../../docs/openapi.json");

/// The part of the document that has the schemas.
#[derive(Deserialize)]
struct Described {
    components: Components,
}

#[derive(Deserialize)]
struct Components {
    schemas: BTreeMap<String, Value>,
}

/// Shows the OpenAPI document.
pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

/// Shows one schema, with those that it refers to.
pub(super) async fn schema(Path(name): Path<String>) -> Answered {
    let text = DOCUMENT.replace("#/components/schemas/", "#/$defs/");
    let described: Described = serde_json::from_str(&text).map_err(|error| {
        let message = format!("the OpenAPI document of this build is broken: {error}");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorDocument::new("Internal", message))
    })?;
    let schemas = described.components.schemas;
    if !schemas.contains_key(&name) {
        let name: String = name.chars().take(100).collect();
        let document = ErrorDocument::new("NotFound", format!("there is no schema {name:?}"));
        let names = schemas.into_keys().collect();
        return Err(Refusal::new(StatusCode::NOT_FOUND, document.with_suggestions(names)));
    }
    let schema = serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": format!("#/$defs/{name}"),
        "$defs": schemas,
    });
    Ok(json(StatusCode::OK, &schema))
}
