// SPDX-License-Identifier: Apache-2.0
//! The live source: every pod has a task that scrapes it, and models that changed are pushed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{ModelRef, Tick, UpdateSink};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::answers::Wish;
use super::endpoint_picker::EndpointPickerGauges;
use super::pod::Pod;
use super::shared::Shared;
use crate::selfmetrics;

/// Changes within this time are pushed together.
const TOGETHER: Duration = Duration::from_millis(20);
/// Inverse of the greatest share of time that is spent on making and pushing answers: one push of a model on a
/// thousand pods costs a millisecond, and its pods are scraped all the time.
const PUSHING_MAX: u32 = 20;
/// Changes are pushed after this time at the latest.
const TOGETHER_MAX: Duration = Duration::from_millis(200);
/// The first scrapes are spread over this, or over the scrape interval where it is shorter.
const START_WITHIN: Duration = Duration::from_secs(1);
/// How often terminated pods are forgotten and pods are counted.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Runs until it is dropped, which ends every task. Connections stay open for later fetches.
pub(super) async fn run(shared: &Arc<Shared>, sink: Arc<dyn UpdateSink>) {
    let _live = Live::begin(shared);
    let targets_changed = Notify::new();
    let on_found = |found| {
        shared.take(found);
        targets_changed.notify_one();
    };
    tokio::join!(
        shared.sources.run(on_found),
        keep_tasks(shared, &targets_changed),
        keep_pushing(shared, &*sink),
        keep_cycles(shared, &*sink),
        keep_tidy(shared),
    );
}

/// Marks the live source as running, until it is dropped.
struct Live<'a>(&'a Shared);

impl<'a> Live<'a> {
    fn begin(shared: &'a Shared) -> Self {
        shared.set_live(true);
        Self(shared)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.set_live(false);
    }
}

/// Keeps one task for each pod.
async fn keep_tasks(shared: &Arc<Shared>, targets_changed: &Notify) {
    let mut tasks = Tasks::default();
    loop {
        tasks.match_to(shared);
        tokio::select! {
            () = targets_changed.notified() => {}
            () = tasks.one_ended() => {}
        }
    }
}

/// The tasks, all of which end when this is dropped.
#[derive(Default)]
struct Tasks {
    set: JoinSet<()>,
    running: HashMap<Id, (Arc<Pod>, AbortHandle)>,
}

impl Tasks {
    fn match_to(&mut self, shared: &Arc<Shared>) {
        let mut missing: HashMap<usize, Arc<Pod>> = shared
            .fleet
            .pods(|_| true)
            .into_iter()
            .map(|pod| (Arc::as_ptr(&pod).addr(), pod))
            .collect();
        for (pod, task) in self.running.values() {
            if missing.remove(&Arc::as_ptr(pod).addr()).is_none() {
                task.abort();
            }
        }
        for pod in missing.into_values() {
            let task = self.set.spawn(keep_scraping(Arc::clone(shared), Arc::clone(&pod)));
            self.running.insert(task.id(), (pod, task));
        }
    }

    /// Returns when a task has ended, because its pod has vanished or it panicked.
    async fn one_ended(&mut self) {
        let ended = match self.set.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => {
                if error.is_panic()
                    && let Some((pod, _)) = self.running.get(&error.id())
                {
                    // The task is started again, with a phase of its own.
                    tracing::error!(url = %pod.target.shown(), "Scraping a target panicked");
                }
                error.id()
            }
        };
        if let Some((pod, _)) = self.running.remove(&ended) {
            // Nothing else closes the connection of a pod that has vanished.
            pod.disconnect();
        }
    }
}

/// Scrapes one pod, first soon and then once an interval with a phase of its own, so that scrapes of all pods are
/// spread evenly over the interval.
async fn keep_scraping(shared: Arc<Shared>, pod: Arc<Pod>) {
    let times = Times { start: Instant::now(), phase: fastrand::f64() };
    let mut next = Some(times.first(shared.config.scrape_interval));
    loop {
        let due = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = pod.wake.notified() => {
                if !pod.take_asked() {
                    next = times.sooner(next, shared.interval(&pod));
                    continue;
                }
            }
        }
        shared.scrape(&pod, shared.now()).await;
        next = shared.interval(&pod).map(|interval| times.after(Instant::now(), interval));
    }
}

