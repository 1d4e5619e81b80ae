//! One variant: the stream of requests to it, and the pods that share them.

use std::time::Duration;

use crate::engine::{Engine, PodPage, Snapshot};
use crate::spec::VariantSpec;
use crate::truth::{Gauges, PodTruth, Totals};

/// The pods of one variant and the stream of requests to them.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) spec: VariantSpec,
    pub(crate) pods: Vec<Pod>,
    /// Requests that found no pod alive.
    pub(crate) refused: u64,
    now: Duration,
    rng: fastrand::Rng,
    next_arrival: Option<Duration>,
    /// Requests sent to pods so far: they take turns.
    turn: usize,
    /// The number of the next pod. Names of deleted pods are not used again.
    next_pod: u32,
    /// What earlier lives of pods have done.
    past: Totals,
}

#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// `None` while it is dead.
    life: Option<Life>,
    /// Gauges set by hand, by engine. They outlive a restart.
    pins: Vec<Option<Gauges>>,
}

/// A pod's process, from its start on.
#[derive(Debug)]
struct Life {
    started: Duration,
    engines: Vec<Engine>,
}

impl Variant {
    /// A variant whose load begins at time zero.
    pub(crate) fn new(spec: VariantSpec, mut rng: fastrand::Rng) -> Self {
        let mut variant = Self {
            next_arrival: spec.load.gap(&mut rng),
            pods: Vec::new(),
            refused: 0,
            now: Duration::ZERO,
            rng,
            turn: 0,
            next_pod: 0,
            past: Totals::default(),
            spec,
        };
        for _ in 0..variant.spec.pods {
            variant.add_pod();
        }
        variant
    }

    /// Lets everything happen that lies before `now`.
    pub(crate) fn advance_to(&mut self, now: Duration) {
        while let Some(at) = self.next_arrival
            && at <= now
        {
            let request = self.spec.load.request(&mut self.rng);
            match self.next_engine() {
                Some(engine) => engine.arrive(at, request),
                None => self.refused += 1,
            }
            self.next_arrival = self.spec.load.gap(&mut self.rng).map(|gap| at + gap);
        }
        self.now = now;
    }

    /// The engine whose turn it is: each living pod in turn, and within a pod each engine in turn.
    fn next_engine(&mut self) -> Option<&mut Engine> {
        let turn = self.turn;
        let alive = self.alive();
        let life = self
            .pods
            .iter_mut()
            .filter_map(|pod| pod.life.as_mut())
            .nth(turn.checked_rem(alive)?)?;
        self.turn += 1;
        let engine = (turn / alive) % life.engines.len();
        life.engines.get_mut(engine)
    }

    /// How many pods are alive.
    pub(crate) fn alive(&self) -> usize {
        self.pods.iter().filter(|pod| pod.life.is_some()).count()
    }

    pub(crate) fn index_of(&self, pod: &str) -> Option<usize> {
        self.pods.iter().position(|candidate| candidate.name == pod)
    }

    /// From now on the load has another rate.
    pub(crate) fn set_requests_per_minute(&mut self, requests_per_minute: f64) {
        self.spec.load.requests_per_minute = requests_per_minute;
        self.next_arrival = self.spec.load.gap(&mut self.rng).map(|gap| self.now + gap);
    }

    /// Adds a pod that starts now, and returns its name.
    pub(crate) fn add_pod(&mut self) -> String {
        let name = format!("{}-{}", self.spec.name, self.next_pod);
        self.next_pod += 1;
        let pins = (0..self.spec.engine.engines).map(|_| None).collect();
        let life = Some(self.new_life());
        self.pods.push(Pod { name: name.clone(), life, pins });
        name
    }

    fn new_life(&self) -> Life {
        let engine = || Engine::new(&self.spec.engine, self.spec.load.prefix_hit_ratio);
        Life {
            started: self.now,
            engines: (0..self.spec.engine.engines).map(|_| engine()).collect(),
        }
    }

    /// The process dies, and its requests with it.
    pub(crate) fn kill_pod(&mut self, index: usize) {
        if let Some(truth) = self.truth(index) {
            self.past += truth.totals;
        }
        self.pods[index].life = None;
    }

    /// A new process, whose counters begin at zero.
    pub(crate) fn restart_pod(&mut self, index: usize) {
        self.kill_pod(index);
        self.pods[index].life = Some(self.new_life());
    }

    pub(crate) fn delete_pod(&mut self, index: usize) {
        self.kill_pod(index);
        self.pods.remove(index);
    }

    /// Lets an engine show these gauges, whatever it does. False when there is no such engine.
    pub(crate) fn pin(&mut self, index: usize, engine: usize, gauges: Gauges) -> bool {
        let pin = self.pods[index].pins.get_mut(engine);
        pin.map(|pin| *pin = Some(gauges)).is_some()
    }

    pub(crate) fn unpin(&mut self, index: usize) {
        self.pods[index].pins.fill(None);
    }

    /// What a pod's engines show now, and when its process started; `None` when it is dead.
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
            totals,
        })
    }

    /// Everything that all pods have ever done.
    pub(crate) fn totals(&mut self) -> Totals {
        let mut totals = self.past;
        for index in 0..self.pods.len() {
            if let Some(truth) = self.truth(index) {
                totals += truth.totals;
            }
        }
        totals
    }

    /// What a pod's page is rendered from; `epoch` is the Unix time of simulated time zero.
    pub(crate) fn page(&mut self, index: usize, epoch: Duration) -> Option<PodPage> {
        let (started, engines) = self.look(index)?;
        Some(PodPage {
            model: self.spec.model.clone(),
            spec: self.spec.engine.clone(),
            started: (epoch + started).as_secs_f64(),
            engines,
        })
    }
}
