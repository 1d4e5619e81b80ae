// SPDX-License-Identifier: Apache-2.0
//! What users may read, as the cluster has decided: remembered for ten seconds, and asked once for all who wait for it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::access_control::{AccessControl, AccessRequest, Decision};
use crate::counters;

/// How long a decision holds, for and against: as long as that of the API servers that Kubernetes has a library for.
const HOLDS_FOR: Duration = Duration::from_secs(10);
/// Decisions that are remembered.
const DECISIONS_MAX: usize = 4096;
/// The longest request that is remembered, in bytes: a user chooses some of it.
const REMEMBERED_BYTES_MAX: usize = 10_000;
/// Questions to the cluster at a time.
const CONCURRENT: usize = 16;
/// For an answer, with the wait for others'.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Groups that may read anything, whatever the cluster's rules are: the API server says so of itself.
const ALWAYS_ALLOWED: &str = "system:masters";

type Asked = Shared<BoxFuture<'static, Result<Decision, Arc<str>>>>;

/// The decisions of a cluster.
#[derive(Clone)]
pub(crate) struct Reviews {
    cluster: Arc<dyn AccessControl>,
    places: Arc<Semaphore>,
    known: Arc<Mutex<HashMap<AccessRequest, Known>>>,
}

#[derive(Clone)]
enum Known {
    Asked(Asked),
    Decided(Decision, Instant),
}

impl Reviews {
    pub(crate) fn new(cluster: Arc<dyn AccessControl>) -> Self {
        Self { cluster, places: Arc::new(Semaphore::new(CONCURRENT)), known: Arc::default() }
    }

    /// Returns whether a user may read a metric.
    ///
    /// # Errors
    /// Why that is not known.
    pub(crate) async fn decision(&self, request: AccessRequest) -> Result<Decision, Arc<str>> {
        if request.user.groups.iter().any(|group| group == ALWAYS_ALLOWED) {
            return Ok(Decision { is_allowed: true, reason: String::new() });
        }
        let asked = match self.known_or_ask(request) {
            Known::Decided(decision, _) => return Ok(decision),
            Known::Asked(asked) => asked,
        };
        asked.await
    }

    fn known_or_ask(&self, request: AccessRequest) -> Known {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&request) {
            Some(Known::Decided(_, at)) if at.elapsed() >= HOLDS_FOR => {}
            Some(known) => return known.clone(),
            None => {}
        }
        let is_remembered = bytes(&request) <= REMEMBERED_BYTES_MAX;
        let this = self.clone();
        let asked = request.clone();
        // In a task of its own: a client that leaves must not take the answer from the others.
        let task = tokio::spawn(async move {
            let answer = AssertUnwindSafe(this.ask(&asked)).catch_unwind().await;
            let answer = answer.unwrap_or_else(|_| Err(Arc::from("asking panicked")));
            if is_remembered {
                this.remember(asked, &answer);
            }
            answer
        });
        let asked =
            async { task.await.unwrap_or_else(|_| Err(Arc::from("the process is ending"))) };
        let asked = Known::Asked(asked.boxed().shared());
        if is_remembered {
            make_room(&mut known);
            known.insert(request, asked.clone());
        }
        asked
    }

    async fn ask(&self, request: &AccessRequest) -> Result<Decision, Arc<str>> {
        let answer = timeout(ANSWER_WITHIN, async {
            let _place = self.places.acquire().await;
            self.cluster.review(request).await
        });
        let answer = answer.await.unwrap_or_else(|_| {
            Err(format!("there was no answer within {} s", ANSWER_WITHIN.as_secs()))
        });
        counters::reviewed(answer.as_ref().ok().map(|decision| decision.is_allowed));
        answer.map_err(|error| {
            tracing::warn!(
                error,
                "The API server was not able to say whether a user may read a metric"
            );
            Arc::from(error)
        })
    }

    /// Errors are not remembered.
    fn remember(&self, request: AccessRequest, answer: &Result<Decision, Arc<str>>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(decision) => {
                known.insert(request, Known::Decided(decision.clone(), Instant::now()));
            }
            Err(_) => {
                known.remove(&request);
            }
        }
    }
}

/// Forgets decisions that no longer hold, or else any.
fn make_room(known: &mut HashMap<AccessRequest, Known>) {
    if known.len() < DECISIONS_MAX {
        return;
    }
    known.retain(|_, it| !matches!(it, Known::Decided(_, at) if at.elapsed() >= HOLDS_FOR));
    if known.len() >= DECISIONS_MAX
        && let Some(any) = known.keys().next().cloned()
    {
        known.remove(&any);
    }
}

fn bytes(request: &AccessRequest) -> usize {
    let AccessRequest { user, namespace, metric } = request;
    let extra = user.extra.iter().flat_map(|(key, values)| values.iter().chain([key]));
    let texts = [&user.name, &user.uid, namespace, metric].into_iter();
    texts.chain(&user.groups).chain(extra).map(String::len).sum()
}
