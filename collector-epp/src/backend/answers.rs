// SPDX-License-Identifier: Apache-2.0
//! From what the pods last said to what is known of a model.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Absent, Answer, Answers, BackendError, EndpointPicker, ModelId, ModelRef, ModelSample,
    Namespace, Operation, PodName, Tick,
};
use collector_engines::endpoint_picker::{Routes, Scraped, Silent, of_model};
use collector_transport::Cause;

use super::fleet::{Fleet, State};
use super::pod::{Good, LastSeen, Outcome, Pod, is_same};
use super::replicas::{self, Replica, Served};
use super::trace;
use crate::NAME;
use crate::discover::Sources;
use crate::engines::{Engines, Exposition};

/// Warnings of one answer.
const WARNINGS_MAX: usize = 16;

/// How answers are to be made.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    /// A pod that was not tried since then is unknown.
    pub(crate) not_before: Tick,
    /// The time over which peaks and rates are taken.
    pub(crate) window: Duration,
    /// Also tell how each value came about, with these engines.
    pub(crate) trace: Option<&'a Engines>,
    /// Every model has an endpoint picker.
    pub(crate) picker_required: bool,
}

/// A pod of which nothing is known now.
struct Unresponsive {
    pod: Arc<Pod>,
    cause: Arc<Cause>,
    was: LastSeen,
}

/// An endpoint picker.
struct Picker {
    routes: Routes,
    good: Result<Arc<Good>, Silent>,
}

/// What one namespace said.
#[derive(Default)]
struct Room {
    /// By model: the pages that serve it, and which of their models it is.
    served: HashMap<ModelId, Vec<Served>>,
    silent: Vec<Unresponsive>,
    pickers: Vec<Picker>,
    /// When any of its pods was last tried.
    tried_at: Option<Tick>,
}

/// What is known of each model, each told once.
pub(crate) fn answers(
    (fleet, sources): (&Fleet, &Sources),
    models: &[ModelRef],
    wish: Wish<'_>,
    now: Tick,
) -> Answers {
    let mut wanted: HashMap<&Namespace, HashSet<&ModelId>> = HashMap::new();
    for model in models {
        wanted.entry(&model.namespace).or_default().insert(&model.model);
    }
    let state = fleet.lock();
    let mut answers = Answers::new();
    for (namespace, models) in wanted {
        let room = room(&state, namespace, &models, wish.not_before);
        let unknown_in = sources.unknown_in(namespace);
        let as_of = room.tried_at.map_or(state.changed_at, |at| at.max(state.changed_at));
        for id in models {
            let model = ModelRef::new(id.clone(), namespace.clone());
            let answer = if let Some(served) = room.served.get(id) {
                answer(&model, served, &room, &state, wish, as_of)
            } else {
                let lately = fleet.served_lately(&state, &model, now);
                match (not_served(&model, &room, &state, lately, wish, as_of), &unknown_in) {
                    (Answer::Missing { .. }, Some(error)) => {
                        Answer::Failed(discovery_error(error, Operation::Fetch))
                    }
                    (answer, _) => answer,
                }
            };
            answers.insert(model, answer);
        }
    }
    answers
}

