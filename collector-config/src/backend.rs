// SPDX-License-Identifier: Apache-2.0
//! What a backend brings to the configuration: its name, the keys of its section, and how it is built.
//!
//! The backends of this build and those that a program [registers](crate::Loader::register) are the
//! same kind of thing: a [`BackendFactory`] each.

#[cfg(feature = "epp")]
mod epp;
#[cfg(feature = "prometheus")]
mod prometheus;
#[cfg(feature = "record")]
mod replay;

use std::any::Any;
use std::collections::HashSet;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{Backend, Clock};
use collector_engines::EngineSpec;
use figment::Figment;
use figment::value::{Dict, Value};
use serde::de::DeserializeOwned;

use crate::error::ConfigError;
use crate::extract::Extracted;
use crate::key::Key;
use crate::keys::{COMMON_KEYS, ENGINES};
use crate::nearest::nearest;
use crate::text::printable;

/// The backends of this build.
const BUILT_IN: &[fn() -> BackendFactory] = &[
    #[cfg(feature = "prometheus")]
    prometheus::factory,
    #[cfg(feature = "epp")]
    epp::scrape,
    #[cfg(feature = "epp")]
    epp::epp,
    #[cfg(feature = "record")]
    replay::factory,
];

/// The names of direct scraping: the main one, and another that means the same.
pub(crate) const SCRAPE: [&str; 2] = ["scrape", "epp"];

/// The backends that this build leaves out, each with the variables of other tools that set its keys.
pub(crate) const LEFT_OUT: &[(&str, &[&str])] = &[
    #[cfg(not(feature = "prometheus"))]
    ("prometheus", &[]),
    #[cfg(not(feature = "epp"))]
    ("scrape", &[]),
    #[cfg(not(feature = "epp"))]
    ("epp", &["EPP_METRIC_READER_BEARER_TOKEN"]),
    #[cfg(not(feature = "record"))]
    ("replay", &[]),
];

/// A backend that a configuration can choose by its name.
///
/// ```
/// use std::sync::Arc;
///
/// use collector_config::{
///     BackendFactory, BackendSettings, BoxError, Key, Kind, Loader, Section,
/// };
/// use collector_core::{Backend, Clock};
/// # use collector_testkit::FakeBackend as Acme;
///
/// /// The section `[acme]`.
/// #[derive(Debug, Default, serde::Deserialize)]
/// #[serde(default, deny_unknown_fields)]
/// struct AcmeSettings {
///     url: String,
/// }
///
/// impl BackendSettings for AcmeSettings {
///     fn build(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, BoxError> {
///         Ok(Arc::new(Acme::new(clock)))
///     }
/// }
///
/// const KEYS: &[Key] = &[Key::new("acme.url", Kind::Url, "Where Acme's server is. Required.")];
///
/// let acme = BackendFactory::new("acme", KEYS, Section::read::<AcmeSettings>);
/// let loader = Loader::new().register(acme).flag("backend", "acme", "--backend");
/// assert_eq!(loader.load()?.config.backend, ["acme"]);
/// # Ok::<(), collector_config::ConfigErrors>(())
/// ```
#[derive(Clone)]
pub struct BackendFactory {
    name: &'static str,
    keys: &'static [Key],
    read: Arc<ReadSection>,
}

type ReadSection = dyn Fn(&Section) -> Result<Arc<dyn BackendSettings>, SectionError> + Send + Sync;

impl BackendFactory {
    /// A backend with its name, which is also that of its section, and the keys of the section, each with
    /// the name in its path.
    ///
    /// `read` reads the section, whether or not the backend is chosen; most need [`Section::read`] alone.
    pub fn new<S: BackendSettings>(
        name: &'static str,
        keys: &'static [Key],
        read: impl Fn(&Section) -> Result<S, SectionError> + Send + Sync + 'static,
    ) -> Self {
        Self { name, keys, read: Arc::new(move |section| Ok(Arc::new(read(section)?))) }
    }

    /// The name in `backend`, and of the section.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Reads the section out of the merged layers.
    pub(crate) fn read(&self, layers: &Figment) -> Extracted<Arc<dyn BackendSettings>> {
        let section = Section { name: self.name, layers: layers.clone() };
        (self.read)(&section).map_err(|SectionError(error)| error)
    }
}

impl fmt::Debug for BackendFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendFactory").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the layers set for one backend.
pub struct Section {
    name: &'static str,
    layers: Figment,
}

