// SPDX-License-Identifier: Apache-2.0
//! From settings to parts: the collector over the chosen backends.

use std::any::Any;
use std::error::Error;
use std::sync::Arc;

use collector_core::{Backend, Clock};
use collector_engine::{Builder, CachingCollector, StaticDirectory};

use crate::backend::BackendSettings;
use crate::cluster::Built;
use crate::directory::JoinedDirectory;
use crate::error::{ConfigError, ConfigErrors};
use crate::kubernetes;
use crate::schema::CollectorConfig;

/// A backend, and the name by which it was chosen: those of a recording have one name.
pub type NamedBackend = (String, Arc<dyn Backend>);

impl CollectorConfig {
    /// The settings of the chosen backends, in order of preference.
    pub(crate) fn chosen(&self) -> impl Iterator<Item = &Arc<dyn BackendSettings>> {
        self.backend.iter().filter_map(|name| self.sections.get(name.as_str()))
    }

    /// The settings of a backend by their type, whichever backend is chosen: `EppConfig` for example.
    pub fn settings_of<S: BackendSettings>(&self) -> Option<&S> {
        self.sections.values().find_map(of_type)
    }

    /// The same if the backend is chosen, otherwise `None`.
    pub fn chosen_settings_of<S: BackendSettings>(&self) -> Option<&S> {
        self.chosen().find_map(of_type)
    }

    /// The chosen backends, in order of preference. Files that they need are read; nothing is sent.
    ///
    /// # Errors
    /// When a backend is not registered, or what its settings name cannot be used, such as a
    /// certificate file that does not exist.
    pub fn build_backends(
        &self,
        clock: Arc<dyn Clock>,
    ) -> Result<Vec<Arc<dyn Backend>>, ConfigErrors> {
        let built = self.build_other_backends(clock, |_| Vec::new())?;
        Ok(built.into_iter().map(|(_, backend)| backend).collect())
    }

    /// The chosen backends, each with the name by which it was chosen, of which `existing` has some by these names: a
    /// reload keeps those whose settings are the same ([`Loaded::keeps_backend`](crate::Loaded::keeps_backend)), with what
    /// they know.
    ///
    /// # Errors
    /// As [`build_backends`](Self::build_backends).
    #[expect(clippy::needless_pass_by_value, reason = "as in the other methods that build")]
    pub fn build_other_backends(
        &self,
        clock: Arc<dyn Clock>,
        existing: impl Fn(&str) -> Vec<Arc<dyn Backend>>,
    ) -> Result<Vec<NamedBackend>, ConfigErrors> {
        let mut errors: Vec<ConfigError> = self
            .backends
            .check_chosen(&self.backend)
            .into_iter()
            .map(|message| ConfigError::new(message).key("backend"))
            .collect();
        let mut cluster = Built::default();
        // What was recorded is not mixed with what a cluster says now.
        if self.kubernetes.enabled && !self.is_recorded() {
            cluster.backends = existing(kubernetes::NAME);
            // Direct scraping may have its targets from the cluster: both are kept, or none.
            let is_kept = |name| !existing(name).is_empty();
            if cluster.backends.is_empty() || !self.scrape_of_cluster().is_none_or(is_kept) {
                match Built::new(self, &clock) {
                    Ok(built) => cluster = built,
                    Err(error) => errors.push(error),
                }
            }
        }
        let mut backends = Vec::new();
        for name in &self.backend {
            let mut its = match &cluster.scrape {
                Some(scrape) if self.scrape_of_cluster() == Some(name) => vec![Arc::clone(scrape)],
                _ => existing(name),
            };
            if its.is_empty()
                && let Some(settings) = self.sections.get(name.as_str())
            {
                match settings.build_all(Arc::clone(&clock)) {
                    Ok(built) => its = built,
                    Err(error) => errors.push(ConfigError::new(with_causes(&*error))),
                }
            }
            backends.extend(its.into_iter().map(|backend| (name.clone(), backend)));
        }
        let name = || kubernetes::NAME.to_owned();
        backends.extend(cluster.backends.into_iter().map(|backend| (name(), backend)));
        ConfigErrors::or(errors, backends)
    }

    /// Whether readings are those of a recording, and not of a server.
    pub fn is_recorded(&self) -> bool {
        self.chosen().any(|settings| settings.is_recorded())
    }

    /// How much faster time passes for the chosen backends, if a recording is replayed faster or slower than it was
    /// recorded.
    pub fn speed(&self) -> Option<f64> {
        self.chosen().find_map(|settings| settings.speed())
    }

    /// The clock at that [speed](Self::speed), for [`build`](Self::build) and for what shows ages; otherwise `machine`
    /// itself.
    pub fn clock(&self, machine: Arc<dyn Clock>) -> Arc<dyn Clock> {
        #[cfg(feature = "record")]
        if let Some(speed) = self.speed() {
            return Arc::new(collector_record::ReplayClock::new(machine, speed));
        }
        machine
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
        let found: Vec<_> = backends.iter().filter_map(Backend::variants).collect();
        let mut backends = backends.into_iter();
        let Some(first) = backends.next() else {
            return Err(ConfigError::new("names no backend").key("backend").into());
        };
        let mut cache = self.cache.clone();
        if self.is_recorded() {
            cache.snapshot_path = None;
        }
        Ok(backends
            .fold(CachingCollector::builder(first), Builder::also)
            .config(cache)
            .directory(Arc::new(JoinedDirectory::new(directory, found)))
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

pub(crate) fn of_type<S: BackendSettings>(settings: &Arc<dyn BackendSettings>) -> Option<&S> {
    let settings: &dyn Any = &**settings;
    settings.downcast_ref()
}

/// The message with the causes that it does not contain itself.
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