fn room(
    state: &State,
    namespace: &Namespace,
    models: &HashSet<&ModelId>,
    not_before: Tick,
) -> Room {
    let mut room = Room::default();
    for pod in state.namespaces.get(namespace).into_iter().flat_map(|pods| pods.values()) {
        let seen = pod.seen();
        room.tried_at = room.tried_at.max(seen.tried_at);
        if seen.is_out_of_service() {
            continue;
        }
        let page = seen.page(not_before);
        // An endpoint picker serves nothing, so no pod is missed without it.
        if let LastSeen::EndpointPicker(routes) = &seen.was {
            // The live source asks it within a second.
            let is_new = not_before == Tick::MIN && matches!(seen.outcome, Outcome::Untried);
            let good = page.map(Arc::clone).map_err(|cause| Silent {
                since: seen.answered_at,
                reason: format!("{}: {cause}", pod.target.shown()).into(),
                is_new,
            });
            room.pickers.push(Picker { routes: routes.clone(), good });
            continue;
        }
        let good = match page {
            Ok(good) => good,
            Err(cause) => {
                let (pod, was) = (Arc::clone(pod), seen.was.clone());
                room.silent.push(Unresponsive { pod, cause, was });
                continue;
            }
        };
        for (index, served) in good.models.iter().enumerate() {
            let is_asked = |id: &&&ModelId| is_same(&served.model, id, served.ignore_case);
            let asked: Vec<&ModelId> = if served.ignore_case {
                models.iter().filter(is_asked).copied().collect()
            } else {
                models.get(&served.model).copied().into_iter().collect()
            };
            for id in asked {
                let (pod, good) = (Arc::clone(pod), Arc::clone(good));
                let of_model = room.served.entry(id.clone()).or_default();
                of_model.push(Served { pod, good, index });
            }
        }
    }
    room
}

impl Picker {
    fn scraped(&self) -> Scraped<'_> {
        let page = match self.good.as_deref() {
            Ok(Good { page: Exposition::EndpointPicker(page), asked_at, .. }) => {
                Ok((page, *asked_at))
            }
            Ok(good) => Err(Silent {
                since: Some(good.asked_at),
                reason: "its page is that of a model server".into(),
                is_new: false,
            }),
            Err(silent) => Err(silent.clone()),
        };
        Scraped { routes: &self.routes, page }
    }
}

impl Room {
    /// Whether an endpoint picker has received requests for the model.
    fn is_requested(&self, model: &ModelId) -> bool {
        self.pickers.iter().any(|picker| picker.routes.names(model))
    }

    /// Adds the endpoint picker of the model to a sample of all its live pods.
    fn add_endpoint_picker(&self, model: &ModelId, sample: &mut ModelSample, wish: Wish<'_>) {
        let scraped: Vec<Scraped<'_>> = self.pickers.iter().map(Picker::scraped).collect();
        let live = sample.replicas.iter().map(|row| row.pod_name.clone());
        let live: Vec<PodName> = live.chain(sample.absent.named().iter().cloned()).collect();
        sample.endpoint_picker = of_model(model, &live, &scraped);
        if wish.picker_required && sample.endpoint_picker == EndpointPicker::None {
            let reason = "no target is its endpoint picker, which epp.picker_required demands";
            sample.endpoint_picker = EndpointPicker::silent(None, reason);
        }
        if let EndpointPicker::Silent { reason, .. } = &sample.endpoint_picker {
            let warning =
                format!("the requests that the endpoint picker holds are unknown: {reason}");
            sample.warnings.push(warning.into());
        }
    }
}

/// The answer about a model that no page serves. `lately`: one did within the window.
fn not_served(
    model: &ModelRef,
    room: &Room,
    state: &State,
    lately: bool,
    wish: Wish<'_>,
    as_of: Tick,
) -> Answer {
    if let Some(error) = unknown(room, state, Operation::Fetch) {
        return Answer::Failed(error);
    }
    let (is_requested, outdated) = (room.is_requested(&model.model), state.outdated.first());
    if let (Some(error), false) = (outdated, is_requested) {
        return Answer::Failed(discovery_error(error, Operation::Fetch));
    }
    if !lately && !is_requested {
        return Answer::Missing { as_of, last_seen: None };
    }
    let mut sample = ModelSample::new(as_of, Vec::new());
    // A model that only an endpoint picker knows may have pods that are no targets.
    sample.lists_pods = state.lists_pods && lately && outdated.is_none();
    room.add_endpoint_picker(&model.model, &mut sample, wish);
    Answer::Found(sample)
}

