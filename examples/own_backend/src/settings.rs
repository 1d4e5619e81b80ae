// SPDX-License-Identifier: Apache-2.0
//! The section `[static-json]` of a configuration.

use std::path::PathBuf;
use std::sync::Arc;

use collector::config::{BackendFactory, BackendSettings, BoxError, Key, Kind, Problem, Section};
use collector::core::{Backend, Clock};
use serde::Deserialize;

use crate::backend::{NAME, StaticJson};

const PATH: &str = "static-json.path";

/// Every key of the section, each with the name of the section before it.
const KEYS: &[Key] =
    &[Key::new(PATH, Kind::Path, "The JSON file with the models and their replicas. Required.")];

/// This backend, for [`Loader::register`](collector::config::Loader::register).
pub fn factory() -> BackendFactory {
    BackendFactory::new(NAME, KEYS, Section::read::<Settings>)
}

/// What the section sets. A key that is left out has its default.
#[derive(Default, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    path: PathBuf,
}

impl BackendSettings for Settings {
    fn build(&self, _: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, BoxError> {
        Ok(Arc::new(StaticJson::new(&self.path)))
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.path.as_os_str().is_empty() {
            let message = format!("{PATH}: not set; name the file to read");
            problems.push(Problem { keys: vec![PATH], message });
        }
        problems
    }
}
