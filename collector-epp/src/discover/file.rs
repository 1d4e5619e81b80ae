// SPDX-License-Identifier: Apache-2.0
//! Targets from a file in the form of Prometheus' `file_sd_configs`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::ErrorKind;
use collector_transport::{NamedFile, Stamp, quote};
use serde::Deserialize;

use super::{Discovery, DiscoveryError, Target, TargetSpec};
use crate::SECTION;

/// How often the file's stamp is checked. A check costs some microseconds, and a watch of the operating system would
/// miss how Kubernetes replaces mounted files.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Bytes of the file: room for tens of thousands of targets.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A file of targets, JSON or YAML, that is read again when it changes.
///
/// It holds a list of groups, `{"targets": ["10.0.0.7:8000"], "labels": {"namespace": "prod"}}`. The
/// labels that are read: `__scheme__` (default `http`), `__metrics_path__` (default `/metrics`),
/// `namespace` (required), `pod` (default: the address), `model`, `rank`, `replica`,
/// `llm-d.ai/engine-type`, `llm-d.ai/role`.
#[derive(Debug)]
pub struct FileTargets {
    file: Arc<NamedFile>,
    shown: String,
    read: Mutex<Option<Stamp>>,
}

impl FileTargets {
    /// The targets of this file. Nothing is read yet.
    pub fn new(path: &Path) -> Self {
        Self {
            file: Arc::new(NamedFile::new(SECTION, "target_file", path)),
            shown: format!("epp.target_file: {}", path.display()),
            read: Mutex::new(None),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Stamp>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn stamp(&self) -> Option<Stamp> {
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || file.stamp()).await.ok().flatten()
    }
}

#[async_trait]
impl Discovery for FileTargets {
    fn source(&self) -> &str {
        &self.shown
    }

    fn remedy(&self) -> &'static str {
        "does the file of epp.target_file name targets?"
    }

    async fn targets(&self) -> Result<Vec<Target>, DiscoveryError> {
        // The stamp is taken first: a file that changes in between is then read once more.
        let stamp = self.stamp().await;
        *self.lock() = stamp;
        let file = Arc::clone(&self.file);
        let read = move || {
            let bytes = file.read_up_to(FILE_BYTES_MAX).map_err(|error| error.to_string())?;
            parse(&bytes, &file.path).map_err(|problem| file.problem(&problem).to_string())
        };
        tokio::task::spawn_blocking(read)
            .await
            .unwrap_or_else(|_| Err(format!("{}: reading it was given up", self.shown)))
            .map_err(|problem| DiscoveryError::new(ErrorKind::Configuration, problem))
    }

    async fn changed(&self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.stamp().await != *self.lock() {
                return;
            }
        }
    }
}

/// One group of targets with the same labels.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    targets: Vec<Text>,
    #[serde(default)]
    labels: Option<BTreeMap<String, Text>>,
}

/// Text, or a number or truth value of YAML where text was meant.
#[derive(Deserialize)]
#[serde(from = "Scalar")]
struct Text(String);

#[derive(Deserialize)]
#[serde(untagged, expecting = "text is expected; put a number with a point in quotes")]
enum Scalar {
    Text(String),
    Whole(i64),
    Truth(bool),
}

impl From<Scalar> for Text {
    fn from(scalar: Scalar) -> Self {
        Self(match scalar {
            Scalar::Text(text) => text,
            Scalar::Whole(number) => number.to_string(),
            Scalar::Truth(truth) => truth.to_string(),
        })
    }
}

/// The targets of a file's content.
///
/// As in Prometheus, a file is used as a whole or not at all: half of a fleet would look like a smaller fleet.
fn parse(bytes: &[u8], path: &Path) -> Result<Vec<Target>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    let groups: Vec<Group> = match ending.to_str() {
        Some("json") => {
            serde_json::from_str(text).map_err(|error| format!("is not good: {}", short(&error)))?
        }
        // An empty file, or one of comments alone, names no target.
        Some("yml" | "yaml") => serde_saphyr::from_str::<Option<Vec<Group>>>(text)
            .map_err(|error| format!("is not good: {}", short(&error.without_snippet())))?
            .unwrap_or_default(),
        _ => return Err("must end in .json, .yml or .yaml".to_owned()),
    };
    let mut targets = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        for address in &group.targets {
            let target = group.target(&address.0).map_err(|problem| {
                format!(
                    "is not good: group {}, target {:?}: {problem}",
                    number + 1,
                    quote(&address.0)
                )
            })?;
            targets.push(target);
        }
    }
    Ok(targets)
}

