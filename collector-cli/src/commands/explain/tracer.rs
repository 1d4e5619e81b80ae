// SPDX-License-Identifier: Apache-2.0
//! A backend whose fetches are traced and kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, KnownModel, Limits, ListAsk, LiveSource, ModelRef,
    PageGauges, Probe, ProbeAsk, Supports, TraceRow, VariantDirectory,
};

use crate::output::{FetchOutcome, TracedFetch};

/// Wraps a backend.
pub(super) struct Tracer {
    backend: Arc<dyn Backend>,
    fetches: Mutex<HashMap<ModelRef, (FetchOutcome, Vec<TraceRow>)>>,
}

impl Tracer {
    pub(super) fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, fetches: Mutex::default() }
    }

    /// The last fetch of a model.
    pub(super) fn last_fetch(&self, model: &ModelRef) -> TracedFetch {
        let (outcome, rows) =
            self.lock().remove(model).unwrap_or_else(|| (FetchOutcome::NotYet, Vec::new()));
        TracedFetch { backend: self.backend.name().into(), outcome, rows }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ModelRef, (FetchOutcome, Vec<TraceRow>)>> {
        // Each change is one insertion, so a panic elsewhere leaves nothing half done.
        self.fetches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Tracer {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn supports(&self) -> Supports {
        self.backend.supports()
    }

    fn limits(&self) -> Limits {
        self.backend.limits()
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        let mut traced = ask;
        traced.trace = true;
        let result = self.backend.fetch(traced).await;
        let mut fetches = self.lock();
        match &result {
            Ok(answers) => {
                for (model, answer) in answers.iter() {
                    let (outcome, rows) = match answer {
                        Answer::Found(sample) => {
                            (FetchOutcome::Found(sample.as_of), sample.trace.clone())
                        }
                        Answer::Missing { as_of, .. } => {
                            (FetchOutcome::Missing(*as_of), Vec::new())
                        }
                        Answer::Failed(error) => {
                            (FetchOutcome::Failed(error.to_string()), Vec::new())
                        }
                        _ => continue,
                    };
                    fetches.insert(model.clone(), (outcome, rows));
                }
            }
            Err(error) => {
                for model in ask.models {
                    let failed = FetchOutcome::Failed(error.to_string());
                    fetches.insert(model.clone(), (failed, Vec::new()));
                }
            }
        }
        drop(fetches);
        result
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        self.backend.list_models(ask).await
    }

    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        self.backend.probe(ask).await
    }

    /// Only fetches are traced, so nothing may be pushed.
    fn gauges(&self) -> Option<&dyn PageGauges> {
        self.backend.gauges()
    }

    fn variants(&self) -> Option<Arc<dyn VariantDirectory>> {
        self.backend.variants()
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        None
    }
}
