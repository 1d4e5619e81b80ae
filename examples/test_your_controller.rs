// SPDX-License-Identifier: Apache-2.0
//! A controller under test: a collector that says what the test tells it to, at the time the test sets.
//!
//! ```text
//! cargo test -p inference-collector --features testkit --example test_your_controller
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it decides")]

use std::error::Error;
use std::sync::Arc;

use collector::prelude::*;
use collector::testkit::{FakeBackend, TokioClock};

/// How many replicas a model is to have; `None`: leave it as it is. This is what is under test.
///
/// It takes the trait, so that a test can hand it any collector.
pub(crate) async fn wanted(collector: &dyn MetricsCollector, model: &ModelRef) -> Option<usize> {
    let reading = collector.collect_replica_metrics(model).await.ok()?;
    if reading.freshness() != Freshness::Fresh || reading.value().partial {
        return None;
    }
    let replicas = &reading.value().replicas;
    // One queue that is not known makes the sum unknown, not smaller.
    let queued = replicas.iter().map(|replica| replica.queue_length).sum::<Option<u64>>()?;
    let more = usize::from(queued > 10 * replicas.len() as u64);
    Some(replicas.len() + more)
}

/// A real collector over a backend that does as it is told, both with the same clock.
fn collector_over(backend: &FakeBackend, clock: Arc<dyn Clock>) -> CachingCollector {
    let builder = CachingCollector::builder(Arc::new(backend.clone())).clock(clock);
    builder.build().expect("the default timings fit together")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
    let backend = FakeBackend::new(Arc::clone(&clock));
    let model = ModelRef::new("org/chat", "prod");
    backend.serve_pods(&model, &["chat-0", "chat-1"]);
    println!("{:?}", wanted(&collector_over(&backend, clock), &model).await);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use collector::core::{ErrorKind, ModelSample, ReplicaMetrics};

    use super::*;

    struct Fixture {
        backend: FakeBackend,
        collector: CachingCollector,
        model: ModelRef,
    }

    impl Fixture {
        fn new() -> Self {
            let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
            let backend = FakeBackend::new(Arc::clone(&clock));
            let collector = collector_over(&backend, clock);
            Self { backend, collector, model: ModelRef::new("org/chat", "prod") }
        }

        fn serve_one_pod_with_queue(&self, queue: Option<u64>) {
            self.backend.serve(&self.model, move |as_of| {
                let mut replica = ReplicaMetrics::new("chat-0", as_of);
                replica.queue_length = queue;
                ModelSample::new(as_of, vec![replica])
            });
        }

        async fn wanted(&self) -> Option<usize> {
            wanted(&self.collector, &self.model).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_queue_adds_a_replica_and_an_unknown_one_changes_nothing() {
        let fixture = Fixture::new();
        fixture.serve_one_pod_with_queue(Some(11));
        assert_eq!(fixture.wanted().await, Some(2));

        let fixture = Fixture::new();
        fixture.serve_one_pod_with_queue(None);
        assert_eq!(fixture.wanted().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_changes_once_the_metrics_have_aged() {
        let fixture = Fixture::new();
        fixture.serve_one_pod_with_queue(Some(0));
        assert_eq!(fixture.wanted().await, Some(1));
        fixture.backend.fail(ErrorKind::Timeout);
        // With time paused this takes none.
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(fixture.wanted().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_model_without_metrics_is_not_scaled() {
        assert_eq!(Fixture::new().wanted().await, None);
    }
}
