// SPDX-License-Identifier: Apache-2.0
//! The layers, one over the other: defaults < file < environment < flags.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use collector_engine::VariantSpec;
use figment::Figment;

use crate::backend::{BackendFactory, BackendSettings, Backends, SCRAPE};
use crate::changes::Digest;
use crate::environment::{self, Variables};
use crate::error::{ConfigError, ConfigErrors};
use crate::extract::{Extracted, extract};
use crate::file::{self, FileLayer};
use crate::key::Key;
use crate::keys::{ENGINES, Keys, OTHER_ENGINES};
use crate::layer::Setting;
use crate::loaded::Loaded;
use crate::origin::{Origin, Origins, VariantOrigin};
use crate::reference::reference;
use crate::schema::{CollectorConfig, CommonSections};
use crate::validate;

/// Gathers the layers of a configuration. Without any it loads the defaults.
#[derive(Clone, Default)]
pub struct Loader {
    backends: Backends,
    file: Option<PathBuf>,
    variables: Variables,
    flags: Vec<(String, String, String)>,
}

impl Loader {
    /// The defaults alone, and the backends of this build.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a backend that the configuration can choose. A mistake in its name or keys is an error when
    /// the configuration is loaded.
    pub fn register(mut self, backend: BackendFactory) -> Self {
        self.backends.add(backend);
        self
    }

    /// The names of the registered backends, direct scraping under its main name alone.
    pub fn backends(&self) -> impl Iterator<Item = &'static str> {
        self.backends.names().filter(|name| *name != SCRAPE[1])
    }

    /// Every key that can be set, except those of `[[variants]]`, in the order of the reference.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.main_keys().into_iter()
    }

    /// Every key under its main name.
    fn main_keys(&self) -> Keys {
        Keys::with(self.backends.clone().with_scrape_as(SCRAPE[0]).keys())
    }

    /// The reference of all keys, in Markdown.
    pub fn reference(&self) -> String {
        reference(&self.main_keys())
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

    /// Reads the layers and validates the result.
    ///
    /// # Errors
    /// Everything that is wrong: unknown keys, wrong values, settings that cannot work together.
    pub fn load(self) -> Result<Loaded, ConfigErrors> {
        let (loaded, errors) = self.load_with_errors();
        ConfigErrors::or(errors, loaded)
    }

    /// Reads and validates the layers as [`load`](Self::load) does, and returns what can be read
    /// together with every error. With an error the configuration must not be used to run: keys that
    /// could not be read have their defaults.
    pub fn load_with_errors(self) -> (Loaded, Vec<ConfigError>) {
        let (mut loaded, mut errors) = self.assemble();
        validate::validate(&mut loaded, &mut errors);
        let unread: Vec<String> = loaded.unread_variants().collect();
        loaded.warnings.extend(unread);
        (loaded, errors)
    }

    /// Reads the layers without validating the result, to show a configuration that
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
        let mut errors = self.backends.check();
        let mut warnings = Vec::new();
        let Layers { mut settings, variants, backend, backends, keys } =
            self.layers(&mut errors, &mut warnings);
        let mut origins = Origins::default();
        for Setting { key, value, origin, .. } in &settings {
            origins.set(key.path, key.shown(value), origin.clone());
        }
        rename_engines(&mut settings, &keys, &mut errors);
        let values = settings.iter().map(|it| (it.key.path, Digest::of(&it.value))).collect();
        let common =
            extract(settings.clone(), &mut errors, CommonSections::read).unwrap_or_default();
        let mut sections: BTreeMap<&'static str, Arc<dyn BackendSettings>> = BTreeMap::new();
        for backend in backends.iter() {
            let section = extract(settings.clone(), &mut errors, |layers| backend.read(layers));
            if let Some(section) = section {
                sections.insert(backend.name(), section);
            }
        }
        // Each section reads the engines.
        let mut reported = Vec::new();
        for error in errors {
            if !reported.contains(&error) {
                reported.push(error);
            }
        }
        let mut specs = Vec::new();
        for (spec, origin) in variants {
            specs.push(spec);
            origins.set_variant(origin);
        }
        let config = CollectorConfig {
            backend,
            instance: common.instance,
            cache: common.cache,
            variants: specs,
            engines: common.engines,
            tracking: common.tracking,
            server: common.server,
            promql: common.promql,
            keda: common.keda,
            external_metrics: common.external_metrics,
            kubernetes: common.kubernetes,
            metrics: common.metrics,
            log: common.log,
            sections,
            backends,
        };
        let loaded = Loaded { config, origins, warnings, keys, values };
        (loaded, reported)
    }

    /// Reads the layers, and finds out which keys they can set: aliases, and the name of direct scraping, depend on the
    /// backends that are chosen.
    fn layers(self, errors: &mut Vec<ConfigError>, warnings: &mut Vec<String>) -> Layers {
        let keys = Keys::with(self.backends.keys());
        let FileLayer { settings: in_file, variants, mut ignored, errors: in_file_wrong } = self
            .file
            .as_deref()
            .map(|file| file::read(file, &keys, &self.backends))
            .unwrap_or_default();
        errors.extend(in_file_wrong);
        let own = environment::own(&self.variables, &keys, &self.backends, errors, &mut ignored);
        warnings.extend(environment::misspelt(&self.variables, &keys));
        let flags = from_flags(&self.flags, &keys, errors);

        // `backend` has no alias itself.
        let set = [in_file.clone(), own.clone(), flags.clone()].concat();
        let backend = extract(set.clone(), &mut Vec::new(), CommonSections::read);
        let mut backend = backend.unwrap_or_default().backend;
        let scrape = name_of_scrape(&set, &backend, errors);
        for name in backend.iter_mut().filter(|name| SCRAPE.contains(&name.as_str())) {
            scrape.clone_into(name);
        }
        let backends = self.backends.with_scrape_as(scrape);
        let keys = Keys::with(backends.keys());
        let aliases = environment::aliases(&self.variables, &keys, &backend, errors, warnings);
        warnings.extend(environment::beaten(&aliases, &own));
        warnings.extend(ignored_sections(ignored, &backend));

        let settings = [in_file, aliases, own, flags].concat();
        // The lowest layer: a proxy of this server takes precedence over that of the machine.
        let proxy = environment::proxy(&self.variables, &keys, settings.iter());
        let settings = [Vec::from_iter(proxy), settings].concat();
        Layers { settings, variants, backend, backends, keys }
    }
}

