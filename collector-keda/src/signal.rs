// SPDX-License-Identifier: Apache-2.0
//! Signals: what an autoscaler is told about a model, computed from one reading. All of it is pure.

use std::sync::Arc;

use collector_core::{
    EndpointPicker, EngineName, Field, PodCounts, PodName, ReplicaMetrics, ReplicaState, Replicas,
    Supplied, Tick, VariantName,
};
use collector_engines::{Engines, Quantity};

pub use self::slo::{Latency, Slo};
use crate::positive::{GREATEST, Positive, positive};

mod slo;
mod supply;

/// The KV-cache usage at which a pod is full, and the requests that wait at it then: those of the endpoint picker's
/// own saturation.
const FULL_KV_CACHE: f64 = 0.8;
const FULL_QUEUE: f64 = 5.0;

/// A number that is computed from a reading.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Signal {
    /// Requests that wait at pods, and those that the endpoint picker holds back.
    Queue,
    /// Requests in the running batches.
    Running,
    /// KV-cache usage summed over pods: 1.5 is one and a half full caches.
    KvSum,
    /// The greatest KV-cache usage of a pod, 0 to 1.
    KvMax,
    /// How full the pool is; full at 1.
    Saturation,
    /// Seconds that prompts wait for their processing.
    BacklogSeconds {
        /// Prompt tokens a second that the replicas process at most.
        peak_prefill_throughput: Positive,
    },
    /// Requests that wait at pods.
    WaitingCapacity,
    /// The greatest of several signals, each divided by its target.
    Composite(Vec<Part>),
    /// A quantile of a latency, divided by its limit.
    SloRatio(Slo),
    /// Pods that a cluster lists as Ready, except those that sleep.
    SupplyReady,
    /// Pods that a cluster lists and that have not been Ready yet.
    SupplyStarting,
    /// Replicas that the specification of the workload asks for.
    SupplyWanted,
    /// Replicas that are wanted and not Ready.
    SupplyShortfall,
}

/// A signal within a composite one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Part {
    /// The signal.
    pub signal: Signal,
    /// What it is divided by.
    pub target: Positive,
}

impl Signal {
    pub(crate) const BACKLOG_SECONDS: &str = "backlog-seconds";
    pub(crate) const COMPOSITE: &str = "composite";
    pub(crate) const SLO_RATIO: &str = "slo-ratio";

    /// The names in metadata.
    pub const NAMES: [&str; 13] = [
        "queue",
        "running",
        "kv-sum",
        "kv-max",
        "saturation",
        Self::BACKLOG_SECONDS,
        "waiting-capacity",
        Self::COMPOSITE,
        Self::SLO_RATIO,
        "supply-ready",
        "supply-starting",
        "supply-wanted",
        "supply-shortfall",
    ];

    /// The signals that need no other keys than their name.
    pub const PLAIN: [Self; 10] = [
        Self::Queue,
        Self::Running,
        Self::KvSum,
        Self::KvMax,
        Self::Saturation,
        Self::WaitingCapacity,
        Self::SupplyReady,
        Self::SupplyStarting,
        Self::SupplyWanted,
        Self::SupplyShortfall,
    ];

    /// Returns the signal of a name, if it needs no other keys.
    pub fn plain(name: &str) -> Option<Self> {
        Self::PLAIN.into_iter().find(|signal| signal.name() == name)
    }

