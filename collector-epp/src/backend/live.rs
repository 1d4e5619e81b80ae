//! The live half: every pod has a task that scrapes it at its own times, and what changed is pushed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use collector_core::{ModelRef, Tick, UpdateSink};
use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};

use super::answers::{Wish, answers};
use super::endpoint_picker::EndpointPickerGauges;
use super::pod::Pod;
use super::shared::Shared;
use crate::selfmetrics;

/// What changes within this time is pushed together.
const TOGETHER: Duration = Duration::from_millis(20);
/// The greatest part of the time that is spent on making and pushing answers, as its inverse: for a
/// model on a thousand pods one push costs a millisecond, and its pods are scraped all the time.
const PUSHING_MAX: u32 = 20;
/// What changes is pushed after this at the latest.
const TOGETHER_MAX: Duration = Duration::from_millis(200);
/// The first scrapes are spread over this, or over the scrape interval where it is shorter.
const START_WITHIN: Duration = Duration::from_secs(1);
/// How often what is gone is forgotten and pods are counted.
const TIDY_EVERY: Duration = Duration::from_secs(1);

/// Works until it is dropped; then every task ends. Connections stay, for looks that may follow.
pub(super) async fn run(shared: &Arc<Shared>, sink: Arc<dyn UpdateSink>) {
    let _live = Live::begin(shared);
    let targets_changed = Notify::new();
    let on_look = |found| {
        shared.take(found);
        targets_changed.notify_one();
    };
    tokio::join!(
        shared.sources.run(on_look),
        keep_tasks(shared, &targets_changed),
        keep_pushing(shared, &*sink),
        keep_cycles(shared, &*sink),
        keep_tidy(shared),
    );
}

/// Says that the live half runs, as long as it exists.
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

/// The tasks; dropped, all of them end.
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

    /// Returns when a task has ended: its pod has vanished, or it panicked.
    async fn one_ended(&mut self) {
        let ended = match self.set.join_next_with_id().await {
            None => std::future::pending().await,
            Some(Ok((id, ()))) => id,
            Some(Err(error)) => {
                if error.is_panic()
                    && let Some((pod, _)) = self.running.get(&error.id())
                {
                    // It begins anew, at a time of its own as every task does.
                    tracing::error!(url = %pod.target.url, "Scraping a target panicked");
                }
                error.id()
            }
        };
        if let Some((pod, _)) = self.running.remove(&ended) {
            // Where it has vanished, nobody else will.
            pod.hang_up();
        }
    }
}

/// Scrapes one pod: soon, and from then on at times of its own, so that all pods are spread over the
/// interval and each comes at an even pace, whatever the others do.
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
            () = pod.bell.notified() => {
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

/// When a pod is scraped.
struct Times {
    start: Instant,
    /// Its share of the interval, 0 to 1.
    phase: f64,
}

impl Times {
    fn first(&self, interval: Duration) -> Instant {
        self.start + interval.min(START_WITHIN).mul_f64(self.phase)
    }

    /// The next one after `now`; those that were missed are left out.
    fn after(&self, now: Instant, interval: Duration) -> Instant {
        let anchor = self.start + interval.mul_f64(self.phase);
        let passed = now.saturating_duration_since(anchor).as_nanos();
        let periods = if now < anchor { 0 } else { passed / interval.as_nanos().max(1) + 1 };
        anchor + interval.saturating_mul(u32::try_from(periods).unwrap_or(u32::MAX))
    }

    /// The next one when the interval may have become another; never later than it was to be.
    fn sooner(&self, next: Option<Instant>, interval: Option<Duration>) -> Option<Instant> {
        let by_interval = interval.map(|interval| self.after(Instant::now(), interval));
        match (next, by_interval) {
            (Some(next), Some(other)) => Some(next.min(other)),
            (one, other) => one.or(other),
        }
    }
}

/// Pushes what changed, some of it together.
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

/// Tells when every pod was tried, and then of the tracked models that none of them serves: no scrape
/// would.
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
            // Whoever is told that the first cycle has ended relies on it: what was found is pushed
            // before, whatever still waits to be pushed together.
            None => shared.tracked(),
            Some(told) => unserved.difference(told).cloned().collect(),
        };
        push(shared, sink, &news);
        told = Some(unserved);
        sink.cycle_ended();
        sleep(shared.config.scrape_interval.max(TIDY_EVERY)).await;
    }
}

/// Pushes what is known of these models.
fn push(shared: &Shared, sink: &dyn UpdateSink, models: &[ModelRef]) {
    if models.is_empty() {
        return;
    }
    // Nobody asked, so the load is told pod by pod: it can be summed, and not be taken apart.
    let wish = Wish { ask: None, not_before: Tick::MIN, window: shared.config.window, trace: None };
    sink.push(answers(&shared.fleet, models, wish, shared.now()));
}

async fn keep_tidy(shared: &Shared) {
    let mut endpoint_pickers = EndpointPickerGauges::default();
    loop {
        shared.fleet.tidy(shared.now());
        let [up, down, untried] = shared.fleet.count();
        selfmetrics::targets(up, down, untried);
        endpoint_pickers.show(&shared.fleet);
        sleep(TIDY_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_keeps_its_own_even_pace() {
        let start = Instant::now();
        let times = Times { start, phase: 0.25 };
        let at = |millis| start + Duration::from_millis(millis);
        let second = Duration::from_secs(1);
        assert_eq!(times.first(second), at(250));
        assert_eq!(times.after(at(250), second), at(1250));
        assert_eq!(times.after(at(700), second), at(1250));
        // One that was missed is left out.
        assert_eq!(times.after(at(2300), second), at(3250));
        // Of long intervals the first scrape is soon, and the others are spread.
        assert_eq!(times.first(second * 40), at(250));
        assert_eq!(times.after(at(250), second * 40), at(10_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_wanted_again_is_due_sooner() {
        let times = Times { start: Instant::now(), phase: 0.0 };
        let second = Duration::from_secs(1);
        let idle = Some(times.after(Instant::now(), second * 15));
        assert_eq!(times.sooner(idle, Some(second)), Some(Instant::now() + second));
        assert_eq!(times.sooner(None, Some(second)), Some(Instant::now() + second));
        assert_eq!(times.sooner(idle, None), idle);
    }
}
