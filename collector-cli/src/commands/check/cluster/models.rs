// SPDX-License-Identifier: Apache-2.0
//! How the cluster's objects fit what the backends measure: models without series, Ready pods without metrics, and pods
//! that answer and are not Ready.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use collector_core::supply::{PodState, Workload};
use collector_core::text::{counted, shortened};
use collector_core::{Backend as _, Check, ModelRef, ProbeAsk};
use collector_kubernetes::{ListedPod, ListedVariant};
use tokio::time::Instant;

use super::super::groups::{fail, pass, skip, warn};
use super::{Asked, failed, first};
use crate::commands::answers::{Answering, PodAnswers, measured_models};
use crate::output::{nearest_first, quoted};

/// How long the lists of the cluster may take.
const LISTS_MAX: Duration = Duration::from_secs(10);

/// Models without series that are named, and models whose pods are compared.
const MODELS_NAMED: usize = 10;
const MODELS_COMPARED: usize = 200;

/// Pods that have been Ready for less time may not have been scraped yet.
const SCRAPED_WITHIN: Duration = Duration::from_secs(120);

const SERIES: &str = "cluster.series";
const PODS: &str = "cluster.pods";
const MODEL: &str = "cluster.model";

/// The checks. What backends have not answered by the deadline is unknown.
pub(super) async fn checks(asked: &Asked<'_>, deadline: Instant) -> Vec<Check> {
    let clock = &*asked.settings.clock;
    let mut ask = ProbeAsk::new(clock);
    ask.time_left = LISTS_MAX;
    let mut checks = match asked.cluster.probe(ask).await {
        Ok(probe) => probe.checks,
        Err(error) => vec![fail("cluster.lists", error.to_string())],
    };
    if checks.iter().any(failed) {
        let ids = [SERIES, PODS].into_iter().chain(asked.model.map(|_| MODEL));
        checks.extend(ids.map(|id| skip(id, "not known, because not every object is listed")));
        return checks;
    }
    let (variants, pods) = (asked.cluster.listed_variants(), asked.cluster.listed_pods());
    checks.extend(asked.model.map(|model| of_model(model, &variants)));
    let (measured, problem) = measured_models(asked.backends, clock, deadline).await;
    checks.extend(series(&variants, &pods, &measured, problem.as_deref()));
    let mut models: Vec<ModelRef> = pods
        .iter()
        .map(|pod| &pod.model)
        .filter(|model| measured.contains(model))
        .cloned()
        .collect();
    models.dedup();
    let left_out = models.len().saturating_sub(MODELS_COMPARED);
    models.truncate(MODELS_COMPARED);
    let answers = PodAnswers::of(asked.backends, &models, clock, deadline).await;
    let compared = pods.iter().filter(|pod| models.contains(&pod.model));
    checks.extend(answering(compared, &answers, clock.wall()));
    if left_out > 0 {
        let detail = format!("the pods of {left_out} more models were not compared");
        checks.push(skip(PODS, &detail));
    }
    checks
}

/// What the cluster has of one model.
fn of_model(model: &ModelRef, variants: &[ListedVariant]) -> Check {
    let of_model = variants.iter().filter(|listed| listed.variant.model == *model);
    let lines: Vec<String> = of_model.map(described).collect();
    if !lines.is_empty() {
        return pass(MODEL, lines.join("; "));
    }
    let in_namespace = variants.iter().map(|listed| &listed.variant.model);
    let in_namespace = in_namespace.filter(|known| known.namespace == model.namespace);
    let near = nearest_first(model.model.as_str(), in_namespace.map(|known| known.model.as_str()));
    let known = match near.as_slice() {
        [] => "none of its namespace has a model".to_owned(),
        near => format!("those of its namespace describe {}", quoted(near.iter().copied())),
    };
    let detail =
        format!("no object of the cluster describes {}; {known}", shortened(&model.to_string()));
    warn(MODEL, detail).with_remedy(
        "set llm-d.ai/managed: \"true\" and llm-d.ai/model-id on the HPA or ScaledObject of its workload",
    )
}

fn described(listed: &ListedVariant) -> String {
    let Workload { wanted, pods, .. } = &listed.workload;
    let count = |state| pods.iter().filter(|pod| pod.state == state).count();
    let mut text = format!(
        "variant {} of {} {}: {} wanted, {} ready, {} starting",
        listed.variant.name,
        listed.target_kind,
        listed.target_name,
        wanted.map_or_else(|| "an unknown number".to_owned(), |wanted| wanted.to_string()),
        count(PodState::Ready),
        count(PodState::Starting)
    );
    for (state, word) in [(PodState::NotReady, "not ready"), (PodState::Terminating, "terminating")]
    {
        let count = count(state);
        if count > 0 {
            let _ = write!(text, ", {count} {word}");
        }
    }
    text
}

