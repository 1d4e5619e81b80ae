// SPDX-License-Identifier: Apache-2.0
//! Permits for the requests to one backend: a limit on those in flight, and one on those a second.
//!
//! Tokio's semaphores serve in order of arrival. So how many requests of one priority may compete for a permit at
//! once decides its share of the permits, and no caller waits behind the whole background.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use collector_core::{BudgetState, Limits, Permit};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

/// Requests in flight to one backend, over all fetches. A fetch of the Prometheus backend keeps 2 to 4
/// in flight; this bounds how many fetches can do so at once.
const IN_FLIGHT: usize = 8;

/// What a request is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Priority {
    /// Somebody waits for a reading.
    Waiting,
    /// The background refresh.
    Background,
    /// A question about the backend: which models there are.
    Probe,
}

/// The permits of one backend.
pub(crate) struct Budget {
    in_flight: Arc<Semaphore>,
    /// By priority.
    classes: [Class; 3],
    per_second: u32,
    rate: Option<Rate>,
}

/// The requests of one priority, first come first served.
struct Class {
    /// Those in flight. The background leaves two permits to callers, so that they can still ask a server
    /// that hangs under a refresh.
    most: Arc<Semaphore>,
    /// Those that compete for a permit.
    competing: Semaphore,
    /// The one that waits for its time to be sent.
    next: Semaphore,
    /// How long it lets other priorities go first once a request may be sent.
    yields: Duration,
    /// How many requests of others it waits for at most: a background request is one in five.
    patience: u32,
}

/// A limit on the requests a second, kept as one point in time (GCRA): nothing is rounded, and no task
/// has to refill a bucket.
struct Rate {
    /// Between two requests in the long run.
    every: Duration,
    /// How far ahead of its time a request may be sent.
    ahead: Duration,
    /// When the next request is due.
    due: Mutex<Instant>,
}

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        let class = |most, competing, yields, patience| Class {
            most: Arc::new(Semaphore::new(most)),
            competing: Semaphore::new(competing),
            next: Semaphore::new(1),
            yields: Duration::from_millis(yields),
            patience,
        };
        let rate = (limits.requests_per_second > 0).then(|| {
            let every = Duration::from_secs(1) / limits.requests_per_second;
            let ahead = every * limits.request_burst.saturating_sub(1);
            Rate { every, ahead, due: Mutex::new(Instant::now()) }
        });
        Self {
            in_flight: Arc::new(Semaphore::new(IN_FLIGHT)),
            // Callers who wait, the background, and questions about the backend.
            classes: [class(IN_FLIGHT, 4, 0, u32::MAX), class(6, 1, 1, 5), class(1, 1, 2, 9)],
            per_second: limits.requests_per_second,
            rate,
        }
    }

    pub(crate) fn state(&self) -> BudgetState {
        BudgetState {
            in_flight: IN_FLIGHT - self.in_flight.available_permits(),
            max_in_flight: IN_FLIGHT,
            per_second: self.per_second,
            burst_left: self.rate.as_ref().map(Rate::left),
        }
    }

    /// Waits for a permit to send one request.
    ///
    /// # Cancel safety
    /// Dropping the future gives up its position in the queue.
    pub(crate) async fn acquire(&self, priority: Priority) -> Permit {
        let class = &self.classes[priority as usize];
        // No semaphore is ever closed.
        let of_class = Arc::clone(&class.most).acquire_owned().await.ok();
        let _competing = class.competing.acquire().await.ok();
        let permit = Arc::clone(&self.in_flight).acquire_owned().await.ok();
        if let Some(rate) = &self.rate {
            let _next = class.next.acquire().await.ok();
            let waited_enough = Instant::now() + rate.every * class.patience;
            while let Err(at) = rate.take(class.yields, waited_enough) {
                sleep_until(at).await;
            }
        }
        Permit::new((of_class, permit))
    }
}

