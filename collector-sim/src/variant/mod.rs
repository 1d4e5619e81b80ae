// SPDX-License-Identifier: Apache-2.0
//! One variant: the stream of requests to it, and the pods that share them.

mod sending;

use std::sync::Arc;
use std::time::Duration;

use crate::arrivals::Stream;
use crate::engine::{Counters, Engine, PodView, Snapshot, Template, template};
use crate::load::Load;
use crate::picker::{Flow, FlowControl, PoolModel, PoolPod};
use crate::shape::Shape;
use crate::spec::{VariantSpec, check_rate};
use crate::truth::{Gauges, LoraTruth, PodTruth, Totals, VariantTruth};
use sending::Sender;

/// The pods of one variant and the stream of requests to them.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) spec: VariantSpec,
    pub(crate) pods: Vec<Pod>,
    /// Requests without a pod.
    pub(crate) refused: u64,
    /// The page template of each pod.
    template: Arc<Template<PodView>>,
    now: Duration,
    rng: fastrand::Rng,
    stream: Stream,
    /// Requests received so far.
    received: u64,
    /// Requests sent to pods so far, in turn.
    turn: usize,
    /// The number of the next pod. Names of deleted pods are not used again.
    next_pod: u32,
    /// The counters of former processes of pods.
    past: Counters,
    sender: Sender,
}

#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// `None` while it is dead.
    life: Option<Life>,
    /// Requests sent to it, over all restarts.
    sent: u64,
    /// Pinned gauges, by engine. They survive a restart.
    pins: Vec<Option<Gauges>>,
}

impl Pod {
    pub(crate) fn is_alive(&self) -> bool {
        self.life.is_some()
    }
}

/// A pod's process since its start.
#[derive(Debug)]
struct Life {
    started: Duration,
    engines: Vec<Engine>,
}

impl Variant {
    /// Makes a variant whose load starts at time zero, multiplied by `hot`. `picker`: whether an Endpoint
    /// Picker sends its requests, and whether it queues them.
    pub(crate) fn new(
        spec: VariantSpec,
        hot: Shape,
        picker: Option<bool>,
        mut rng: fastrand::Rng,
    ) -> Self {
        let sender = match picker {
            None => Sender::Clients,
            Some(false) => Sender::Picker,
            Some(true) => Sender::FlowControl(FlowControl::new()),
        };
        let mut variant = Self {
            template: Arc::new(template(&spec.model, &spec.engine)),
            stream: Stream::new(&spec.load, hot, Duration::ZERO, &mut rng),
            past: Counters::new(&spec.engine, picker.is_some()),
            pods: Vec::new(),
            refused: 0,
            now: Duration::ZERO,
            rng,
            received: 0,
            turn: 0,
            next_pod: 0,
            sender,
            spec,
        };
        for _ in 0..variant.spec.pods {
            variant.add_pod();
        }
        variant
    }

    /// Processes all events before `now`.
    pub(crate) fn advance_to(&mut self, now: Duration) {
        loop {
            let arrival = self.stream.peek(&self.spec.load, now);
            // Only queued requests depend on events in pods.
            let event = self.next_event().filter(|at| *at <= now);
            match (arrival, event) {
                (Some(at), event) if event.is_none_or(|event| at <= event) => self.arrive(at),
                (_, Some(at)) => self.release(at),
                (_, None) => break,
            }
        }
        self.now = now;
    }

    /// Returns the number of live pods.
    pub(crate) fn alive(&self) -> usize {
        self.pods.iter().filter(|pod| pod.life.is_some()).count()
    }

    pub(crate) fn index_of(&self, pod: &str) -> Option<usize> {
        self.pods.iter().position(|candidate| candidate.name == pod)
    }

    /// Returns the current requests per minute.
    pub(crate) fn requests_per_minute(&self) -> f64 {
        self.stream.rate(&self.spec.load, self.now).0
    }

    /// Returns the number of requests that the picker queues.
    pub(crate) fn held(&self) -> u64 {
        match &self.sender {
            Sender::FlowControl(flow) => flow.held(),
            Sender::Clients | Sender::Picker => 0,
        }
    }

    /// Returns whether it can be under that load while its model is the hot one.
    pub(crate) fn check_hot(&self, load: &Load) -> Result<(), String> {
        check_rate(load.requests_per_minute * load.shape.peak() * self.stream.hot_peak())
            .map_err(|problem| format!("while its model is hot, {problem}"))
    }

    /// Changes the load; its shape starts now.
    pub(crate) fn set_load(&mut self, load: Load) {
        self.spec.load = load;
        self.stream.restart(&self.spec.load, self.now, &mut self.rng);
        let ratio = self.spec.load.prefix_hit_ratio;
        for life in self.pods.iter_mut().filter_map(|pod| pod.life.as_mut()) {
            life.engines.iter_mut().for_each(|engine| engine.set_prefix_hit_ratio(ratio));
        }
    }

    /// Adds a pod that starts now, and returns its name.
    pub(crate) fn add_pod(&mut self) -> String {
        let name = format!("{}-{}", self.spec.name, self.next_pod);
        self.next_pod += 1;
        let pins = (0..self.spec.engine.engines).map(|_| None).collect();
        let life = Some(self.new_life());
        self.pods.push(Pod { name: name.clone(), life, sent: 0, pins });
        self.release(self.now);
        name
    }

    fn new_life(&self) -> Life {
        let ratio = self.spec.load.prefix_hit_ratio;
        let engine = || Engine::new(&self.spec.engine, ratio, self.past.picker.is_some());
        Life {
            started: self.now,
            engines: (0..self.spec.engine.engines).map(|_| engine()).collect(),
        }
    }

