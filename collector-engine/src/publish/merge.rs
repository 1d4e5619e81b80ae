// SPDX-License-Identifier: Apache-2.0
//! Several sources made one: each field comes from the first source, in order of preference, that has
//! it fresh; the others fill what is missing. A pod counts once.
//!
//! With a single source, merging hands its answer through.

mod allocation;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use collector_core::raw::SourceAnswer;
use collector_core::{
    BackendName, EndpointPicker, Field, Freshness, FreshnessThresholds, Latencies, LoadRates,
    LoadRow, Mark, ModelRef, Outcome, PodName, ReplicaMetrics, Replicas, Tick,
};

pub(crate) use allocation::allocation;

/// The answer of one source, its pods assigned to variants.
pub(crate) struct View<'a> {
    backend: &'a BackendName,
    /// Its last fetch had the model: what it says is the present state as it sees it.
    current: bool,
    /// Its last answer is younger than `stale_threshold`. An unresponsive source cannot add pods or
    /// make a result complete while another one is responsive.
    responsive: bool,
    answer: &'a SourceAnswer,
    /// In order of their pods.
    rows: Vec<ReplicaMetrics>,
    load: LoadOf<'a>,
}

/// The load of an answer: of the model, or by pod.
struct LoadOf<'a> {
    pods: HashMap<&'a PodName, &'a LoadRow>,
    model: Option<&'a LoadRow>,
}

/// What a source has to offer for one field, or for a row.
#[derive(Clone, Copy)]
struct Offer {
    /// The index of its view.
    view: usize,
    sampled_at: Tick,
    fresh: bool,
    current: bool,
}

impl<'a> View<'a> {
    /// A view at `now` of what a source last answered, whose replicas are `rows`; `outcome` is how
    /// its last fetch ended.
    pub(crate) fn new(
        (backend, outcome): (&'a BackendName, Outcome),
        answer: &'a SourceAnswer,
        mut rows: Vec<ReplicaMetrics>,
        thresholds: &FreshnessThresholds,
        now: Tick,
    ) -> Self {
        rows.sort_unstable_by(|a, b| a.pod_name.cmp(&b.pod_name));
        let load = &answer.sample.load;
        let pods = load.pods().iter().map(|(pod, row)| (pod, row)).collect();
        let load = LoadOf { pods, model: load.of_model() };
        load.fill_token_averages(&mut rows, answer);
        let responsive = !thresholds.warns(answer.sample.as_of.age(now));
        Self { backend, current: outcome == Outcome::Found, responsive, answer, rows, load }
    }

    fn row(&self, pod: &PodName) -> Option<&ReplicaMetrics> {
        let index = self.rows.binary_search_by(|row| row.pod_name.cmp(pod)).ok()?;
        Some(&self.rows[index])
    }

    /// Whether the source has seen a pod terminate after it was sampled.
    fn saw_terminate(&self, pod: &PodName, sampled_at: Tick) -> bool {
        let terminated = &self.answer.terminated;
        let index = terminated.binary_search_by(|(name, _)| name.cmp(pod));
        index.is_ok_and(|index| terminated[index].1 > sampled_at)
    }
}

/// The replicas, each pod once; `None` when no source has ever had the model.
pub(crate) fn replicas(
    model: &ModelRef,
    views: &[View<'_>],
    thresholds: &FreshnessThresholds,
    now: Tick,
) -> Option<Replicas> {
    let first = views.iter().find(|view| view.current).or_else(|| views.first())?;
    let (rows, backend) = match views {
        [only] => (only.rows.clone(), only.backend.clone()),
        _ => Merger { views, thresholds, now }.rows(first.backend),
    };
    let as_of = views.iter().map(|view| view.answer.sample.as_of).max().unwrap_or(now);
    let mut replicas = Replicas::new(model.clone(), rows, backend, as_of);
    // A source that shows all pods makes up for one that does not.
    let none_is_current = !views.iter().any(|view| view.current);
    let none_is_responsive = !views.iter().any(|view| view.responsive);
    let complete = |view: &View<'_>| {
        view.answer.sample.absent.is_none()
            && (view.current || none_is_current)
            && (view.responsive || none_is_responsive)
    };
    replicas.partial = !views.iter().any(complete);
    let leading = views.iter().find(|view| *view.backend == replicas.backend).unwrap_or(first);
    replicas.window = leading.answer.sample.window;
    for view in views {
        let sample = &view.answer.sample;
        for (field, reason) in sample.failed.iter() {
            replicas.failed.insert(field, Arc::clone(reason));
        }
        let known = |warning: &&Arc<str>| !replicas.warnings.contains(warning);
        let new: Vec<Arc<str>> = sample.warnings.iter().filter(known).cloned().collect();
        replicas.warnings.extend(new);
    }
    replicas.endpoint_picker = endpoint_picker(views);
    replicas.lists_pods =
        views.iter().any(|view| view.current && view.responsive && view.answer.sample.lists_pods);
    Some(replicas)
}

/// The endpoint picker, from the first source of those that respond to which it responds; otherwise from the first that
/// knows of one.
fn endpoint_picker(views: &[View<'_>]) -> EndpointPicker {
    let any_is_responsive = views.iter().any(|view| view.responsive);
    let responsive = views.iter().filter(|view| view.responsive || !any_is_responsive);
    let pickers = responsive.map(|view| &view.answer.sample.endpoint_picker);
    let known = pickers.clone().find(|picker| picker.load().is_some());
    let known = known.or_else(|| pickers.clone().find(|picker| **picker != EndpointPicker::None));
    known.cloned().unwrap_or_default()
}

struct Merger<'a> {
    views: &'a [View<'a>],
    thresholds: &'a FreshnessThresholds,
    now: Tick,
}