    /// The name in metadata.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Running => "running",
            Self::KvSum => "kv-sum",
            Self::KvMax => "kv-max",
            Self::Saturation => "saturation",
            Self::BacklogSeconds { .. } => Self::BACKLOG_SECONDS,
            Self::WaitingCapacity => "waiting-capacity",
            Self::Composite(_) => Self::COMPOSITE,
            Self::SloRatio(_) => Self::SLO_RATIO,
            Self::SupplyReady => "supply-ready",
            Self::SupplyStarting => "supply-starting",
            Self::SupplyWanted => "supply-wanted",
            Self::SupplyShortfall => "supply-shortfall",
        }
    }

    /// The target where the metadata have none.
    pub fn default_target(&self) -> Positive {
        match self {
            Self::Queue | Self::WaitingCapacity => const { positive(5.0) },
            Self::Running => const { positive(16.0) },
            Self::KvSum | Self::KvMax => const { positive(0.8) },
            Self::Saturation => const { positive(0.7) },
            Self::BacklogSeconds { .. } => const { positive(1.5) },
            Self::Composite(_)
            | Self::SloRatio(_)
            | Self::SupplyReady
            | Self::SupplyStarting
            | Self::SupplyWanted
            | Self::SupplyShortfall => const { positive(1.0) },
        }
    }

    /// The `metricType` of a trigger: `AverageValue` for what grows with the replicas, so that an HPA divides it by them,
    /// and `Value` for everything else.
    pub fn metric_type(&self) -> &'static str {
        match self {
            Self::Queue | Self::Running | Self::KvSum | Self::WaitingCapacity => "AverageValue",
            signal if signal.is_of_supply() => "AverageValue",
            _ => "Value",
        }
    }

    /// Returns whether it counts pods in a cluster, and no load.
    pub fn is_of_supply(&self) -> bool {
        matches!(
            self,
            Self::SupplyReady | Self::SupplyStarting | Self::SupplyWanted | Self::SupplyShortfall
        )
    }
}

/// A value with its age.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Measured {
    /// The value: finite, from 0 to 1e12.
    pub value: f64,
    /// When the oldest of the numbers that it is made of was sampled.
    pub sampled_at: Tick,
    /// The pods that it is made of.
    pub pods: usize,
}

/// Why a signal has no value.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Unknown {
    /// Some pods did not answer.
    Partial {
        /// How many there are in the reading, with those that answered a while ago.
        known: usize,
    },
    /// A field of a pod is unknown.
    Field {
        /// The pod.
        pod: PodName,
        /// The field.
        field: Field,
        /// Why, where the backend says so.
        reason: Option<Arc<str>>,
    },
    /// The model server does not export what the signal is made of.
    NotExported {
        /// The kind of model server.
        engine: EngineName,
        /// What it does not export.
        field: Field,
    },
    /// The endpoint picker does not answer, so what it holds back is unknown.
    PickerSilent {
        /// When it last answered.
        since: Option<Tick>,
        /// Why, in words.
        reason: Arc<str>,
        /// Nothing else is known to be there: no pod is alive.
        no_pods: bool,
    },
    /// The endpoint picker holds requests back, and does not export how many.
    PickerQueue,
    /// Requests wait, and how long their prompts are is not known.
    PromptLength,
    /// No pod is seen, and nothing says that there is none.
    NoPodSeen,
    /// No pod is seen, and the cluster lists some.
    PodsListed(PodCounts),
    /// No cluster is asked for pods.
    NoSupply,
    /// The cluster has no workload of the variant.
    NoWorkload,
    /// A workload does not say how many replicas it wants.
    NotWanted,
    /// No pod is seen, and the endpoint picker has requests running.
    PodsNotSeen {
        /// How many; `None` if it does not say.
        running: Option<u64>,
    },
    /// A pod has no histogram of the latency.
    Latency {
        /// The pod.
        pod: PodName,
        /// The latency.
        latency: Latency,
    },
    /// The histograms of the pods have buckets that cannot be joined.
    Buckets,
    /// Requests run, and none ended within the window.
    NothingEnded(Latency),
    /// The value cannot be true.
    Impossible(f64),
}

/// A reading, narrowed to a variant if one is asked for.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The replicas of the model.
    pub replicas: &'a Replicas,
    /// The variant whose pods count; `None`: all.
    pub variant: Option<&'a VariantName>,
    /// What model servers export.
    pub engines: &'a Engines,
}

