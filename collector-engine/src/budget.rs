//! How many requests go to one backend: so many in flight, and so many a second. Callers who wait come
//! first, then the background, then questions about the backend itself.
//!
//! A token bucket that is kept as one point in time (GCRA), so that nothing is rounded and no task
//! refills it: whoever is first in a queue sleeps until the next token is there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use collector_core::Limits;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// Requests in flight to one backend, over all looks. A look of the Prometheus backend keeps 2 to 4
/// in flight; this bounds how many looks can do so at once.
const IN_FLIGHT: usize = 8;

/// Grants to others after which it is the turn of whoever is first in a queue, by priority. So of a
/// budget that callers who wait use up, a fifth is the background's and a ninth of the probes.
const PATIENCE: [u32; 3] = [u32::MAX, 4, 8];

/// Who asks for a request, first come first served among its like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Priority {
    /// Somebody waits for a reading.
    Waiting,
    /// The background refresh.
    Background,
    /// A question about the backend: which models there are.
    Probe,
}

/// The budget of one backend.
pub(crate) struct Budget {
    state: Mutex<State>,
    bucket: Option<Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// Between two tokens.
    every: Duration,
    /// How far ahead of its time a request may be sent.
    ahead: Duration,
}

struct State {
    in_flight: usize,
    /// When the next token would be there if none had been saved.
    next_token: Instant,
    places: u64,
    queues: [Queue; 3],
}

#[derive(Default)]
struct Queue {
    /// Whoever is granted a request leaves.
    waiting: BTreeMap<u64, Arc<Notify>>,
    /// Grants to other queues while somebody waited in this one.
    passed_over: u32,
}

/// A place in a queue. Dropped, it is given up, or the request is that was granted meanwhile.
struct Place<'a> {
    budget: &'a Arc<Budget>,
    priority: Priority,
    number: u64,
    turn: Arc<Notify>,
    taken: bool,
}

/// Leave to send one request, given back on drop.
#[must_use = "the request is given back when it is dropped"]
pub(crate) struct Leave(Arc<Budget>);

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        let bucket = (limits.requests_per_second > 0).then(|| {
            let every = Duration::from_secs(1) / limits.requests_per_second;
            Bucket { every, ahead: every * limits.request_burst.saturating_sub(1) }
        });
        let state = State {
            in_flight: 0,
            next_token: Instant::now(),
            places: 0,
            queues: Default::default(),
        };
        Self { state: Mutex::new(state), bucket }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for leave to send one request.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub(crate) async fn acquire(self: &Arc<Self>, priority: Priority) -> Leave {
        let mut place = self.enqueue(priority);
        loop {
            let wake = match self.turn_of(&place) {
                Turn::Granted => {
                    place.taken = true;
                    return Leave(Arc::clone(self));
                }
                Turn::At(wake) => wake,
            };
            match wake {
                Some(at) => tokio::select! {
                    () = place.turn.notified() => {}
                    () = sleep_until(at) => {}
                },
                None => place.turn.notified().await,
            }
        }
    }

    fn enqueue(self: &Arc<Self>, priority: Priority) -> Place<'_> {
        let turn = Arc::new(Notify::new());
        let mut state = self.lock();
        state.places += 1;
        let number = state.places;
        state.queues[priority as usize].waiting.insert(number, Arc::clone(&turn));
        Place { budget: self, priority, number, turn, taken: false }
    }

    fn turn_of(&self, place: &Place<'_>) -> Turn {
        let mut state = self.lock();
        let wake = self.grant(&mut state);
        let waiting = &state.queues[place.priority as usize].waiting;
        match waiting.first_key_value() {
            // Only the first sleeps for the next token: it wakes the one after it.
            Some((first, _)) if *first == place.number => Turn::At(wake),
            _ if waiting.contains_key(&place.number) => Turn::At(None),
            _ => Turn::Granted,
        }
    }

    /// Grants what can be granted, and tells when the next token is there, where one is waited for.
    fn grant(&self, state: &mut State) -> Option<Instant> {
        let now = Instant::now();
        while state.in_flight < IN_FLIGHT {
            let queue = next_queue(&state.queues)?;
            if let Some(bucket) = self.bucket {
                let at = state.next_token.checked_sub(bucket.ahead).unwrap_or(now);
                if at > now {
                    return Some(at);
                }
                state.next_token = state.next_token.max(now) + bucket.every;
            }
            state.in_flight += 1;
            grant_first(&mut state.queues, queue);
        }
        // Whoever gives a request back grants it to the next.
        None
    }

    fn give_back(&self, state: &mut State) {
        state.in_flight = state.in_flight.saturating_sub(1);
        if self.grant(state).is_some() {
            // It is the next token now that they wait for, and nobody sleeps for that yet.
            state.queues.iter().for_each(wake_first);
        }
    }
}

/// What a place in a queue has come to.
enum Turn {
    Granted,
    /// Look again then, or when told to.
    At(Option<Instant>),
}

/// The queue whose first is next: one that was passed over often enough, else the one of the highest
/// priority.
fn next_queue(queues: &[Queue; 3]) -> Option<usize> {
    let waits = |queue: &usize| !queues[*queue].waiting.is_empty();
    let impatient = |queue: &usize| queues[*queue].passed_over >= PATIENCE[*queue];
    (0..queues.len()).filter(waits).find(impatient).or_else(|| (0..queues.len()).find(waits))
}

fn grant_first(queues: &mut [Queue; 3], granted: usize) {
    if let Some((_, turn)) = queues[granted].waiting.pop_first() {
        turn.notify_one();
    }
    for (number, queue) in queues.iter_mut().enumerate() {
        if number == granted || queue.waiting.is_empty() {
            queue.passed_over = 0;
        } else {
            queue.passed_over = queue.passed_over.saturating_add(1);
        }
    }
    wake_first(&queues[granted]);
}

