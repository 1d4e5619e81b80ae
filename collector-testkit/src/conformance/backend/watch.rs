// SPDX-License-Identifier: Apache-2.0
//! A call of a backend that is watched: it may not panic, block the thread or go on for ever.

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The wall clock limits what paused time does not: a future that is always ready to be polled again.
const WALL_LIMIT: Duration = Duration::from_secs(120);

#[expect(clippy::disallowed_methods, reason = "what blocks a thread stops every other clock")]
fn wall() -> Instant {
    Instant::now()
}

/// A future whose panics are errors, and whose polls are timed.
pub(super) struct Watched<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    began: Instant,
    longest_poll: Duration,
}

impl<'a, T> Watched<'a, T> {
    pub(super) fn new(future: impl Future<Output = T> + Send + 'a) -> Self {
        Self { future: Box::pin(future), began: wall(), longest_poll: Duration::ZERO }
    }

    /// For how long it kept its thread at most.
    pub(super) fn longest_poll(&self) -> Duration {
        self.longest_poll
    }
}

impl<T> Future for Watched<'_, T> {
    type Output = Result<T, String>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let before = wall();
        let polled = catch_unwind(AssertUnwindSafe(|| self.future.as_mut().poll(context)));
        self.longest_poll = self.longest_poll.max(before.elapsed());
        match polled {
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Ok(Poll::Pending) if self.began.elapsed() > WALL_LIMIT => {
                Poll::Ready(Err(format!("has not ended after {WALL_LIMIT:?} of the wall clock")))
            }
            Ok(Poll::Pending) => Poll::Pending,
            Err(panic) => Poll::Ready(Err(format!("panicked: {}", text_of(&*panic)))),
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it does not say why")
}

/// Polls a future once, and drops it.
pub(super) async fn poll_once<T>(future: impl Future<Output = T>) {
    let mut future = Box::pin(future);
    std::future::poll_fn(|context| {
        let _ = future.as_mut().poll(context);
        Poll::Ready(())
    })
    .await;
}

/// Waits for all of these.
pub(super) async fn join_all<F: Future + Unpin>(mut futures: Vec<F>) -> Vec<F::Output> {
    let mut outputs: Vec<Option<F::Output>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, output) in futures.iter_mut().zip(&mut outputs) {
            if output.is_none()
                && let Poll::Ready(done) = Pin::new(future).poll(context)
            {
                *output = Some(done);
            }
        }
        if outputs.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outputs.into_iter().flatten().collect()
}
