// SPDX-License-Identifier: Apache-2.0
//! The load of one variant, from what several sources report of it.

use std::sync::Arc;

use collector_core::{
    Allocation, Field, FreshnessThresholds, LoadRates, LoadRow, Mark, PodName, ReplicaMetrics,
    ReplicaState, Replicas, Tick, Variant,
};

use super::{Merger, NO_LOAD, Offer, View, best, is_idle, why_unknown};

/// The roles of pods that share the work on a request.
const PREFILL: &str = "prefill";
const DECODE: &str = "decode";

/// The allocation of one variant: its replicas from the merged ones, each field of its load from the first
/// source that has it fresh.
pub(crate) fn allocation(
    variant: &Variant,
    replicas: &Replicas,
    views: &[View<'_>],
    thresholds: &FreshnessThresholds,
    now: Tick,
) -> Allocation {
    let own = replicas.replicas.iter().filter(|row| is_of(row, variant));
    let count = |is_counted: fn(ReplicaState) -> bool| {
        let counted = own.clone().filter(|row| is_counted(row.state));
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    };
    let num_replicas = count(ReplicaState::serves);
    let num_sleeping = count(|state| state == ReplicaState::Sleeping);
    let fetched_at = if replicas.replicas.is_empty() {
        replicas.oldest
    } else {
        views.iter().map(|view| view.answer.sample.as_of).max().unwrap_or(now)
    };
    let sampled = own.map(|row| row.sampled_at).min().unwrap_or(fetched_at);
    let mut allocation = Allocation::new(
        replicas.model.clone(),
        variant.name.clone(),
        num_replicas,
        replicas.backend.clone(),
        sampled,
    );
    allocation.accelerator.clone_from(&variant.accelerator);
    allocation.max_batch = variant.max_batch;
    allocation.num_sleeping = num_sleeping;
    let supplied = replicas.supplied(Some(&variant.name));
    allocation.num_starting =
        supplied.and_then(|supplied| supplied.known(supplied.counts().starting));
    allocation.partial = replicas.partial;
    allocation.window = replicas.window;
    allocation.failed.clone_from(&replicas.failed);
    allocation.warnings.clone_from(&replicas.warnings);

    let merger = Merger { views, thresholds, now };
    let loads: Vec<VariantLoad<'_>> =
        views.iter().map(|view| variant_load(variant, view, replicas)).collect();
    for &field in Field::OF_LOAD {
        let offers: Vec<(Offer, bool)> = loads
            .iter()
            .enumerate()
            .filter(|(_, load)| load.value(field).is_some())
            .map(|(index, load)| (merger.offer(index, load.sampled_at(field)), load.complete))
            .filter(|(offer, _)| merger.is_usable(offer))
            .collect();
        // The load of a part of the pods is taken only where nobody knows that of all.
        let complete = offers.iter().any(|(_, complete)| *complete);
        let offers =
            offers.iter().filter(|(_, of_all)| *of_all == complete).map(|(offer, _)| *offer);
        let Some(chosen) = best(offers) else {
            // What nobody knows and one source kept from before is as old as that.
            let kept = loads.iter().enumerate().find_map(|(index, load)| {
                let mark = load.marks.iter().find(|mark| mark.field == field)?;
                merger.is_usable(&merger.offer(index, mark.sampled_at)).then_some(mark)
            });
            allocation.marks.extend(kept.cloned());
            if !allocation.failed.contains(field)
                && let Some(load) = loads.first()
            {
                allocation.reasons.insert(field, load.why_unknown(field));
            }
            continue;
        };
        allocation.partial |= !complete;
        let load = &loads[chosen];
        if let Some(pod) = load.without_arrivals.filter(|_| field == Field::ArrivalRate) {
            let why = load.why_unknown(field);
            let text = format!("the arrivals lack those of {pod}, which may have requests: {why}");
            allocation.warnings.push(text.into());
        }
        if let Some(own) = allocation.field_mut(field) {
            *own = load.value(field);
        }
        let marked = load.marks.iter().find(|mark| mark.field == field);
        if let Some(mark) = marked {
            allocation.marks.push(mark.clone());
        } else if *views[chosen].backend != replicas.backend || load.sampled < sampled {
            allocation.marks.push(merger.mark(field, chosen, load.sampled));
        }
    }
    let oldest = allocation.marks.iter().map(|mark| mark.sampled_at).min();
    allocation.oldest = oldest.map_or(sampled, |oldest| oldest.min(sampled));
    allocation
}

fn is_of(row: &ReplicaMetrics, variant: &Variant) -> bool {
    row.variant_name.as_ref() == Some(&variant.name)
}

/// The load of a variant as one source reports it.
struct VariantLoad<'a> {
    rates: LoadRates,
    /// The rows it is the sum of, with their pods; or the model's.
    rows: Vec<(Option<&'a PodName>, &'a LoadRow)>,
    /// Why it is not known which part of the model's load it is.
    unknown_share: Option<String>,
    /// A pod that may have requests, and of which it is not known how many arrive: their sum is too small.
    without_arrivals: Option<&'a PodName>,
    /// Nothing runs on its replicas.
    idle: bool,
    /// It is that of all pods that the variant has. That of some of them would be too small a number.
    complete: bool,
    /// When it was sampled, except the fields that are marked.
    sampled: Tick,
    marks: &'a [Mark],
}

