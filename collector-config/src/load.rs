//! The layers, one over the other: defaults < file < environment < flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use figment::Figment;

use crate::build::{self, BackendSettings, Extracted};
use crate::environment::{self, Variables};
use crate::error::{ConfigError, ConfigErrors};
use crate::file::{self, FileLayer};
use crate::key::Kind;
use crate::layer::{Setting, find, unknown_key};
use crate::origin::{Entry, Origin, Origins};
use crate::schema::{CollectorConfig, CommonSections, ENGINES, ENGINES_BEFORE};
use crate::validate;

/// Gathers the layers of a configuration. Without any it loads the defaults.
#[derive(Default)]
pub struct Loader {
    file: Option<PathBuf>,
    variables: Variables,
    flags: Vec<(String, String, String)>,
}

impl Loader {
    /// The defaults alone.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads this file: `.yaml` and `.yml` as YAML, everything else as TOML, at most 1 MiB.
    /// Relative paths in it start at its folder.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.file = Some(path.into());
        self
    }

    /// Reads the environment out of these variables: `COLLECTOR_*` and the aliases; others do not
    /// count, nor does one that is empty.
    pub fn env(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let set = variables.into_iter().filter(|(_, text)| !text.is_empty());
        self.variables.extend(set);
        self
    }

    /// Sets one key from the command line; errors call it `flag`.
    pub fn flag(mut self, key: &str, value: impl Into<String>, flag: &str) -> Self {
        self.flags.push((key.to_owned(), value.into(), flag.to_owned()));
        self
    }

    /// Reads the layers and checks the whole.
    ///
    /// # Errors
    /// Everything that is wrong: unknown keys, wrong values, settings that cannot work together.
    pub fn load(self) -> Result<Loaded, ConfigErrors> {
        let (mut loaded, mut errors) = self.assemble();
        validate::validate(&mut loaded, &mut errors);
        ConfigErrors::or(errors, loaded)
    }

    /// Reads the layers without checking whether the whole can work, to show a configuration that
    /// is not complete yet.
    ///
    /// # Errors
    /// Unknown keys and wrong values, all of them.
    pub fn read(self) -> Result<Loaded, ConfigErrors> {
        let (loaded, errors) = self.assemble();
        ConfigErrors::or(errors, loaded)
    }

    /// What can be read, and what is wrong with the rest, which keeps its defaults.
    fn assemble(self) -> (Loaded, Vec<ConfigError>) {
        let FileLayer { settings: in_file, variants, mut ignored, mut errors } =
            self.file.as_deref().map(file::read).unwrap_or_default();
        let mut warnings = Vec::new();
        let own = environment::own(&self.variables, &mut errors, &mut ignored);
        let flags = from_flags(&self.flags, &mut errors);

        // Which aliases count depends on the backend, which has no alias itself.
        let layers = in_file.iter().chain(&own).chain(&flags);
        let backend = extract(layers.cloned().collect(), &mut Vec::new(), CommonSections::read)
            .unwrap_or_default()
            .backend;
        let aliases = environment::aliases(&self.variables, &backend, &mut errors, &mut warnings);
        warnings.extend(environment::beaten(&aliases, &own));
        warnings.extend(ignored_sections(ignored, &backend));

        let mut settings = [in_file, aliases, own, flags].concat();
        let mut origins = Origins::default();
        for Setting { key, value, origin } in &settings {
            origins.set(key, key.shown(value), origin.clone());
        }
        rename_engines(&mut settings, &mut errors);
        let common =
            extract(settings.clone(), &mut errors, CommonSections::read).unwrap_or_default();
        let mut sections: BTreeMap<&'static str, Arc<dyn BackendSettings>> = BTreeMap::new();
        for backend in build::BACKENDS {
            if let Some(section) = extract(settings.clone(), &mut errors, backend.read) {
                sections.insert(backend.name, section);
            }
        }
        // Each section reads the engines.
        let mut told = Vec::new();
        errors.retain(|error| {
            let is_new = !told.contains(error);
            if is_new {
                told.push(error.clone());
            }
            is_new
        });
        let mut specs = Vec::new();
        for (spec, origin) in variants {
            specs.push(spec);
            origins.set_variant(origin);
        }
        let config = CollectorConfig {
            backend: common.backend,
            instance: common.instance,
            cache: common.cache,
            variants: specs,
            engines: common.engines,
            server: common.server,
            log: common.log,
            sections,
        };
        let loaded = Loaded { config, origins, warnings };
        (loaded, errors)
    }
}