impl Merger<'_> {
    /// The rows, and the backend that most of what they say is from: the most preferred one that
    /// supplies a row, or `otherwise` when there are no rows.
    fn rows(&self, otherwise: &BackendName) -> (Vec<ReplicaMetrics>, BackendName) {
        let responsive =
            self.views.iter().filter(|view| view.responsive || !self.any_is_responsive());
        let mut pods: Vec<&PodName> =
            responsive.flat_map(|view| &view.rows).map(|row| &row.pod_name).collect();
        pods.sort_unstable();
        pods.dedup();
        let rows: Vec<(usize, ReplicaMetrics)> =
            pods.into_iter().filter_map(|pod| self.row(pod)).collect();
        let leading = rows.iter().map(|(view, _)| *view).min();
        let backend = leading.map_or(otherwise, |view| self.views[view].backend).clone();
        let mark_foreign = |(view, mut row): (usize, ReplicaMetrics)| {
            if Some(view) != leading {
                self.mark_all(view, &mut row);
            }
            row
        };
        (rows.into_iter().map(mark_foreign).collect(), backend)
    }

    /// One pod, and the index of the source that its row is from.
    fn row(&self, pod: &PodName) -> Option<(usize, ReplicaMetrics)> {
        let offers: Vec<(Offer, &ReplicaMetrics)> = self
            .views
            .iter()
            .enumerate()
            .filter_map(|(index, view)| {
                let row = view.row(pod)?;
                let left = self.views.iter().any(|other| other.saw_terminate(pod, row.sampled_at));
                if left { None } else { Some((self.offer(index, row.sampled_at), row)) }
            })
            .collect();
        let base = best(offers.iter().map(|(offer, _)| *offer))?;
        let mut row = offers.iter().find(|(offer, _)| offer.view == base)?.1.clone();
        for &field in Field::ALL {
            let has = |(offer, row): &(Offer, &ReplicaMetrics)| {
                row.has(field).then(|| self.offer(offer.view, row.sampled_at(field)))
            };
            let usable = offers.iter().filter_map(has).filter(|offer| self.is_usable(offer));
            let Some(chosen) = best(usable) else {
                if row.has(field) {
                    row.copy_field(field, &ReplicaMetrics::new(pod.clone(), row.sampled_at));
                    row.marks.retain(|mark| mark.field != field);
                }
                continue;
            };
            if chosen == base {
                continue;
            }
            let Some((_, from)) = offers.iter().find(|(offer, _)| offer.view == chosen) else {
                continue;
            };
            row.copy_field(field, from);
            row.marks.retain(|mark| mark.field != field);
            row.marks.push(self.mark(field, chosen, from.sampled_at(field)));
        }
        for (_, other) in &offers {
            row.fill_identity(other);
        }
        row.latencies = self.latencies(&offers);
        Some((base, row))
    }

    /// The latencies of a pod, which have a time of their own.
    fn latencies(&self, offers: &[(Offer, &ReplicaMetrics)]) -> Option<Arc<Latencies>> {
        let offered = |(offer, row): &(Offer, &ReplicaMetrics)| {
            Some(self.offer(offer.view, row.latencies.as_ref()?.sampled_at))
        };
        let usable = offers.iter().filter_map(offered).filter(|offer| self.is_usable(offer));
        let chosen = best(usable)?;
        let (_, from) = offers.iter().find(|(offer, _)| offer.view == chosen)?;
        from.latencies.clone()
    }

    /// A row that is not the leading source's: each of its fields says where it is from.
    fn mark_all(&self, view: usize, row: &mut ReplicaMetrics) {
        for &field in Field::ALL {
            if row.has(field) && row.marks.iter().all(|mark| mark.field != field) {
                row.marks.push(self.mark(field, view, row.sampled_at));
            }
        }
    }

    fn mark(&self, field: Field, view: usize, sampled_at: Tick) -> Mark {
        Mark { field, backend: self.views[view].backend.clone(), sampled_at }
    }

    fn any_is_responsive(&self) -> bool {
        self.views.iter().any(|view| view.responsive)
    }

    /// Whether an offer is taken at all: nothing that is unavailable by now, while any source is responsive.
    fn is_usable(&self, offer: &Offer) -> bool {
        let age = offer.sampled_at.age(self.now);
        self.thresholds.determine_status(age) != Freshness::Unavailable || !self.any_is_responsive()
    }

    fn offer(&self, view: usize, sampled_at: Tick) -> Offer {
        let age = sampled_at.age(self.now);
        Offer {
            view,
            sampled_at,
            fresh: self.thresholds.determine_status(age) == Freshness::Fresh,
            current: self.views[view].current,
        }
    }
}

