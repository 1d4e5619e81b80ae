//! The pages of the model servers, one file a server: their families, labels and buckets.

mod described;
mod python;
mod sglang;
mod triton;
mod trtllm;
mod vllm;

use std::time::Duration;

use crate::engine::counters::Counters;
use crate::engine::scheduler::Snapshot;
use crate::engine::template::{Layout, Template};
use crate::spec::{EngineKind, EngineSpec};
use crate::truth::Gauges;

/// All that a pod's page tells, at one instant.
#[derive(Debug, Clone)]
pub(crate) struct PodView {
    /// When the process started, as seconds since the Unix epoch.
    pub(crate) started: f64,
    /// The Unix time of simulated time zero.
    pub(crate) epoch: Duration,
    /// In the order of their label.
    pub(crate) engines: Vec<Snapshot>,
    /// What all engines have counted, where there are several.
    sum: Option<Box<Counters>>,
    /// Gauges that show another value than the true one.
    pub(crate) lie: Option<Lie>,
}

/// Changes what a gauge shows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lie {
    /// NaN.
    NotANumber,
    /// The true value below zero, less one.
    Negative,
    /// Usage of the KV cache above 1.
    KvAboveOne,
}

/// Whose numbers a series shows.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Engine(usize),
    Pod,
}

impl PodView {
    /// `engines` is what each engine shows; there is at least one.
    pub(crate) fn new(started: f64, epoch: Duration, engines: Vec<Snapshot>) -> Self {
        let sum = match engines.as_slice() {
            [first, others @ ..] if !others.is_empty() => {
                let mut sum = Box::new(first.counters.clone());
                for engine in others {
                    sum.add(&engine.counters);
                }
                Some(sum)
            }
            _ => None,
        };
        Self { started, epoch, engines, sum, lie: None }
    }

    /// What is told of a pod without engines: nothing that changes.
    fn nothing() -> Self {
        Self::new(0.0, Duration::ZERO, Vec::new())
    }

    fn counters(&self, whose: Whose) -> &Counters {
        match (whose, &self.sum) {
            (Whose::Engine(engine), _) => &self.engines[engine].counters,
            (Whose::Pod, Some(sum)) => sum,
            (Whose::Pod, None) => &self.engines[0].counters,
        }
    }

    fn gauges(&self, engine: usize) -> Gauges {
        self.engines[engine].gauges
    }

    fn waiting(&self, engine: usize) -> f64 {
        self.shown(f64::from(self.gauges(engine).waiting))
    }

    fn running(&self, engine: usize) -> f64 {
        self.shown(f64::from(self.gauges(engine).running))
    }

    fn kv_cache_usage(&self, engine: usize) -> f64 {
        let usage = self.gauges(engine).kv_cache_usage;
        match self.lie {
            Some(Lie::KvAboveOne) => 1.5 + usage,
            _ => self.shown(usage),
        }
    }

    fn shown(&self, truth: f64) -> f64 {
        match self.lie {
            Some(Lie::NotANumber) => f64::NAN,
            Some(Lie::Negative) => -1.0 - truth,
            Some(Lie::KvAboveOne) | None => truth,
        }
    }

    /// KV blocks in use, of so many.
    fn used_blocks(&self, engine: usize, blocks: u32) -> f64 {
        (self.gauges(engine).kv_cache_usage * f64::from(blocks)).round()
    }
}

/// The page of a pod that serves `model` as `spec` says.
pub(crate) fn template(model: &str, spec: &EngineSpec) -> Template<PodView> {
    let plain = layout(model, spec, 0);
    let wanted = spec.page_bytes.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    match wanted.saturating_sub(plain.len()) {
        0 => plain.finish(),
        // Within their families, so that they have to be laid out anew.
        padding => layout(model, spec, padding).finish(),
    }
}

/// With so many bytes of further series of one of the server's own families.
fn layout(model: &str, spec: &EngineSpec, padding: usize) -> Layout<PodView> {
    if let Some(described) = spec.described() {
        return described::layout(model, spec, &described);
    }
    match spec.kind {
        EngineKind::Vllm => vllm::layout(model, spec, padding),
        EngineKind::Sglang => sglang::layout(model, spec, padding),
        EngineKind::TrtllmServe => trtllm::layout(model, spec, padding),
        EngineKind::TritonTensorrtLlm => triton::layout(spec, padding),
    }
}