impl<'a> View<'a> {
    /// Returns the value of a signal.
    ///
    /// A model that has no live pod has no load but what the endpoint picker holds back for it, so that is the value of
    /// every signal that counts pods, requests or KV caches: it is above 0 while somebody waits.
    ///
    /// # Errors
    /// Why it has none. What is unknown, partial or missing is never 0.
    pub fn measure(self, signal: &Signal) -> Result<Measured, Unknown> {
        let measured = match signal {
            Signal::Queue => {
                let waiting = self.sum(Field::QueueLength)?;
                let no_picker = self.replicas.endpoint_picker == EndpointPicker::None;
                // Without pods it is what the endpoint picker holds back already.
                if waiting.pods == 0 || no_picker {
                    waiting
                } else {
                    waiting.plus(self.held_back()?)
                }
            }
            Signal::WaitingCapacity => self.waiting_capacity()?,
            Signal::Running => self.sum(Field::RunningRequests)?,
            Signal::KvSum => self.sum(Field::KvCacheUsage)?,
            Signal::KvMax => self.greatest(&[(Field::KvCacheUsage, 1.0)])?,
            Signal::Saturation => self.saturation()?,
            Signal::SloRatio(slo) => self.slo_ratio(slo)?,
            Signal::SupplyReady => self.supply(|supplied| Some(supplied.counts().ready))?,
            Signal::SupplyStarting => self.supply(|supplied| Some(supplied.counts().starting))?,
            Signal::SupplyWanted => self.supply(Supplied::wanted)?,
            Signal::SupplyShortfall => self.supply(|supplied| {
                Some(supplied.wanted()?.saturating_sub(supplied.counts().ready))
            })?,
            Signal::BacklogSeconds { peak_prefill_throughput } => {
                let tokens = self.backlog_tokens()?;
                Measured { value: tokens.value / peak_prefill_throughput.get(), ..tokens }
            }
            Signal::Composite(parts) => {
                let mut greatest: Option<Measured> = None;
                for part in parts {
                    let measured = self.measure(&part.signal)?;
                    let measured =
                        Measured { value: measured.value / part.target.get(), ..measured };
                    greatest = Some(greatest.map_or(measured, |it| it.max(measured)));
                }
                // The metadata have at least one.
                greatest.ok_or(Unknown::Impossible(f64::NAN))?
            }
        };
        match measured.value {
            value if (0.0..=GREATEST).contains(&value) => Ok(measured),
            value => Err(Unknown::Impossible(value)),
        }
    }

