//! `check --scaled-object`: KEDA's ScaledObjects, checked by rules (`rules`) and by running the queries of their
//! triggers (`values`).

mod rules;
mod values;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use collector_core::{Check, CheckStatus};
use serde_json::{Map, Value};

pub(super) use self::rules::Context;
use crate::exit::Failure;

/// The maximum size of a file: about a thousand objects of the maximum size of a Kubernetes API server.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// KEDA's defaults.
const POLLING_SECONDS: u64 = 30;
const COOLDOWN_SECONDS: u64 = 300;

/// The fields of a ScaledObject that its scaling depends on.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ScaledObject {
    /// `namespace/name`.
    name: String,
    polling: Duration,
    cooldown: Duration,
    min: u64,
    fallback: Option<Fallback>,
    triggers: Vec<Trigger>,
}

#[derive(Clone, PartialEq, Debug)]
struct Fallback {
    failures: u64,
    replicas: u64,
    behavior: String,
}

#[derive(Clone, PartialEq, Debug)]
struct Trigger {
    /// Its position, from 1.
    number: usize,
    kind: String,
    metric_type: String,
    has_authentication: bool,
    metadata: Map<String, Value>,
}

/// Reads the ScaledObjects of a YAML file, or of standard input (`-`): several documents, or a list.
pub(super) fn read(path: &Path) -> Result<Vec<ScaledObject>, Failure> {
    let shown = path.display();
    let failure = |text: String| Failure::usage(format!("--scaled-object: {text}"));
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| failure(format!("cannot read {shown}: {error}")))?;
    let objects =
        parse(&text).map_err(|error| failure(format!("{shown} is not valid YAML: {error}")))?;
    if objects.is_empty() {
        return Err(failure(format!("{shown} contains no object of kind ScaledObject")));
    }
    Ok(objects)
}

fn parse(text: &str) -> Result<Vec<ScaledObject>, String> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let mut objects = Vec::new();
    for document in documents {
        match document["items"].as_array() {
            Some(items) => objects.extend(items.iter().filter_map(ScaledObject::of)),
            None => objects.extend(ScaledObject::of(&document)),
        }
    }
    Ok(objects)
}

impl ScaledObject {
    fn of(document: &Value) -> Option<Self> {
        if document["kind"] != "ScaledObject" {
            return None;
        }
        let (metadata, spec) = (&document["metadata"], &document["spec"]);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let name = text(&metadata["name"]).unwrap_or_else(|| "(no name)".to_owned());
        let name = match text(&metadata["namespace"]) {
            Some(namespace) => format!("{namespace}/{name}"),
            None => name,
        };
        let seconds =
            |key: &str, default| Duration::from_secs(spec[key].as_u64().unwrap_or(default));
        let fallback = spec["fallback"].as_object().map(|fallback| Fallback {
            failures: fallback.get("failureThreshold").and_then(Value::as_u64).unwrap_or(0),
            replicas: fallback.get("replicas").and_then(Value::as_u64).unwrap_or(0),
            behavior: fallback
                .get("behavior")
                .and_then(text)
                .unwrap_or_else(|| "static".to_owned()),
        });
        let triggers = spec["triggers"].as_array().into_iter().flatten().enumerate();
        let triggers = triggers.map(|(index, trigger)| Trigger {
            number: index + 1,
            kind: text(&trigger["type"]).unwrap_or_default(),
            metric_type: text(&trigger["metricType"]).unwrap_or_else(|| "AverageValue".to_owned()),
            has_authentication: trigger["authenticationRef"].is_object(),
            metadata: trigger["metadata"].as_object().cloned().unwrap_or_default(),
        });
        Some(Self {
            polling: seconds("pollingInterval", POLLING_SECONDS),
            cooldown: seconds("cooldownPeriod", COOLDOWN_SECONDS),
            min: spec["minReplicaCount"].as_u64().unwrap_or(0),
            fallback,
            triggers: triggers.collect(),
            name,
        })
    }

    /// Creates a check about this object.
    fn check(&self, name: &str, status: CheckStatus, detail: impl std::fmt::Display) -> Check {
        Check::new(format!("scaled-object.{name}"), status, format!("{}: {detail}", self.name))
    }
}

impl Trigger {
    /// Returns a text of the metadata; `None` if it is empty.
    fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_in_documents_and_lists() {
        let two = "kind: ScaledObject\n---\nkind: Deployment\n---\nkind: ScaledObject\n";
        assert_eq!(parse(two).unwrap().len(), 2);
        let list =
            r#"{"kind": "List", "items": [{"kind": "ScaledObject", "metadata": {"name": "a"}}]}"#;
        let object = parse(list).unwrap().remove(0);
        assert_eq!((object.name.as_str(), object.min, object.triggers.len()), ("a", 0, 0));
        assert!(parse("a: [").is_err());
    }
}