/// All that is set.
struct Layers {
    /// The lowest layer first.
    settings: Vec<Setting>,
    variants: Vec<(VariantSpec, VariantOrigin)>,
    /// The value of `backend`, with direct scraping under the name that the configuration gives it.
    backend: Vec<String>,
    /// The registered backends and their keys, likewise.
    backends: Backends,
    keys: Keys,
}

/// The name that the configuration gives to direct scraping. Sections under both are an error.
fn name_of_scrape(
    settings: &[Setting],
    backend: &[String],
    errors: &mut Vec<ConfigError>,
) -> &'static str {
    let [main, other] = SCRAPE;
    let of = |name| {
        let is_of = |setting: &&Setting| setting.key.path.split('.').next() == Some(name);
        settings.iter().find(is_of).map(|setting| &setting.origin)
    };
    match (of(main), of(other)) {
        (Some(set), Some(too)) => {
            let message = format!(
                "[{other}] is set too ({too}): both are direct scraping; move all keys to [{main}]"
            );
            errors.push(ConfigError::new(message).key(main).at(set.clone()));
            main
        }
        (None, Some(_)) => other,
        (None, None) if backend.iter().any(|name| name == other) => other,
        _ => main,
    }
}

/// Reads the engines under their other names as well; two names at once are an error.
fn rename_engines(settings: &mut [Setting], keys: &Keys, errors: &mut Vec<ConfigError>) {
    let is_other = |setting: &Setting| OTHER_ENGINES.contains(&setting.key.path);
    let Some(other) = settings.iter().find(|setting| is_other(setting)) else { return };
    if settings.iter().any(|setting| setting.key.path == ENGINES) {
        let message = format!(
            "{ENGINES} is set too: it is the same list, for every backend; keep {ENGINES} alone"
        );
        errors.push(ConfigError::new(message).key(other.key.path).at(other.origin.clone()));
        return;
    }
    let Some(key) = keys.find(ENGINES) else { return };
    for setting in settings.iter_mut().filter(|setting| is_other(setting)) {
        setting.key = key;
    }
}

fn from_flags(
    flags: &[(String, String, String)],
    keys: &Keys,
    errors: &mut Vec<ConfigError>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    for (path, text, flag) in flags {
        let origin = Origin::Flag(flag.clone());
        let read = match keys.find(path) {
            Some(key) => Setting::from_text(key, text, origin),
            None => Err(keys.unknown(path).at(origin)),
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
        // If the backend is chosen, there is an error already.
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
