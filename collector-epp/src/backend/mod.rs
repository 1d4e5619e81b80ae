// SPDX-License-Identifier: Apache-2.0
//! [`Backend`] for pods that are scraped directly.
//!
//! The `fleet` holds the last scrape of each pod. While the live source runs (`live`), it scrapes every pod once an
//! interval and pushes models that changed; otherwise a fetch scrapes the pods of its namespaces itself (`fetch`). In
//! both cases `answers` makes the answer about a model.

mod answers;
mod endpoint_picker;
mod fetch;
mod fleet;
mod gauges;
mod live;
mod pod;
mod probe;
mod replicas;
mod shared;
mod trace;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use collector_core::{
    Answers, Ask, Backend, BackendError, Clock, KnownModel, Limits, ListAsk, LiveContext,
    LiveSource, ModelRef, Operation, PageGauges, Probe, ProbeAsk, Supports,
};
use collector_transport::ConfigError;

use crate::NAME;
use crate::config::EppConfig;
use crate::discover::{Discovery, DnsTargets, FileTargets, FixedTargets};
use answers::Wish;
use shared::Shared;

/// Reads model servers directly.
///
/// While its [`LiveSource`] runs, every pod is scraped once an interval and a fetch answers from memory. Without it, a
/// fetch scrapes each pod of the requested namespaces, and twice if it was not scraped recently, because a rate needs
/// two samples.
pub struct EppBackend {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for EppBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EppBackend").field("targets", &self.shared.fleet.count()).finish()
    }
}

impl EppBackend {
    /// A backend for the targets of `config`. Reads tokens and certificates, and sends nothing.
    ///
    /// # Errors
    /// The first setting or file that cannot work, with its key and path.
    pub fn new(config: EppConfig, clock: Arc<dyn Clock>) -> Result<Self, ConfigError> {
        Self::of_sources(config, Vec::new(), clock)
    }

    /// A backend for targets that others find, and for those of `config`, if it names any.
    ///
    /// # Errors
    /// The first setting or file that cannot work, with its key and path.
    pub fn with_discovery(
        config: EppConfig,
        others: Vec<Box<dyn Discovery>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        Self::of_sources(EppConfig { others_find_targets: true, ..config }, others, clock)
    }

    fn of_sources(
        config: EppConfig,
        others: Vec<Box<dyn Discovery>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ConfigError> {
        if let Err(errors) = config.validate()
            && let Some(first) = errors.into_iter().next()
        {
            return Err(first);
        }
        crate::selfmetrics::register();
        endpoint_picker::register();
        let mut sources = sources(&config);
        sources.extend(others);
        Ok(Self { shared: Arc::new(Shared::new(config, sources, clock)?) })
    }
}

/// The sources of targets that are set. They were checked with the rest of the settings.
fn sources(config: &EppConfig) -> Vec<Box<dyn Discovery>> {
    let mut sources: Vec<Box<dyn Discovery>> = Vec::new();
    if !config.targets.is_empty() {
        let targets = config.targets.iter().filter_map(|spec| spec.target().ok()).collect();
        sources.push(Box::new(FixedTargets::new(targets)));
    }
    if let Some(path) = &config.target_file {
        sources.push(Box::new(FileTargets::new(path)));
    }
    for spec in &config.dns {
        sources.push(Box::new(DnsTargets::new(spec.clone())));
    }
    sources
}

#[async_trait]
impl Backend for EppBackend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self) -> Supports {
        Supports::ALL
    }

    /// Each pod is a server of its own, and is scraped once an interval: their number is no limit.
    fn limits(&self) -> Limits {
        Limits::new(self.shared.config.effective_timeout())
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        if ask.models.is_empty() {
            return Ok(Answers::new());
        }
        let fetched = fetch::fetch(&self.shared, ask).await;
        let not_before = fetched.map_err(|error| self.shared.in_users_words(error))?;
        let trace = ask.trace.then_some(&self.shared.engines);
        let window = self.shared.config.window;
        let picker_required = self.shared.config.picker_required;
        let wish = Wish { not_before, window, trace, picker_required };
        Ok(self.shared.answers(ask.models, wish))
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        let listed = fetch::list_models(&self.shared, ask).await;
        listed.map_err(|error| self.shared.in_users_words(error))
    }

    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        let not_before =
            fetch::scrape_every_pod(&self.shared, ask.time_left, Operation::Probe).await;
        let mut probe = probe::probe(&self.shared, not_before);
        for check in &mut probe.checks {
            check.detail = self.shared.config.with_section(&check.detail);
            let remedy = check.remedy.take();
            check.remedy = remedy.map(|remedy| self.shared.config.with_section(&remedy));
        }
        Ok(probe)
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        Some(self)
    }

    fn gauges(&self) -> Option<&dyn PageGauges> {
        Some(self)
    }
}

#[async_trait]
impl LiveSource for EppBackend {
    fn tracked(&self, models: Arc<HashSet<ModelRef>>) {
        self.shared.track(models);
    }

    async fn run(&self, context: LiveContext) {
        live::run(&self.shared, context.sink).await;
    }
}
