// SPDX-License-Identifier: Apache-2.0
//! The readings of tracked models as series that PromQL queries select: those that `/metrics` shows.

use collector_core::{
    Allocation, CollectError, Field, ModelRef, Reading, ReplicaMetrics, ReplicaState, Replicas,
    Tick, TrackedModel,
};
use collector_promql::{Gap, Held, HeldSample, KnownEmpty, Labels, Part, Reason, Wanted};

use crate::output::{
    ALLOCATION_SERIES, OfAllocation, OfReplica, OfSupply, REPLICA_SERIES, SUPPLY_SERIES, Series,
    allocation_labels, label_value, replica_labels, supply_labels,
};

/// The labels of [`REPLICA_SERIES`].
const OF_REPLICAS: [&str; 5] =
    ["model_name", "namespace", "pod", "variant_name", "accelerator_name"];
/// The labels of [`ALLOCATION_SERIES`].
const OF_ALLOCATIONS: [&str; 4] = ["model_name", "namespace", "variant_name", "accelerator_name"];

/// The labels of [`SUPPLY_SERIES`].
const OF_SUPPLY: [&str; 4] = ["model_name", "namespace", "variant_name", "state"];

/// The only one of [`SUPPLY_SERIES`] with a sample for each state.
const SUPPLY_PODS: &str = "collector_supply_pods";

