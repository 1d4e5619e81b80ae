// SPDX-License-Identifier: Apache-2.0
//! Runs `helm`, `kubectl` and `kubernetes-validate`, and reads the objects that they render.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

/// The folder of the programs.
const TOOLS: &str = "COLLECTOR_CLUSTER_TOOLS";

/// The programs.
pub(super) struct Tools(PathBuf);

/// What a program said, and whether it succeeded.
pub(super) type Said = Result<String, String>;

/// An object, and where it was rendered.
pub(super) struct Object {
    pub(super) of: String,
    pub(super) value: Value,
}

impl Tools {
    /// The programs, or `None`, after saying so, where there are none and they are not required.
    pub(super) fn or_skip() -> Option<Self> {
        let folder = env::var_os(TOOLS).map(|folder| Self(folder.into()));
        if folder.is_none() {
            let reason = format!("{TOOLS} is not set; `cargo xtask test` sets it, if it can");
            let required = env::var(collector_testkit::REQUIRE_REAL_SERVERS);
            assert_ne!(required.as_deref(), Ok("1"), "{reason}");
            #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
            {
                eprintln!("SKIPPED: {reason}");
            }
        }
        folder
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Said {
        let output = Command::new(self.0.join(program))
            .args(arguments)
            .current_dir(repository())
            // Nothing of whoever runs the tests, and no cluster.
            .env_clear()
            .env("HOME", "/nonexistent")
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        if output.status.success() { Ok(stdout) } else { Err(stdout + &stderr) }
    }

    pub(super) fn helm(&self, arguments: &[&str]) -> Said {
        self.run("helm", arguments)
    }

    /// The chart as it is installed under the name `collector` in the namespace `monitoring`.
    pub(super) fn chart(&self, arguments: &[&str]) -> Said {
        let install = ["template", "collector", CHART, "--namespace", "monitoring"];
        self.helm(&[&install, arguments].concat())
    }

    /// The objects of the chart with a file of values.
    pub(super) fn chart_with(&self, values: &str) -> Vec<Object> {
        let file = format!("{CHART}/ci/{values}-values.yaml");
        objects(&format!("chart, {values}"), &self.chart(&["--values", &file]).unwrap())
    }

    /// The objects of a kustomization.
    pub(super) fn kustomization(&self, folder: &str) -> Vec<Object> {
        let said = self.run("kubectl", &["kustomize", &format!("deploy/kustomize/{folder}")]);
        objects(&format!("kustomization, {folder}"), &said.unwrap())
    }

    /// What is wrong with objects according to this version of Kubernetes.
    pub(super) fn validate(&self, version: &str, file: &Path) -> Said {
        let file = file.to_str().unwrap();
        self.run("kubernetes-validate", &["--strict", "--quiet", "-k", version, file])
    }

    /// Everything that there is: the chart with each file of values and without any, and each kustomization.
    pub(super) fn everything(&self) -> Vec<Vec<Object>> {
        let mut all = vec![objects("chart, default", &self.chart(&[]).unwrap())];
        all.extend(value_files().iter().map(|values| self.chart_with(values)));
        all.extend(
            ["base", "overlays/keda", "overlays/kubernetes"].map(|it| self.kustomization(it)),
        );
        all
    }
}

pub(super) const CHART: &str = "deploy/helm/collector";

pub(super) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of values that the chart is tested with.
pub(super) fn value_files() -> Vec<String> {
    let entries = fs::read_dir(repository().join(CHART).join("ci")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.map(|name| name.strip_suffix("-values.yaml").unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(
        names,
        ["everything", "keda", "kubernetes", "minimal", "namespaced", "pools", "slices"]
    );
    names
}

pub(super) fn objects(of: &str, text: &str) -> Vec<Object> {
    let values: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    assert!(values.len() >= 3, "{of}: {text}");
    values.into_iter().map(|value| Object { of: of.to_owned(), value }).collect()
}

impl Object {
    pub(super) fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap()
    }

    pub(super) fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap()
    }
}

/// The only object of this kind.
#[track_caller]
pub(super) fn one<'a>(objects: &'a [Object], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object.kind() == kind);
    let one = found.next().unwrap_or_else(|| panic!("{} has no {kind}", objects[0].of));
    assert!(found.next().is_none(), "{} has two {kind}", one.of);
    &one.value
}

/// The objects of this kind.
pub(super) fn all<'a>(objects: &'a [Object], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object.kind() == kind).map(|object| &object.value).collect()
}

/// The text of the collector's configuration.
pub(super) fn configuration(objects: &[Object]) -> &str {
    one(objects, "ConfigMap")["data"]["collector.yaml"].as_str().unwrap()
}
