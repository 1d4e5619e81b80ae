// SPDX-License-Identifier: Apache-2.0
//! Brings the state of the pods up to date for a fetch: by waiting for the live source, or by scraping the pods if it
//! does not run.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Ask, BackendError, ErrorKind, KnownModel, ListAsk, ModelRef, Namespace, Operation, PodName,
    Tick,
};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, timeout_at};

use super::answers::{discovery_error, error_of, nobody_answered};
use super::pod::{Outcome, Pod};
use super::shared::Shared;
use crate::NAME;

/// The least time between the two scrapes of a fetch: a rate over less is meaningless.
const BETWEEN_MIN: Duration = Duration::from_millis(50);

/// Scrapes the pods in the namespaces of the requested models. Scrapes before the returned tick are not part of it.
pub(super) async fn fetch(shared: &Shared, ask: Ask<'_>) -> Result<Tick, BackendError> {
    if ask.time_left.is_zero() {
        return Err(no_time(Operation::Fetch));
    }
    // A little less than the time left, so that partial results are still returned.
    let deadline = Instant::now() + ask.time_left.mul_f64(0.97);
    let namespaces: HashSet<&Namespace> = ask.models.iter().map(|model| &model.namespace).collect();
    if shared.is_live() {
        wait_for_live(shared, |namespace| namespaces.contains(namespace), deadline).await;
        return Ok(Tick::MIN);
    }
    // One permit for the fetch: the budget protects a server, and here each request goes to another one.
    let permit = timeout_at(deadline, ask.permits.acquire()).await;
    let _permit = permit.map_err(|_| no_time(Operation::Fetch))??;
    let since = discover(shared, deadline, Operation::Fetch).await?;
    let pods = shared.fleet.pods(|namespace| namespaces.contains(namespace));
    scrape_twice(shared, &pods, since, deadline).await;
    match nobody_answered(&pods, since, Operation::Fetch) {
        Some(error) => Err(error),
        None => Ok(since),
    }
}

/// Scrapes every pod, for calls other than a fetch. It ends within three time-outs.
pub(super) async fn scrape_every_pod(
    shared: &Shared,
    time_left: Duration,
    operation: Operation,
) -> Tick {
    let deadline = Instant::now() + time_left.mul_f64(0.97).min(shared.settings.timeout * 3);
    if shared.is_live() {
        wait_for_live(shared, |_| true, deadline).await;
        return Tick::MIN;
    }
    // Errors of discovery are reported with the rest.
    let since = match discover(shared, deadline, operation).await {
        Ok(since) => since,
        Err(_) => shared.now(),
    };
    let pods = shared.fleet.pods(|_| true);
    scrape_all(shared, &pods, since, deadline).await;
    since
}

/// Returns the models that exist, and how many replicas serve each.
pub(super) async fn list_models(
    shared: &Shared,
    ask: ListAsk<'_>,
) -> Result<Vec<KnownModel>, BackendError> {
    let operation = Operation::ListModels;
    // One permit for the listing, as for a fetch; answers from memory need none.
    let _permit = if shared.is_live() { None } else { Some(ask.permits.acquire().await?) };
    let not_before = scrape_every_pod(shared, ask.time_left, operation).await;
    let mut models: BTreeMap<ModelRef, BTreeSet<PodName>> = BTreeMap::new();
    let mut silent = None;
    let mut may_serve = Vec::new();
    for pod in shared.fleet.pods(|_| true) {
        let seen = pod.seen();
        if seen.is_out_of_service() {
            continue;
        }
        match seen.page(not_before) {
            Ok(good) => {
                for served in &good.models {
                    let namespace = pod.target.namespace.clone();
                    let model = ModelRef::new(served.model.clone(), namespace);
                    // Several servers may be one replica.
                    models.entry(model).or_default().insert(served.replica.pod_name.clone());
                }
            }
            Err(cause) => {
                silent = Some(error_of(&pod, &cause, operation));
                may_serve.push((pod.target.namespace.clone(), seen.was.clone()));
            }
        }
    }
    let state = shared.fleet.lock();
    let may_lack_pods = state.may_lack_pods();
    let outdated = state.outdated.first().cloned();
    drop(state);
    // An empty list is returned only if every target is known now, and answered.
    let unknown = may_lack_pods.as_ref().or(outdated.as_ref());
    let unknown = unknown.map(|error| discovery_error(error, operation));
    if let (true, Some(error)) = (models.is_empty(), silent.or(unknown)) {
        return Err(error);
    }
    // A model does not cease to exist because its only pod does not answer.
    for (namespace, was) in &may_serve {
        for model in was.models() {
            models.entry(ModelRef::new(model.clone(), namespace.clone())).or_default();
        }
    }
    let known = |(model, rows): (ModelRef, BTreeSet<PodName>)| {
        // A pod that does not answer, or is not known, may be a replica too: then their number is unknown.
        let unsure = may_lack_pods.is_some()
            || may_serve.iter().any(|(namespace, was)| {
                *namespace == model.namespace && was.may_serve(&model.model)
            });
        let replicas = u32::try_from(rows.len()).ok().filter(|_| !unsure);
        KnownModel::new(model, replicas)
    };
    Ok(models.into_iter().map(known).collect())
}

