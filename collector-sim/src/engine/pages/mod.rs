// SPDX-License-Identifier: Apache-2.0
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

/// Everything that a pod's page shows at one instant.
#[derive(Debug, Clone)]
pub(crate) struct PodView {
    /// The start of the process, in seconds since the Unix epoch.
    pub(crate) started: f64,
    /// The Unix time of simulated time zero.
    pub(crate) epoch: Duration,
    /// Sorted by their label.
    pub(crate) engines: Vec<Snapshot>,
    /// The counters of all engines, if there are several.
    sum: Option<Box<Counters>>,
    /// Gauges that show a false value.
    pub(crate) lie: Option<Lie>,
}

/// A false value of a gauge.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lie {
    /// NaN.
    NotANumber,
    /// Minus the true value, minus one.
    Negative,
    /// Usage of the KV cache above 1.
    KvAboveOne,
}

/// The source of a series' numbers.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Engine(usize),
    Pod,
}

impl PodView {
    /// Makes a view; `engines` is the state of each engine, at least one.
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

    /// The view of a pod without engines: everything that does not change.
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

    /// The KV blocks in use and their number.
    fn used_blocks(&self, engine: usize, blocks: u32) -> f64 {
        (self.gauges(engine).kv_cache_usage * f64::from(blocks)).round()
    }
}

/// Makes the page of a pod that serves `model`.
pub(crate) fn template(model: &str, spec: &EngineSpec) -> Template<PodView> {
    let plain = layout(model, spec, 0);
    let wanted = spec.page_bytes.map_or(0, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    match wanted.saturating_sub(plain.len()) {
        0 => plain.finish(),
        // The additions belong to existing families, so the page is laid out again.
        padding => layout(model, spec, padding).finish(),
    }
}

/// Makes the page with additional series of one of the server's families, up to this many bytes.
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