fn answer(
    model: &ModelRef,
    served: &[Served],
    room: &Room,
    state: &State,
    wish: Wish<'_>,
    as_of: Tick,
) -> Answer {
    let silent = room.silent.iter().filter(|silent| silent.was.may_serve(&model.model));
    let rows_of = |silent: &Unresponsive| match silent.was.rows() {
        [] => vec![silent.pod.target.row_name().clone()],
        rows => rows.to_vec(),
    };
    let unreached: Vec<PodName> = silent.clone().flat_map(rows_of).collect();
    let mut joined = replicas::join(served);
    // A replica of which a server is silent is unknown as a whole: the rest of it would be a smaller
    // one.
    joined.replicas.retain(|pod| !unreached.contains(&pod.row.pod_name));
    if joined.replicas.is_empty()
        && let Some(first) = silent.clone().next()
    {
        return Answer::Failed(error_of(&first.pod, &first.cause, Operation::Fetch));
    }
    let mut sample = ModelSample::new(as_of, Vec::new());
    sample.lists_pods = state.lists_pods;
    sample.absent = match state.may_lack_pods() {
        None => Absent::pods(unreached),
        Some(_) => Absent::Unknown(None),
    };
    sample.window = Some(wish.window);
    sample.warnings = joined.warnings;
    for duplicate in &state.duplicates {
        let is_served = served.iter().any(|served| served.pod.target.pod == duplicate.pod);
        if duplicate.namespace == model.namespace && is_served {
            sample.warnings.push(Arc::clone(&duplicate.problem));
        }
    }
    if let Some(error) = state.outdated.first() {
        sample.warnings.push(format!("new pods may be absent: {error}").into());
    }
    sample.warnings.sort_unstable();
    sample.warnings.dedup();
    sample.warnings.truncate(WARNINGS_MAX);
    // The sum over the pods that answered would be a smaller load; pod by pod, what is known of the
    // others can be kept.
    sample.load = joined.replicas.iter().map(Replica::load).collect();
    sample.replicas = joined.replicas.into_iter().map(|pod| pod.row).collect();
    room.add_endpoint_picker(&model.model, &mut sample, wish);
    if let Some(engines) = wish.trace {
        let rows =
            served.iter().flat_map(|served| trace::rows(&served.good, served.index, engines));
        sample.trace = rows.collect();
    }
    Answer::Found(sample)
}

/// Why it cannot be told whether a model that nobody serves is missing; `None` when every pod has
/// answered.
fn unknown(room: &Room, state: &State, operation: Operation) -> Option<BackendError> {
    if let Some(first) = room.silent.first() {
        let others = room.silent.len() - 1;
        let mut error = error_of(&first.pod, &first.cause, operation);
        if others > 0 {
            let detail = format!("{} (and {others} other targets fail)", first.cause.detail);
            error = error.with_detail(detail);
        }
        return Some(error);
    }
    state.may_lack_pods().map(|error| discovery_error(&error, operation))
}

/// What a failed scrape is to a caller of the backend.
pub(crate) fn error_of(pod: &Pod, cause: &Cause, operation: Operation) -> BackendError {
    BackendError::new(cause.kind, NAME.into(), operation, pod.target.shown())
        .with_detail(cause.detail.clone())
        .with_remedy(cause.remedy.clone())
}

/// What failed discovery is to a caller of the backend.
pub(crate) fn discovery_error(
    error: &crate::discover::DiscoveryError,
    operation: Operation,
) -> BackendError {
    BackendError::new(error.kind(), NAME.into(), operation, "the targets")
        .with_detail(error.to_string())
}

/// Returns the first error of these pods if none of them has answered since then; `None` if there is no pod, or one
/// has.
pub(crate) fn nobody_answered(
    pods: &[Arc<Pod>],
    not_before: Tick,
    operation: Operation,
) -> Option<BackendError> {
    let mut causes = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.seen().is_out_of_service()) {
        causes.push((pod, pod.seen().page(not_before).err()?));
    }
    causes.first().map(|(pod, cause)| error_of(pod, cause, operation))
}