fn no_time(operation: Operation) -> BackendError {
    BackendError::new(ErrorKind::Timeout, NAME.into(), operation, "the targets")
        .with_detail("no time was left to scrape them")
}

/// Waits until the live source has scraped every pod of these namespaces recently. Pods that are not scraped once an
/// interval are scraped now.
async fn wait_for_live(shared: &Shared, matter: impl Fn(&Namespace) -> bool, deadline: Instant) {
    let now = shared.now();
    let recent = shared.config.scrape_interval * 2;
    let mut progress = shared.progress();
    let waiting_for = || {
        let mut pods = shared.fleet.pods(&matter);
        pods.retain(|pod| pod.seen().tried_at.is_none_or(|tried_at| tried_at.age(now) > recent));
        pods
    };
    let mut asked: HashSet<usize> = HashSet::new();
    loop {
        let pods = waiting_for();
        for pod in &pods {
            if asked.insert(Arc::as_ptr(pod).addr()) {
                pod.ask();
            }
        }
        if pods.is_empty() && !shared.fleet.lock().not_asked_yet {
            return;
        }
        match timeout_at(deadline, progress.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Asks the sources for their targets, and returns when that began: earlier scrapes belong to another fetch.
async fn discover(
    shared: &Shared,
    deadline: Instant,
    operation: Operation,
) -> Result<Tick, BackendError> {
    let since = shared.now();
    let found = timeout_at(deadline, shared.sources.find()).await;
    shared.take(found.map_err(|_| no_time(operation))?);
    let state = shared.fleet.lock();
    if state.namespaces.is_empty()
        && let Some(error) = state.unknown.first()
    {
        return Err(discovery_error(error, operation));
    }
    Ok(since)
}

/// Scrapes all pods. Those whose pages span less than an interval, because they were scraped for the first time now or
/// just before by a listing, are scraped again one interval later, or earlier if there is less time.
async fn scrape_twice(shared: &Shared, pods: &[Arc<Pod>], since: Tick, deadline: Instant) {
    let is_first = |pod: &Pod, is_recent: &dyn Fn(Tick) -> bool| match &pod.seen().outcome {
        Outcome::Good(good) => good.is_first && is_recent(good.asked_at),
        Outcome::Untried | Outcome::Failed(_) => false,
    };
    let interval = shared.config.scrape_interval;
    let is_recent = |asked_at: Tick| asked_at.age(since) < interval;
    let was_first: Vec<bool> = pods.iter().map(|pod| is_first(pod, &is_recent)).collect();
    scrape_all(shared, pods, since, deadline).await;
    let again = pods.iter().zip(was_first).filter(|(pod, was)| *was || is_first(pod, &|_| true));
    let again: Vec<Arc<Pod>> = again.map(|(pod, _)| Arc::clone(pod)).collect();
    let left = deadline.saturating_duration_since(Instant::now());
    let between = shared.config.scrape_interval.min(left.saturating_sub(shared.settings.timeout));
    if again.is_empty() || between < BETWEEN_MIN {
        return;
    }
    sleep(between).await;
    let since = shared.now();
    scrape_all(shared, &again, since, deadline).await;
}

/// Scrapes all pods at once. Each has its own time-out, and none waits for another.
async fn scrape_all(shared: &Shared, pods: &[Arc<Pod>], since: Tick, deadline: Instant) {
    let mut scrapes: FuturesUnordered<_> =
        pods.iter().map(|pod| shared.scrape(pod, since)).collect();
    let all = async { while scrapes.next().await.is_some() {} };
    // Pods whose scrape did not end in time are unknown.
    let _ = timeout_at(deadline, all).await;
}
