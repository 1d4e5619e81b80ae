// SPDX-License-Identifier: Apache-2.0
//! A backend that a program registers, in every place where users meet it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use collector_config::{
    BackendFactory, BackendSettings, BoxError, Key, Kind, Loader, Problem, Section, SectionError,
};
use collector_core::duration::deserialize as duration;
use collector_core::{Backend, Clock, Limits, ManualClock};
use collector_testkit::FakeBackend;
use serde::Deserialize;

use crate::{ConfigFile, entry, variables};

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct AcmeSettings {
    url: String,
    #[serde(deserialize_with = "duration")]
    timeout: Duration,
    token_path: Option<PathBuf>,
    namespaces: Vec<String>,
    #[serde(skip)]
    url_origin: Option<String>,
}

impl Default for AcmeSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            timeout: Duration::from_secs(2),
            token_path: None,
            namespaces: Vec::new(),
            url_origin: None,
        }
    }
}

impl BackendSettings for AcmeSettings {
    fn build(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, BoxError> {
        if let Some(path) = &self.token_path {
            std::fs::metadata(path)
                .map_err(|error| format!("acme.token_path: {}: {error}", path.display()))?;
        }
        let limits = Limits::new(self.timeout);
        Ok(Arc::new(FakeBackend::new(clock).named("acme").with_limits(limits)))
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.url.is_empty() {
            let message = "acme.url: not set; it has no default".to_owned();
            problems.push(Problem { keys: vec!["acme.url"], message });
        }
        problems
    }

    fn warnings(&self) -> Vec<String> {
        self.url_origin.iter().map(|origin| format!("acme.url comes from {origin}")).collect()
    }

    fn timeout(&self) -> Option<(&'static str, Duration)> {
        Some(("acme.timeout", self.timeout))
    }

    fn only_namespaces(&self) -> Option<(&'static str, &[String])> {
        Some(("acme.namespaces", &self.namespaces))
    }
}

const KEYS: &[Key] = &[
    Key::new("acme.url", Kind::Url, "Where Acme is. Required.").aliases(&["ACME_URL"]),
    Key::new("acme.timeout", Kind::Duration, "Time for one request.").default("2s"),
    Key::new("acme.token_path", Kind::Path, "A file that holds the token."),
    Key::new("acme.namespaces", Kind::Texts, "The only namespaces to read."),
];

fn read(section: &Section) -> Result<AcmeSettings, SectionError> {
    Ok(AcmeSettings { url_origin: section.origin("url"), ..section.read()? })
}

fn with_acme(loader: Loader) -> Loader {
    loader.register(BackendFactory::new("acme", KEYS, read))
}

fn errors(loader: Loader) -> String {
    with_acme(loader).load().unwrap_err().to_string()
}

#[test]
fn a_file_chooses_a_registered_backend_and_sets_its_keys() {
    let file = ConfigFile::toml(
        "backend = \"acme\"\n[acme]\nurl = \"https://acme\"\ntimeout = \"3s\"\n\
         namespaces = [\"prod\"]\n",
    );
    let loaded = with_acme(file.loader()).load().unwrap();
    let settings: &AcmeSettings = loaded.config.settings_of().unwrap();
    assert_eq!((settings.url.as_str(), settings.timeout), ("https://acme", Duration::from_secs(3)));
    let origin = format!("{}:3", file.path().display());
    assert_eq!(entry(&loaded, "acme.url").origin, origin);
    assert_eq!(loaded.warnings, [format!("acme.url comes from {origin}")]);
    assert!(loaded.left_out("dev").is_some_and(|it| it.message.contains("acme.namespaces")));
    let backends = loaded.config.build_backends(Arc::new(ManualClock::new())).unwrap();
    assert_eq!(backends[0].name(), "acme");
    assert_eq!(backends[0].limits().timeout, Duration::from_secs(3));
}

#[test]
fn the_environment_and_flags_set_the_keys_of_a_registered_backend() {
    let set = [("COLLECTOR_ACME__TIMEOUT", "4s"), ("ACME_URL", "https://acme")];
    let layers = Loader::new().env(variables(&set)).flag("backend", "acme", "--backend");
    let loaded = with_acme(layers).load().unwrap();
    assert_eq!(
        entry(&loaded, "acme.timeout").origin,
        "environment variable COLLECTOR_ACME__TIMEOUT"
    );
    assert_eq!(entry(&loaded, "acme.url").origin, "environment variable ACME_URL");
    assert!(with_acme(Loader::new()).reference().contains("| `acme.token_path` |"));
}

#[test]
fn mistakes_in_its_section_are_reported_as_in_any_other() {
    let file = ConfigFile::toml("backend = \"acme\"\n[acme]\nurll = \"x\"\ntimeout = 3\n");
    let at = |line: usize| format!("{}:{line}", file.path().display());
    let found = errors(file.loader());
    let unknown = format!("{}: acme.urll: unknown key; did you mean acme.url?", at(3));
    assert!(found.contains(&unknown), "{found}");
    assert!(found.contains(&format!("{}: acme.timeout: ", at(4))), "{found}");
    assert!(found.contains("acme.url: not set; it has no default"), "{found}");

    let file = ConfigFile::toml(
        "backend = \"acme\"\n[acme]\nurl = \"x\"\ntimeout = \"1m\"\n[cache]\nttl = \"10s\"\n",
    );
    let found = errors(file.loader());
    assert!(found.contains("acme.timeout (1m)"), "{found}");

    let wrong = Loader::new().flag("backend", "acne", "--backend");
    let found = errors(wrong);
    assert!(found.contains("did you mean \"acme\"?") && found.contains(", acme"), "{found}");
}

#[test]
fn what_it_cannot_use_is_reported_when_it_is_built() {
    let file =
        ConfigFile::toml("backend = \"acme\"\n[acme]\nurl = \"x\"\ntoken_path = \"absent\"\n");
    let config = with_acme(file.loader()).load().unwrap().config;
    let errors = config.build(Arc::new(ManualClock::new())).err().unwrap().to_string();
    let path = file.folder().join("absent");
    assert!(errors.starts_with(&format!("acme.token_path: {}: ", path.display())), "{errors}");
}

#[test]
fn a_backend_that_is_not_chosen_is_neither_checked_nor_built() {
    let set = [("COLLECTOR_PROMETHEUS__URL", "https://prometheus:9090")];
    let loaded = with_acme(Loader::new().env(variables(&set))).load().unwrap();
    let backends = loaded.config.build_backends(Arc::new(ManualClock::new())).unwrap();
    assert_eq!(backends.len(), 1);
}