impl Section {
    /// Reads the keys of the section into a type. Keys that nobody set are left to the type, so give them
    /// defaults by `#[serde(default)]`; what has no good default is for [`BackendSettings::problems`].
    ///
    /// # Errors
    /// When the type refuses a value. The loader reports it with the place where it was set.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, SectionError> {
        self.read_at(self.name, Dict::new())
    }

    /// The model servers that `[[engines]]` describes for every backend.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn engines(&self) -> Result<Vec<EngineSpec>, SectionError> {
        self.read_at(ENGINES, Vec::<Value>::new())
    }

    fn read_at<T: DeserializeOwned>(
        &self,
        path: &str,
        unset: impl Into<Value>,
    ) -> Result<T, SectionError> {
        let value = self.layers.find_value(path).unwrap_or_else(|_| unset.into());
        T::deserialize(&value).map_err(|mut error| {
            error.path.insert(0, path.to_owned());
            SectionError(Box::new(error))
        })
    }

    /// Where the value of a key of the section came from, `url` for example; `None` where nobody set it.
    pub fn origin(&self, key: &str) -> Option<String> {
        let metadata = self.layers.find_metadata(&format!("{}.{key}", self.name))?;
        Some(metadata.name.to_string())
    }
}

impl fmt::Debug for Section {
    /// Leaves the values out, because some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A value of a section that its type refuses.
// figment's error is too big to be handed around.
#[derive(Debug)]
pub struct SectionError(Box<figment::Error>);

impl fmt::Display for SectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for SectionError {}

/// Any error, for backends whose errors are their own.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The settings of a backend, read from its section.
///
/// `Debug` must not show a secret.
pub trait BackendSettings: Any + fmt::Debug + Send + Sync {
    /// Builds the backend. Files that it needs are read; nothing is sent.
    ///
    /// # Errors
    /// What the settings name and cannot be used, a certificate file that does not exist for example. The
    /// message begins with the path of the key and a colon, so that it can be shown with the place where it is set.
    fn build(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, BoxError>;

    /// Builds the backends of the section, where one name stands for several: a recording has all backends that were
    /// recorded. Default: the one of [`build`](Self::build).
    ///
    /// # Errors
    /// As [`build`](Self::build).
    fn build_all(&self, clock: Arc<dyn Clock>) -> Result<Vec<Arc<dyn Backend>>, BoxError> {
        Ok(vec![self.build(clock)?])
    }

    /// How much faster time passes for this backend, if it replays a recording at another speed. Default: none.
    fn speed(&self) -> Option<f64> {
        None
    }

    /// Whether it replays a recording. That is chosen alone, because what was recorded is not merged with what is measured
    /// now. Default: no.
    fn is_recorded(&self) -> bool {
        false
    }

    /// Everything because of which the backend cannot be built, found in the settings alone. Asked of a
    /// chosen backend only.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Settings that work and may be mistakes, one sentence each. Asked of a chosen backend only.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The key of the time-out of one request, and its value, to be compared with the intervals of the
    /// cache; `None` where no key sets it, or where the backend is not asked in the background.
    fn timeout(&self) -> Option<(&'static str, Duration)> {
        None
    }

    /// The key that lists the only namespaces to read, and its list; empty, it reads all. `None` for a
    /// backend without such a key.
    fn only_namespaces(&self) -> Option<(&'static str, &[String])> {
        None
    }
}

/// Something that is wrong with a backend's settings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The paths of the keys that it is about, the first being the one to change. It is not reported
    /// where one of them could not even be read.
    pub keys: Vec<&'static str>,
    /// What is wrong, naming the keys, and what to do.
    pub message: String,
}

/// The registered backends.
#[derive(Clone, Debug)]
pub(crate) struct Backends(Vec<BackendFactory>);

/// Those of this build.
impl Default for Backends {
    fn default() -> Self {
        Self(BUILT_IN.iter().map(|factory| factory()).collect())
    }
}

impl Backends {
    pub(crate) fn add(&mut self, factory: BackendFactory) {
        self.0.push(factory);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &BackendFactory> {
        self.0.iter()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + Clone {
        self.0.iter().map(BackendFactory::name)
    }

    /// The same without direct scraping under the name that is not used.
    pub(crate) fn with_scrape_as(mut self, name: &str) -> Self {
        self.0.retain(|backend| backend.name == name || !SCRAPE.contains(&backend.name));
        self
    }

    /// Every key of their sections.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &'static Key> {
        self.0.iter().flat_map(|backend| backend.keys)
    }

    /// The backend of this name, if there is one and this build leaves it out.
    pub(crate) fn left_out(&self, name: &str) -> Option<&'static str> {
        let (known, _) = LEFT_OUT.iter().find(|(known, _)| *known == name)?;
        (!self.names().any(|registered| registered == name)).then_some(*known)
    }

