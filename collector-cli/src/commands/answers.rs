// SPDX-License-Identifier: Apache-2.0
//! Which pods answer: the metrics that backends have of them, compared with what a cluster lists.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Answer, Ask, Backend, BackendError, BackendName, Clock, ErrorKind, KnownModel, ListAsk,
    ModelRef, Namespace, Operation, PodName, ReplicaState, Tick,
};
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};

/// What the backends have of the pods of some models.
#[derive(Default)]
pub(super) struct PodAnswers {
    seen: HashMap<(Namespace, PodName), Seen>,
    /// Models of which a backend could not say which pods it has, and why.
    failed: HashMap<ModelRef, String>,
}

/// A pod with metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    /// It has its weights offloaded and serves nothing.
    pub(super) is_asleep: bool,
    /// When it was sampled last.
    pub(super) at: Tick,
}

/// What is known about the answers of a pod.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answering {
    Yes(Seen),
    No,
    /// A backend that may have it could not be asked.
    Unknown,
}

impl PodAnswers {
    /// Asks each backend for all models. One that has not answered by the deadline has failed.
    pub(super) async fn of(
        backends: &[Arc<dyn Backend>],
        models: &[ModelRef],
        clock: &dyn Clock,
        deadline: Instant,
    ) -> Self {
        let mut answers = Self::default();
        if models.is_empty() {
            return answers;
        }
        let asked = backends.iter().map(|backend| async {
            let mut ask = Ask::new(models, clock);
            ask.time_left = time_for(&**backend).min(deadline - Instant::now());
            let fetched = timeout(ask.time_left, backend.fetch(ask)).await;
            fetched.unwrap_or_else(|_| Err(late(&**backend, Operation::Fetch)))
        });
        for of_backend in join_all(asked).await {
            for model in models {
                match &of_backend {
                    Ok(found) => answers.take(model, found.get(model)),
                    Err(error) => answers.fail(model, error.to_string()),
                }
            }
        }
        answers
    }

    fn take(&mut self, model: &ModelRef, answer: Option<&Answer>) {
        match answer {
            Some(Answer::Found(sample)) => {
                for replica in &sample.replicas {
                    let key = (model.namespace.clone(), replica.pod_name.clone());
                    let is_asleep = replica.state == ReplicaState::Sleeping;
                    let seen = Seen { is_asleep, at: replica.sampled_at };
                    let known = self.seen.entry(key).or_insert(seen);
                    if known.at < seen.at {
                        *known = seen;
                    }
                }
            }
            Some(Answer::Missing { .. }) => {}
            Some(Answer::Failed(error)) => self.fail(model, error.to_string()),
            _ => self.fail(model, "it says nothing about the model".to_owned()),
        }
    }

    fn fail(&mut self, model: &ModelRef, why: String) {
        self.failed.entry(model.clone()).or_insert(why);
    }

    /// What is known about a pod of a model.
    pub(super) fn about(&self, model: &ModelRef, pod: &PodName) -> Answering {
        match self.seen.get(&(model.namespace.clone(), pod.clone())) {
            Some(seen) => Answering::Yes(*seen),
            None if self.failed.contains_key(model) => Answering::Unknown,
            None => Answering::No,
        }
    }

    /// Why something is unknown.
    pub(super) fn problem(&self) -> Option<&str> {
        self.failed.values().min().map(String::as_str)
    }
}

/// The models that backends have series of, and why that list may lack some: for example a backend that has not answered
/// by the deadline.
pub(super) async fn measured_models(
    backends: &[Arc<dyn Backend>],
    clock: &dyn Clock,
    deadline: Instant,
) -> (HashSet<ModelRef>, Option<String>) {
    let lists = backends.iter().map(|backend| async {
        let mut ask = ListAsk::new(clock);
        ask.time_left = time_for(&**backend).min(deadline - Instant::now());
        let listed = timeout(ask.time_left, backend.list_models(ask)).await;
        listed.unwrap_or_else(|_| Err(late(&**backend, Operation::ListModels)))
    });
    let (mut models, mut problem) = (HashSet::new(), None);
    for listed in join_all(lists).await {
        match listed {
            Ok(known) => models.extend(known.into_iter().map(|KnownModel { model, .. }| model)),
            Err(error) => problem = problem.or(Some(error.to_string())),
        }
    }
    (models, problem)
}

/// How long a fetch may take, which may be several requests.
pub(super) fn time_for(backend: &dyn Backend) -> Duration {
    backend.limits().timeout * 3 + Duration::from_secs(1)
}

fn late(backend: &dyn Backend, operation: Operation) -> BackendError {
    let name = BackendName::from(backend.name());
    BackendError::new(ErrorKind::Timeout, name, operation, "the server")
}
