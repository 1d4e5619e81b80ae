//! The layers, one over the other: defaults < file < environment < flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use figment::Figment;

use crate::build::{self, BackendSettings, Extracted};
use crate::environment::{self, Variables};
use crate::error::{ConfigError, ConfigErrors};
use crate::extract::extract;
use crate::file::{self, FileLayer};
use crate::layer::{Setting, find, printable, unknown_key};
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
        let (loaded, errors) = self.load_with_errors();
        ConfigErrors::or(errors, loaded)
    }

    /// Reads the layers and checks the whole as [`load`](Self::load) does, and returns what can be read
    /// together with every error. With an error the configuration must not be used to run: keys that
    /// could not be read have their defaults.
    pub fn load_with_errors(self) -> (Loaded, Vec<ConfigError>) {
        let (mut loaded, mut errors) = self.assemble();
        validate::validate(&mut loaded, &mut errors);
        let unread: Vec<String> = loaded.unread_variants().collect();
        loaded.warnings.extend(unread);
        (loaded, errors)
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
        warnings.extend(environment::misspelt(&self.variables));
        let flags = from_flags(&self.flags, &mut errors);

        // Which aliases count depends on the backend, which has no alias itself.
        let layers = in_file.iter().chain(&own).chain(&flags);
        let backend = extract(layers.cloned().collect(), &mut Vec::new(), CommonSections::read)
            .unwrap_or_default()
            .backend;
        let aliases = environment::aliases(&self.variables, &backend, &mut errors, &mut warnings);
        warnings.extend(environment::beaten(&aliases, &own));
        warnings.extend(ignored_sections(ignored, &backend));

        let settings = [in_file, aliases, own, flags].concat();
        // Below all others: a proxy that somebody set for this server beats that of the machine.
        let proxy = environment::proxy(&self.variables, settings.iter());
        let mut settings = [Vec::from_iter(proxy), settings].concat();
        let mut origins = Origins::default();
        for Setting { key, value, origin, .. } in &settings {
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

/// A namespace that the configuration does not let any backend read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftOut {
    /// Which key leaves it out, and where that is set.
    pub message: String,
    /// What to change to read it.
    pub remedy: String,
}

/// Names of a list that a message shows.
const SHOWN: usize = 5;

impl Loaded {
    /// Says that no chosen backend reads this namespace, because a key lists the only ones to read;
    /// `None` where one reads it.
    pub fn left_out(&self, namespace: &str) -> Option<LeftOut> {
        let (key, listed) = self.only_namespaces()?;
        if listed.contains(&namespace) {
            return None;
        }
        Some(LeftOut {
            message: format!(
                "namespace \"{}\" is not read: {}",
                printable(namespace),
                self.limit(key, &listed)
            ),
            remedy: format!("add it to {key}, or remove the key to read all namespaces"),
        })
    }

    /// Says which key limits every chosen backend to some namespaces, and to which; `None` where one
    /// reads all.
    pub fn limited(&self) -> Option<String> {
        let (key, listed) = self.only_namespaces()?;
        Some(self.limit(key, &listed))
    }

    fn limit(&self, key: &str, listed: &[&str]) -> String {
        let shown = listed.iter().take(SHOWN);
        let mut shown: Vec<String> = shown.map(|name| format!("\"{}\"", printable(name))).collect();
        if listed.len() > SHOWN {
            shown.push(format!("{} more", listed.len() - SHOWN));
        }
        format!("{key} is limited to {} ({})", shown.join(", "), self.origins.of(key))
    }

    /// The namespaces that the chosen backends read together, and the first key that lists some;
    /// `None` where a backend reads all.
    fn only_namespaces(&self) -> Option<(&'static str, Vec<&str>)> {
        let mut found: Option<(&'static str, Vec<&str>)> = None;
        for settings in self.config.chosen() {
            let (key, only) = settings.only_namespaces().filter(|(_, only)| !only.is_empty())?;
            let (_, names) = found.get_or_insert_with(|| (key, Vec::new()));
            names.extend(only.iter().map(String::as_str));
        }
        found
    }

    /// A warning for each variant whose namespace no chosen backend reads.
    fn unread_variants(&self) -> impl Iterator<Item = String> {
        self.config.variants.iter().enumerate().filter_map(|(index, variant)| {
            let LeftOut { message, remedy } = self.left_out(variant.namespace.as_str())?;
            let origin = &self.origins.of_variant(index)?.origin;
            Some(format!("{origin}: variants[{index}]: its {message}; {remedy}"))
        })
    }

    /// Every key with its value, in the order of the reference; then what is set of each variant.
    pub fn entries(&self) -> Vec<Entry> {
        self.origins.entries()
    }
}