    /// What is wrong with the registrations: mistakes of the program, not of its user.
    pub(crate) fn check(&self) -> Vec<ConfigError> {
        let taken = |name: &str| {
            let common = COMMON_KEYS.iter().filter_map(|key| key.path.split('.').next());
            common.chain(["variants"]).any(|common| common == name)
        };
        let mut errors = Vec::new();
        for (place, BackendFactory { name, keys, .. }) in self.0.iter().enumerate() {
            let mut refuse = |why: String| {
                errors.push(ConfigError::new(format!(
                    "the backend {name:?} {why}: register it otherwise"
                )));
            };
            if self.names().take(place).any(|before| before == *name) {
                refuse("is registered twice".to_owned());
            } else if name.is_empty() || name.contains('.') || taken(name) {
                refuse("has a name that no section of its own can have".to_owned());
            }
            let outside = |key: &&Key| {
                let rest = key.path.strip_prefix(name).and_then(|rest| rest.strip_prefix('.'));
                rest.is_none_or(str::is_empty)
            };
            for key in keys.iter().filter(outside) {
                refuse(format!("has the key {:?}, which is not in its section", key.path));
            }
        }
        errors
    }

    /// What is wrong with the value of `backend`.
    pub(crate) fn check_chosen(&self, chosen: &[String]) -> Vec<String> {
        let in_this_build = if self.0.is_empty() {
            "this build has no backend: build it with `--features prometheus`".to_owned()
        } else {
            format!("this build has {}", self.names().collect::<Vec<_>>().join(", "))
        };
        if chosen.is_empty() {
            return vec![format!("names no backend; {in_this_build}")];
        }
        let mut problems = Vec::new();
        for name in chosen {
            if self.names().any(|registered| registered == name) {
                continue;
            }
            let shown = printable(name);
            let known = self.names().chain(LEFT_OUT.iter().map(|(name, _)| *name));
            problems.push(if self.left_out(name).is_some() {
                format!("\"{shown}\" is not compiled in; {in_this_build}")
            } else if let Some(near) = nearest(&shown, known) {
                format!("\"{shown}\" is not a backend; did you mean \"{near}\"? {in_this_build}")
            } else {
                format!("\"{shown}\" is not a backend; {in_this_build}")
            });
        }
        let mut seen = HashSet::new();
        if let Some(twice) = chosen.iter().find(|name| !seen.insert(name.as_str())) {
            problems.push(format!("{twice:?} is named twice"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Kind;

    #[track_caller]
    fn check(names: &[&str], expected: &[&str]) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let problems = Backends::default().check_chosen(&names);
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "{problem:?} lacks {part:?}");
        }
    }

    #[test]
    fn an_unknown_backend_is_reported_with_the_registered_ones() {
        check(
            &["promethius"],
            &["\"promethius\" is not a backend; did you mean \"prometheus\"? this build has "],
        );
        check(&["graphite"], &["\"graphite\" is not a backend; this build has "]);
        check(&[], &["names no backend; this build has "]);
    }

    #[cfg(not(feature = "epp"))]
    #[test]
    fn an_excluded_backend_is_reported_with_those_of_the_build() {
        check(&["epp"], &["\"epp\" is not compiled in; this build has "]);
        check(&["epp", "x\n"], &["\"epp\"", "\"x\\u{a}\" is not a backend"]);
    }

    #[cfg(all(feature = "epp", feature = "prometheus"))]
    #[test]
    fn a_backend_is_named_once() {
        check(&["prometheus"], &[]);
        check(&["epp"], &[]);
        check(&["prometheus", "prometheus"], &["\"prometheus\" is named twice"]);
        check(&["epp", "prometheus"], &[]);
    }

    #[cfg(not(any(feature = "epp", feature = "prometheus")))]
    #[test]
    fn a_build_without_a_backend_is_reported() {
        assert_eq!(Backends::default().names().count(), 0);
        check(&["prometheus"], &["\"prometheus\" is not compiled in; this build has no backend"]);
    }

    #[derive(Debug, Default, serde::Deserialize)]
    struct NoSettings {}

    impl BackendSettings for NoSettings {
        fn build(&self, _: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, BoxError> {
            Err("there is none".into())
        }
    }

    #[track_caller]
    fn check_registration(name: &'static str, keys: &'static [Key], expected: Option<&str>) {
        let mut backends = Backends(Vec::new());
        backends.add(BackendFactory::new(name, keys, Section::read::<NoSettings>));
        let errors: Vec<String> = backends.check().iter().map(ToString::to_string).collect();
        match expected {
            None => assert!(errors.is_empty(), "{errors:?}"),
            Some(part) => assert!(errors.len() == 1 && errors[0].contains(part), "{errors:?}"),
        }
    }

    #[test]
    fn a_registration_that_cannot_work_is_an_error() {
        const KEYS: &[Key] = &[Key::new("acme.url", Kind::Url, "")];
        check_registration("acme", KEYS, None);
        check_registration("acm", KEYS, Some("\"acme.url\", which is not in its section"));
        for name in ["", "a.b", "cache", "engines", "variants"] {
            check_registration(name, &[], Some("no section of its own"));
        }
    }
}
