// SPDX-License-Identifier: Apache-2.0
//! Load shapes, recorded from the simulated fleet: what a look at each second would have said.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use collector_core::window::peak;
use collector_engine::adaptive::Signal;
use collector_sim::{
    Arrivals, EngineSpec, Fleet, FleetSpec, Load, Shape, VariantSpec, VariantTruth, Variation,
};

/// What a reading's peaks and rates are taken over, in seconds: the collector's default.
const WINDOW: usize = 60;
const NAMESPACE: &str = "bench";

/// Models under one kind of load.
pub(crate) struct Recording {
    pub(crate) name: &'static str,
    /// Of each model, a signal a second.
    pub(crate) models: Vec<Vec<Signal>>,
}

/// How the load of one model behaves.
#[derive(Clone, Copy)]
enum Kind {
    /// Nothing arrives.
    Idle,
    /// As much all the time.
    Steady,
    /// Day and night, within so many minutes.
    Day(u64),
    /// Four times the load for a while, once in so many seconds.
    Bursts(u64),
    /// From little to much, once.
    Ramp,
    /// A ramp that falls back to its foot, again and again in so many seconds.
    Sawtooth(u64),
    /// A steady load over pods that come and go, one each so many seconds.
    Scaled(u64),
}

/// The load shapes: fleets of one kind, and one where most models do little, as in a real one.
pub(crate) fn all(seconds: usize) -> Result<Vec<Recording>> {
    // Periods that are no multiples of a ttl, or a policy could fall into step with the load.
    let bursts = [Kind::Bursts(431), Kind::Bursts(617), Kind::Bursts(883), Kind::Bursts(1237)];
    let saws = [Kind::Sawtooth(197), Kind::Sawtooth(331), Kind::Sawtooth(563), Kind::Sawtooth(947)];
    let days = [Kind::Day(31), Kind::Day(53), Kind::Day(97), Kind::Day(149)];
    let mut mixed = [Kind::Idle; 24].to_vec();
    mixed.extend([Kind::Steady; 8]);
    mixed.extend(days);
    mixed.extend(bursts);
    mixed.extend([Kind::Sawtooth(331), Kind::Sawtooth(947), Kind::Ramp, Kind::Scaled(311)]);
    [
        ("idle", vec![Kind::Idle; 4]),
        ("steady", vec![Kind::Steady; 4]),
        ("day curve", days.to_vec()),
        ("bursts", bursts.to_vec()),
        ("ramp", vec![Kind::Ramp; 4]),
        ("sawtooth", saws.to_vec()),
        ("pods come and go", vec![Kind::Scaled(311), Kind::Scaled(499)]),
        ("mixed fleet", mixed),
    ]
    .into_iter()
    .map(|(name, kinds)| Ok(Recording { name, models: record(&kinds, seconds)? }))
    .collect()
}

impl Kind {
    fn shape(self, place: u64) -> Shape {
        // Not all at once.
        let after = Duration::from_secs(97 * place);
        match self {
            Self::Idle => Shape::Idle,
            Self::Steady | Self::Scaled(_) => Shape::Steady,
            Self::Day(minutes) => {
                Shape::Wave { period: Duration::from_secs(60 * minutes), low: 0.1 }
            }
            Self::Bursts(seconds) => Shape::Burst {
                factor: 4.0,
                every: Duration::from_secs(seconds),
                lasts: Duration::from_secs(60),
                after,
            },
            Self::Ramp => Shape::Ramp { from: 0.2, to: 2.0, over: Duration::from_secs(600), after },
            Self::Sawtooth(seconds) => Shape::Ramp {
                from: 0.1,
                to: 2.0,
                over: Duration::from_secs(seconds),
                after: Duration::ZERO,
            },
        }
    }

