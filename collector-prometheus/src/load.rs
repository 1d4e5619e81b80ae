// SPDX-License-Identifier: Apache-2.0
//! The load of a model: per pod if it was queried so, otherwise for all pods.

use std::collections::{BTreeMap, HashSet};

use collector_core::{LoadRates, LoadRow, LoadRows, PodName};

use crate::assemble::{Model, Sums};
use crate::plan::{LeafId, Plan, QueryKind};
use crate::reasons;
use crate::shape::{Served, Shape};

/// Pairs of rates that one server reports together, as indices into [`QueryKind::RATES`]: requests and their
/// tokens, and the two halves of each histogram.
const PARTNERS: [(usize, usize); 4] = [(0, 1), (0, 2), (3, 4), (5, 6)];

/// A rate as far as it is known. NaN: there was a value that cannot be true.
pub(crate) type Rates = [Option<f64>; QueryKind::RATES.len()];

/// Computes one rate of a replica from its sums.
pub(crate) fn rate(sums: &Sums, engine: u8, plan: &Plan, kind: QueryKind) -> Option<f64> {
    plan.rate(kind, &|leaf| sum_of(sums, engine, leaf))
}

fn rates(sums: &Sums, engine: u8, plan: &Plan) -> Rates {
    QueryKind::RATES.map(|kind| rate(sums, engine, plan, kind))
}

/// Makes both halves of a mean unknown if one is absent: a sum without it would be too small.
fn spoil_halves(rates: &mut Rates) {
    for (one, other) in PARTNERS {
        match (rates[one], rates[other]) {
            (Some(rate), None) if rate > 0.0 => rates[other] = Some(f64::NAN),
            (None, Some(rate)) if rate > 0.0 => rates[one] = Some(f64::NAN),
            _ => {}
        }
    }
}

/// Adds two sets of rates; NaN makes the sum NaN.
fn plus(one: Rates, other: Rates) -> Rates {
    std::array::from_fn(|i| match (one[i], other[i]) {
        (Some(a), Some(b)) => Some(a + b),
        (one, None) | (None, one) => one,
    })
}

/// The load of a model, per pod as far as it was queried so.
#[derive(Default)]
pub(crate) struct Load<'a> {
    pods: Vec<Pod<'a>>,
}

/// A live replica.
struct Pod<'a> {
    name: PodName,
    rates: Rates,
    served: &'a Served,
    /// Its requests had a rate before.
    was_counted: bool,
}

impl<'a> Load<'a> {
    /// Adds a live replica. Returns whether its requests have a rate, or had one when pods were last queried
    /// one by one.
    pub(crate) fn add(
        &mut self,
        name: &PodName,
        sums: &Sums,
        (engine, served): (u8, &'a Served),
        was_counted: bool,
    ) -> bool {
        let mut rates = rates(sums, engine, &served.plan);
        spoil_halves(&mut rates);
        let is_counted = was_counted || rates[0].is_some();
        self.pods.push(Pod { name: name.clone(), rates, served, was_counted });
        is_counted
    }

    /// Makes a row per replica, or one for the model. `alive` are the replicas as rows name them.
    pub(crate) fn rows(
        &self,
        model: &Model,
        shape: &Shape,
        alive: &HashSet<PodName>,
        per_pod: bool,
    ) -> LoadRows {
        let row = |rates: &Rates, served: &Served| {
            let known = rates.map(|rate| rate.filter(|rate| !rate.is_nan()));
            let mut row = LoadRow::from(LoadRates::from(known));
            let all: [_; QueryKind::RATES.len()] =
                std::array::from_fn(|i| (QueryKind::RATES[i], rates[i]));
            row.reasons = reasons::load(&all, served, &model.failed);
            row
        };
        if per_pod {
            let row = |pod: &Pod<'_>| (pod.name.clone(), row(&self.completed(pod), pod.served));
            return self.pods.iter().map(row).collect();
        }
        let Some(first) = self.pods.first() else { return LoadRows::None };
        // Pods that died within the window count as well, as they would in a sum by the server.
        let dead = model.replica_rates.iter().filter(|(pod, _)| !alive.contains(*pod));
        // Of several servers, which may be copies, one counts.
        let one = dead.filter_map(|(pod, all)| Some((pod, all.iter().min_by_key(|it| &it.0)?)));
        let dead: BTreeMap<&PodName, &(Box<str>, Sums)> = one.collect();
        let of_sums = |sums: &Sums| {
            let engines = shape.served.iter().enumerate();
            let mut sum = engines
                .map(|(at, served)| rates(sums, u8::try_from(at).unwrap_or(u8::MAX), &served.plan))
                .fold(Rates::default(), plus);
            spoil_halves(&mut sum);
            sum
        };
        let sum = dead
            .into_values()
            .map(|(_, sums)| of_sums(sums))
            .chain(self.pods.iter().map(|pod| self.completed(pod)))
            .fold(of_sums(&model.rates), plus);
        LoadRows::Model(row(&sum, first.served))
    }

    /// Returns the rates of a replica, with NaN where a row is absent: a replica with requests has what
    /// another replica of its engine has, and a replica that had a rate still has one. A replica that never
    /// had one has just started.
    fn completed(&self, pod: &Pod<'_>) -> Rates {
        let has_requests = match pod.rates[0] {
            Some(requests) => requests != 0.0,
            None => pod.was_counted,
        };
        if !has_requests {
            return pod.rates;
        }
        let others = || self.pods.iter().filter(|other| std::ptr::eq(other.served, pod.served));
        std::array::from_fn(|i| {
            let spoilt = || others().any(|it| it.rates[i].is_some()).then_some(f64::NAN);
            pod.rates[i].or_else(spoilt)
        })
    }
}

/// Returns the sum of one leaf.
pub(crate) fn sum_of(sums: &Sums, engine: u8, leaf: LeafId) -> Option<f64> {
    let found = sums.iter().find(|(of, id, _)| (*of, *id) == (engine, leaf));
    found.map(|(_, _, value)| *value)
}

#[cfg(test)]
mod tests {
    use collector_core::Field;