fn short(error: &dyn fmt::Display) -> String {
    quote(error.to_string().lines().next().unwrap_or_default())
}

impl Group {
    fn target(&self, address: &str) -> Result<Target, String> {
        let label = |name: &str| {
            let labels = self.labels.as_ref()?;
            labels.get(name).map(|text| text.0.as_str()).filter(|text| !text.is_empty())
        };
        if address.contains(['/', '?', '#', '@']) {
            return Err(
                "it is not an address; write HOST:PORT, and the path in __metrics_path__".into()
            );
        }
        let scheme = label("__scheme__").unwrap_or("http");
        let path = label("__metrics_path__").unwrap_or("/metrics");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let owned = |name| label(name).map(str::to_owned);
        TargetSpec {
            url: format!("{scheme}://{address}{slash}{path}"),
            namespace: owned("namespace")
                .ok_or("it has no label namespace, in which models are looked for; add it")?,
            pod: owned("pod"),
            engine: owned("llm-d.ai/engine-type"),
            role: owned("llm-d.ai/role"),
            model: owned("model"),
            rank: owned("rank"),
            replica: owned("replica"),
        }
        .target()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(name: &str, text: &str) -> Result<Vec<Target>, String> {
        parse(text.as_bytes(), Path::new(name))
    }

    const JSON: &str = r#"[{"targets": ["10.0.0.7:8000", "10.0.0.8:8000"],
        "labels": {"namespace": "prod", "job": "vllm"}},
        {"targets": ["m-0.prod:8443"], "labels": {"namespace": "prod", "pod": "m-0",
        "__scheme__": "https", "__metrics_path__": "/x/metrics",
        "llm-d.ai/engine-type": "sglang", "llm-d.ai/role": "prefill"}}, {"targets": []}]"#;

    #[test]
    fn groups_are_read_with_their_labels() {
        let targets = read("t.json", JSON).unwrap();
        let shown: Vec<_> =
            targets.iter().map(|target| (target.url.as_str(), target.pod.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("http://10.0.0.7:8000/metrics", "10.0.0.7:8000"),
                ("http://10.0.0.8:8000/metrics", "10.0.0.8:8000"),
                ("https://m-0.prod:8443/x/metrics", "m-0"),
            ]
        );
        assert_eq!(targets[2].engine.as_ref().unwrap().as_str(), "sglang");
        assert_eq!(targets[2].role.as_ref().unwrap().as_str(), "prefill");
        assert_eq!(targets[0].engine, None);
    }

    #[test]
    fn yaml_says_the_same_as_json() {
        let yaml = "# the fleet\n- targets: ['10.0.0.7:8000', 10.0.0.8:8000]\n  labels:\n    \
                    namespace: prod\n    pod: 7\n";
        let targets = read("t.yml", yaml).unwrap();
        assert_eq!(targets[1].url.as_str(), "http://10.0.0.8:8000/metrics");
        assert_eq!(targets[0].pod.as_str(), "7");
        assert_eq!(read("t.yaml", JSON).unwrap(), read("t.json", JSON).unwrap());
        assert!(read("t.yaml", "# nothing yet\n").unwrap().is_empty());
    }

    #[track_caller]
    fn refused(name: &str, text: &str, part: &str) {
        let problem = read(name, text).unwrap_err();
        assert!(problem.contains(part), "{problem:?} lacks {part:?}");
    }

    #[test]
    fn a_file_that_is_not_good_says_where() {
        refused("t.json", "[{\"targets\": [\"h:1\"]", "line 1");
        refused("t.json", r#"[{"target": ["h:1"]}]"#, "target");
        refused(
            "t.json",
            r#"[{"targets": ["h:1"]}]"#,
            "group 1, target \"h:1\": it has no label namespace",
        );
        refused("t.json", r#"[{"targets": ["http://h:1/m"]}]"#, "HOST:PORT");
        refused("t.json", "[null]", "null");
        refused("t.txt", "[]", ".json");
        refused("t.yaml", "targets: [a]", "is not good");
        refused("t.yaml", "- targets: [1.5]\n", "quotes");
    }
}