    /// What somebody does to the fleet at a second.
    fn drive(self, fleet: &mut Fleet, name: &str, second: usize) -> Result<()> {
        match self {
            Self::Sawtooth(seconds) if (second as u64).is_multiple_of(seconds) => {
                let load = fleet.load(NAMESPACE, name)?;
                fleet.set_load(NAMESPACE, name, load)?;
            }
            Self::Scaled(seconds) if second > 0 && (second as u64).is_multiple_of(seconds) => {
                // Up to four, and down to two again.
                let pods = fleet.pods().filter(|pod| pod.1.starts_with(name)).count();
                let up = (second as u64 / seconds) % 4 < 2;
                if up {
                    fleet.add_pod(NAMESPACE, name)?;
                } else if pods > 2 {
                    let last = fleet.pods().map(|pod| pod.1.to_owned());
                    let last = last.filter(|pod| pod.starts_with(name)).last();
                    fleet.delete_pod(NAMESPACE, &last.unwrap_or_default())?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn record(kinds: &[Kind], seconds: usize) -> Result<Vec<Vec<Signal>>> {
    let names: Vec<String> = (0..kinds.len()).map(|place| format!("model-{place:02}")).collect();
    let variants = kinds.iter().zip(&names).enumerate().map(|(place, (kind, name))| {
        let mut variant = VariantSpec::new(name, name, NAMESPACE);
        variant.engine =
            EngineSpec { max_num_seqs: 64, num_gpu_blocks: 4000, ..EngineSpec::default() };
        variant.load = Load {
            requests_per_minute: 400.0,
            shape: kind.shape(place as u64),
            prompt_tokens: 600,
            output_tokens: 300,
            itl: Duration::from_millis(30),
            arrivals: Arrivals::Poisson,
            variation: Variation::Spread,
            ..Load::default()
        };
        variant
    });
    let spec = FleetSpec { seed: 7, variants: variants.collect(), ..FleetSpec::default() };
    let mut fleet = Fleet::new(spec, SystemTime::UNIX_EPOCH)?;
    let mut readers: Vec<Reader> = kinds.iter().map(|_| Reader::default()).collect();
    let mut models = vec![Vec::with_capacity(seconds); kinds.len()];
    // The first window is no reading yet.
    for second in 0..seconds + WINDOW {
        fleet.advance_to(Duration::from_secs(second as u64));
        for (kind, name) in kinds.iter().zip(&names) {
            kind.drive(&mut fleet, name, second)?;
        }
        for (place, truth) in fleet.variants().iter().enumerate() {
            let model = fleet.model_truth(NAMESPACE, &truth.model);
            let arrived = model.map_or(0, |model| model.totals.arrived);
            let signal = readers[place].read(truth, arrived);
            if second >= WINDOW {
                models[place].push(signal);
            }
        }
    }
    Ok(models)
}

/// Makes of the truth what the collector's fields are defined to be.
#[derive(Default)]
struct Reader {
    /// Of each pod, its KV usage and queue in the window.
    pods: HashMap<String, VecDeque<(f64, f64)>>,
    arrived: VecDeque<u64>,
}

impl Reader {
    fn read(&mut self, truth: &VariantTruth, arrived: u64) -> Signal {
        let alive = || truth.pods.iter().filter_map(|(name, pod)| Some((name, pod.as_ref()?)));
        self.pods.retain(|known, _| alive().any(|(name, _)| name == known));
        let (mut usage, mut waiting, mut running, mut replicas) = (0.0, 0.0, 0.0, 0);
        for (name, pod) in alive() {
            let samples = self.pods.entry(name.clone()).or_default();
            push(samples, (pod.kv_cache_usage(), f64::from(pod.waiting())), WINDOW);
            usage += peak(samples.iter().map(|sample| sample.0)).unwrap_or_default();
            waiting += peak(samples.iter().map(|sample| sample.1)).unwrap_or_default();
            running += f64::from(pod.running());
            replicas += 1;
        }
        // A rate needs both ends of the window.
        push(&mut self.arrived, arrived, WINDOW + 1);
        let first = self.arrived.front().copied().unwrap_or_default();
        Signal::new(
            replicas,
            (replicas > 0).then(|| usage / f64::from(replicas)),
            Some(waiting),
            Some(running),
            Some((arrived - first) as f64 * 60.0 / WINDOW as f64),
        )
    }
}

fn push<T>(samples: &mut VecDeque<T>, sample: T, most: usize) {
    if samples.len() == most {
        samples.pop_front();
    }
    samples.push_back(sample);
}