/// Whoever is the first of a queue now sees to its own turn.
fn wake_first(queue: &Queue) {
    if let Some((_, turn)) = queue.waiting.first_key_value() {
        turn.notify_one();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let mut state = self.budget.lock();
        let queue = &mut state.queues[self.priority as usize];
        if queue.waiting.remove(&self.number).is_some() {
            wake_first(queue);
        } else {
            self.budget.give_back(&mut state);
        }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        self.0.give_back(&mut state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn budget(per_second: u32, burst: u32) -> Arc<Budget> {
        Arc::new(Budget::new(Limits::default().with_rate(per_second, burst)))
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Sends `requests` one after the other, each of which takes no time; tells when the last was sent.
    async fn send(budget: Arc<Budget>, priority: Priority, requests: usize) -> Duration {
        let began = Instant::now();
        for _ in 0..requests {
            drop(budget.acquire(priority).await);
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_requests_are_in_flight_and_one_that_is_given_back_goes_to_the_next() {
        let budget = budget(0, 0);
        let mut held = Vec::new();
        for _ in 0..IN_FLIGHT {
            held.push(budget.acquire(Priority::Probe).now_or_never().unwrap());
        }
        let mut next = Box::pin(budget.acquire(Priority::Waiting));
        assert!(next.as_mut().now_or_never().is_none());
        held.pop();
        drop(next.as_mut().now_or_never().expect("one was given back"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_then_so_many_a_second() {
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
    async fn whoever_waited_for_a_request_in_flight_then_waits_for_a_token() {
        let budget = budget(10, 8);
        let all = (0..IN_FLIGHT).map(|_| budget.acquire(Priority::Waiting));
        let held = futures_util::future::join_all(all).await;
        let next = tokio::spawn(send(Arc::clone(&budget), Priority::Background, 1));
        tokio::time::sleep(ms(20)).await;
        drop(held);
        assert_eq!(next.await.unwrap(), ms(100));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_who_wait_go_before_the_background_and_that_before_probes() {
        let budget = budget(10, 1);
        drop(budget.acquire(Priority::Waiting).await);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for priority in [Priority::Probe, Priority::Background, Priority::Waiting] {
            let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
            tasks.spawn(async move {
                let _leave = budget.acquire(priority).await;
                order.lock().unwrap().push(priority);
            });
        }
        tasks.join_all().await;
        let order = order.lock().unwrap().clone();
        assert_eq!(order, [Priority::Waiting, Priority::Background, Priority::Probe]);
    }

    #[tokio::test(start_paused = true)]
    async fn misses_without_end_leave_a_share_to_the_background_and_to_probes() {
        let budget = budget(100, 1);
        let sent: Arc<[AtomicUsize; 3]> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        for priority in [Priority::Waiting, Priority::Background, Priority::Probe] {
            for _ in 0..20 {
                let (budget, sent) = (Arc::clone(&budget), Arc::clone(&sent));
                tasks.spawn(async move {
                    loop {
                        let _leave = budget.acquire(priority).await;
                        sent[priority as usize].fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        }
        tokio::time::sleep(ms(10_000)).await;
        tasks.abort_all();
        let sent: Vec<usize> = sent.iter().map(|sent| sent.load(Ordering::SeqCst)).collect();
        let all: usize = sent.iter().sum();
        assert!((999..=1001).contains(&all), "{sent:?}");
        assert!(sent[0] >= 650, "{sent:?}");
        assert!((150..=250).contains(&sent[1]), "{sent:?}");
        assert!((90..=125).contains(&sent[2]), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_the_queue_holds_up_nobody() {
        let budget = budget(10, 1);
        drop(budget.acquire(Priority::Waiting).await);
        // The first sleeps for the next token, and is gone before it is there.
        let first = tokio::time::timeout(ms(50), budget.acquire(Priority::Waiting));
        let began = Instant::now();
        let second = send(Arc::clone(&budget), Priority::Waiting, 1);
        let (first, _) = tokio::join!(first, second);
        assert!(first.is_err());
        assert_eq!(began.elapsed(), ms(100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_was_granted_to_someone_who_left_is_given_back() {
        let budget = budget(0, 0);
        let held: Vec<Leave> = futures_util::future::join_all(
            (0..IN_FLIGHT).map(|_| budget.acquire(Priority::Waiting)),
        )
        .await;
        let mut granted = Box::pin(budget.acquire(Priority::Background));
        assert!(granted.as_mut().now_or_never().is_none());
        drop(held);
        // Granted, and dropped before it could see that.
        drop(granted);
        for _ in 0..3 {
            let all = (0..IN_FLIGHT).map(|_| budget.acquire(Priority::Waiting));
            let all = futures_util::future::join_all(all).now_or_never();
            assert_eq!(all.expect("all are free").len(), IN_FLIGHT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_their_like_whoever_comes_first_goes_first() {
        let budget = budget(10, 1);
        drop(budget.acquire(Priority::Waiting).await);
        let began = Instant::now();
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 1..=3 {
            let (budget, order) = (Arc::clone(&budget), Arc::clone(&order));
            tasks.spawn(async move {
                let _leave = budget.acquire(Priority::Waiting).await;
                order.lock().unwrap().push((number, began.elapsed()));
            });
        }
        tokio::time::timeout(ms(1000), tasks.join_all()).await.expect("all are granted");
        assert_eq!(*order.lock().unwrap(), [(1, ms(100)), (2, ms(200)), (3, ms(300))]);
    }
}