/// Whether each model that objects describe is measured.
fn series(
    variants: &[ListedVariant],
    pods: &[ListedPod],
    measured: &HashSet<ModelRef>,
    problem: Option<&str>,
) -> Vec<Check> {
    let mut described: BTreeMap<&ModelRef, Vec<&ListedVariant>> = BTreeMap::new();
    for listed in variants {
        described.entry(&listed.variant.model).or_default().push(listed);
    }
    if described.is_empty() {
        let detail = "no object of the cluster describes a model";
        let remedy = "set llm-d.ai/managed: \"true\" and llm-d.ai/model-id on the HPAs or ScaledObjects of the workloads";
        return vec![warn(SERIES, detail).with_remedy(remedy)];
    }
    let ready: HashSet<&ModelRef> =
        pods.iter().filter(|pod| pod.state == PodState::Ready).map(|pod| &pod.model).collect();
    let without = described.iter().filter(|(model, _)| !measured.contains(**model));
    let (serving, idle): (Vec<_>, Vec<_>) = without.partition(|(model, _)| ready.contains(**model));
    if let Some(problem) = problem
        && !(serving.is_empty() && idle.is_empty())
    {
        // A model that is not in an incomplete list may have series.
        let detail = format!("not known, because not every backend lists its models: {problem}");
        return vec![skip(SERIES, &detail)];
    }
    let mut checks = Vec::new();
    for (model, listed) in serving.iter().take(MODELS_NAMED) {
        checks.push(without_series(model, listed, measured));
    }
    if let Some(more) = serving.len().checked_sub(MODELS_NAMED).filter(|more| *more > 0) {
        checks.push(
            fail(SERIES, format!("{more} more models have Ready pods and no series"))
                .with_remedy("correct those that are listed first"),
        );
    }
    if !idle.is_empty() {
        let names: Vec<String> = idle.iter().map(|(model, _)| shown(model)).collect();
        let detail = format!("no pod is Ready, and there are no series, of {}", first(&names));
        checks.push(pass(SERIES, detail));
    }
    let with = described.len() - serving.len() - idle.len();
    if with > 0 {
        let are = if with == 1 { "has" } else { "have" };
        let models = counted(with, "model", "models");
        checks.push(pass(SERIES, format!("{models} that objects describe {are} series")));
    }
    checks
}

fn without_series(
    model: &ModelRef,
    listed: &[&ListedVariant],
    measured: &HashSet<ModelRef>,
) -> Check {
    let objects =
        listed.iter().map(|listed| format!("{} {}", listed.described_by, listed.variant.name));
    let objects = first(&objects.collect::<Vec<_>>());
    let detail =
        format!("{} has Ready pods and no series in any backend ({objects})", shown(model));
    let elsewhere = measured.iter().filter(|known| known.model == model.model);
    let mut elsewhere: Vec<&str> = elsewhere.map(|known| known.namespace.as_str()).collect();
    elsewhere.sort_unstable();
    let remedy = if elsewhere.is_empty() {
        let here: Vec<&str> = measured
            .iter()
            .filter(|known| known.namespace == model.namespace)
            .map(|known| known.model.as_str())
            .collect();
        let all = || measured.iter().map(|known| known.model.as_str()).collect();
        let near = nearest_first(model.model.as_str(), if here.is_empty() { all() } else { here });
        match near.as_slice() {
            [] => "no model has series: are the model servers scraped?".to_owned(),
            near => format!(
                "llm-d.ai/model-id must be the id that the model servers report; series have {}",
                quoted(near.iter().copied())
            ),
        }
    } else {
        format!("its series have another namespace: {}", quoted(elsewhere))
    };
    fail(SERIES, detail).with_remedy(remedy)
}

/// Whether the pods that are Ready are those that answer.
fn answering<'a>(
    pods: impl Iterator<Item = &'a ListedPod>,
    answers: &PodAnswers,
    wall: SystemTime,
) -> Vec<Check> {
    let (mut silent, mut young, mut unready) = (Vec::new(), Vec::new(), Vec::new());
    let (mut both, mut unknown) = (0, 0);
    for pod in pods {
        let name = format!("{}/{}", pod.model.namespace, pod.name);
        match (pod.state, answers.about(&pod.model, &pod.name)) {
            (PodState::Ready, Answering::No) if is_young(pod, wall) => young.push(name),
            (PodState::Ready, Answering::No) => silent.push(name),
            (PodState::Ready, Answering::Yes(_)) => both += 1,
            (PodState::Ready, Answering::Unknown) => unknown += 1,
            (PodState::Starting | PodState::NotReady, Answering::Yes(_)) => unready.push(name),
            _ => {}
        }
    }
    let mut checks = Vec::new();
    if !silent.is_empty() {
        let detail = format!(
            "{} Ready, and no backend has metrics of them: {}",
            counted(silent.len(), "pod is", "pods are"),
            first(&silent)
        );
        checks.push(fail(PODS, detail).with_remedy(
            "a PodMonitor (or a scrape configuration, or a target) must select them: do its labels, its namespaces and the \
             name of its port fit the pods? With annotations: prometheus.io/scrape, prometheus.io/port",
        ));
    }
    if !young.is_empty() {
        let detail = format!(
            "{} Ready for less than {} s, and not scraped yet: {}",
            counted(young.len(), "pod is", "pods are"),
            SCRAPED_WITHIN.as_secs(),
            first(&young)
        );
        checks.push(warn(PODS, detail).with_remedy("check again in some minutes"));
    }
    if !unready.is_empty() {
        let detail = format!(
            "{} not Ready: {}",
            counted(unready.len(), "pod answers and is", "pods answer and are"),
            first(&unready)
        );
        checks.push(warn(PODS, detail).with_remedy(
            "they get no requests: `kubectl describe pod` shows which readiness probe or gate fails",
        ));
    }
    if unknown > 0 {
        let why = answers.problem().unwrap_or("a backend could not be asked");
        let pods = counted(unknown, "Ready pod", "Ready pods");
        checks.push(skip(PODS, &format!("whether {pods} answer is not known: {why}")));
    }
    if both > 0 || checks.is_empty() {
        let pods = counted(both, "Ready pod has", "Ready pods have");
        checks.push(pass(PODS, format!("{pods} metrics")));
    }
    checks
}

fn is_young(pod: &ListedPod, wall: SystemTime) -> bool {
    let age = pod.changed.and_then(|changed| wall.duration_since(changed).ok());
    age.is_some_and(|age| age < SCRAPED_WITHIN)
}

fn shown(model: &ModelRef) -> String {
    shortened(&model.to_string()).to_string()
}
