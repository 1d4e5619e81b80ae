// SPDX-License-Identifier: Apache-2.0
//! A backend whose answers are recorded. It answers as the backend in it does.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use collector_core::{
    Answers, Ask, Backend, BackendError, ErrorKind, KnownModel, Limits, ListAsk, LiveContext,
    LiveSource, ModelRef, Operation, PageGauges, Probe, ProbeAsk, Supports, UpdateSink,
    VariantDirectory,
};

use crate::recorder::Recorder;

pub(crate) struct RecordedBackend {
    pub(crate) inner: Arc<dyn Backend>,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) source: u32,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for RecordedBackend {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn supports(&self) -> Supports {
        self.inner.supports()
    }

    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Answers, BackendError> {
        let models = ask.models;
        let mut unanswered = Unanswered { of: Some(self), models };
        let answered = self.inner.fetch(ask).await;
        unanswered.of = None;
        match &answered {
            Ok(answers) => self.recorder.answered(self.source, models, answers),
            Err(error) => self.recorder.failed(self.source, models, error),
        }
        answered
    }

    async fn list_models(&self, ask: ListAsk<'_>) -> Result<Vec<KnownModel>, BackendError> {
        let listed = self.inner.list_models(ask).await;
        self.recorder.listed(self.source, &listed);
        listed
    }

    async fn probe(&self, ask: ProbeAsk<'_>) -> Result<Probe, BackendError> {
        self.inner.probe(ask).await
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        self.inner.live().map(|_| -> &dyn LiveSource { self })
    }

    fn gauges(&self) -> Option<&dyn PageGauges> {
        self.inner.gauges()
    }

    fn variants(&self) -> Option<Arc<dyn VariantDirectory>> {
        self.inner.variants()
    }
}

/// Records that there was no answer in time, when the engine drops the fetch: that is an outage too.
struct Unanswered<'a> {
    of: Option<&'a RecordedBackend>,
    models: &'a [ModelRef],
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some(backend) = self.of else { return };
        let subject = "the backend";
        let name = backend.inner.name().into();
        let error = BackendError::new(ErrorKind::Timeout, name, Operation::Fetch, subject);
        backend.recorder.failed(backend.source, self.models, &error);
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl LiveSource for RecordedBackend {
    fn tracked(&self, models: Arc<HashSet<ModelRef>>) {
        if let Some(live) = self.inner.live() {
            live.tracked(models);
        }
    }

    async fn run(&self, mut context: LiveContext) {
        let Some(live) = self.inner.live() else { return };
        let (recorder, source) = (Arc::clone(&self.recorder), self.source);
        context.sink = Arc::new(RecordedSink { inner: context.sink, recorder, source });
        live.run(context).await;
    }
}

struct RecordedSink {
    inner: Arc<dyn UpdateSink>,
    recorder: Arc<Recorder>,
    source: u32,
}

#[deny(clippy::missing_trait_methods)]
impl UpdateSink for RecordedSink {
    fn push(&self, answers: Answers) {
        self.recorder.answered(self.source, &[], &answers);
        self.inner.push(answers);
    }

    fn cycle_ended(&self) {
        self.recorder.cycle_ended(self.source);
        self.inner.cycle_ended();
    }
}
