// SPDX-License-Identifier: Apache-2.0
//! The fake backend follows its script.

use std::sync::Arc;
use std::time::Duration;

use collector_core::{
    Answer, Answers, Ask, Backend, BackendError, Clock, ErrorKind, ListAsk, ModelRef,
};
use collector_testkit::{Failure, FakeBackend, TokioClock};

type Fetched = Result<Answers, BackendError>;

fn llama() -> ModelRef {
    ModelRef::new("llama", "prod")
}

fn fake() -> FakeBackend {
    let backend = FakeBackend::new(Arc::new(TokioClock::new()));
    backend.serve_pods(&llama(), &["llama-0"]);
    backend
}

async fn fetch(backend: &FakeBackend) -> Fetched {
    backend.fetch(Ask::new(&[llama()], &TokioClock::new())).await
}

fn of_llama(fetched: &Fetched) -> Option<&Answer> {
    fetched.as_ref().ok()?.get(&llama())
}

fn is_found(fetched: &Fetched) -> bool {
    matches!(of_llama(fetched), Some(Answer::Found(_)))
}

#[tokio::test]
async fn a_fetch_that_hangs_continues_when_it_is_released() {
    let backend = fake();
    backend.hang();
    let looking = tokio::spawn({
        let backend = backend.clone();
        async move { fetch(&backend).await }
    });
    backend.entered().await;
    assert_eq!(backend.in_flight(), 1);
    // Closed again at once: the fetch that hangs must have been let go all the same.
    backend.release();
    backend.hang();
    assert!(is_found(&looking.await.unwrap()));
    assert_eq!(backend.in_flight(), 0);
}

#[tokio::test]
async fn a_dropped_fetch_is_no_longer_in_flight() {
    let backend = fake();
    backend.hang();
    tokio::select! {
        _ = fetch(&backend) => panic!("it hangs"),
        () = backend.entered() => {}
    }
    assert_eq!((backend.in_flight(), backend.fetches()), (0, 1));
}

#[tokio::test]
async fn failures_last_as_long_as_scripted() {
    let backend = fake();
    backend.fail_next(
        1,
        Failure { kind: ErrorKind::RateLimited, retry_after: Some(Duration::from_secs(7)) },
    );
    let error = fetch(&backend).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RateLimited);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert!(is_found(&fetch(&backend).await));

    backend.fail(ErrorKind::Connect);
    assert!(fetch(&backend).await.is_err());
    assert!(backend.list_models(ListAsk::new(&TokioClock::new())).await.is_err());
    backend.restore();
    assert!(is_found(&fetch(&backend).await));

    backend.fail_model(&llama(), ErrorKind::TooLarge);
    assert!(matches!(of_llama(&fetch(&backend).await), Some(Answer::Failed(_))));
    backend.omit(&llama());
    assert!(fetch(&backend).await.unwrap().is_empty());
    backend.remove(&llama());
    assert!(matches!(of_llama(&fetch(&backend).await), Some(Answer::Missing { .. })));
}

#[tokio::test]
async fn a_panic_affects_only_its_own_fetch() {
    let backend = fake();
    backend.panic_next(1);
    let looking = tokio::spawn({
        let backend = backend.clone();
        async move { fetch(&backend).await }
    });
    assert!(looking.await.unwrap_err().is_panic());
    assert!(is_found(&fetch(&backend).await));
    assert_eq!((backend.in_flight(), backend.fetches()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn its_samples_age_with_paused_time() {
    let clock = Arc::new(TokioClock::new());
    let backend = FakeBackend::new(Arc::<TokioClock>::clone(&clock));
    backend.serve_pods(&llama(), &["llama-0"]);
    tokio::time::advance(Duration::from_secs(90)).await;
    let fetched = fetch(&backend).await;
    let Some(Answer::Found(sample)) = of_llama(&fetched) else {
        panic!("not found: {fetched:?}");
    };
    assert_eq!(sample.as_of, clock.now());
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(sample.as_of.age(clock.now()), Duration::from_secs(30));
}