    /// The pods of the variant, or of the model.
    fn pods(self) -> impl Iterator<Item = &'a ReplicaMetrics> + Clone {
        let variant = self.variant;
        let pods = self.replicas.replicas.iter();
        pods.filter(move |pod| variant.is_none_or(|it| pod.variant_name.as_ref() == Some(it)))
    }

    /// The pods whose field counts: a pod that sleeps has released its KV cache.
    fn pods_with(self, field: Field) -> impl Iterator<Item = &'a ReplicaMetrics> {
        let sleeps = |pod: &ReplicaMetrics| pod.state == ReplicaState::Sleeping;
        self.pods().filter(move |pod| field != Field::KvCacheUsage || !sleeps(pod))
    }

    /// The sum of a field over the pods.
    fn sum(self, field: Field) -> Result<Measured, Unknown> {
        self.over_pods(&[(field, 1.0)], |sum, number| sum + number)
    }

    /// The requests that wait for capacity: of a pod that does not report why requests wait, all that do.
    fn waiting_capacity(self) -> Result<Measured, Unknown> {
        let mut waiting = self.sum(Field::QueueLength)?;
        for pod in self.pods_with(Field::QueueLength) {
            if let (Some(all), Some(for_capacity)) = (pod.queue_length, pod.waiting_for_capacity) {
                waiting.value -= all.saturating_sub(for_capacity) as f64;
            }
        }
        Ok(waiting)
    }

    /// The greatest over the pods of several fields, each divided by its full value.
    fn greatest(self, fields: &[(Field, f64)]) -> Result<Measured, Unknown> {
        self.over_pods(fields, f64::max)
    }

    fn over_pods(
        self,
        fields: &[(Field, f64)],
        fold: impl Fn(f64, f64) -> f64,
    ) -> Result<Measured, Unknown> {
        self.complete()?;
        let mut folded = Measured { value: 0.0, sampled_at: self.replicas.oldest, pods: 0 };
        let mut oldest: Option<Tick> = None;
        for (field, full) in fields {
            let mut pods = 0;
            for pod in self.pods_with(*field) {
                folded.value = fold(folded.value, self.number(pod, *field)? / full);
                let sampled_at = pod.sampled_at(*field);
                oldest = Some(oldest.map_or(sampled_at, |oldest| oldest.min(sampled_at)));
                pods += 1;
            }
            folded.pods = folded.pods.max(pods);
        }
        if self.pods().next().is_none() {
            return self.without_pods();
        }
        if folded.pods == 0 {
            return self.held_back();
        }
        folded.sampled_at = oldest.unwrap_or(folded.sampled_at);
        Ok(folded)
    }

    /// Refuses an incomplete reading: a sum of some pods is too small, and their greatest value may not be the
    /// greatest.
    fn complete(self) -> Result<(), Unknown> {
        if self.replicas.partial {
            return Err(Unknown::Partial { known: self.pods().count() });
        }
        Ok(())
    }

    fn number(self, pod: &ReplicaMetrics, field: Field) -> Result<f64, Unknown> {
        let number = match field {
            Field::QueueLength => pod.queue_length.map(|count| count as f64),
            Field::RunningRequests => pod.running_requests.map(|count| count as f64),
            Field::KvCacheUsage => pod.kv_cache_usage,
            Field::AvgInputTokens => pod.avg_input_tokens,
            _ => None,
        };
        number.ok_or_else(|| self.why_unknown(pod, field))
    }

    fn why_unknown(self, pod: &ReplicaMetrics, field: Field) -> Unknown {
        let quantity = match field {
            Field::QueueLength => Some(Quantity::Waiting),
            Field::RunningRequests => Some(Quantity::Running),
            Field::KvCacheUsage => Some(Quantity::KvCacheUsage),
            _ => None,
        };
        if let (Some(quantity), Some(engine)) = (quantity, &pod.engine) {
            // An engine whose names changed is listed once for each spelling.
            let mut spellings = self.engines.iter().filter(|it| it.name == *engine).peekable();
            if spellings.peek().is_some()
                && spellings.all(|it| it.alternatives(quantity).is_empty())
            {
                return Unknown::NotExported { engine: engine.clone(), field };
            }
        }
        let reason = pod.reasons.get(field).or_else(|| self.replicas.failed.get(field)).cloned();
        Unknown::Field { pod: pod.pod_name.clone(), field, reason }
    }

    /// What is known of a model of which no pod is seen: the requests that the endpoint picker holds back, if it also says
    /// that none runs. Without it, a list of the pods must say that there is none.
    fn without_pods(self) -> Result<Measured, Unknown> {
        let held = self.held_back()?;
        let has_others = !self.replicas.replicas.is_empty();
        match self.replicas.endpoint_picker.load() {
            // Other variants of the model may run its requests.
            Some(load) if !has_others && load.running_requests != Some(0) => {
                Err(Unknown::PodsNotSeen { running: load.running_requests })
            }
            Some(_) if !has_others => Ok(held),
            _ if self.replicas.lists_pods => Ok(held),
            _ => Err(self.why_no_pod_is_seen()),
        }
    }

    /// The requests that the endpoint picker holds back for the model; 0 without one.
    fn held_back(self) -> Result<Measured, Unknown> {
        let picker = &self.replicas.endpoint_picker;
        let Some(held) = picker.queued_requests() else {
            return Err(match picker {
                EndpointPicker::Silent { since, reason } => Unknown::PickerSilent {
                    since: *since,
                    reason: Arc::clone(reason),
                    no_pods: self.pods().next().is_none(),
                },
                _ => Unknown::PickerQueue,
            });
        };
        let oldest = self.replicas.oldest;
        let sampled_at = picker.load().map_or(oldest, |load| load.sampled_at);
        // Without a pod it says that there is none, too.
        let sampled_at =
            if self.pods().next().is_none() { sampled_at.min(oldest) } else { sampled_at };
        Ok(Measured { value: held as f64, sampled_at, pods: 0 })
    }

    /// What the endpoint picker says, else the fullest pod.
    fn saturation(self) -> Result<Measured, Unknown> {
        let load = self.replicas.endpoint_picker.load();
        if let Some((load, value)) = load.and_then(|load| Some((load, load.saturation.effective?)))
        {
            return Ok(Measured { value, sampled_at: load.sampled_at, pods: self.pods().count() });
        }
        self.greatest(&[(Field::KvCacheUsage, FULL_KV_CACHE), (Field::QueueLength, FULL_QUEUE)])
    }

    /// Prompt tokens of the requests that wait, and of all that are in flight where the endpoint picker counts them.
    fn backlog_tokens(self) -> Result<Measured, Unknown> {
        let held = self.held_back()?;
        let load = self.replicas.endpoint_picker.load();
        let at_pods = match load.and_then(|load| Some((load, load.in_flight_tokens?))) {
            Some((load, tokens)) => Measured {
                value: tokens as f64,
                sampled_at: load.sampled_at,
                pods: self.pods().count(),
            },
            None => self.waiting_tokens()?,
        };
        if held.value == 0.0 {
            return Ok(Measured { value: at_pods.value, ..at_pods.both(held) });
        }
        let is_known = |pod: &&ReplicaMetrics| pod.avg_input_tokens.is_some_and(|it| it > 0.0);
        let (mut sum, mut count, mut sampled_at) = (0.0, 0_u32, held.sampled_at);
        for pod in self.pods().filter(is_known) {
            sum += self.number(pod, Field::AvgInputTokens)?;
            count += 1;
            sampled_at = sampled_at.min(pod.sampled_at(Field::AvgInputTokens));
        }
        if count == 0 {
            return Err(Unknown::PromptLength);
        }
        let value = held.value * sum / f64::from(count);
        Ok(at_pods.plus(Measured { value, sampled_at, ..held }))
    }

    /// Prompt tokens of the requests that wait at pods.
    fn waiting_tokens(self) -> Result<Measured, Unknown> {
        self.complete()?;
        if self.pods().next().is_none() {
            self.without_pods()?;
        }
        let mut tokens = Measured { value: 0.0, sampled_at: self.replicas.oldest, pods: 0 };
        for pod in self.pods() {
            let waiting = self.number(pod, Field::QueueLength)?;
            if waiting > 0.0 {
                let length = self.number(pod, Field::AvgInputTokens)?;
                if length <= 0.0 {
                    // No request arrived in the window of the mean.
                    return Err(Unknown::PromptLength);
                }
                tokens.value += waiting * length;
                let sampled_at = pod.sampled_at(Field::AvgInputTokens);
                tokens.sampled_at = tokens.sampled_at.min(sampled_at);
            }
            tokens.sampled_at = tokens.sampled_at.min(pod.sampled_at(Field::QueueLength));
            tokens.pods += 1;
        }
        Ok(tokens)
    }
}

impl Measured {
    fn plus(self, other: Self) -> Self {
        Self { value: self.value + other.value, ..self.both(other) }
    }

    fn max(self, other: Self) -> Self {
        Self { value: self.value.max(other.value), ..self.both(other) }
    }

    fn both(self, other: Self) -> Self {
        let sampled_at = self.sampled_at.min(other.sampled_at);
        Self { sampled_at, pods: self.pods.max(other.pods), ..self }
    }
}

#[cfg(test)]
mod tests;
