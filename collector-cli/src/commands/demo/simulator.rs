//! The demo's backend: asks the simulated fleet itself, in process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use collector_core::{
    Answer, Ask, Backend, BackendError, Check, CheckStatus, Clock, KnownModel, LiveSource,
    LoadRates, LoadRow, ModelRef, ModelSample, Probe, ReplicaMetrics, Supports, Tick,
};
use collector_sim::{FleetServer, FleetSpec, PodTruth, Totals, VariantSpec};

/// Rates are means over so long.
const WINDOW: Duration = Duration::from_secs(60);

/// Asks a simulated fleet for its true state.
pub(super) struct Simulator {
    spec: FleetSpec,
    fleet: FleetServer,
    clock: Arc<dyn Clock>,
    /// The totals at earlier looks, oldest first. They are what a server would have in its
    /// database; the backend keeps no values.
    history: Mutex<HashMap<ModelRef, Vec<(Tick, Totals)>>>,
}

impl Simulator {
    /// A backend that asks `fleet`, which was started from `spec`.
    pub(super) fn new(spec: FleetSpec, fleet: FleetServer, clock: Arc<dyn Clock>) -> Self {
        // The load had been on for the time of the warm-up when the fleet started, from nothing.
        let began = clock.now() - spec.warm_up;
        let history = spec
            .variants
            .iter()
            .map(|variant| (model_of(variant), vec![(began, Totals::default())]))
            .collect();
        Self { spec, fleet, clock, history: Mutex::new(history) }
    }

    fn look(&self, model: &ModelRef) -> Answer {
        let as_of = self.clock.now();
        let (namespace, id) = (model.namespace.as_str(), model.model.as_str());
        let Some(truth) = self.fleet.model_truth(namespace, id) else {
            return Answer::Missing { as_of };
        };
        let mut sample = ModelSample::new(as_of, self.replicas(model, as_of));
        sample.load = vec![LoadRow { pod: None, rates: self.rates(model, as_of, truth.totals) }];
        Answer::Found(sample)
    }

    fn replicas(&self, model: &ModelRef, as_of: Tick) -> Vec<ReplicaMetrics> {
        let of_model: Vec<String> = self
            .spec
            .variants
            .iter()
            .filter(|variant| model_of(variant) == *model)
            .map(|variant| format!("{}-", variant.name))
            .collect();
        let targets = self.fleet.targets();
        targets
            .iter()
            .filter(|target| target.namespace == model.namespace.as_str())
            .filter(|target| of_model.iter().any(|name| target.pod.starts_with(name)))
            .filter_map(|target| {
                let truth = self.fleet.truth(&target.namespace, &target.pod)?;
                Some(replica(&target.pod, &truth, as_of))
            })
            .collect()
    }

    /// Rates between now and the oldest look within the window, or the one just before it.
    fn rates(&self, model: &ModelRef, as_of: Tick, totals: Totals) -> LoadRates {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let looks = history.entry(model.clone()).or_default();
        while looks.len() > 1 && looks[1].0.age(as_of) >= WINDOW {
            looks.remove(0);
        }
        let before = looks.first().copied();
        looks.push((as_of, totals));
        let Some((since, before)) = before.filter(|(since, _)| *since < as_of) else {
            return LoadRates::default();
        };
        let done = totals - before;
        let seconds = since.age(as_of).as_secs_f64();
        let rate = |count: u64| Some(count as f64 / seconds);
        LoadRates {
            requests: rate(done.finished),
            prompt_tokens: rate(done.prompt_tokens),
            generation_tokens: rate(done.output_tokens),
            ttft_seconds: Some(done.ttft.as_secs_f64() / seconds),
            ttft_count: rate(done.first_tokens),
            itl_seconds: Some(done.itl.as_secs_f64() / seconds),
            itl_count: rate(done.gaps),
        }
    }
}

fn model_of(variant: &VariantSpec) -> ModelRef {
    ModelRef::new(variant.model.as_str(), variant.namespace.as_str())
}

fn replica(pod: &str, truth: &PodTruth, as_of: Tick) -> ReplicaMetrics {
    let mut replica = ReplicaMetrics::new(pod, as_of);
    replica.engine = Some("vllm".into());
    replica.kv_cache_usage = Some(truth.kv_cache_usage());
    replica.queue_length = Some(truth.waiting().into());
    replica.running_requests = Some(truth.running().into());
    replica.num_gpu_blocks = Some(u64::from(truth.num_gpu_blocks) * truth.engines.len() as u64);
    replica.block_size = Some(truth.block_size.into());
    replica.prefix_cache_hit_rate = truth.totals.prefix_hit_ratio();
    replica
}

#[async_trait]
impl Backend for Simulator {
    fn name(&self) -> &'static str {
        "simulator"
    }

    fn supports(&self) -> Supports {
        let mut supports = Supports::ALL;
        supports.load_per_pod = false;
        supports
    }

    async fn fetch(&self, ask: Ask<'_>) -> Result<Vec<(ModelRef, Answer)>, BackendError> {
        let _permit = ask.permits.acquire().await?;
        let answers = ask.models.iter().map(|model| (model.clone(), self.look(model)));
        Ok(answers.collect())
    }

    async fn list_models(&self) -> Result<Vec<KnownModel>, BackendError> {
        let mut known: Vec<KnownModel> = self
            .history
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .map(|model| KnownModel {
                replicas: self
                    .fleet
                    .model_truth(model.namespace.as_str(), model.model.as_str())
                    .map(|truth| truth.pods),
                model: model.clone(),
            })
            .collect();
        known.sort_unstable();
        Ok(known)
    }

    async fn probe(&self) -> Result<Probe, BackendError> {
        let check = Check::new(
            "connection.process",
            CheckStatus::Pass,
            "the simulated fleet runs in this process",
        );
        Ok(Probe { checks: vec![check] })
    }

    fn live(&self) -> Option<&dyn LiveSource> {
        None
    }
}
