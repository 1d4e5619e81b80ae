//! From settings to parts: the backends of this build, and the collector over the chosen one.
//!
//! A backend joins with its line in [`BACKENDS`], a cargo feature of its name, and a module here
//! that says which keys its section has and implements [`BackendSettings`].

#[cfg(feature = "epp")]
mod epp;
#[cfg(feature = "prometheus")]
mod prometheus;

use std::any::Any;
use std::collections::HashSet;
#[cfg(any(feature = "epp", feature = "prometheus"))]
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{Backend, Clock};
use collector_engine::{Builder, CachingCollector, StaticDirectory};
use figment::Figment;

use crate::error::{ConfigError, ConfigErrors};
use crate::key::Key;
use crate::nearest::nearest;
use crate::schema::CollectorConfig;

/// The backends of this build, one line each.
pub(crate) const BACKENDS: &[Registration] = &[
    #[cfg(feature = "prometheus")]
    prometheus::REGISTRATION,
    #[cfg(feature = "epp")]
    epp::REGISTRATION,
];

/// The backends that there are, in whatever build.
const KNOWN: [&str; 2] = ["prometheus", "epp"];

const NAMES: [&str; BACKENDS.len()] = {
    let mut names = [""; BACKENDS.len()];
    let mut place = 0;
    while place < names.len() {
        names[place] = BACKENDS[place].name;
        place += 1;
    }
    names
};

/// What was read out of the layers. figment's error is too big to be handed around.
pub(crate) type Extracted<T> = Result<T, Box<figment::Error>>;

/// What the configuration needs to know of a backend.
pub(crate) struct Registration {
    /// The name in `backend`, and of its section.
    pub(crate) name: &'static str,
    /// The keys of its section, with it in their paths.
    pub(crate) keys: &'static [Key],
    /// Reads its section.
    pub(crate) read: fn(&Figment) -> Extracted<Arc<dyn BackendSettings>>,
}

/// The section of a backend, read.
pub(crate) trait BackendSettings: Any + fmt::Debug + Send + Sync {
    /// The key of the time-out of one request, and its value.
    fn timeout(&self) -> (&'static str, Duration);

    /// Whether the backend learns by itself, so that it is not asked in the background.
    fn pushes(&self) -> bool;

    /// The key that lists the only namespaces to read, and its list; empty, it reads all. `None` for a
    /// backend without such a key.
    fn only_namespaces(&self) -> Option<(&'static str, &[String])>;

    /// Everything because of which the backend cannot be built; nothing outside the settings is
    /// looked at.
    fn problems(&self) -> Vec<Problem>;

    /// What works and is not as it should be.
    fn warnings(&self) -> Vec<String>;

    /// The backend.
    fn build(&self, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, ConfigError>;
}

/// Something that is wrong with a backend's settings.
pub(crate) struct Problem {
    /// The keys that it is about, the first being the one to change.
    pub(crate) keys: Vec<&'static str>,
    /// What is wrong, naming the keys, and what to do.
    pub(crate) message: String,
}

/// The names of the backends that this build has.
pub fn backends_compiled_in() -> &'static [&'static str] {
    &NAMES
}

/// The backend of this name, if there is one and this build does not have it.
pub(crate) fn not_compiled_in(name: &str) -> Option<&'static str> {
    let known = KNOWN.into_iter().find(|known| *known == name)?;
    (!NAMES.contains(&known)).then_some(known)
}

/// What is wrong with the value of `backend`.
pub(crate) fn check_names(names: &[String]) -> Vec<String> {
    let in_this_build = if NAMES.is_empty() {
        "this build has no backend: build it with `--features prometheus`".to_owned()
    } else {
        format!("this build has {}", NAMES.join(", "))
    };
    if names.is_empty() {
        return vec![format!("names no backend; {in_this_build}")];
    }
    let mut problems = Vec::new();
    for name in names {
        if NAMES.contains(&name.as_str()) {
            continue;
        }
        let name = crate::layer::printable(name);
        problems.push(if not_compiled_in(&name).is_some() {
            format!("\"{name}\" is not compiled in; {in_this_build}")
        } else {
            match nearest(&name, KNOWN) {
                Some(near) => {
                    format!("\"{name}\" is no backend; did you mean \"{near}\"? {in_this_build}")
                }
                None => format!("\"{name}\" is no backend; {in_this_build}"),
            }
        });
    }
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(name.as_str())) {
        problems.push(format!("{twice:?} is named twice"));
    }
    problems
}