    use super::*;

    fn shape() -> Shape {
        let url = "https://h".into();
        let config = crate::PrometheusConfig { url, ..crate::PrometheusConfig::default() };
        Shape::unknown(&config.terms().unwrap())
    }

    fn sums(shape: &Shape, rates: &[(QueryKind, f64)]) -> Sums {
        let plan = &shape.served[0].plan;
        rates.iter().map(|(kind, rate)| (0, plan.only_leaf(*kind), *rate)).collect()
    }

    /// The model's row for pods with these rates; the third pod had one before.
    fn row(pods: &[&[(QueryKind, f64)]]) -> LoadRow {
        let shape = shape();
        let mut load = Load::default();
        for (number, rates) in pods.iter().enumerate() {
            let name = PodName::from(format!("m-{number}").as_str());
            let served = (0, &*shape.served[0]);
            load.add(&name, &sums(&shape, rates), served, number == 2);
        }
        let rows = load.rows(&Model::default(), &shape, &HashSet::new(), false);
        rows.of_model().unwrap().clone()
    }

    const BOTH: &[(QueryKind, f64)] =
        &[(QueryKind::RequestCount, 2.0), (QueryKind::TtftSum, 0.5), (QueryKind::TtftCount, 2.0)];

    #[test]
    fn a_pod_that_has_just_begun_adds_nothing() {
        assert_eq!(row(&[BOTH, &[]]).rates.requests, Some(2.0));
    }

    #[test]
    fn a_pod_that_had_a_rate_and_has_none_makes_the_sum_unknown() {
        let row = row(&[BOTH, BOTH, &[]]);
        assert_eq!(row.rates.requests, None);
        let reason = row.reasons.get(Field::ArrivalRate).unwrap();
        assert!(reason.starts_with("no usable vllm:"), "{reason}");
    }

    #[test]
    fn a_rate_of_one_pod_with_requests_is_expected_of_the_others() {
        let requests_alone: &[(QueryKind, f64)] = &[(QueryKind::RequestCount, 1.0)];
        let lacking = row(&[BOTH, requests_alone]);
        assert_eq!((lacking.rates.requests, lacking.rates.ttft_count), (Some(3.0), None));
        assert!(lacking.reasons.contains(Field::TtftAverage));
        let idle: &[(QueryKind, f64)] = &[(QueryKind::RequestCount, 0.0)];
        assert_eq!(row(&[BOTH, idle]).rates.ttft_count, Some(2.0), "it has none to count");
    }
}