/// The view whose offer is taken: the first that is fresh, in order of preference. A source whose last
/// fetch failed has no preference left: it goes first only with what is newer than all others have.
/// Where nothing is fresh, the newest is taken.
fn best(offers: impl Iterator<Item = Offer> + Clone) -> Option<usize> {
    let newest =
        offers.clone().max_by_key(|offer| (offer.sampled_at, std::cmp::Reverse(offer.view)))?;
    let preferred =
        |offer: &Offer| offer.fresh && (offer.current || offer.sampled_at >= newest.sampled_at);
    let mut offers = offers;
    Some(offers.find(preferred).map_or(newest.view, |offer| offer.view))
}

/// Whether nothing runs on any of these replicas. One that does not say so may run something.
pub(super) fn is_idle<'a>(rows: impl IntoIterator<Item = &'a ReplicaMetrics>) -> bool {
    rows.into_iter().all(|row| row.running_requests == Some(0))
}

impl LoadOf<'_> {
    /// Gives each replica the token averages of its own load row, or of the model where the load is
    /// known for the model alone; where there is none, the reason.
    fn fill_token_averages(&self, rows: &mut [ReplicaMetrics], answer: &SourceAnswer) {
        let model_is_idle = is_idle(rows.iter());
        for row in rows {
            let own = self.pods.get(&row.pod_name).copied();
            let idle = if own.is_some() { is_idle([&*row]) } else { model_is_idle };
            let measured = own.or(self.model);
            let rates = measured.map(|measured| measured.rates).unwrap_or_default();
            let load = rates.load(idle);
            for (field, average, known) in [
                (Field::AvgInputTokens, load.avg_input_tokens, &mut row.avg_input_tokens),
                (Field::AvgOutputTokens, load.avg_output_tokens, &mut row.avg_output_tokens),
            ] {
                if known.is_some() {
                    continue;
                }
                if average.is_some() {
                    *known = average;
                    // A mean is as old as the older of its two halves.
                    let mark = answer
                        .load_marks
                        .iter()
                        .filter(|mark| mark.field == field || mark.field == Field::ArrivalRate)
                        .min_by_key(|mark| mark.sampled_at);
                    row.marks.extend(mark.map(|mark| Mark { field, ..mark.clone() }));
                } else if !answer.sample.failed.contains(field) {
                    row.reasons.insert(field, why_unknown(field, &rates, measured));
                }
            }
        }
    }
}

/// Why a field of the load is unknown, which is made of `rates`: those of this row.
fn why_unknown(field: Field, rates: &LoadRates, row: Option<&LoadRow>) -> Arc<str> {
    if rates.counts_nothing(field) {
        return Arc::clone(&NOTHING_COUNTED);
    }
    match row {
        Some(row) => row.reasons.get(field).unwrap_or(&NOT_REPORTED).clone(),
        None => Arc::clone(&NO_LOAD),
    }
}

/// Reasons that every row of a model may have: one text for all of them.
static NOTHING_COUNTED: LazyLock<Arc<str>> =
    LazyLock::new(|| "nothing was counted in the window, and requests run".into());
static NOT_REPORTED: LazyLock<Arc<str>> = LazyLock::new(|| "not reported".into());
pub(super) static NO_LOAD: LazyLock<Arc<str>> = LazyLock::new(|| "no load is reported".into());

#[cfg(test)]
mod tests;