impl CollectorConfig {
    /// The settings of the chosen backends, in order of preference.
    pub(crate) fn chosen(&self) -> impl Iterator<Item = &Arc<dyn BackendSettings>> {
        self.backend.iter().filter_map(|name| self.sections.get(name.as_str()))
    }

    /// Whether values are renewed in the background: by asking for them, or by a backend that pushes.
    pub fn refreshes(&self) -> bool {
        !self.cache.fetch_interval.is_zero() || self.chosen().any(|settings| settings.pushes())
    }

    /// The section `[epp]`, whichever backend is chosen.
    #[cfg(feature = "epp")]
    pub fn epp(&self) -> Option<&collector_epp::EppConfig> {
        let section: &dyn Any = &**self.sections.get("epp")?;
        section.downcast_ref()
    }

    /// The chosen backends, in order of preference. Files that they need are read; nothing is sent.
    ///
    /// # Errors
    /// When a backend is not compiled in, or what its settings name cannot be used, such as a
    /// certificate file that does not exist.
    #[expect(clippy::needless_pass_by_value, reason = "the counterpart of `build`, which keeps it")]
    pub fn build_backends(
        &self,
        clock: Arc<dyn Clock>,
    ) -> Result<Vec<Arc<dyn Backend>>, ConfigErrors> {
        let mut errors: Vec<ConfigError> = check_names(&self.backend)
            .into_iter()
            .map(|message| ConfigError::new(message).key("backend"))
            .collect();
        let mut backends = Vec::new();
        for settings in self.chosen() {
            match settings.build(Arc::clone(&clock)) {
                Ok(backend) => backends.push(backend),
                Err(error) => errors.push(error),
            }
        }
        ConfigErrors::or(errors, backends)
    }

    /// A builder with everything set: the chosen backends as one, the variants and the cache as they are
    /// configured. A directory, cache or backend of one's own can be put in before it is built.
    ///
    /// # Errors
    /// As [`build_backends`](Self::build_backends).
    pub fn builder(&self, clock: Arc<dyn Clock>) -> Result<Builder, ConfigErrors> {
        let backends = self.build_backends(Arc::clone(&clock))?;
        self.builder_over(backends, clock)
    }

    /// The same over these backends, each with the limits that it has itself: those that
    /// [`build_backends`](Self::build_backends) made, perhaps wrapped in others, or any.
    ///
    /// # Errors
    /// When there is none, and when variants contradict each other.
    pub fn builder_over(
        &self,
        backends: Vec<Arc<dyn Backend>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Builder, ConfigErrors> {
        let directory = StaticDirectory::new(self.variants.clone())
            .map_err(|error| ConfigError::new(error.to_string()))?;
        let mut backends = backends.into_iter();
        let Some(first) = backends.next() else {
            return Err(ConfigError::new("names no backend").key("backend").into());
        };
        Ok(backends
            .fold(CachingCollector::builder(first), Builder::also)
            .config(self.cache.clone())
            .directory(Arc::new(directory))
            .max_tracked(self.server.max_tracked)
            .clock(clock))
    }

    /// The collector as it is configured. Its background worker is not started.
    ///
    /// # Errors
    /// As [`builder`](Self::builder), and when settings contradict each other.
    pub fn build(&self, clock: Arc<dyn Clock>) -> Result<CachingCollector, ConfigErrors> {
        Ok(self.builder(clock)?.build()?)
    }
}

/// The message with the causes that it does not tell itself.
#[cfg(any(feature = "epp", feature = "prometheus"))]
fn with_causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], expected: &[&str]) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let problems = check_names(&names);
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for (problem, part) in problems.iter().zip(expected) {
            assert!(problem.contains(part), "{problem:?} lacks {part:?}");
        }
    }

    #[test]
    fn a_backend_that_there_is_not_is_told_with_those_there_are() {
        check(
            &["promethius"],
            &["\"promethius\" is no backend; did you mean \"prometheus\"? this build has "],
        );
        check(&["graphite"], &["\"graphite\" is no backend; this build has "]);
        check(&[], &["names no backend; this build has "]);
    }

    #[cfg(not(feature = "epp"))]
    #[test]
    fn a_backend_that_this_build_does_not_have_is_told_with_those_it_has() {
        check(&["epp"], &["\"epp\" is not compiled in; this build has "]);
        check(&["epp", "x\n"], &["\"epp\"", "\"x\\n\" is no backend"]);
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
    fn a_build_without_a_backend_says_so() {
        assert!(backends_compiled_in().is_empty());
        check(&["prometheus"], &["\"prometheus\" is not compiled in; this build has no backend"]);
    }
}