/// A metric of readings.
#[derive(Clone, Copy)]
pub(super) enum Metric {
    Replica(&'static Series<OfReplica>),
    Allocation(&'static Series<OfAllocation>),
    Supply(&'static Series<OfSupply>),
}

impl Metric {
    pub(super) fn find(name: &str) -> Option<Self> {
        let of_replica = REPLICA_SERIES.iter().find(|series| series.name == name);
        let of_allocation = || ALLOCATION_SERIES.iter().find(|series| series.name == name);
        let of_supply = || SUPPLY_SERIES.iter().find(|series| series.name == name);
        of_replica
            .map(Self::Replica)
            .or_else(|| of_allocation().map(Self::Allocation))
            .or_else(|| of_supply().map(Self::Supply))
    }

    /// Returns the labels of its series.
    pub(super) fn labels(self) -> Vec<String> {
        let labels: &[&str] = match self {
            Self::Replica(_) => &OF_REPLICAS,
            Self::Allocation(_) => &OF_ALLOCATIONS,
            Self::Supply(_) => &OF_SUPPLY,
        };
        labels.iter().map(|label| (*label).to_owned()).collect()
    }

    /// Returns what is held for a selector.
    pub(super) fn held(self, wanted: &Wanted<'_>, tracked: &[TrackedModel]) -> Held {
        let mut held = Held::default();
        for model in tracked.iter().filter(|model| accepts(wanted, &model.model)) {
            match self {
                Self::Replica(series) => add_replicas(&mut held, model, series),
                Self::Allocation(series) => add_allocations(&mut held, model, series),
                Self::Supply(series) => add_supply(&mut held, model, series),
            }
        }
        held
    }
}

/// Returns whether a selector may select series of a model.
pub(super) fn accepts(wanted: &Wanted<'_>, model: &ModelRef) -> bool {
    model_labels(model).iter().all(|(label, value)| wanted.accepts(label, value))
}

fn add_replicas(held: &mut Held, model: &TrackedModel, series: &Series<OfReplica>) {
    let reading = match &model.replicas {
        Ok(reading) => reading,
        Err(error) => {
            held.gaps.push(unavailable(part(model_labels(&model.model), error.to_string()), error));
            return;
        }
    };
    if reading.value().partial {
        let text = format!("some pods of {} may be absent", model.model);
        held.gaps
            .push(Gap { part: part(model_labels(&model.model), text), reason: Reason::Partial });
    } else {
        add_without_pods(held, model, reading);
    }
    for replica in &reading.value().replicas {
        let labels = replica_labels(reading, replica).map(|(name, text)| (name, label_value(text)));
        match (series.value)(reading, replica) {
            Some(value) => {
                let age = reading.age_of(sampled_at(replica, series.name));
                held.samples.push(HeldSample { labels: Labels::new(labels), value, age });
            }
            // It has no requests and no cache, which is not the same as not knowing them.
            None if replica.state == ReplicaState::Sleeping => {}
            None => {
                let pod = replica.pod_name.as_str();
                let failed = &reading.value().failed;
                let why = fields_of(series.name)
                    .iter()
                    .find_map(|field| replica.reasons.get(*field).or_else(|| failed.get(*field)));
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                let text =
                    format!("{} of pod {pod:?} of {} is unknown{why}", series.name, model.model);
                held.gaps.push(not_measured(Labels::new(labels), text));
            }
        }
    }
}

/// Adds the model if it has no pods, and else those of its variants that have none. Without a list of the pods, there may
/// be some that are not scraped.
fn add_without_pods(held: &mut Held, model: &TrackedModel, reading: &Reading<Replicas>) {
    let mut add = |part: Part, known_at: Option<Tick>| match known_at {
        _ if reading.value().lists_pods => {
            held.empty.push(KnownEmpty { part, age: reading.age() });
        }
        Some(known_at) => held.empty.push(KnownEmpty { part, age: reading.age_of(known_at) }),
        None => {
            let text = format!("{}, or they are not scraped", part.text);
            held.gaps.push(Gap { part: Part { text, ..part }, reason: Reason::Missing });
        }
    };
    if reading.value().replicas.is_empty() {
        add(part(model_labels(&model.model), format!("{} has no pods", model.model)), None);
        return;
    }
    for (variant, _) in &model.allocations {
        let replicas = &reading.value().replicas;
        if !replicas.iter().any(|replica| replica.variant_name.as_ref() == Some(variant)) {
            let text = format!("variant {:?} of {} has no pods", variant.as_str(), model.model);
            let [name, namespace] = model_labels(&model.model);
            let labels = [name, namespace, ("variant_name", label_value(variant.as_str()))];
            add(part(labels, text), reading.value().known_empty(variant));
        }
    }
}

fn add_allocations(held: &mut Held, model: &TrackedModel, series: &Series<OfAllocation>) {
    let lists_pods = model.replicas.as_ref().is_ok_and(|reading| reading.value().lists_pods);
    for (variant, reading) in &model.allocations {
        let of_variant = |text| {
            let [name, namespace] = model_labels(&model.model);
            part([name, namespace, ("variant_name", label_value(variant.as_str()))], text)
        };
        let variant = format!("variant {:?} of {}", variant.as_str(), model.model);
        let reading = match reading {
            Ok(reading) => reading,
            Err(error) => {
                held.gaps.push(unavailable(of_variant(format!("{variant}: {error}")), error));
                continue;
            }
        };
        let Allocation { num_replicas, num_sleeping, partial, .. } = reading.value();
        // As with the replicas of a model: a pod that is not seen may exist.
        if num_replicas + num_sleeping == 0 && !lists_pods {
            let text = format!("{variant} has no pods, or they are not scraped");
            held.gaps.push(Gap { part: of_variant(text), reason: Reason::Missing });
            continue;
        }
        if *partial {
            let text = format!("some pods of {variant} may be absent");
            held.gaps.push(Gap { part: of_variant(text), reason: Reason::Partial });
        }
        let labels = allocation_labels(reading).map(|(name, text)| (name, label_value(text)));
        let labels = Labels::new(labels);
        if let Some(value) = (series.value)(reading) {
            held.samples.push(HeldSample { labels, value, age: reading.age() });
        } else {
            let text = format!("{} of {variant} is unknown", series.name);
            held.gaps.push(not_measured(labels, text));
        }
    }
}

fn add_supply(held: &mut Held, model: &TrackedModel, series: &Series<OfSupply>) {
    let of_model = |text| part(model_labels(&model.model), text);
    let reading = match &model.replicas {
        Ok(reading) => reading,
        Err(error) => {
            held.gaps.push(unavailable(of_model(error.to_string()), error));
            return;
        }
    };
    if reading.value().supply.is_none() {
        let text = format!("no cluster is asked for the pods of {}", model.model);
        held.gaps.push(Gap { part: of_model(text), reason: Reason::Missing });
    }
    for (variant, supplied) in reading.value().supplied_by_variant() {
        let labels = |state| {
            let labels = supply_labels(reading, variant, state);
            Labels::new(labels.map(|(name, text)| (name, label_value(text))))
        };
        let values = (series.value)(reading, supplied);
        if values.is_empty() {
            let text = format!("{} of a variant of {} is unknown", series.name, model.model);
            held.gaps.push(not_measured(labels(""), text));
        }
        let is_known = |state: &str| values.iter().any(|(known, _)| *known == state);
        if series.name == SUPPLY_PODS {
            // States without a pod that is known to be the variant's.
            let states = supplied.counts().by_state().into_iter();
            held.gaps.extend(states.filter(|(state, _)| !is_known(state)).map(|(state, _)| {
                let text = format!(
                    "whether a variant of {} has {state} pods is unknown: the cluster has pods that may be its own, or a \
                     watch is lost",
                    model.model
                );
                not_measured(labels(state), text)
            }));
        }
        let age = reading.age_of(supplied.as_of());
        let samples = values.into_iter();
        held.samples.extend(samples.map(|(state, value)| HeldSample {
            labels: labels(state),
            value,
            age,
        }));
    }
}

/// Returns when the value of a series was sampled.
fn sampled_at(replica: &ReplicaMetrics, series: &str) -> Tick {
    let oldest = fields_of(series).iter().map(|field| replica.sampled_at(*field)).min();
    oldest.unwrap_or(replica.sampled_at)
}

/// Returns the fields that the value of a replica's series comes from.
fn fields_of(series: &str) -> &'static [Field] {
    match series.trim_start_matches("collector_replica_") {
        "kv_cache_usage" => &[Field::KvCacheUsage],
        "queue_length" | "waiting_for_capacity" => &[Field::QueueLength],
        "running_requests" => &[Field::RunningRequests],
        "num_gpu_blocks" | "block_size" | "kv_capacity_tokens" => &[Field::CacheConfig],
        "tokens_in_use" => &[Field::KvCacheUsage, Field::CacheConfig],
        "avg_input_tokens" => &[Field::AvgInputTokens],
        "avg_output_tokens" => &[Field::AvgOutputTokens],
        "prefix_cache_hit_rate" => &[Field::PrefixCacheHitRate],
        _ => &[],
    }
}

fn model_labels(model: &ModelRef) -> [(&'static str, String); 2] {
    let (name, namespace) = (model.model.as_str(), model.namespace.as_str());
    [("model_name", label_value(name)), ("namespace", label_value(namespace))]
}

fn part<const COUNT: usize>(labels: [(&'static str, String); COUNT], text: String) -> Part {
    Part { labels: Labels::new(labels), is_one_series: false, text }
}

fn not_measured(labels: Labels, text: String) -> Gap {
    Gap { part: Part { labels, is_one_series: true, text }, reason: Reason::Missing }
}

fn unavailable(part: Part, error: &CollectError) -> Gap {
    let reason = match error {
        CollectError::Missing { .. } | CollectError::UnknownVariant { .. } => Reason::Missing,
        CollectError::Unavailable { .. } => Reason::Stale,
        CollectError::Pending { .. } => Reason::Starting,
        _ => Reason::Backend,
    };
    Gap { part, reason }
}