/// Reads the engines under the name that they had before as well; both names at once are an error.
fn rename_engines(settings: &mut [Setting], errors: &mut Vec<ConfigError>) {
    let of = |path: &str| settings.iter().find(|setting| setting.key.path == path);
    if let (Some(_), Some(before)) = (of(ENGINES), of(ENGINES_BEFORE)) {
        let message = format!(
            "{ENGINES} is set too: it is the same list, for every backend; keep {ENGINES} alone"
        );
        errors.push(ConfigError::new(message).key(ENGINES_BEFORE).at(before.origin.clone()));
        return;
    }
    let Some(key) = find(ENGINES) else { return };
    for setting in settings.iter_mut().filter(|setting| setting.key.path == ENGINES_BEFORE) {
        setting.key = key;
    }
}

fn from_flags(flags: &[(String, String, String)], errors: &mut Vec<ConfigError>) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (path, text, flag) in flags {
        let origin = Origin::Flag(flag.clone());
        let read = match find(path) {
            Some(key) => Setting::from_text(key, text, origin),
            None => Err(unknown_key(path).at(origin)),
        };
        match read {
            Ok(setting) => settings.push(setting),
            Err(error) => errors.push(error),
        }
    }
    settings
}

fn ignored_sections(
    ignored: Vec<(&'static str, Origin)>,
    chosen: &[String],
) -> impl Iterator<Item = String> {
    ignored
        .into_iter()
        // Where the backend is asked for, that is the error.
        .filter(|(backend, _)| !chosen.iter().any(|name| name == backend))
        .map(|(backend, origin)| {
            format!(
                "{origin} is ignored: the backend {backend:?} is not compiled into this build, and \
                 `backend` does not ask for it"
            )
        })
}

/// Merges the settings that `read` is about and reads its type out of them. A value that the type
/// refuses is an error, and the rest is read without it, so that every wrong value is found.
fn extract<T>(
    mut settings: Vec<Setting>,
    errors: &mut Vec<ConfigError>,
    read: impl Fn(&Figment) -> Extracted<T>,
) -> Option<T> {
    loop {
        let figment = settings.iter().fold(Figment::new(), Figment::merge);
        let error = match read(&figment) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let path = error.path.join(".");
        let culprit = settings.iter().rposition(|setting| {
            path.strip_prefix(setting.key.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        let Some(place) = culprit else {
            errors.push(ConfigError::new(error.kind.to_string()).key(path));
            return None;
        };
        let Setting { key, origin, .. } = settings.remove(place);
        // figment's words hold the value.
        let message = if key.kind == Kind::Secret {
            "its value cannot be used".to_owned()
        } else {
            match path.strip_prefix(key.path).unwrap_or_default().trim_start_matches('.') {
                "" => error.kind.to_string(),
                inside => format!("{}: {}", inside_of_list(inside), error.kind),
            }
        };
        errors.push(ConfigError::new(message).key(key.path).at(origin));
    }
}

/// A place in a list of tables, `0.url` for example, as people count.
fn inside_of_list(path: &str) -> String {
    let (entry, key) = path.split_once('.').unwrap_or((path, ""));
    match entry.parse::<usize>() {
        Ok(entry) if key.is_empty() => format!("entry {}", entry + 1),
        Ok(entry) => format!("entry {}, {key}", entry + 1),
        Err(_) => path.to_owned(),
    }
}

impl CommonSections {
    fn read(figment: &Figment) -> Extracted<Self> {
        Ok(figment.extract()?)
    }
}

/// A configuration that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What to run with.
    pub config: CollectorConfig,
    /// Where each value came from.
    pub origins: Origins,
    /// What works and is not as it should be, in words, for the log.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// Every key with its value, in the order of the reference; then what is set of each variant.
    pub fn entries(&self) -> Vec<Entry> {
        self.origins.entries()
    }
}