impl VariantLoad<'_> {
    fn value(&self, field: Field) -> Option<f64> {
        match field {
            Field::ArrivalRate => self.rates.load(self.idle).arrival_rate,
            Field::AvgInputTokens => self.rates.load(self.idle).avg_input_tokens,
            Field::AvgOutputTokens => self.rates.load(self.idle).avg_output_tokens,
            Field::TtftAverage => self.rates.ttft_average(self.idle),
            Field::ItlAverage => self.rates.itl_average(self.idle),
            _ => None,
        }
    }

    /// Why a field is unknown.
    fn why_unknown(&self, field: Field) -> Arc<str> {
        if let Some(unknown_share) = &self.unknown_share {
            return unknown_share.as_str().into();
        }
        let lacks = self.rows.iter().find(|(_, row)| row.reasons.contains(field));
        let (pod, row) = lacks.or(self.rows.first()).copied().unzip();
        let reason = why_unknown(field, &self.rates, row);
        match pod.flatten() {
            Some(pod) if lacks.is_some() && self.rows.len() > 1 => {
                format!("{pod}: {reason}").into()
            }
            _ => reason,
        }
    }

    fn sampled_at(&self, field: Field) -> Tick {
        let mark = self.marks.iter().find(|mark| mark.field == field);
        mark.map_or(self.sampled, |mark| mark.sampled_at)
    }
}

fn variant_load<'a>(variant: &Variant, view: &View<'a>, replicas: &Replicas) -> VariantLoad<'a> {
    let own: Vec<&ReplicaMetrics> = view.rows.iter().filter(|row| is_of(row, variant)).collect();
    let sample = &view.answer.sample;
    let mut pods = replicas.replicas.iter().filter(|row| is_of(row, variant));
    let rates = variant_rates(&own, view);
    let of_pods = own.iter().filter_map(|row| view.load.pods.get_key_value(&row.pod_name));
    let of_pods = of_pods.map(|(pod, row)| (Some(*pod), *row));
    let has_role = |row: &ReplicaMetrics, role: &str| {
        row.role.as_ref().is_some_and(|own| own.as_str() == role)
    };
    // Each request is counted where it is decoded, if some pods prefill for others.
    let decode_counts = own.iter().any(|row| has_role(row, DECODE));
    let without_arrivals = own.iter().find_map(|row| {
        let (pod, load) = view.load.pods.get_key_value(&row.pod_name)?;
        let adds_nothing =
            !row.state.serves() || is_idle([*row]) || (decode_counts && has_role(row, PREFILL));
        (!adds_nothing && load.rates.requests.is_none()).then_some(*pod)
    });
    let (unknown_share, rates) = match rates {
        Ok(rates) => (None, rates),
        Err(reason) => (Some(reason), LoadRates::default()),
    };
    VariantLoad {
        rates,
        rows: of_pods.chain(view.load.model.map(|row| (None, row))).collect(),
        unknown_share,
        without_arrivals,
        idle: is_idle(own.iter().copied()),
        complete: pods.all(|row| view.row(&row.pod_name).is_some()),
        sampled: own.iter().map(|row| row.sampled_at).min().unwrap_or(sample.as_of),
        marks: &view.answer.load_marks,
    }
}

/// Returns the rates of one variant: the sum over its pods if they are known by pod, or the model's if the variant has
/// all replicas. Otherwise returns why they are unknown: the model's load cannot be split, and the sum over some pods
/// would be too small.
fn variant_rates(own: &[&ReplicaMetrics], view: &View<'_>) -> Result<LoadRates, String> {
    let load = &view.load;
    let all = view.rows.len();
    if let Some(of_model) = load.model
        && own.len() == all
    {
        return Ok(of_model.rates);
    }
    if own.is_empty() && all > 0 {
        // A variant without pods has no load, whichever variant has the rest; but only when it is known
        // that it has none.
        let unclaimed = view.rows.iter().filter(|row| row.variant_name.is_none()).count();
        return if unclaimed == 0 && view.answer.sample.absent.is_none() {
            Ok(LoadRates::ZERO)
        } else if load.model.is_none() && load.pods.is_empty() {
            Err(NO_LOAD.to_string())
        } else {
            Err(format!("it has no pods, and {unclaimed} of the model's {all} are of no variant"))
        };
    }
    if load.model.is_some() {
        let own = own.len();
        return Err(format!(
            "the model's load is not known pod by pod, and {own} of {all} pods are its"
        ));
    }
    if load.pods.is_empty() {
        return Err(NO_LOAD.to_string());
    }
    let mut pods = Vec::with_capacity(own.len());
    for row in own {
        let Some(load) = load.pods.get(&row.pod_name) else {
            return Err(format!("the load of {} is unknown", row.pod_name));
        };
        pods.push((row.role.as_ref(), load.rates));
    }
    Ok(LoadRates::of_roles(pods.into_iter()).unwrap_or_default())
}