    /// Kills the process and loses its requests.
    pub(crate) fn kill_pod(&mut self, index: usize) {
        if let Some((_, engines)) = self.look(index) {
            for engine in &engines {
                self.past.add(&engine.counters);
            }
        }
        self.pods[index].life = None;
    }

    /// Starts a new process, whose counters start at zero.
    pub(crate) fn restart_pod(&mut self, index: usize) {
        self.kill_pod(index);
        self.pods[index].life = Some(self.new_life());
        self.release(self.now);
    }

    pub(crate) fn delete_pod(&mut self, index: usize) {
        self.kill_pod(index);
        self.pods.remove(index);
    }

    /// Makes an engine show these gauges, whatever its state. Returns false if there is no such engine.
    pub(crate) fn pin(&mut self, index: usize, engine: usize, gauges: Gauges) -> bool {
        let pin = self.pods[index].pins.get_mut(engine);
        pin.map(|pin| *pin = Some(gauges)).is_some()
    }

    pub(crate) fn unpin(&mut self, index: usize) {
        self.pods[index].pins.fill(None);
    }

    /// Returns the state of a pod's engines and the start of its process; `None` if it is dead.
    fn look(&mut self, index: usize) -> Option<(Duration, Vec<Snapshot>)> {
        let now = self.now;
        let pod = &mut self.pods[index];
        let life = pod.life.as_mut()?;
        let engines = life
            .engines
            .iter_mut()
            .zip(&pod.pins)
            .map(|(engine, pin)| {
                let snapshot = engine.look(now);
                Snapshot { gauges: pin.unwrap_or(snapshot.gauges), ..snapshot }
            })
            .collect();
        Some((life.started, engines))
    }

    pub(crate) fn truth(&mut self, index: usize) -> Option<PodTruth> {
        let (_, engines) = self.look(index)?;
        let mut totals = Totals::default();
        for engine in &engines {
            totals += engine.counters.totals();
        }
        Some(PodTruth {
            engines: engines.iter().map(|engine| engine.gauges).collect(),
            num_gpu_blocks: self.spec.engine.num_gpu_blocks,
            block_size: self.spec.engine.block_size,
            lora: self.lora(index),
            totals,
        })
    }

    pub(crate) fn full_truth(&mut self) -> VariantTruth {
        let names: Vec<String> = self.pods.iter().map(|pod| pod.name.clone()).collect();
        let pods = names.into_iter().enumerate().map(|(index, name)| (name, self.truth(index)));
        VariantTruth {
            pods: pods.collect(),
            namespace: self.spec.namespace.clone(),
            name: self.spec.name.clone(),
            model: self.spec.model.clone(),
            engine: self.spec.engine.label().to_owned(),
            load: self.spec.load.clone(),
            requests_per_minute: self.requests_per_minute(),
            held: self.held(),
            refused: self.refused,
        }
    }

    fn lora(&self, index: usize) -> Option<LoraTruth> {
        let names = &self.spec.engine.lora_adapters;
        let present = self.pods[index].life.as_ref()?.engines.first()?.adapters()?;
        let with_names = |adapters: &[u16]| {
            adapters.iter().map(|adapter| names[usize::from(*adapter)].clone()).collect()
        };
        Some(LoraTruth {
            running: with_names(&present.running),
            waiting: with_names(&present.waiting),
            max: u32::try_from(names.len()).unwrap_or(u32::MAX),
        })
    }

    /// Returns the totals of all pods, including removed ones.
    pub(crate) fn totals(&mut self) -> Totals {
        let mut totals = self.past.totals();
        for index in 0..self.pods.len() {
            if let Some((_, engines)) = self.look(index) {
                for engine in &engines {
                    totals += engine.counters.totals();
                }
            }
        }
        totals
    }

    /// Returns the input and the template of a pod's page; `epoch` is the Unix time of simulated time zero.
    pub(crate) fn page(
        &mut self,
        index: usize,
        epoch: Duration,
    ) -> Option<(Arc<Template<PodView>>, PodView)> {
        let (started, engines) = self.look(index)?;
        let started = (epoch + started).as_secs_f64();
        Some((Arc::clone(&self.template), PodView::new(started, epoch, engines)))
    }

    /// Returns the picker's view of the variant.
    pub(crate) fn pool(&mut self) -> (PoolModel, Vec<PoolPod>) {
        let mut counters = self.past.clone();
        let mut pods = Vec::new();
        for index in 0..self.pods.len() {
            let Some((_, engines)) = self.look(index) else { continue };
            for engine in &engines {
                counters.add(&engine.counters);
            }
            let gauges: Vec<Gauges> = engines.iter().map(|engine| engine.gauges).collect();
            pods.push(PoolPod {
                name: self.pods[index].name.clone(),
                model: self.spec.model.clone(),
                waiting: gauges.iter().map(|gauges| gauges.waiting).sum(),
                running: gauges.iter().map(|gauges| gauges.running).sum(),
                kv_cache_usage: gauges.iter().map(|g| g.kv_cache_usage).fold(0.0, f64::max),
                sent: self.pods[index].sent,
            });
        }
        let flows = match &self.sender {
            Sender::FlowControl(flow) => flow.flows(),
            Sender::Clients | Sender::Picker => [Flow::new(), Flow::new()],
        };
        let model = PoolModel {
            model: self.spec.model.clone(),
            received: self.received,
            refused: self.refused,
            flows,
            counters: counters.picker,
        };
        (model, pods)
    }
}
