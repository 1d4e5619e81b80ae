// SPDX-License-Identifier: Apache-2.0
//! What a backend spends: permits, requests, threads and tasks.

use std::time::Duration;

use collector_core::{Answer, BackendError, ErrorKind, ListAsk, ModelRef, Operation, ProbeAsk};
use tokio::time::{sleep, timeout};

use super::permits::{Permitting, Refusing};
use super::watch::{Watched, poll_once};
use super::{Suite, Verdict, demand};

/// A poll that takes longer keeps others waiting. A busy machine may do it too, but not each time.
const POLL_MAX: Duration = Duration::from_millis(200);
const POLL_TRIES: usize = 3;

/// Fetches that are dropped, each of which could leave a task.
const DROPPED: usize = 8;

/// After which a task that was left is seen to go on.
const AFTERMATH: Duration = Duration::from_millis(300);

/// What one fetch has cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Permits that were taken.
    pub(super) permits: usize,
    /// Requests that the server has received, where it counts.
    pub(super) requests: Option<u64>,
}

impl Suite<'_> {
    pub(super) async fn spending_cases(&self) {
        self.runs("one_permit_at_a_time_is_enough", self.one_permit()).await;
        self.runs("a_dropped_fetch_leaves_nothing_half_done", self.dropped()).await;
        self.runs("no_task_outlives_its_fetch", self.no_tasks()).await;
        let cases = [
            "without_a_permit_nothing_is_asked",
            "each_request_takes_a_permit",
            "a_batch_costs_little_more_than_one_model",
        ];
        if self.backend.live().is_some() {
            let reason = "what it has collected by itself it may answer without a request";
            self.skips_all(&cases, reason);
            return;
        }
        self.runs(cases[0], self.no_permit()).await;
        self.runs(cases[1], self.permit_for_each()).await;
        self.runs(cases[2], self.batch_cost()).await;
    }

    /// What a fetch costs that answers.
    pub(super) async fn cost(&self, models: &[ModelRef]) -> Verdict<Cost> {
        let (permits, before) = (Permitting::unlimited(), self.fleet.requests());
        let mut ask = self.ask(models);
        ask.permits = &permits;
        self.fetch_truth(ask).await?;
        let held = permits.held();
        demand!(
            held == 0,
            "expected every permit to be given back after the fetch, {held} are kept"
        );
        Ok(self.cost_since(&permits, before))
    }

    pub(super) fn cost_since(&self, permits: &Permitting, before: Option<u64>) -> Cost {
        let requests = self.fleet.requests().zip(before).map(|(now, before)| now - before);
        Cost { permits: permits.taken(), requests }
    }

    /// The engine grants a few at a time to all calls together: who waits for a permit while holding one
    /// may wait for itself.
    async fn one_permit(&self) -> Verdict {
        let models = self.known_and_absent();
        let permits = Permitting::at_once(1);
        let mut ask = self.ask(&models);
        ask.permits = &permits;
        let why = "with one permit at a time (does it wait for a permit while it holds another, or keep \
                   those of requests that have ended?)";
        self.fetch_truth(ask).await.map_err(|wrong| format!("{why}: {wrong}"))?;
        let mut ask = ProbeAsk::new(&*self.clock);
        ask.permits = &permits;
        let probe = self.call(Operation::Probe, ask.time_left, self.backend.probe(ask)).await;
        probe
            .map_err(|wrong| format!("{why}: {wrong}"))?
            .map_err(|error| format!("{why}: {error}"))?;
        if self.backend.supports().list_models {
            let mut ask = ListAsk::new(&*self.clock);
            ask.permits = &permits;
            let list = self.list_with(ask).await.map_err(|wrong| format!("{why}: {wrong}"))?;
            list.map_err(|error| format!("{why}: {error}"))?;
        }
        let held = permits.held();
        demand!(held == 0, "expected every permit to be given back, {held} are kept");
        Ok(())
    }

    async fn dropped(&self) -> Verdict {
        let models = self.known();
        // Dropped at its first wait, and at the wait for each of its first permits.
        poll_once(self.backend.fetch(self.ask(&models))).await;
        for granted in 0..4 {
            let permits = Permitting::in_all(granted);
            let mut ask = self.ask(&models);
            ask.permits = &permits;
            tokio::select! {
                ended = self.call(Operation::Fetch, ask.time_left, self.backend.fetch(ask)) => {
                    let _ = ended?;
                }
                () = permits.exhausted() => {}
            }
            let held = permits.held();
            demand!(
                held == 0,
                "expected the permits of a dropped fetch to be given back, {held} are kept"
            );
        }
        self.all_is_well().await
    }

    /// A fetch that has ended, or was dropped, asks for nothing more.
    async fn no_tasks(&self) -> Verdict {
        let models = self.known();
        self.all_is_well().await?;
        let (tasks, permits) = (alive_tasks(), Permitting::unlimited());
        let mut ask = self.ask(&models);
        ask.permits = &permits;
        for _ in 0..DROPPED {
            // Dropped as soon as it has something under way, or when it has ended.
            let some = async {
                while permits.held() == 0 {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                ended = self.call(Operation::Fetch, ask.time_left, self.backend.fetch(ask)) => {
                    let _ = ended?;
                }
                _ = timeout(AFTERMATH, some) => {}
            }
        }
        sleep(AFTERMATH).await;
        let held = permits.held();
        demand!(
            held == 0,
            "expected the permits of dropped fetches to be given back, {held} are kept"
        );
        let (taken, before) = (permits.taken(), self.fleet.requests());
        let left = || alive_tasks().saturating_sub(tasks);
        // Connections that were cut off take a moment to end, on both sides.
        sleep(AFTERMATH * 10).await;
        demand!(
            left() < DROPPED / 2,
            "expected no task of {DROPPED} dropped fetches to go on, {} do",
            left()
        );
        let more = self.cost_since(&permits, before);
        // One that collects by itself asks all the time.
        if self.backend.live().is_none() {
            demand!(
                more.permits == taken && more.requests.unwrap_or(0) == 0,
                "expected no request after the fetches were dropped, got {more:?}"
            );
        }
        Ok(())
    }

    pub(super) async fn no_blocking(&self) -> Verdict {
        let models = self.known();
        let mut shortest = Duration::MAX;
        for _ in 0..POLL_TRIES {
            let mut fetch = Watched::new(self.backend.fetch(self.ask(&models)));
            let _ = timeout(Duration::from_secs(40), &mut fetch).await;
            shortest = shortest.min(fetch.longest_poll());
        }
        demand!(
            shortest < POLL_MAX,
            "expected each poll to give the thread back within {POLL_MAX:?}, got {shortest:?}: use \
             asynchronous I/O, or spawn_blocking"
        );
        Ok(())
    }

    async fn no_permit(&self) -> Verdict {
        let (models, before) = (self.known(), self.fleet.requests());
        let mut ask = self.ask(&models);
        ask.permits = &Refusing;
        match self.call(Operation::Fetch, ask.time_left, self.backend.fetch(ask)).await? {
            Err(error) => Self::judge_refused(&error)?,
            Ok(answers) => {
                for model in &models {
                    match answers.get(model) {
                        Some(Answer::Failed(error)) => Self::judge_refused(error)?,
                        other => {
                            return Err(format!(
                                "{model}: expected an error, because no request was permitted; got {other:?}"
                            ));
                        }
                    }
                }
            }
        }
        if self.backend.supports().list_models {
            let mut ask = ListAsk::new(&*self.clock);
            ask.permits = &Refusing;
            match self.list_with(ask).await? {
                Err(error) => Self::judge_refused(&error)?,
                Ok(list) => return Err(format!("expected no list without a permit, got {list:?}")),
            }
        }
        let asked = self.fleet.requests().zip(before).map_or(0, |(now, before)| now - before);
        demand!(asked == 0, "expected no request without a permit, the server got {asked}");
        Ok(())
    }

    fn judge_refused(error: &BackendError) -> Verdict {
        demand!(
            error.kind() == ErrorKind::CircuitOpen,
            "expected the error of the permit as it is, of the kind CircuitOpen; got {:?}: {error}",
            error.kind()
        );
        Ok(())
    }

    async fn permit_for_each(&self) -> Verdict {
        let cost = self.cost(&self.known_and_absent()).await?;
        demand!(cost.permits > 0, "expected a permit for each request, none was taken");
        Self::judge_cost(cost)?;
        if self.backend.supports().list_models {
            let (permits, before) = (Permitting::unlimited(), self.fleet.requests());
            let mut ask = ListAsk::new(&*self.clock);
            ask.permits = &permits;
            let _ = self.list_with(ask).await?;
            let cost = self.cost_since(&permits, before);
            demand!(
                cost.permits > 0,
                "expected a permit for each request of a list, none was taken"
            );
            Self::judge_cost(cost)?;
        }
        Ok(())
    }

    fn judge_cost(cost: Cost) -> Verdict {
        demand!(
            cost.requests.is_none_or(|requests| requests <= cost.permits as u64),
            "expected a permit for each request, got {cost:?}"
        );
        Ok(())
    }

    async fn batch_cost(&self) -> Verdict {
        let one = [self.populated().model.clone()];
        let mut many = self.known();
        many.extend((0..50).map(|number| {
            let namespace = one[0].namespace.clone();
            ModelRef::new(format!("conformance/absent-{number}"), namespace)
        }));
        let (for_one, for_many) = (self.cost(&one).await?, self.cost(&many).await?);
        let requests = |cost: Cost| cost.requests.unwrap_or(0).max(cost.permits as u64);
        demand!(
            requests(for_many) <= 2 * requests(for_one),
            "expected {} models to cost at most twice the requests of one, got {for_many:?} and {for_one:?}",
            many.len()
        );
        Ok(())
    }
}

fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}
