// SPDX-License-Identifier: Apache-2.0
//! Which objects a request selects: by namespace, labels and fields.

use serde_json::Value;

/// What a list or a watch selects.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    namespace: Option<String>,
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

/// One requirement of a label selector.
#[derive(Clone, Debug, PartialEq)]
enum Requirement {
    In(String, Vec<String>),
    /// Holds for objects without the label too.
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

/// One requirement of a field selector.
#[derive(Clone, Debug)]
struct FieldRequirement {
    field: Field,
    value: String,
    equal: bool,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Name,
    Namespace,
}

impl Selection {
    /// Reads the selectors of a request. An error is what the API server answers with 400.
    pub(super) fn parse(
        namespace: Option<&str>,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, String> {
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            labels: terms(labels).into_iter().map(label_requirement).collect::<Result<_, _>>()?,
            fields: terms(fields).into_iter().map(field_requirement).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.namespace.is_none() && self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let label = |key: &str| metadata["labels"].get(key).and_then(Value::as_str);
        self.namespace.as_deref().is_none_or(|namespace| metadata["namespace"] == namespace)
            && self.labels.iter().all(|requirement| match requirement {
                Requirement::In(key, values) => {
                    label(key).is_some_and(|v| values.iter().any(|value| value == v))
                }
                Requirement::NotIn(key, values) => {
                    label(key).is_none_or(|v| values.iter().all(|value| value != v))
                }
                Requirement::Exists(key) => label(key).is_some(),
                Requirement::Absent(key) => label(key).is_none(),
            })
            && self.fields.iter().all(|requirement| {
                let actual = match requirement.field {
                    Field::Name => &metadata["name"],
                    Field::Namespace => &metadata["namespace"],
                };
                (actual.as_str().unwrap_or_default() == requirement.value) == requirement.equal
            })
    }
}

/// Splits a selector at the commas that are not between parentheses.
fn terms(selector: Option<&str>) -> Vec<&str> {
    let mut depth = 0_i32;
    selector
        .unwrap_or_default()
        .split(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|term| !term.is_empty())
        .collect()
}

fn label_requirement(term: &str) -> Result<Requirement, String> {
    let requirement = if let Some((key, value)) = term.split_once("!=") {
        Requirement::NotIn(label_key(key)?, vec![value.trim().to_owned()])
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        Requirement::In(label_key(key)?, vec![value.trim().to_owned()])
    } else if let Some((head, values)) =
        term.strip_suffix(')').and_then(|term| term.split_once('('))
    {
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        match head.trim().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => Requirement::In(label_key(key)?, values),
            Some((key, "notin")) => Requirement::NotIn(label_key(key)?, values),
            _ => return Err(format!("unable to parse requirement: {term}")),
        }
    } else if let Some(key) = term.strip_prefix('!') {
        Requirement::Absent(label_key(key)?)
    } else {
        Requirement::Exists(label_key(term)?)
    };
    Ok(requirement)
}

fn label_key(key: &str) -> Result<String, String> {
    let key = key.trim();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_');
    if key.is_empty() || !key.chars().all(allowed) {
        return Err(format!("unable to parse requirement: <nil>: Invalid value: {key:?}"));
    }
    Ok(key.to_owned())
}

fn field_requirement(term: &str) -> Result<FieldRequirement, String> {
    let (name, value, equal) = if let Some((name, value)) = term.split_once("!=") {
        (name, value, false)
    } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (name, value, true)
    } else {
        return Err(format!("invalid field selector: {term}"));
    };
    let field = match name.trim() {
        "metadata.name" => Field::Name,
        "metadata.namespace" => Field::Namespace,
        other => return Err(format!("field label not supported: {other}")),
    };
    Ok(FieldRequirement { field, value: value.trim().to_owned(), equal })
}