/// The schedule of a pod's scrapes.
struct Times {
    start: Instant,
    /// Its share of the interval, 0 to 1.
    phase: f64,
}

impl Times {
    fn first(&self, interval: Duration) -> Instant {
        self.start + interval.min(START_WITHIN).mul_f64(self.phase)
    }

    /// Returns the next scrape after `now`; missed ones are skipped.
    fn after(&self, now: Instant, interval: Duration) -> Instant {
        let anchor = self.start + interval.mul_f64(self.phase);
        let passed = now.saturating_duration_since(anchor).as_nanos();
        let periods = if now < anchor { 0 } else { passed / interval.as_nanos().max(1) + 1 };
        anchor + interval.saturating_mul(u32::try_from(periods).unwrap_or(u32::MAX))
    }

    /// Returns the next scrape after the interval may have changed; never later than the one planned before.
    fn sooner(&self, next: Option<Instant>, interval: Option<Duration>) -> Option<Instant> {
        let by_interval = interval.map(|interval| self.after(Instant::now(), interval));
        match (next, by_interval) {
            (Some(next), Some(other)) => Some(next.min(other)),
            (one, other) => one.or(other),
        }
    }
}

/// Pushes models that changed, several of them together.
async fn keep_pushing(shared: &Shared, sink: &dyn UpdateSink) {
    let mut pause = TOGETHER;
    loop {
        shared.news.notified().await;
        sleep(pause).await;
        let models = shared.take_changed();
        let began = Instant::now();
        push(shared, sink, &models);
        pause = (began.elapsed() * PUSHING_MAX).clamp(TOGETHER, TOGETHER_MAX);
    }
}

/// Reports when every pod was tried, and then pushes tracked models that no pod serves, because no scrape does.
async fn keep_cycles(shared: &Shared, sink: &dyn UpdateSink) {
    let mut progress = shared.progress();
    let mut told = None;
    loop {
        while !shared.all_tried() {
            // The sender lives as long as `shared`.
            let _ = progress.changed().await;
        }
        let unserved = shared.unserved();
        let news: Vec<ModelRef> = match &told {
            // The end of the first cycle promises that everything found was pushed, so models that still wait
            // to be pushed together are pushed now.
            None => shared.tracked(),
            Some(told) => unserved.difference(told).cloned().collect(),
        };
        push(shared, sink, &news);
        told = Some(unserved);
        sink.cycle_ended();
        sleep(shared.config.scrape_interval.max(TIDY_EVERY)).await;
    }
}

/// Pushes the answers about these models.
fn push(shared: &Shared, sink: &dyn UpdateSink, models: &[ModelRef]) {
    if models.is_empty() {
        return;
    }
    // The load is pushed pod by pod, because it can be summed later but not split.
    let wish = Wish {
        not_before: Tick::MIN,
        window: shared.config.window,
        trace: None,
        picker_required: shared.config.picker_required,
    };
    sink.push(shared.answers(models, wish));
}

async fn keep_tidy(shared: &Shared) {
    let mut endpoint_pickers = EndpointPickerGauges::default();
    loop {
        shared.fleet.tidy(shared.now());
        let [up, down, untried] = shared.fleet.count();
        selfmetrics::targets(up, down, untried);
        endpoint_pickers.show(&shared.fleet, shared.now());
        sleep(TIDY_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_is_scraped_at_an_even_interval() {
        let start = Instant::now();
        let times = Times { start, phase: 0.25 };
        let at = |millis| start + Duration::from_millis(millis);
        let second = Duration::from_secs(1);
        assert_eq!(times.first(second), at(250));
        assert_eq!(times.after(at(250), second), at(1250));
        assert_eq!(times.after(at(700), second), at(1250));
        // A missed scrape is skipped.
        assert_eq!(times.after(at(2300), second), at(3250));
        // With a long interval the first scrape is soon, and the others are spread.
        assert_eq!(times.first(second * 40), at(250));
        assert_eq!(times.after(at(250), second * 40), at(10_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_tracked_pod_is_scraped_sooner() {
        let times = Times { start: Instant::now(), phase: 0.0 };
        let second = Duration::from_secs(1);
        let idle = Some(times.after(Instant::now(), second * 15));
        assert_eq!(times.sooner(idle, Some(second)), Some(Instant::now() + second));
        assert_eq!(times.sooner(None, Some(second)), Some(Instant::now() + second));
        assert_eq!(times.sooner(idle, None), idle);
    }
}