impl Rate {
    /// How many requests may be sent at once.
    fn left(&self) -> u32 {
        let due = *self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let early = due.saturating_duration_since(Instant::now());
        let Some(room) = self.ahead.checked_sub(early) else { return 0 };
        let more = room.as_nanos() / self.every.as_nanos().max(1);
        u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Takes the time of the next request, or says when to try again.
    fn take(&self, yields: Duration, waited_enough: Instant) -> Result<(), Instant> {
        // It is replaced as a whole.
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let at = due.checked_sub(self.ahead).unwrap_or(now) + yields;
        if at.min(waited_enough) > now {
            return Err(at.min(waited_enough));
        }
        // The time in which it let others go first is not lost.
        *due = (*due).max(now.checked_sub(yields).unwrap_or(now)) + self.every;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const ALL: [Priority; 3] = [Priority::Waiting, Priority::Background, Priority::Probe];

    fn budget(per_second: u32, burst: u32) -> Arc<Budget> {
        Arc::new(Budget::new(Limits::default().with_rate(per_second, burst)))
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Sends `requests` one after the other, each of which takes no time; returns how long that took.
    async fn send(budget: Arc<Budget>, priority: Priority, requests: usize) -> Duration {
        let began = Instant::now();
        for _ in 0..requests {
            drop(budget.acquire(priority).await);
        }
        began.elapsed()
    }

    /// How many requests of each priority are sent in ten seconds by `tasks` each, of `takes` each, and how long
    /// a caller waited at most.
    async fn flood(
        budget: &Arc<Budget>,
        tasks: [usize; 3],
        takes: Duration,
    ) -> ([usize; 3], Duration) {
        let sent: Arc<[AtomicUsize; 3]> = Arc::default();
        let longest = Arc::new(Mutex::new(Duration::ZERO));
        let mut flood = tokio::task::JoinSet::new();
        for priority in ALL {
            for _ in 0..tasks[priority as usize] {
                let (budget, sent) = (Arc::clone(budget), Arc::clone(&sent));
                let longest = Arc::clone(&longest);
                flood.spawn(async move {
                    loop {
                        let began = Instant::now();
                        let _permit =
                            tokio::time::timeout(ms(5000), budget.acquire(priority)).await;
                        if priority == Priority::Waiting {
                            let mut longest = longest.lock().unwrap();
                            *longest = (*longest).max(began.elapsed());
                        }
                        sent[priority as usize].fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(takes).await;
                    }
                });
            }
        }
        tokio::time::sleep(ms(10_000)).await;
        flood.abort_all();
        let longest = *longest.lock().unwrap();
        (std::array::from_fn(|of| sent[of].load(Ordering::SeqCst)), longest)
    }

    #[tokio::test(start_paused = true)]
    async fn a_returned_permit_goes_to_the_next_in_the_queue() {
        let budget = budget(0, 0);
        let mut held = join_all((0..IN_FLIGHT).map(|_| budget.acquire(Priority::Waiting))).await;
        let mut next = Box::pin(budget.acquire(Priority::Waiting));
        assert!(next.as_mut().now_or_never().is_none());
        held.pop();
        drop(next.as_mut().now_or_never().expect("one was returned"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_is_reserved_for_callers() {
        let budget = budget(0, 0);
        let background = (0..IN_FLIGHT).map(|_| budget.acquire(Priority::Background));
        let probes = (0..IN_FLIGHT).map(|_| budget.acquire(Priority::Probe));
        let mut taken: Vec<_> = background.chain(probes).map(Box::pin).collect();
        let granted = taken.iter_mut().filter_map(|wait| wait.as_mut().now_or_never());
        assert_eq!(granted.collect::<Vec<_>>().len(), 7);
        assert!(budget.acquire(Priority::Waiting).now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_what_may_be_sent_at_once() {
        let budget = budget(10, 5);
        let left = || (budget.state().in_flight, budget.state().burst_left);
        assert_eq!(left(), (0, Some(5)));
        let held = join_all((0..3).map(|_| budget.acquire(Priority::Waiting))).await;
        assert_eq!(left(), (3, Some(2)));
        drop(held);
        send(Arc::clone(&budget), Priority::Waiting, 2).await;
        assert_eq!(left(), (0, Some(0)));
        tokio::time::sleep(ms(250)).await;
        assert_eq!(left(), (0, Some(2)));
        assert_eq!(Budget::new(Limits::default().with_rate(0, 0)).state().burst_left, None);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_burst_requests_keep_to_the_rate() {
        let budget = budget(10, 5);
        assert_eq!(send(Arc::clone(&budget), Priority::Waiting, 5).await, Duration::ZERO);
        assert_eq!(send(Arc::clone(&budget), Priority::Waiting, 10).await, ms(1000));
        // What is not used is saved, up to a burst.
        tokio::time::sleep(ms(300)).await;
        assert_eq!(send(Arc::clone(&budget), Priority::Waiting, 3).await, Duration::ZERO);
        tokio::time::sleep(ms(60_000)).await;
        assert_eq!(send(budget, Priority::Waiting, 6).await, ms(100));
    }

    #[tokio::test(start_paused = true)]
    async fn the_background_alone_uses_the_whole_rate() {
        let (sent, _) = flood(&budget(100, 1), [0, 20, 0], Duration::ZERO).await;
        assert!((999..=1001).contains(&sent[1]), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn callers_go_before_the_background_and_that_before_probes() {
        let budget = budget(10, 1);
        drop(budget.acquire(Priority::Waiting).await);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for priority in ALL.into_iter().rev() {
            let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
            tasks.spawn(async move {
                let _permit = budget.acquire(priority).await;
                order.lock().unwrap().push(priority);
            });
        }
        tasks.join_all().await;
        assert_eq!(*order.lock().unwrap(), ALL);
    }

    #[tokio::test(start_paused = true)]
    async fn the_background_and_probes_get_a_share_of_the_rate() {
        let (sent, _) = flood(&budget(100, 1), [20, 20, 20], Duration::ZERO).await;
        let all: usize = sent.iter().sum();
        assert!((999..=1001).contains(&all), "{sent:?}");
        assert!(sent[0] >= 650, "{sent:?}");
        assert!((150..=250).contains(&sent[1]), "{sent:?}");
        assert!((90..=125).contains(&sent[2]), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_background_gets_a_share_of_the_permits() {
        let (sent, _) = flood(&budget(0, 0), [100, 100, 0], ms(10)).await;
        let all: usize = sent.iter().sum();
        assert!(all >= 7900 && sent[1] * 10 >= all && sent[1] * 4 <= all, "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_background_requests_does_not_hold_up_a_caller() {
        for (rate, limit) in [(0, ms(0)), (100, ms(20)), (5, ms(400))] {
            let (sent, longest) = flood(&budget(rate, 1), [1, 100, 0], ms(10)).await;
            assert!(longest <= limit, "{longest:?} at {rate} a second: {sent:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_gives_up_holds_up_nobody() {
        let budget = budget(10, 1);
        drop(budget.acquire(Priority::Waiting).await);
        // The first is gone before its request is due.
        let first = tokio::time::timeout(ms(50), budget.acquire(Priority::Waiting));
        let began = Instant::now();
        let second = send(Arc::clone(&budget), Priority::Waiting, 1);
        let (first, _) = tokio::join!(first, second);
        assert!(first.is_err());
        assert_eq!(began.elapsed(), ms(100));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_are_served_in_order_of_arrival() {
        let budget = budget(10, 1);
        drop(budget.acquire(Priority::Waiting).await);
        let began = Instant::now();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 1..=9 {
            let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
            tasks.spawn(async move {
                let _permit = budget.acquire(Priority::Waiting).await;
                order.lock().unwrap().push((number, began.elapsed()));
            });
        }
        tasks.join_all().await;
        assert_eq!(*order.lock().unwrap(), (1..=9).map(|n| (n, ms(100 * n))).collect::<Vec<_>>());
        // Also with requests that take a while, and callers that ask again.
        let (_, longest) = flood(&self::budget(100, 1), [4, 20, 0], ms(10)).await;
        assert!(longest <= ms(60), "{longest:?}");
    }
}
