// SPDX-License-Identifier: Apache-2.0
//! The parameter `fields`: the part of a document that a client wants.

use serde::Serialize;
use serde_json::{Map, Value};

use super::openapi::SCHEMAS;
use super::query::Query;
use super::respond::Refusal;
use crate::output::to_json;

/// They are always there: what the document is about, whether it can be used, and why something is null.
const ALWAYS: [&str; 14] = [
    "accelerator",
    "error",
    "failed",
    "kind",
    "model",
    "namespace",
    "partial",
    "podName",
    "reasons",
    "schemaVersion",
    "state",
    "status",
    "variant",
    "variantName",
];

/// The fields that a client wants, each by its path of one or two names.
#[derive(Debug)]
pub(super) struct Fields(Vec<(String, Option<String>)>);

impl Fields {
    /// Reads the parameter, for a document of this name in the OpenAPI document; `None` when it is absent.
    pub(super) fn take(query: &mut Query, document: &str) -> Result<Option<Self>, Refusal> {
        let Some(text) = query.text("fields") else { return Ok(None) };
        let schema = SCHEMAS.get(document).unwrap_or(&Value::Null);
        let path = |text: &str| {
            let (name, inner) = match text.split_once('.') {
                None => (text, None),
                Some((name, inner)) => (name, Some(inner)),
            };
            let found = field_of(schema, name);
            let found = match inner {
                None => found,
                Some(inner) => found.and_then(|found| field_of(found, inner)),
            };
            let path = (name.to_owned(), inner.map(ToOwned::to_owned));
            found.map(|_| path).ok_or_else(|| unknown(text, schema))
        };
        text.split(',').map(path).collect::<Result<_, _>>().map(|paths| Some(Self(paths)))
    }

    /// A document as JSON, with the fields that are wanted.
    pub(super) fn json(&self, document: &impl Serialize) -> String {
        match serde_json::to_value(document) {
            Ok(Value::Object(document)) => to_json(&self.of(document)),
            _ => to_json(document),
        }
    }

    fn of(&self, document: Map<String, Value>) -> Map<String, Value> {
        let pruned = |(name, value): (String, Value)| {
            let of_this = self.0.iter().filter(|(wanted, _)| *wanted == name);
            let inner: Option<Vec<&str>> =
                of_this.clone().map(|(_, inner)| inner.as_deref()).collect();
            let is_wanted = of_this.count() > 0;
            match inner {
                Some(inner) if is_wanted => Some((name, prune(value, &inner))),
                None => Some((name, value)),
                Some(_) => ALWAYS.contains(&&*name).then_some((name, value)),
            }
        };
        document.into_iter().filter_map(pruned).collect()
    }
}

/// Keeps these fields of an object, or of each object of an array.
fn prune(value: Value, wanted: &[&str]) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| prune(item, wanted)).collect(),
        Value::Object(mut object) => {
            object.retain(|name, _| wanted.contains(&&**name) || ALWAYS.contains(&&**name));
            Value::Object(object)
        }
        other => other,
    }
}

/// The schema of a field.
fn field_of<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    resolved(schema).find_map(|schema| schema.get("properties")?.get(name))
}

/// The schemas that a schema stands for: those it refers to, its alternatives, and those of its items.
fn resolved(schema: &Value) -> impl Iterator<Item = &Value> {
    let mut found = Vec::new();
    let mut open = vec![schema];
    while let Some(schema) = open.pop() {
        let name = schema.get("$ref").and_then(Value::as_str).and_then(|it| it.rsplit('/').next());
        open.extend(name.and_then(|name| SCHEMAS.get(name)));
        open.extend(schema.get("items"));
        open.extend(schema.get("anyOf").and_then(Value::as_array).into_iter().flatten());
        found.push(schema);
    }
    found.into_iter()
}

fn unknown(text: &str, schema: &Value) -> Refusal {
    let text: String = text.chars().take(50).collect();
    let names = resolved(schema).filter_map(|schema| schema.get("properties")?.as_object());
    let names: Vec<_> =
        names.flat_map(|properties| properties.keys().map(String::as_str)).collect();
    let names = names.join(", ");
    Refusal::bad_request(format!(
        "parameter \"fields\" names {text:?}; the fields are {names}, and with a dot those within one"
    ))
}
